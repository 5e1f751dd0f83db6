"""What happens in a streamed answer. A decoder yields these in the order of the wire.

Theory of operation: a stream is Started once, then deltas, then one Finished per choice, UsageReported at any
time after the start (a later report replaces an earlier one), and Ended exactly once, last. Ended is only ever
produced by the protocol's own terminal event; a stream that stops without one is an error, never an end.
Verbatim events stand for wire bytes that a surface of the same dialect may forward untouched. Where the engine must
understand the answer as well (`ChatRequest.answer_schema`), each stands for one wire event, and `meaning` holds at
least the text deltas and the Finished it would have been.
"""

from msgspec import Struct

from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage


class Started(Struct, frozen=True, kw_only=True):
    """The answer begins."""

    id: str | None = None
    model: str | None = None
    created_s: int | None = None


class TextDelta(Struct, frozen=True, kw_only=True):
    """A piece of text of one choice. `refusal` marks text in which the model declines."""

    text: str
    index: int = 0
    refusal: bool = False


class ThinkingDelta(Struct, frozen=True, kw_only=True):
    """A piece of shown reasoning, or the signature that closes it."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    index: int = 0


class ToolCallDelta(Struct, frozen=True, kw_only=True):
    """A piece of a tool call: the first carries id and name, all carry a piece of the JSON arguments."""

    call: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None
    index: int = 0


class Finished(Struct, frozen=True, kw_only=True):
    """One choice is complete."""

    reason: FinishReason
    index: int = 0


class UsageReported(Struct, frozen=True, kw_only=True):
    """The vendor's count so far; the last report is authoritative."""

    usage: Usage


class Verbatim(Struct, frozen=True, kw_only=True):
    """Whole wire events, for a surface of the same dialect to forward as they are.

    `has_content` tells whether anything but keep-alive is in them.
    """

    data: bytes
    has_content: bool = True
    meaning: "tuple[ChatEvent, ...]" = ()


class VerbatimUsage(Struct, frozen=True, kw_only=True):
    """One wire event that carries usage: its JSON payload, which the surface completes before it forwards it."""

    payload: bytes
    usage: Usage
    meaning: "tuple[ChatEvent, ...]" = ()


class Ended(Struct, frozen=True, kw_only=True):
    """The protocol's terminal event was seen: the answer is complete."""


ChatEvent = (
    Started
    | TextDelta
    | ThinkingDelta
    | ToolCallDelta
    | Finished
    | UsageReported
    | Verbatim
    | VerbatimUsage
    | Ended
)
