"""The keys that answers are kept under: the full SHA-256 of everything that can change an answer.

Theory of operation: what is hashed is the request in neutral form, so that the same question has one key in whatever
wire format it comes; behind it stands what the neutral form leaves out, by dialect. Every piece goes in with its
length, and JSON in one order of its keys. With the targets go their prices of the day: a kept answer says what it
saved, and a change of prices must not tell an old figure.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.domain.cache import Shelf
from llm_gate.domain.catalog import Model
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import MediaPart, Message, Part, TextPart, ToolResultPart
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest, Wire
from llm_gate.engine.cache_facts import facts_of

MAX_MARKS = 10_000
"""Models whose prices are remembered in their short form."""

_CHAT, _GROUP, _EMBEDDING = b"llm-gate cache chat 1", b"llm-gate cache group 1", b"llm-gate cache embedding 1"
# Words about the request that no answer hangs on, some of them new with every call.
_IDLE_EXTRAS = frozenset({"metadata", "safety_identifier", "prompt_cache_key", "stream_options"})
_CACHE_HINT = ".cache_control"
_encoder = msgspec.msgpack.Encoder()
_TEXT_ONLY = ("text",)


class CacheKeys:
    """Makes the keys of requests, and remembers the short form of what each model costs."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[Model, date, bytes]] = {}

    @property
    def size(self) -> int:
        """How many models' prices are remembered."""
        return len(self._marks)

    def of_chat(
        self, request: ChatRequest, targets: Sequence[Target], shelf: Shelf, on: date
    ) -> bytes | None:
        """Return the key of a chat request; None where its answer may not be kept at all."""
        if not _is_plain(request, targets):
            return None
        try:
            messages = request.conversation.messages
        except InvalidRequest:
            # It means something to vendors of its own format alone.
            return None
        if _has_links(request):
            return None
        return self._digest(_CHAT, request.model, targets, shelf, on, self._chat_parts(request, messages))

    def of_group(
        self, request: ChatRequest, targets: Sequence[Target], shelf: Shelf, on: date
    ) -> tuple[bytes, str] | None:
        """Return the digest of everything but the last words of a question, and these; None where there are none.

        Of the last words it holds the facts, so that questions which differ in them are never compared.
        """
        messages = request.conversation.messages
        if not messages or messages[-1].role != "user" or not (text := messages[-1].text.strip()):
            return None
        before = (*messages[:-1], Message(role="user", parts=(), name=messages[-1].name))
        parts = (_encoder.encode(facts_of(text)), *self._chat_parts(request, before))
        return self._digest(_GROUP, request.model, targets, shelf, on, parts), text

    def of_embedding(
        self, request: EmbeddingRequest, targets: Sequence[Target], shelf: Shelf, on: date
    ) -> bytes | None:
        """Return the key of an embedding request; None where its answer may not be kept."""
        if any(target.control is not None for target in targets):
            return None
        parts = (
            _encoder.encode((request.inputs, request.dimensions)),
            _extras(request.extra, request.wire),
        )
        return self._digest(_EMBEDDING, request.model, targets, shelf, on, parts)

    def _digest(  # noqa: PLR0917 - everything that a key is made of
        self,
        domain: bytes,
        name: str,
        targets: Sequence[Target],
        shelf: Shelf,
        on: date,
        parts: Iterable[bytes],
    ) -> bytes:
        places = sorted((each.provider, each.wire_model, self._mark(each.model, on)) for each in targets)
        digest = sha256()
        for part in (
            domain,
            _encoder.encode((shelf.tenant, shelf.part, name, places)),
            *parts,
        ):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()

    def _mark(self, model: Model, on: date) -> bytes:
        known = self._marks.get(id(model))
        if known is None or known[0] is not model or known[1] != on:
            if len(self._marks) >= MAX_MARKS:
                self._marks.clear()
            known = self._marks[id(model)] = (model, on, _price_mark(model, on))
        return known[2]

    @staticmethod
    def _chat_parts(request: ChatRequest, messages: Sequence[Message]) -> tuple[bytes, ...]:
        wire = request.wire
        unread = wire.unread() if wire is not None and wire.unread is not None else b""
        said = _encoder.encode((messages, _parameters(request)))
        extras = _extras(request.extra, wire) if request.extra else b""
        headers = wire.headers if wire is not None else {}
        if not (unread or extras or headers or request.conversations):
            return (said,)
        others = {name: each.messages for name, each in sorted(request.conversations.items())}
        dialect = wire.dialect if wire is not None and unread else ""
        return (said, extras, _encoder.encode((dialect, unread, others, sorted(headers.items()))))


