"""Providers that a program brings itself, spoken to like any other: asked, understood, and their failures classified.

Theory of operation: a place in the gateway stands for a class of the program's own. Which of its objects is asked is
the matter of each call: the factory lays it on a desk that travels with the call. The object works in a thread, where
it may block and raise as it likes; what comes of it is written down as an answer or an error of a vendor would be, so
that everything behind needs to know nothing of it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Struct

from llm_gate.client.llm_provider import LLMProvider, LLMResponse
from llm_gate.dialects import openai_errors
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, ProviderError, ProviderTimeout
from llm_gate.domain.errors import ProviderUnavailable as Unavailable
from llm_gate.domain.estimates import estimate_tokens
from llm_gate.domain.messages import TextPart
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, HttpRequest, LocalReply, Provider, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice
from llm_gate.domain.usage import Usage
from llm_gate.transport.local import BlockingReply, Threads

T = TypeVar("T")

ADDRESS = "http://own.invalid"
"""Never resolved: what stands there answers inside the process."""

_GUESSED = "x-guessed-status"
_ABSURD_TOKENS = 10**9
_FIRST_FAILURE, _PAST_FAILURES = 400, 600
_UNKNOWN, _UNSAID = 500, "it gave no reason"
_LONGEST_WORD = 64

# Names that makers of clients give their errors; asked in this order.
_KINDS: Sequence[tuple[re.Pattern[str], int]] = (
    (re.compile(r"RateLimit|ResourceExhausted|QuotaExceeded|TooManyRequests"), 429),
    (re.compile(r"Authentication|Unauthenticated|Unauthorized|PermissionDenied"), 401),
    (re.compile(r"Timeout|DeadlineExceeded"), 504),
    (re.compile(r"Connection|ConnectError|ServiceUnavailable"), 503),
)
# The last resort: words of a text, which may mean something else.
_QUOTED_STATUS = re.compile(r"(?i)\b(?:error code|status code|status|http)[\s:=/]*([45]\d\d)\b")
_WORDS: Sequence[tuple[re.Pattern[str], int]] = (
    (re.compile(r"(?i)\b429\b|quota|rate limit|resource exhausted"), 429),
    (re.compile(r"(?i)timed out|timeout|deadline exceeded"), 504),
    (re.compile(r"(?i)connection"), 503),
)


class Desk:
    """What one call brings with it: whom it may ask, by place, and what they said, by the answer's id."""

    def __init__(self, providers: Mapping[str, LLMProvider], context: Context) -> None:
        self.providers = providers
        self.said: dict[str, LLMResponse] = {}
        self._context = context

    def in_context(self, work: Callable[[], T]) -> T:
        """Do something with the context variables of the program that made the call."""
        return self._context.copy().run(work)


DESK: ContextVar[Desk] = ContextVar("llm_gate_desk")


class _Asked(Struct, frozen=True, kw_only=True):
    prompt: str
    settings: Mapping[str, float | int]


class _Said(Struct, frozen=True, kw_only=True):
    id: str
    text: str
    usage: Usage


_asked_decoder = msgspec.json.Decoder(_Asked)
_said_decoder = msgspec.json.Decoder(_Said)


