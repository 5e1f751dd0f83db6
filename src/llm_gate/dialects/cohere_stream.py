"""Streamed answers in Cohere's second format, read from providers.

Theory of operation: message-start, then content blocks (start, deltas, end), the plan for tools and the calls
(start, deltas, end), then message-end with the finish reason and the counts, which alone is the end. Citations and
types that are not known are skipped (https://docs.cohere.com/docs/streaming).
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response, typed_error
from llm_gate.dialects._json import ABSENT
from llm_gate.dialects._sse import EventTooLargeError, SseEvent, SseParser
from llm_gate.dialects._streams import collect
from llm_gate.dialects.cohere_wire import UNREADABLE, finish_reason, read_failure, read_usage
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
)
from llm_gate.domain.provider import Target


class _Event(Struct, frozen=True):
    type: str
    id: str | None = None
    index: int | None = None
    delta: Raw = ABSENT


class _Content(Struct, frozen=True):
    text: str | None = None
    thinking: str | None = None


class _ContentMessage(Struct, frozen=True):
    content: _Content


class _ContentDelta(Struct, frozen=True):
    message: _ContentMessage


class _PlanMessage(Struct, frozen=True):
    tool_plan: str


class _PlanDelta(Struct, frozen=True):
    message: _PlanMessage


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, frozen=True):
    function: _Function
    id: str | None = None


class _CallMessage(Struct, frozen=True):
    tool_calls: _Call


class _CallDelta(Struct, frozen=True):
    message: _CallMessage


class _EndDelta(Struct, frozen=True):
    finish_reason: str
    usage: Raw = ABSENT
    error: str | None = None


_event_decoder = msgspec.json.Decoder(_Event)
_content_decoder = msgspec.json.Decoder(_ContentDelta)
_plan_decoder = msgspec.json.Decoder(_PlanDelta)
_call_decoder = msgspec.json.Decoder(_CallDelta)
_end_decoder = msgspec.json.Decoder(_EndDelta)


class _OpenCall:
    """A tool call whose end was not seen."""

    __slots__ = ("has_arguments", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_arguments = False


class CohereStream:
    """Reads one streamed answer."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sse = SseParser()
        self._started = False
        self._ended = False
        self._calls = 0
        self._open_calls: dict[int, _OpenCall] = {}

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
            what = "ended before message-end" if self._started else "is not an event stream"
            error = bad_response(self._target, what)
            error.preceding = tuple(events)
            raise error
        return events

    def _read(self, wire_events: list[SseEvent]) -> list[ChatEvent]:
        return collect(self._step(wire_event) for wire_event in wire_events if wire_event.data)

    def _step(self, wire_event: SseEvent) -> list[ChatEvent]:
        # After the end comes "[DONE]", which says nothing that message-end has not said.
        if self._ended or wire_event.data == b"[DONE]":
            return []
        try:
            if wire_event.bare or wire_event.event == b"error":
                raise self._failure(wire_event.data)
            return self._translate(_event_decoder.decode(wire_event.data))
        except UNREADABLE:
            raise self._failure(wire_event.data) from None

    def _failure(self, data: bytes) -> ProviderError:
        failure = read_failure(data)
        if failure is None:
            return bad_response(self._target, "holds an event that is none of this format")
        return typed_error(failure, self._target)

    def _translate(self, event: _Event) -> list[ChatEvent]:
        if event.type == "message-start":
            if self._started:
                raise bad_response(self._target, "starts twice")
            self._started = True
            return [Started(id=event.id)]
        if not self._started:
            raise bad_response(self._target, "does not begin with message-start")
        match event.type:
            case "content-start" | "content-delta":
                return _content(_content_decoder.decode(event.delta).message.content)
            case "tool-plan-delta":
                plan = _plan_decoder.decode(event.delta).message.tool_plan
                return [ThinkingDelta(text=plan)] if plan else []
            case "tool-call-start":
                return self._open_call(event.index or 0, _call_decoder.decode(event.delta).message.tool_calls)
            case "tool-call-delta":
                return self._continue_call(event.index or 0, _call_decoder.decode(event.delta))
            case "tool-call-end":
                return self._close_call(event.index or 0)
            case "message-end":
                return self._finish(_end_decoder.decode(event.delta))
        return []

    def _open_call(self, index: int, call: _Call) -> list[ChatEvent]:
        if not call.id or not call.function.name:
            raise bad_response(self._target, "holds a tool call without id or name")
        opened = _OpenCall(self._calls)
        self._calls += 1
        self._open_calls[index] = opened
        arguments = call.function.arguments or ""
        opened.has_arguments = bool(arguments)
        return [
            ToolCallDelta(call=opened.number, id=call.id, name=call.function.name, arguments=arguments),
        ]

    def _continue_call(self, index: int, delta: _CallDelta) -> list[ChatEvent]:
        opened = self._open_calls.get(index)
        if opened is None:
            raise bad_response(self._target, "continues a tool call that was not begun")
        piece = delta.message.tool_calls.function.arguments
        if not piece:
            return []
        opened.has_arguments = True
        return [ToolCallDelta(call=opened.number, arguments=piece)]

    def _close_call(self, index: int) -> list[ChatEvent]:
        opened = self._open_calls.pop(index, None)
        if opened is None or opened.has_arguments:
            return []
        return [ToolCallDelta(call=opened.number, arguments="{}")]

    def _finish(self, delta: _EndDelta) -> list[ChatEvent]:
        reason = finish_reason(
            delta.finish_reason, self._target, has_calls=self._calls > 0, error=delta.error
        )
        events: list[ChatEvent] = []
        for index in list(self._open_calls):
            events += self._close_call(index)
        events.append(Finished(reason=reason))
        usage = read_usage(delta.usage)
        if usage is not None:
            events.append(UsageReported(usage=usage))
        self._ended = True
        return [*events, Ended()]


def _content(content: _Content) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    if content.thinking:
        events.append(ThinkingDelta(text=content.thinking))
    if content.text:
        events.append(TextDelta(text=content.text))
    return events
