"""Streamed answers in OpenAI's Responses format, written to callers.

Theory of operation: the output is a list of items, each opened, filled and closed by events that carry its place.
Text and reasoning follow one another, so the next kind closes the last. Tool calls may arrive interleaved, so each
stays open until the answer is finished. The last event holds the whole answer once more.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import structs

from llm_gate.dialects.openai_responses_results import (
    INCOMPLETE,
    Frame,
    ItemStatus,
    call_item,
    message_item,
    reasoning_item,
    text_part,
    write_usage,
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
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.messages import ThinkingPart, ToolCallPart
from llm_gate.domain.pricing import Cost
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage

Emit: TypeAlias = Callable[..., None]
"""Writes one event: its type, and its fields by name."""


class _Message:
    """A message that is being written: closed parts, and the pieces of the open one."""

    def __init__(self, item_id: str, index: int, emit: Emit) -> None:
        self.index = index
        self._id = item_id
        self._emit = emit
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._is_refusal: bool | None = None
        emit("response.output_item.added", output_index=index, item=message_item(item_id, [], "in_progress"))

    def add(self, text: str, *, refusal: bool) -> None:
        if self._is_refusal is not refusal:
            self._close_part()
            self._is_refusal = refusal
            self._tell("response.content_part.added", part=text_part("", refusal=refusal))
        if not text:
            return
        self._pieces.append(text)
        if refusal:
            self._tell("response.refusal.delta", delta=text)
        else:
            self._tell("response.output_text.delta", delta=text, logprobs=[])

    def _close_part(self) -> None:
        if self._is_refusal is None:
            return
        text = "".join(self._pieces)
        part = text_part(text, refusal=self._is_refusal)
        if self._is_refusal:
            self._tell("response.refusal.done", refusal=text)
        else:
            self._tell("response.output_text.done", text=text, logprobs=[])
        self._tell("response.content_part.done", part=part)
        self._parts.append(part)
        self._pieces, self._is_refusal = [], None

    def _tell(self, kind: str, **fields: Any) -> None:
        place = {"item_id": self._id, "output_index": self.index, "content_index": len(self._parts)}
        self._emit(kind, **place, **fields)

    def close(self, status: ItemStatus) -> dict[str, Any]:
        self._close_part()
        return message_item(self._id, self._parts, status)

    def snapshot(self) -> dict[str, Any]:
        parts = list(self._parts)
        if self._is_refusal is not None:
            parts.append(text_part("".join(self._pieces), refusal=self._is_refusal))
        return message_item(self._id, parts, "incomplete")


class _Reasoning:
    """Reasoning that is being shown, as the one part of a summary; a signature or sealed data end it."""

    def __init__(self, item_id: str, index: int, emit: Emit) -> None:
        self.index = index
        self._is_sealed = False
        self._id = item_id
        self._emit = emit
        self._pieces: list[str] = []
        self._signature: str | None = None
        self._redacted: str | None = None
        item = reasoning_item(item_id, ThinkingPart(), "in_progress")
        emit("response.output_item.added", output_index=index, item=item)

    def takes(self, delta: ThinkingDelta) -> bool:
        return not self._is_sealed and (delta.redacted is None or not self._pieces)

    def add(self, delta: ThinkingDelta) -> None:
        if delta.text:
            if not self._pieces:
                self._tell("response.reasoning_summary_part.added", part=_summary(""))
            self._pieces.append(delta.text)
            self._tell("response.reasoning_summary_text.delta", delta=delta.text)
        if delta.signature is not None or delta.redacted is not None:
            self._is_sealed = True
            self._signature, self._redacted = delta.signature, delta.redacted

    def _tell(self, kind: str, **fields: Any) -> None:
        self._emit(kind, item_id=self._id, output_index=self.index, summary_index=0, **fields)

    def close(self, status: ItemStatus) -> dict[str, Any]:
        if self._pieces:
            text = "".join(self._pieces)
            self._tell("response.reasoning_summary_text.done", text=text)
            self._tell("response.reasoning_summary_part.done", part=_summary(text))
        return self._item(status)

    def snapshot(self) -> dict[str, Any]:
        return self._item("incomplete")

    def _item(self, status: ItemStatus) -> dict[str, Any]:
        thought = ThinkingPart(text="".join(self._pieces), signature=self._signature, redacted=self._redacted)
        return reasoning_item(self._id, thought, status)


class _Call:
    """A tool call whose arguments are still arriving."""

    def __init__(self, item_id: str, index: int, emit: Emit, first: ToolCallDelta) -> None:
        self.index = index
        self._id = item_id
        self._emit = emit
        self._call_id = first.id or f"call_{first.call}"
        self._name = first.name or ""
        self._pieces: list[str] = []
        self._signature = first.signature
        emit("response.output_item.added", output_index=index, item=self._item("in_progress"))
        self.add(first)

    def add(self, delta: ToolCallDelta) -> None:
        self._signature = delta.signature or self._signature
        self._append(delta.arguments)

    def _append(self, arguments: str) -> None:
        if arguments:
            self._pieces.append(arguments)
            self._tell("response.function_call_arguments.delta", delta=arguments)

    def _tell(self, kind: str, **fields: Any) -> None:
        self._emit(kind, item_id=self._id, output_index=self.index, **fields)

    def close(self, status: ItemStatus) -> dict[str, Any]:
        if not self._pieces:
            self._append("{}")
        arguments = "".join(self._pieces)
        self._tell("response.function_call_arguments.done", name=self._name, arguments=arguments)
        return self._item(status)

    def snapshot(self) -> dict[str, Any]:
        return self._item("incomplete")

    def _item(self, status: ItemStatus) -> dict[str, Any]:
        call = ToolCallPart(
            id=self._call_id, name=self._name, arguments="".join(self._pieces), signature=self._signature
        )
        return call_item(self._id, call, status)


_Item: TypeAlias = _Message | _Reasoning | _Call


class ResponsesStreamEncoder:
    """Writes one streamed answer, also one that fails before its provider said anything.

    `clock` gives the time in seconds since 1970. Only the first choice is written: the format has one.
    """

    def __init__(self, frame: Frame, *, clock: Callable[[], float]) -> None:
        self._frame = frame
        self._clock = clock
        self._price: Callable[[Usage], Cost | None] = lambda _: None
        self._usage: Usage | None = None
        self._reason: FinishReason | None = None
        self._sequence = 0
        self._written: list[bytes] = []
        self._done: dict[int, dict[str, Any]] = {}
        self._open: dict[int, _Item] = {}
        self._current: _Message | _Reasoning | None = None
        self._calls: dict[int, _Call] = {}

    def answered_by(
        self, model: str, price: Callable[[Usage], Cost | None], *, synthetic: bool = False
    ) -> None:
        """Name the model that answers, and what gives the cost of a usage; `synthetic` when no model does."""
        self._frame = structs.replace(self._frame, model=model, synthetic=synthetic)
        self._price = price

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events.

        Raises:
            TypeError: a verbatim event, which only a surface of the vendor's own dialect can forward.
        """
        for event in events:
            self._one(event)
        return self._take()

    def fail(self, message: str, *, code: str, param: str | None, kind: str, response_code: str) -> bytes:
        """Write the failure of the answer: its last state, then the error.

        `response_code` is one of the few codes the response object may name, `code` the gateway's own.
        """
        self._begin()
        output = {**self._done, **{index: item.snapshot() for index, item in self._open.items()}}
        failed = self._frame.write(
            "failed",
            [output[index] for index in sorted(output)],
            error={"code": response_code, "message": message},
            usage=self._written_usage(),
        )
        self._emit("response.failed", response=failed)
        error = {"message": message, "type": kind, "param": param, "code": code}
        # The format's description has the fields at the top; stock clients look for the object that OpenAI sends.
        self._emit("error", code=code, message=message, param=param, error=error)
        return self._take()

    def _one(self, event: ChatEvent) -> None:
        if isinstance(event, Verbatim | VerbatimUsage):
            raise TypeError(f"{type(event).__name__} cannot be written in this format")
        if isinstance(event, Started):
            self._frame = structs.replace(
                self._frame,
                model=event.model or self._frame.model,
                created_s=event.created_s or self._frame.created_s,
            )
        self._begin()
        if isinstance(event, UsageReported):
            self._usage = event.usage
        elif isinstance(event, Ended):
            self._end()
        elif not isinstance(event, Started) and event.index == 0:
            self._add(event)

    def _begin(self) -> None:
        if self._sequence == 0:
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=self._frame.write("in_progress", []))

    def _add(self, event: TextDelta | ThinkingDelta | ToolCallDelta | Finished) -> None:
        match event:
            case TextDelta() if event.text:
                self._message().add(event.text, refusal=event.refusal)
            case ThinkingDelta() if event.text or event.signature is not None or event.redacted is not None:
                self._reasoning(event).add(event)
            case ToolCallDelta():
                if (call := self._calls.get(event.call)) is not None:
                    call.add(event)
                    return
                self._close_current()
                index = self._next_index()
                call = _Call(self._frame.item_id("fc", index), index, self._emit, event)
                self._calls[event.call] = self._open[index] = call
            case Finished():
                self._finish(event.reason)

    def _message(self) -> _Message:
        if not isinstance(self._current, _Message):
            self._close_current()
            index = self._next_index()
            self._current = _Message(self._frame.item_id("msg", index), index, self._emit)
            self._open[index] = self._current
        return self._current

    def _reasoning(self, delta: ThinkingDelta) -> _Reasoning:
        current = self._current
        if isinstance(current, _Reasoning) and current.takes(delta):
            return current
        self._close_current()
        index = self._next_index()
        self._current = current = _Reasoning(self._frame.item_id("rs", index), index, self._emit)
        self._open[index] = current
        return current

    def _next_index(self) -> int:
        return len(self._done) + len(self._open)

    def _close_current(self) -> None:
        if self._current is not None:
            self._close(self._current, "completed")
            self._current = None

    def _close(self, item: _Item, status: ItemStatus) -> None:
        del self._open[item.index]
        written = item.close(status)
        self._done[item.index] = written
        self._emit("response.output_item.done", output_index=item.index, item=written)

    def _finish(self, reason: FinishReason) -> None:
        """Close what is open; where a limit or a filter cut the answer short, its last item is incomplete."""
        self._reason = reason
        spoken = self._calls or any(item["type"] != "reasoning" for item in self._done.values())
        if reason == "stop" and not spoken and not isinstance(self._current, _Message):
            # Clients look for the message of a finished answer, also where nothing was said.
            self._message().add("", refusal=False)
        last = max(self._open, default=0)
        for index in sorted(self._open):
            is_cut = index == last and reason in INCOMPLETE
            self._close(self._open[index], "incomplete" if is_cut else "completed")
        self._current = None
        self._calls.clear()

    def _end(self) -> None:
        if self._open or self._reason is None:
            self._finish(self._reason or "stop")
        reason = self._reason or "stop"
        output = [self._done[index] for index in sorted(self._done)]
        response = self._frame.ended(
            reason, output, completed_s=int(self._clock()), usage=self._written_usage()
        )
        self._emit(f"response.{response['status']}", response=response)

    def _written_usage(self) -> Mapping[str, Any] | None:
        return None if self._usage is None else write_usage(self._usage, self._price(self._usage))

    def _emit(self, kind: str, **fields: Any) -> None:
        body = msgspec.json.encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        self._written.append(b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n")

    def _take(self) -> bytes:
        written = b"".join(self._written)
        self._written.clear()
        return written


def _summary(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}
