"""Streamed answers in Anthropic's Messages format, read from providers.

Theory of operation: message_start, then content blocks one after the other (start, deltas, stop), then
message_delta with the stop reason and the final counts, then message_stop, which alone is the end. Pings and types
that are not known are skipped, as the vendor asks for (https://docs.claude.com/en/docs/build-with-claude/streaming).
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response, typed_error
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._sse import EventTooLargeError, SseEvent, SseParser
from llm_gate.dialects._streams import collect
from llm_gate.dialects.anthropic_wire import (
    UNREADABLE,
    finish_reason,
    read_failure,
    read_usage,
)
from llm_gate.domain.errors import ProviderError
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
from llm_gate.domain.provider import Target


class _Head(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    usage: Raw = ABSENT


class _Delta(Struct, frozen=True):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None


class _Event(Struct, frozen=True):
    type: str = ""
    index: int = 0
    message: _Head | None = None
    content_block: Raw = ABSENT
    delta: _Delta | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


class _BlockKind(Struct, frozen=True):
    type: str


class _Text(Struct, frozen=True):
    text: str = ""


class _ToolUse(Struct, frozen=True):
    id: str
    name: str
    input: Raw = ABSENT


class _Thinking(Struct, frozen=True):
    thinking: str = ""
    signature: str = ""


class _Redacted(Struct, frozen=True):
    data: str


_event_decoder = msgspec.json.Decoder(_Event)
_kind_decoder = msgspec.json.Decoder(_BlockKind)
_text_decoder = msgspec.json.Decoder(_Text)
_tool_use_decoder = msgspec.json.Decoder(_ToolUse)
_thinking_decoder = msgspec.json.Decoder(_Thinking)
_redacted_decoder = msgspec.json.Decoder(_Redacted)


class _OpenCall:
    """A tool call whose block is not closed; `given` is the input its start came with."""

    __slots__ = ("given", "has_deltas", "number")

    def __init__(self, number: int, given: str) -> None:
        self.number = number
        self.given = given
        self.has_deltas = False


class AnthropicStream:
    """Reads one streamed answer.

    With `verbatim`, wire events are checked but pass as they are; only what carries usage or the end is handed out
    as typed events. With `explained`, their meaning stands beside them.
    """

    def __init__(self, target: Target, *, verbatim: bool = False, explained: bool = False) -> None:
        self._target = target
        self._verbatim = verbatim
        self._explained = explained
        self._sse = SseParser()
        self._started = False
        self._finished = False
        self._ended = False
        self._calls = 0
        self._open_calls: dict[int, _OpenCall] = {}
        self._first_usage = ABSENT

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete."""
        try:
            return self._read(self._sse.feed(data))
        except EventTooLargeError:
            raise bad_response(self._target, "holds an event that is too large") from None

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes."""
        events = self._read(self._sse.flush())
        if not self._ended:
            what = "ended before message_stop" if self._started else "is not an event stream"
            raise bad_response(self._target, what, preceding=events)
        return events

    def _read(self, wire_events: list[SseEvent]) -> list[ChatEvent]:
        return collect(self._step(wire_event) for wire_event in wire_events if wire_event.data)

    def _step(self, wire_event: SseEvent) -> list[ChatEvent]:
        if self._ended:
            return []
        try:
            event = _event_decoder.decode(wire_event.data)
            if self._is_failure(wire_event, event):
                raise self._failure(wire_event.data)
            events = self._translate(event)
        except UNREADABLE:
            raise self._failure(wire_event.data) from None
        return self._pass_on(wire_event, event, events) if self._verbatim else events

    def _pass_on(self, wire_event: SseEvent, event: _Event, events: list[ChatEvent]) -> list[ChatEvent]:
        """Return a wire event as it came, and beside it the usage or the end that it stands for."""
        if self._ended or not self._started:
            return events
        reports = [each for each in events if isinstance(each, UsageReported)]
        meaning = tuple(events) if self._explained else ()
        if event.type == "message_delta" and reports:
            return [VerbatimUsage(payload=wire_event.data, usage=reports[-1].usage, meaning=meaning)]
        # The official clients skip events whose type stands in the data only.
        name = b"" if wire_event.event else b"event: " + event.type.encode() + b"\n"
        passed = Verbatim(data=name + wire_event.raw, has_content=event.type != "ping", meaning=meaning)
        return [*reports, passed]

    @staticmethod
    def _is_failure(wire_event: SseEvent, event: _Event) -> bool:
        named = event.type == "error" or wire_event.event == b"error"
        return named or wire_event.bare or is_given(event.error)

    def _failure(self, data: bytes) -> ProviderError:
        failure = read_failure(data)
        if failure is None:
            return bad_response(self._target, "holds an event that is none of the Messages format")
        return typed_error(failure, self._target)

    def _translate(self, event: _Event) -> list[ChatEvent]:
        if event.type == "ping":
            return []
        if event.type == "message_start":
            return self._start(event)
        if not self._started:
            raise bad_response(self._target, "does not begin with message_start")
        match event.type:
            case "content_block_start":
                return self._open_block(event)
            case "content_block_delta":
                return self._continue_block(event)
            case "content_block_stop":
                return self._close_call(event.index)
            case "message_delta":
                return self._finish(event)
            case "message_stop":
                if not self._finished:
                    raise bad_response(self._target, "ended without a stop reason")
                self._ended = True
                return [Ended()]
        return []

    def _start(self, event: _Event) -> list[ChatEvent]:
        if self._started or event.message is None:
            raise bad_response(self._target, "holds a message_start out of place or without a message")
        self._started = True
        self._first_usage = event.message.usage
        events: list[ChatEvent] = [Started(id=event.message.id, model=event.message.model)]
        usage = read_usage(self._first_usage)
        if usage is not None:
            # The output count is a placeholder until message_delta, so this is no measurement yet.
            events.append(UsageReported(usage=msgspec.structs.replace(usage, source="estimated")))
        return events

    def _open_block(self, event: _Event) -> list[ChatEvent]:
        block = event.content_block
        if not is_given(block):
            raise bad_response(self._target, "holds a content_block_start without a block")
        match _kind_decoder.decode(block).type:
            case "text":
                text = _text_decoder.decode(block).text
                return [TextDelta(text=text)] if text else []
            case "tool_use":
                return [self._open_call(event.index, _tool_use_decoder.decode(block))]
            case "thinking":
                thinking = _thinking_decoder.decode(block)
                if not (thinking.thinking or thinking.signature):
                    return []
                return [ThinkingDelta(text=thinking.thinking, signature=thinking.signature or None)]
            case "redacted_thinking":
                return [ThinkingDelta(redacted=_redacted_decoder.decode(block).data)]
        # Tools that ran at the vendor (server_tool_use and its results) are no calls for the caller to answer.
        return []

    def _open_call(self, index: int, block: _ToolUse) -> ToolCallDelta:
        given = bytes(block.input).decode() if is_given(block.input) else "{}"
        call = _OpenCall(self._calls, given)
        self._calls += 1
        self._open_calls[index] = call
        return ToolCallDelta(call=call.number, id=block.id, name=block.name)

    def _continue_block(self, event: _Event) -> list[ChatEvent]:
        match event.delta:
            case _Delta(type="text_delta", text=str(text)):
                return [TextDelta(text=text)] if text else []
            case _Delta(type="input_json_delta", partial_json=str(piece)):
                call = self._open_calls.get(event.index)
                if call is None or not piece:
                    return []
                call.has_deltas = True
                return [ToolCallDelta(call=call.number, arguments=piece)]
            case _Delta(type="thinking_delta", thinking=str(text)):
                return [ThinkingDelta(text=text)] if text else []
            case _Delta(type="signature_delta", signature=str(signature)):
                return [ThinkingDelta(signature=signature)] if signature else []
            case None | _Delta(type="text_delta" | "input_json_delta" | "thinking_delta" | "signature_delta"):
                raise bad_response(self._target, "holds a delta without its content")
        return []

    def _close_call(self, index: int) -> list[ChatEvent]:
        call = self._open_calls.pop(index, None)
        if call is None or call.has_deltas:
            return []
        if not call.given.startswith("{"):
            raise bad_response(self._target, "holds a tool call whose input is no object")
        return [ToolCallDelta(call=call.number, arguments=call.given)]

    def _finish(self, event: _Event) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        stop_reason = event.delta.stop_reason if event.delta is not None else None
        if stop_reason is not None and not self._finished:
            # A call that the length limit cut off has no content_block_stop.
            for index in list(self._open_calls):
                events += self._close_call(index)
            self._finished = True
            events.append(Finished(reason=finish_reason(stop_reason)))
        usage = read_usage(self._first_usage, event.usage) if is_given(event.usage) else None
        if usage is not None:
            events.append(UsageReported(usage=usage))
        return events
