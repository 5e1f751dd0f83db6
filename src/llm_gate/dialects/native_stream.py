"""Streamed chat answers in the native wire format, written to callers as server-sent events."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llm_gate.dialects.native import encode_error, write_usage
from llm_gate.dialects.native_costs import write_cost
from llm_gate.dialects.native_wire import (
    AssistantMessage,
    ErrorDetail,
    ModelName,
    ProviderName,
    StreamEnd,
    StreamMessage,
    ToolCallReply,
    ToolMessage,
    UsageInfoReply,
)
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
from llm_gate.domain.pricing import Cost
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage


class _PendingCall:
    """A tool call whose arguments are still arriving."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []


class NativeStreamEncoder:
    """Writes one streamed answer; `price` gives the cost of a usage.

    Text goes out as it comes. A tool call is kept until its choice is finished, then written as a whole. The
    last event carries usage, cost, finish reason (that of the first choice) and who answered.
    """

    def __init__(self, *, provider: str, model: str, price: Callable[[Usage], Cost | None]) -> None:
        self._provider = ProviderName(name=provider, model=ModelName(name=model))
        self._price = price
        self._usage: Usage | None = None
        self._reasons: dict[int, FinishReason] = {}
        self._calls: dict[tuple[int, int], _PendingCall] = {}

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events; may be empty.

        Raises:
            TypeError: a verbatim event, which only a surface of the vendor's own dialect can forward.
        """
        return b"".join(self._one(event) for event in events)

    def _one(self, event: ChatEvent) -> bytes:
        match event:
            case TextDelta():
                return (
                    _event(StreamMessage(message=AssistantMessage(content=event.text))) if event.text else b""
                )
            case ToolCallDelta():
                self._collect(event)
                return b""
            case Finished():
                self._reasons[event.index] = event.reason
                return self._flush(event.index)
            case UsageReported():
                self._usage = event.usage
                return b""
            case Ended():
                indexes = sorted({index for index, _ in self._calls})
                return b"".join(self._flush(index) for index in indexes) + self._end()
            case Started() | ThinkingDelta():
                return b""
            case _:
                raise TypeError(f"{type(event).__name__} cannot be written in the native format")

    def _collect(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault((delta.index, delta.call), _PendingCall())
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        call.arguments.append(delta.arguments)

    def _flush(self, index: int) -> bytes:
        written: list[bytes] = []
        for key in [key for key in self._calls if key[0] == index]:
            call = self._calls.pop(key)
            tool = ToolCallReply(
                id=call.id or f"call_{key[1]}",
                name=call.name or "",
                arguments="".join(call.arguments) or "{}",
            )
            written.append(_event(StreamMessage(message=ToolMessage(tool=tool))))
        return b"".join(written)

    def _end(self) -> bytes:
        reason: FinishReason | UnsetType = self._reasons[min(self._reasons)] if self._reasons else UNSET
        cost = None if self._usage is None else self._price(self._usage)
        return _event(
            StreamEnd(
                usage=write_usage(self._usage),
                cost=write_cost(cost),
                finish_reason=reason,
                provider=self._provider,
            )
        )


def encode_stream_error(
    details: Sequence[ErrorDetail], usage_info: UsageInfoReply | UnsetType = UNSET
) -> bytes:
    """Write an in-band error event, after which the stream ends without its last event."""
    return b"event: error\ndata: " + encode_error(details, usage_info) + b"\n\n"


def _event(body: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
