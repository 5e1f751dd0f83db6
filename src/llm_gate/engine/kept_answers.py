"""Answers as they are kept: which of them may be, how they are written, and how a stream is put together.

Only what is complete and sound is kept: every choice ended by itself, with nothing filtered, declined or cut. What
only one wire format can say is left out, and so is the vendor's id, which names one answer.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from llm_gate.domain.events import (
    ChatEvent,
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.provider import Target
from llm_gate.domain.results import ChatResult, Choice, EmbeddingResult, FinishReason
from llm_gate.domain.usage import Usage

MAX_KEPT_BYTES = 1_048_576
"""The largest answer that is kept."""

_PIECE_CHARS = 256
_WHOLE: frozenset[FinishReason] = frozenset({"stop", "tool_calls"})


class KeptChoice(Struct, frozen=True, array_like=True):
    """One answer of a kept chat."""

    index: int
    parts: tuple[Part, ...]
    finish_reason: FinishReason


class KeptChat(Struct, frozen=True, array_like=True):
    """A chat answer as it is kept; `provider` and `wire_model` name who gave it."""

    provider: str
    wire_model: str
    choices: tuple[KeptChoice, ...]
    usage: Usage | None
    model: str | None
    created_s: int | None
    notices: Mapping[str, bytes]
    cost_nanos: int | None

    @property
    def result(self) -> ChatResult:
        """The answer."""
        return ChatResult(
            choices=tuple(
                Choice(index=each.index, parts=each.parts, finish_reason=each.finish_reason)
                for each in self.choices
            ),
            usage=self.usage,
            model=self.model,
            created_s=self.created_s,
            notices={name: Raw(raw) for name, raw in self.notices.items()},
        )


class KeptEmbedding(Struct, frozen=True, array_like=True):
    """Vectors as they are kept: each as 64-bit floats of this machine's order."""

    provider: str
    wire_model: str
    vectors: tuple[bytes, ...]
    usage: Usage | None
    model: str | None
    cost_nanos: int | None

    @property
    def result(self) -> EmbeddingResult:
        """The vectors."""
        return EmbeddingResult(
            vectors=tuple(tuple(array("d", packed)) for packed in self.vectors),
            usage=self.usage,
            model=self.model,
        )


Kept = KeptChat | KeptEmbedding

_encoder = msgspec.msgpack.Encoder()
_chat_decoder = msgspec.msgpack.Decoder(KeptChat)
_embedding_decoder = msgspec.msgpack.Decoder(KeptEmbedding)


def write_chat(
    result: ChatResult, target: Target, usage: Usage | None, cost_nanos: int | None, *, in_form: bool
) -> bytes | None:
    """Write a complete answer; None where it may not be kept. With `in_form`, it was to fit a schema."""
    if not result.choices or not all(_is_sound(choice, in_form=in_form) for choice in result.choices):
        return None
    return _bounded(
        KeptChat(
            target.provider,
            target.wire_model,
            tuple(KeptChoice(each.index, each.parts, each.finish_reason) for each in result.choices),
            usage,
            result.model,
            result.created_s,
            {name: bytes(raw) for name, raw in result.notices.items()},
            cost_nanos,
        )
    )


def write_embedding(
    result: EmbeddingResult, target: Target, usage: Usage | None, cost_nanos: int | None
) -> bytes | None:
    """Write vectors; None where they are too many to be kept."""
    if not result.vectors or not all(result.vectors):
        return None
    vectors = tuple(array("d", vector).tobytes() for vector in result.vectors)
    return _bounded(
        KeptEmbedding(target.provider, target.wire_model, vectors, usage, result.model, cost_nanos)
    )


def read_chat(body: bytes) -> KeptChat | None:
    """Read a kept answer; None where it is of another version, which counts as not kept."""
    try:
        return _chat_decoder.decode(body)
    except msgspec.DecodeError:
        return None


def read_embedding(body: bytes) -> KeptEmbedding | None:
    """Read kept vectors; None where they are of another version."""
    try:
        return _embedding_decoder.decode(body)
    except msgspec.DecodeError:
        return None


def _bounded(kept: Kept) -> bytes | None:
    body = _encoder.encode(kept)
    return body if len(body) <= MAX_KEPT_BYTES else None


def _is_sound(choice: Choice, *, in_form: bool) -> bool:
    if choice.finish_reason not in _WHOLE or choice.logprobs is not None:
        return False
    declines = any(isinstance(part, TextPart) and part.refusal for part in choice.parts)
    says_nothing = not any(
        (isinstance(part, TextPart) and part.text) or isinstance(part, ToolCallPart) for part in choice.parts
    )
    # What was to fit a schema was checked, but for an answer that asks for a tool.
    return not (declines or says_nothing or (in_form and choice.finish_reason != "stop"))