def _parameters(request: ChatRequest) -> tuple[Any, ...]:
    """Return every parameter at its place; what says the same as saying nothing counts as not said."""
    form, choice = request.response_format, request.tool_choice
    plain = form is None or form.kind == "text"
    return (
        request.max_output_tokens,
        request.output_limit_tokens,
        _number(request.temperature),
        _number(request.top_p),
        request.top_k,
        _number(request.frequency_penalty),
        _number(request.presence_penalty),
        request.stop,
        None if request.n == 1 else request.n,
        request.seed,
        [(tool.name, tool.description, canonical(tool.parameters), tool.strict) for tool in request.tools],
        None if choice is None or choice.mode == "auto" else (choice.mode, choice.name),
        request.parallel_tool_calls,
        None
        if form is None or plain
        else (form.kind, form.name, canonical(form.schema), form.strict, form.description),
        request.reasoning_effort,
        request.thinking_budget_tokens,
        request.service_tier,
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def canonical(raw: Raw | None) -> bytes | None:
    """Return JSON with its keys in order and without blanks, so that the same always reads the same."""
    if raw is None:
        return None
    return msgspec.json.encode(msgspec.json.decode(raw), order="deterministic")


def _extras(extra: Mapping[str, Raw], wire: Wire | None) -> bytes:
    """Return the fields without a neutral form, with the dialect that gives them their meaning."""
    said = {
        name: canonical(raw)
        for name, raw in sorted(extra.items())
        if name not in _IDLE_EXTRAS and not name.endswith(_CACHE_HINT)
    }
    return _encoder.encode((wire.dialect if wire is not None else "", said)) if said else b""


def _is_plain(request: ChatRequest, targets: Sequence[Target]) -> bool:
    """Tell whether the answer has a neutral form, and is the vendor's own: a test's orders are obeyed each time."""
    return not (
        request.binding
        or request.logprobs
        or request.top_logprobs
        or (request.modalities and request.modalities != _TEXT_ONLY)
        or any(target.control is not None for target in targets)
    )


def _has_links(request: ChatRequest) -> bool:
    """Tell whether a medium is named by a link: what is behind it may change."""
    return any(isinstance(part, MediaPart) and part.url is not None for part in _all_parts(request))


def has_media(request: ChatRequest) -> bool:
    """Tell whether a request shows anything but text."""
    return any(isinstance(part, MediaPart) for part in _all_parts(request))


def _all_parts(request: ChatRequest) -> Iterable[Part]:
    conversations = (request.conversation, *request.conversations.values())
    for conversation in conversations:
        for message in conversation.messages:
            for part in message.parts:
                if isinstance(part, TextPart):
                    continue
                if isinstance(part, ToolResultPart):
                    yield from part.content
                yield part


def _price_mark(model: Model, on: date) -> bytes:
    """Return what a model costs on a day, in short."""
    digest = sha256()
    for price in model.prices:
        if price.since is None or price.since <= on:
            fields = (
                getattr(price, name) for name in price.__struct_fields__ if name not in {"source", "checked"}
            )
            digest.update(repr(tuple(fields)).encode() + b"\n")
    return digest.digest()