def guarded(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return what code that is not ours returns, or the exception that it raises."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - whatever it raises is its own affair
        return None, error


def provider_at(place: str, threads: Threads) -> Provider:
    """Return what the gateway needs to ask the objects that stand for a place."""

    def respond(request: HttpRequest, _now_s: float) -> LocalReply:
        desk = DESK.get(None)
        provider = None if desk is None else desk.providers.get(place)
        if desk is None or provider is None:
            return failure("only the factory that brought it can ask it", 404)
        asked = _asked_decoder.decode(request.body)
        return BlockingReply(
            status=0,
            headers={},
            chunks=iter(()),
            work=lambda: _reply(desk, provider, asked),
            threads=threads,
        )

    return Provider(dialect="own", decode_error=decode_error, chat=_OwnChat(), respond=respond)


def _reply(desk: Desk, provider: LLMProvider, asked: _Asked) -> LocalReply:
    settings: dict[str, Any] = dict(asked.settings)
    response, error = desk.in_context(
        lambda: guarded(lambda: provider.generate_content(asked.prompt, **settings))
    )
    if error is not None:
        return raised(error)
    success, content = getattr(response, "success", None), getattr(response, "content", None)
    if response is None or success is None:
        return failure(f"it returned {_plain(type(response).__name__)} instead of an LLMResponse", _UNKNOWN)
    if not success:
        return _returned(response)
    if not isinstance(content, str):
        return failure("the content of its answer is no text", _UNKNOWN)
    said = _Said(id=uuid4().hex, text=_plain(content), usage=_usage(response, asked.prompt, content))
    desk.said[said.id] = response
    return LocalReply(status=200, headers={}, chunks=iter((msgspec.json.encode(said),)))


def _usage(response: LLMResponse, prompt: str, content: str) -> Usage:
    """Return what the answer says was used, or an estimate of it."""
    metadata = getattr(response, "metadata", None)
    said = metadata.get("usage") if isinstance(metadata, Mapping) else None
    taken = _count(said, "input_tokens", "prompt_tokens")
    given = _count(said, "output_tokens", "completion_tokens")
    if taken is not None and given is not None:
        return Usage(input_tokens=taken, output_tokens=given)
    return Usage(
        input_tokens=estimate_tokens([_plain(prompt)]),
        output_tokens=estimate_tokens([_plain(content)]),
        source="estimated",
    )


def _count(said: object, *names: str) -> int | None:
    for name in names:
        value = said.get(name) if isinstance(said, Mapping) else getattr(said, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _ABSURD_TOKENS:
            return value
    return None


def raised(error: Exception) -> LocalReply:
    """Write down an exception: by its status, else by its kind, and by its words where nothing else says."""
    text = str(error) or type(error).__name__
    response = getattr(error, "response", None)
    status = _status_of(error) or _status_of(response)
    headers = getattr(response, "headers", None)
    wish = headers.get("retry-after") if isinstance(headers, Mapping) else None
    code = next((word for name in ("code", "status", "type") if (word := _word(error, name))), None)
    if status is not None:
        return failure(text, status, code=code, wish=wish, guessed=False)
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    by_kind = next((status for pattern, status in _KINDS if pattern.search(names)), None)
    return failure(text, by_kind or _status_in(text), code=code, wish=wish)


def _returned(response: LLMResponse) -> LocalReply:
    """Write down an answer that tells of a failure; it counts like one that was raised."""
    metadata = getattr(response, "metadata", None)
    said = dict(metadata) if isinstance(metadata, Mapping) else {}
    reason = getattr(response, "error", None)
    if isinstance(reason, Exception):
        return raised(reason)
    text = _UNSAID if reason is None else str(reason)
    status = next(
        (found for name in ("status_code", "status", "code") if (found := _status(said.get(name)))), None
    )
    return failure(text, status or _status_in(text), guessed=status is None)


def _status_of(thing: object) -> int | None:
    names = ("status_code", "status", "http_status", "code")
    return next((found for name in names if (found := _status(getattr(thing, name, None)))), None)


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < _LONGEST_WORD:
        value = int(value)
    is_status = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_status and _FIRST_FAILURE <= value < _PAST_FAILURES else None  # type: ignore[call-overload,operator]


def _word(error: Exception, name: str) -> str | None:
    value = getattr(error, name, None)
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD and value.isascii() else None


def _status_in(text: str) -> int:
    quoted = _QUOTED_STATUS.search(text)
    if quoted is not None:
        return int(quoted[1])
    return next((status for pattern, status in _WORDS if pattern.search(text)), _UNKNOWN)


def failure(
    text: str, status: int, *, code: str | None = None, wish: object = None, guessed: bool = True
) -> LocalReply:
    """Write down a failure with a status; `guessed` says that the status is only what its words suggest."""
    headers = {_GUESSED: "yes"} if guessed else {}
    if isinstance(wish, str):
        headers["retry-after"] = wish
    body = openai_errors.encode_error(_plain(text), kind="", code=code, param=None)
    return LocalReply(status=status, headers=headers, chunks=iter((body,)))


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn what was written down of a failure into the typed error; a status that was only guessed is not told."""
    error = openai_errors.decode_error(reply, target)
    if _GUESSED in reply.headers:
        error.status = None
        if isinstance(error, Unavailable | ProviderTimeout):
            error.message = f"provider {target.provider!r} failed: {error.detail or _UNSAID}"
            error.args = (error.message,)
    return error


def _plain(text: str) -> str:
    """Return a text that can be written as UTF-8."""
    return text.encode(errors="replace").decode()


class _OwnChat:
    """A prompt with its two settings out, a text in."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        if request.tools or request.response_format is not None or request.stream:
            raise InvalidRequest(
                f"provider {target.provider!r} answers prompts with text alone", param="model"
            )
        settings: dict[str, float | int] = {}
        if request.temperature is not None:
            settings["temperature"] = request.temperature
        if request.max_output_tokens is not None:
            settings["max_tokens"] = request.max_output_tokens
        prompt = "\n\n".join(message.text for message in request.conversation.messages)
        body = msgspec.json.encode(_Asked(prompt=prompt, settings=settings))
        return Encoded(request=HttpRequest(method="POST", url=ADDRESS, body=body))

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:  # noqa: ARG002
        """Read what was said."""
        try:
            said = _said_decoder.decode(reply.body)
        except msgspec.DecodeError:
            raise BadProviderResponse(
                f"the answer of provider {target.provider!r} cannot be read", provider=target.provider
            ) from None
        choice = Choice(parts=(TextPart(text=said.text),), finish_reason="stop")
        return ChatResult(choices=(choice,), usage=said.usage, id=said.id)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:  # noqa: ARG002
        """Refuse: it answers as a whole."""
        raise InvalidRequest(f"provider {target.provider!r} does not stream", param="model")