class Recording:
    """Puts the events of a streamed answer together; gives up on one that is too long."""

    def __init__(self) -> None:
        self._choices: dict[int, list[_Piece]] = {}
        self._reasons: dict[int, FinishReason] = {}
        self._started = Started()
        self._bytes = 0

    def note(self, events: Sequence[ChatEvent]) -> None:
        """Take the next events."""
        for event in events:
            if self._bytes > MAX_KEPT_BYTES:
                self._choices.clear()
                return
            match event:
                case TextDelta() | ThinkingDelta() | ToolCallDelta():
                    self._add(event)
                case Finished():
                    self._reasons[event.index] = event.reason
                    self._choices.setdefault(event.index, [])
                case Started():
                    self._started = event
                case _:
                    pass

    def _add(self, event: "_Delta") -> None:
        pieces = self._choices.setdefault(event.index, [])
        if not pieces or not pieces[-1].takes(event):
            call = event.call if isinstance(event, ToolCallDelta) else None
            known = None if call is None else next((each for each in pieces if each.call == call), None)
            if known is None:
                pieces.append(_Piece(event))
                self._bytes += _size(event)
                return
            known.add(event)
        else:
            pieces[-1].add(event)
        self._bytes += _size(event)

    def result(self, usage: Usage | None) -> ChatResult | None:
        """Return the whole answer; None where a choice has no end, or it was too long."""
        if not self._choices or self._bytes > MAX_KEPT_BYTES or self._choices.keys() != self._reasons.keys():
            return None
        return ChatResult(
            choices=tuple(
                Choice(
                    index=index,
                    parts=tuple(part for piece in pieces if (part := piece.part()) is not None),
                    finish_reason=self._reasons[index],
                )
                for index, pieces in sorted(self._choices.items())
            ),
            usage=usage,
            model=self._started.model,
            created_s=self._started.created_s,
        )


_Delta = TextDelta | ThinkingDelta | ToolCallDelta


def _size(event: _Delta) -> int:
    text = event.arguments if isinstance(event, ToolCallDelta) else event.text
    # Every delta costs something, also an empty one.
    return len(text.encode()) + 1


class _Piece:
    """A part that still grows."""

    def __init__(self, first: _Delta) -> None:
        self._first = first
        self._texts: list[str] = []
        self._signature: str | None = None
        self.call = first.call if isinstance(first, ToolCallDelta) else None
        self.add(first)

    def takes(self, event: _Delta) -> bool:
        """Tell whether an event goes on with this part."""
        first = self._first
        if isinstance(event, TextDelta):
            return isinstance(first, TextDelta) and first.refusal == event.refusal
        if isinstance(event, ThinkingDelta):
            return (
                isinstance(first, ThinkingDelta)
                and self._signature is None
                and first.redacted is None
                and event.redacted is None
            )
        return self.call == event.call

    def add(self, event: _Delta) -> None:
        """Take an event that goes on with this part."""
        self._texts.append(event.arguments if isinstance(event, ToolCallDelta) else event.text)
        if not isinstance(event, TextDelta) and event.signature is not None:
            self._signature = event.signature

    def part(self) -> Part | None:
        """Return the part; None where there is nothing in it."""
        first, text = self._first, "".join(self._texts)
        if isinstance(first, TextDelta):
            return TextPart(text=text, refusal=first.refusal) if text else None
        if isinstance(first, ThinkingDelta):
            if not (text or self._signature or first.redacted):
                return None
            return ThinkingPart(text=text, signature=self._signature, redacted=first.redacted)
        return ToolCallPart(
            id=first.id or f"call_{first.call}",
            name=first.name or "",
            arguments=text or "{}",
            signature=self._signature,
        )


def replayed(kept: KeptChat) -> Iterator[tuple[ChatEvent, ...]]:
    """Return a kept answer as the events of a stream, some of them together."""
    # Some formats tell what went in at the start, where a vendor would have told it, too.
    used = () if kept.usage is None else (UsageReported(usage=kept.usage),)
    yield (Started(model=kept.model, created_s=kept.created_s), *used)
    calls = 0
    for choice in kept.choices:
        for part in choice.parts:
            match part:
                case TextPart():
                    yield tuple(
                        TextDelta(text=text, index=choice.index, refusal=part.refusal)
                        for text in _pieces(part.text)
                    )
                case ThinkingPart():
                    yield (
                        ThinkingDelta(
                            text=part.text,
                            signature=part.signature,
                            redacted=part.redacted,
                            index=choice.index,
                        ),
                    )
                case ToolCallPart():
                    yield (
                        ToolCallDelta(
                            call=calls,
                            id=part.id,
                            name=part.name,
                            arguments=part.arguments,
                            signature=part.signature,
                            index=choice.index,
                        ),
                    )
                    calls += 1
                case _:
                    pass
        yield (Finished(reason=choice.finish_reason, index=choice.index),)
    yield (*used, Ended())


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARS):
        yield text[start : start + _PIECE_CHARS]
