"""One prompt asked of providers in order, as the factory and its providers do: who is asked, and what is made of it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from llm_gate.client.calls import caller_of, context_of
from llm_gate.client.foreign import DESK, Desk
from llm_gate.client.gate import LLMGate
from llm_gate.client.llm_provider import LLMResponse
from llm_gate.client.text import without_refused
from llm_gate.domain.conditions import Tried
from llm_gate.domain.errors import (
    AllAttemptsFailed,
    ContentFiltered,
    ContextTooLong,
    GateError,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    QuotaExceeded,
)
from llm_gate.domain.messages import Conversation, Message, TextPart
from llm_gate.domain.policy import FACTORY, AttemptPolicy
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult
from llm_gate.domain.usage import Usage
from llm_gate.engine.answer import Answer

LONGEST_PAUSE_S = 60.0

_logger = logging.getLogger("llm_gate.factory")

_REASONS: Sequence[tuple[type[ProviderError], str]] = (
    (ProviderRateLimited, "quota exceeded"),
    (ProviderQuotaExhausted, "quota exceeded"),
    (ProviderTimeout, "timeout"),
    (ProviderAuthFailed, "key refused"),
    (ProviderModelGone, "model not found"),
)


class Place(Struct, frozen=True, kw_only=True):
    """Somebody to ask: by which name the program knows it, the gateway finds it, and its errors call it."""

    name: str
    gate_name: str
    provider: str


class Prompt(Struct, frozen=True, kw_only=True):
    """What is asked, of whom in which order, and how often.

    `primary` is the name that was to be asked first; `left` says who is not asked, and why. `texts` are the prompt in
    other words, by the names that are to get those. Of `temperature` and `max_tokens`, those in `usual` were not asked
    for, so that a model may do without.
    """

    text: str
    primary: str
    places: tuple[Place, ...]
    left: tuple[str, ...] = ()
    user_id: str
    endpoint: str
    temperature: float
    max_tokens: int
    policy: AttemptPolicy
    usual: frozenset[str] = frozenset()
    texts: Mapping[str, str] = {}
    desk: Desk | None = None


def factory_policy(max_retries: int, retry_delay: float, *, wait: bool) -> AttemptPolicy:
    """Return the factory's policy: so many attempts at each provider, `retry_delay` · 2^n seconds apart.

    Raises:
        ValueError: there would be no attempt, or a pause is no time.
    """
    if max_retries < 1:
        raise ValueError("max_retries: must be at least 1")
    # Written so that what is not a number is refused as well.
    if not retry_delay >= 0:
        raise ValueError("retry_delay: must be 0 or more")
    pause_s = float(retry_delay) if wait else 0.0
    return structs.replace(
        FACTORY,
        tries=max_retries,
        last_tries=max_retries,
        pause_s=pause_s,
        last_pause_s=pause_s,
        longest_pause_s=LONGEST_PAUSE_S if wait else 0.0,
    )


class Narrator:
    """Tells the log, in the document's words, who is asked and why another is."""

    def __init__(self, places: Sequence[Place]) -> None:
        # The first name of a provider is the one it is called by.
        self._names = {place.provider: place.name for place in reversed(places)}
        self.given_up: list[str] = []
        self.answered: str | None = None

    def name(self, provider: str) -> str:
        """Return a provider's name as the program has it."""
        return self._names.get(provider, provider)

    def trying(self, provider: str) -> None:
        """Tell that a provider is asked."""
        _logger.info("Using %s for content generation", self.name(provider))

    def failed(self, provider: str, error: ProviderError, next_provider: str | None) -> None:
        """Tell that another is asked instead, and why; other places of the same provider are no other."""
        if next_provider == provider:
            return
        self.given_up.append(self.name(provider))
        if next_provider is not None:
            _logger.warning(
                "%s %s, switching to %s", self.name(provider), reason_of(error), self.name(next_provider)
            )


def reason_of(error: ProviderError) -> str:
    """Return why a provider did not answer, in a few words."""
    known = next((words for kind, words in _REASONS if isinstance(error, kind)), None)
    return known or (f"failed: {error.detail}" if error.detail else error.message)


async def ask(gate: LLMGate, wanted: Prompt, narrator: Narrator) -> LLMResponse:
    """Ask one provider after the other, and return what the first of them says, or why none did."""
    if not wanted.places:
        return failed(wanted.primary, [], None, left=wanted.left)
    token = None if wanted.desk is None else DESK.set(wanted.desk)
    try:
        answer = await _answered(gate, wanted, narrator)
    except GateError as error:
        return _refused(error, wanted, narrator)
    finally:
        if token is not None:
            DESK.reset(token)
    return _response(answer, wanted, narrator)


async def _answered(gate: LLMGate, wanted: Prompt, narrator: Narrator) -> Answer[ChatResult]:
    """Ask, and ask once more from where a model refused a setting that nobody asked for."""
    if "max_tokens" in wanted.usual:
        standing = await gate.gateway.gate.access.standing(caller_of(wanted.user_id))
        allowed = standing.plan.max_output_tokens or wanted.max_tokens
        wanted = structs.replace(wanted, max_tokens=min(wanted.max_tokens, allowed))
    try:
        return await _asked(gate, wanted, wanted.places, frozenset(), narrator)
    except (ContextTooLong, ContentFiltered):
        raise
    except ProviderRejected as error:
        settings = dict.fromkeys(wanted.usual)
        refused = wanted.usual - without_refused(settings, error).keys()
        left = _from(wanted.places, error.provider)
        if not refused or not left:
            raise
        return await _asked(gate, wanted, left, refused, narrator)


