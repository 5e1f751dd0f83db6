"""Streamed chat answers in Anthropic's Messages format, written to callers.

Theory of operation: the blocks of an answer are a queue, of which only the first is open on the wire. Its pieces go
out as they come. When another block begins, the open one is closed first: at once if it is text or thinking, but a
tool call only when its input is complete JSON, since some vendors send pieces of parallel calls in turn; until then
the pieces of the others wait. message_delta and message_stop are written when the vendor's own end was seen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects.anthropic_answers import is_object, message_id, open_call, stop_reason, write_usage
from llm_gate.dialects.openai_usage import add_cost
from llm_gate.domain.events import (
    ChatEvent,
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.pricing import Cost
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""The sign of life of this format."""

_fields_decoder = msgspec.json.Decoder(dict[str, Raw])


class _Block:
    """One block: how it starts, the deltas that wait to be sent, and for a call the input so far."""

    __slots__ = ("deltas", "is_sealed", "json", "start")

    def __init__(self, start: dict[str, Any]) -> None:
        self.start = start
        self.deltas: list[dict[str, Any]] = []
        self.json: list[str] = []
        self.is_sealed = False

    @property
    def kind(self) -> str:
        """The type of the block."""
        kind: str = self.start["type"]
        return kind

    @property
    def is_complete(self) -> bool:
        """Whether nothing more is to be expected once another block has begun."""
        if self.kind != "tool_use":
            return True
        return bool(self.json) and self.json[-1].rstrip().endswith("}") and is_object("".join(self.json))


class MessageEncoder:
    """Writes one streamed answer: verbatim events as they are, neutral ones as this format's events.

    `price` gives the cost of a usage. Of several choices only the first has a place here.
    """

    def __init__(self, *, fallback_id: str, model: str, price: Callable[[Usage], Cost | None]) -> None:
        self._id = message_id(None, fallback_id)
        self._model = model
        self._price = price
        self._usage: Usage | None = None
        self._reason: FinishReason = "stop"
        self._is_verbatim = False
        self._has_begun = False
        self._is_announced = False
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._index = 0
        self._is_open = False

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events; may be empty."""
        written = [self._one(event) for event in events]
        # The count of the input may follow right behind the start, and belongs into it.
        if self._is_announced:
            written.append(self._begin())
        return b"".join(written)

    def _one(self, event: ChatEvent) -> bytes:
        match event:
            case Verbatim():
                self._is_verbatim = True
                return event.data
            case VerbatimUsage():
                self._usage = event.usage
                return self._complete(event)
            case Started():
                self._id = message_id(event.id, self._id)
                self._model = event.model or self._model
                self._is_announced = True
                return b""
            case UsageReported():
                self._usage = event.usage
                return b""
            case Ended():
                return self._end()
            case Finished():
                if event.index == 0:
                    self._reason = event.reason
                return b""
            case _:
                if event.index != 0:
                    return b""
                self._take(event)
                return self._begin() + self._flush()

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun, self._is_announced = True, False
        usage = write_usage(self._usage or Usage(), None)
        for later in ("cost", "vendor_cost", "output_tokens_details"):
            usage.pop(later, None)
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # What has been put out is counted at the end only.
            "usage": {**usage, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def _take(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> None:
        """Put a delta into its block, which may be a new one."""
        match event:
            case TextDelta():
                if event.text:
                    block = self._last("text", {"type": "text", "text": ""})
                    block.deltas.append({"type": "text_delta", "text": event.text})
            case ThinkingDelta(redacted=str(data)):
                self._blocks.append(_Block({"type": "redacted_thinking", "data": data}))
            case ThinkingDelta():
                self._think(event)
            case ToolCallDelta():
                block = self._call(event)
                if event.arguments:
                    block.json.append(event.arguments)
                    block.deltas.append({"type": "input_json_delta", "partial_json": event.arguments})

    def _think(self, event: ThinkingDelta) -> None:
        if not (event.text or event.signature):
            return
        block = self._last("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            block.deltas.append({"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            block.deltas.append({"type": "signature_delta", "signature": event.signature})
            block.is_sealed = True

    def _last(self, kind: str, start: dict[str, Any]) -> _Block:
        """Return the last block if it is of a kind and may grow, else a new one."""
        if not self._blocks or self._blocks[-1].kind != kind or self._blocks[-1].is_sealed:
            self._blocks.append(_Block(start))
        return self._blocks[-1]

    def _call(self, event: ToolCallDelta) -> _Block:
        block = self._calls.get(event.call)
        if block is None:
            call_id = event.id or f"call_{event.call}"
            block = _Block(open_call(call_id, event.name or "", event.signature))
            self._calls[event.call] = block
            self._blocks.append(block)
        return block

    def _flush(self, *, is_last: bool = False) -> bytes:
        """Write what can be written now; with `is_last`, everything."""
        written: list[bytes] = []
        while self._blocks:
            block = self._blocks[0]
            if not self._is_open:
                self._is_open = True
                written.append(_event("content_block_start", index=self._index, content_block=block.start))
            written += [
                _event("content_block_delta", index=self._index, delta=delta) for delta in block.deltas
            ]
            block.deltas.clear()
            if not is_last and (len(self._blocks) == 1 or not block.is_complete):
                break
            written.append(_event("content_block_stop", index=self._index))
            self._blocks.pop(0)
            self._index += 1
            self._is_open = False
        return b"".join(written)

    def _end(self) -> bytes:
        stop = _event("message_stop")
        if self._is_verbatim:
            return stop
        head = self._begin() + self._flush(is_last=True)
        delta = {"stop_reason": stop_reason(self._reason, has_calls=bool(self._calls)), "stop_sequence": None}
        cost = None if self._usage is None else self._price(self._usage)
        return head + _event("message_delta", delta=delta, usage=write_usage(self._usage, cost)) + stop

    def _complete(self, event: VerbatimUsage) -> bytes:
        fields: dict[str, Any] = _fields_decoder.decode(event.payload)
        fields["usage"] = add_cost(fields["usage"], self._price(event.usage))
        return b"event: message_delta\ndata: " + msgspec.json.encode(fields) + b"\n\n"


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"