def _from(places: tuple[Place, ...], provider: str) -> tuple[Place, ...]:
    """Return the places from a provider's on."""
    at = next((index for index, place in enumerate(places) if place.provider == provider), len(places))
    return places[at:]


async def _asked(
    gate: LLMGate,
    wanted: Prompt,
    places: tuple[Place, ...],
    without: frozenset[str],
    narrator: Narrator,
) -> Answer[ChatResult]:
    request = ChatRequest(
        model=places[0].gate_name,
        conversation=_conversation(wanted.text),
        conversations={
            place.provider: _conversation(wanted.texts[place.name])
            for place in places
            if place.name in wanted.texts
        },
        temperature=None if "temperature" in without else wanted.temperature,
        max_output_tokens=None if "max_tokens" in without else wanted.max_tokens,
    )
    context = context_of(
        caller_of(wanted.user_id),
        wanted.endpoint,
        fallbacks=[place.gate_name for place in places[1:]],
        policy=wanted.policy,
        watch=narrator,
    )
    return await gate.gateway.gate.chat(request, context)


def _conversation(text: str) -> Conversation:
    return Conversation(lambda: (Message(role="user", parts=(TextPart(text=text),)),))


def _response(answer: Answer[ChatResult], wanted: Prompt, narrator: Narrator) -> LLMResponse:
    narrator.answered = narrator.name(answer.target.provider)
    said = None if wanted.desk is None else wanted.desk.said.get(answer.result.id or "")
    choice = answer.result.choices[0]
    metadata: dict[str, Any] = {
        "model": answer.target.model.name,
        "usage": _counts(answer.usage),
        **_said_metadata(said),
        "attempts": answer.attempts,
        "switched_from": narrator.given_up[-1] if narrator.given_up else None,
        "tried": _told(answer.tried, narrator),
        "finish_reason": choice.finish_reason,
        "cost_nanos": None if answer.cost is None else answer.cost.nanos,
    }
    if choice.finish_reason == "content_filter":
        metadata |= {"code": ContentFiltered.code, "reasons": [f"{narrator.answered}: content filtered"]}
        return LLMResponse(
            success=False,
            content="",
            provider_name=narrator.answered,
            error=metadata["reasons"][0],
            metadata=metadata,
        )
    return LLMResponse(
        success=True,
        content=said.content if said is not None else _text(answer),
        provider_name=_said_name(said) or narrator.answered,
        metadata=metadata,
    )


def _said_metadata(said: LLMResponse | None) -> dict[str, Any]:
    metadata = getattr(said, "metadata", None)
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def _said_name(said: LLMResponse | None) -> str | None:
    name = getattr(said, "provider_name", None)
    return name if isinstance(name, str) else None


def _text(answer: Answer[ChatResult]) -> str:
    parts = answer.result.choices[0].parts
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _counts(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "source": usage.source,
    }


def _told(tried: Sequence[Tried], narrator: Narrator) -> list[dict[str, str]]:
    return [
        {"provider": narrator.name(each.provider), "code": each.code, "error": each.error} for each in tried
    ]


def _refused(error: GateError, wanted: Prompt, narrator: Narrator) -> LLMResponse:
    """Return what nobody answered: each provider's reason, or what kept all of them from being asked."""
    errors = error.errors if isinstance(error, AllAttemptsFailed) else (error,)
    reasons = [
        f"{narrator.name(each.provider)}: {reason_of(each)}"
        if isinstance(each, ProviderError)
        else each.message
        for each in errors
    ]
    last = errors[-1]
    name = narrator.name(last.provider) if isinstance(last, ProviderError) else wanted.primary
    response = failed(name, reasons, error, left=wanted.left)
    switched_from = [each for each in narrator.given_up if each != name]
    response.metadata = {
        **(response.metadata or {}),
        "switched_from": switched_from[-1] if switched_from else None,
    }
    return response


def failed(
    name: str, reasons: Sequence[str], error: GateError | None, *, left: Sequence[str] = ()
) -> LLMResponse:
    """Return an unsuccessful answer; `error` is None where there was nobody to ask, and `left` who was not asked."""
    all_failed = error is None or (
        isinstance(error, AllAttemptsFailed | ProviderError) and getattr(error, "moves_on", True)
    )
    said = [*(left if all_failed else ()), *reasons]
    metadata: dict[str, Any] = {
        "code": "no_provider_available" if error is None else error.code,
        "all_failed": all_failed,
        "reasons": said,
    }
    if isinstance(error, QuotaExceeded):
        metadata["limit"] = error.facts.limit_name
        metadata["retry_after_s"] = error.retry_after_s
    return LLMResponse(
        success=False, content="", provider_name=name, error="; ".join(said), metadata=metadata
    )


def check_prompt(prompt: str) -> None:
    """Refuse what is no prompt.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty, or holds what cannot be written as UTF-8.
    """
    if not isinstance(prompt, str):
        raise TypeError("prompt: must be a text")
    if not prompt.strip():
        raise ValueError("prompt: must be a text that is not empty")
    prompt.encode()


def formatted(text: str, formats: Mapping[str, Callable[[str], str]], names: Sequence[str]) -> dict[str, str]:
    """Return what each of some names is to get, where it gets the prompt in words of its own.

    Raises:
        TypeError: a format gives no text.
    """
    found: dict[str, str] = {}
    for name in names:
        if name in formats:
            made = formats[name](text)
            if not isinstance(made, str):
                raise TypeError(f"prompt_format: that of {name!r} must return a text")
            found[name] = made
    return found
