"""Streamed answers in Ollama's own format, read from providers.

Theory of operation: one JSON object for each line, with a piece of the answer each; the line with `done: true`
carries the reason and the counts and alone is the end. A line with `error` is a failure, whatever came before.
"""

from collections.abc import Sequence

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._ndjson import LineTooLargeError, NdjsonParser
from llm_gate.dialects._streams import collect
from llm_gate.dialects.ollama_wire import (
    Line,
    WireMessage,
    calls_before,
    created_s,
    finish_reason,
    read_call,
    read_line,
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
)
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest


class OllamaStream:
    """Reads one streamed answer."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self._request = request
        self._target = target
        self._lines = NdjsonParser()
        self._started = False
        self._ended = False
        self._calls = 0

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete."""
        try:
            return self._read(self._lines.feed(data))
        except LineTooLargeError as error:
            raise self._broken("holds a line that is too large", self._read(error.lines)) from None

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes."""
        events = self._read(self._lines.flush())
        if not self._ended:
            what = "ended before the line that is done" if self._started else "is empty"
            raise self._broken(what, events)
        return events

    def _broken(self, what: str, preceding: Sequence[ChatEvent]) -> ProviderError:
        error = bad_response(self._target, what)
        error.preceding = tuple(preceding)
        return error

    def _read(self, lines: Sequence[bytes]) -> list[ChatEvent]:
        return collect(self._step(data) for data in lines)

    def _step(self, data: bytes) -> list[ChatEvent]:
        if self._ended:
            return []
        line = read_line(data, self._target, "holds a line that is none of this format")
        events: list[ChatEvent] = []
        if not self._started:
            self._started = True
            events.append(Started(model=line.model, created_s=created_s(line)))
        events += self._message(line.message)
        return [*events, *self._finish(line, data)] if line.done else events

    def _message(self, message: WireMessage) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if message.thinking:
            events.append(ThinkingDelta(text=message.thinking))
        if message.content:
            events.append(TextDelta(text=message.content))
        for call in message.tool_calls or ():
            part = read_call(call, calls_before(self._request) + self._calls, self._target)
            events.append(
                ToolCallDelta(call=self._calls, id=part.id, name=part.name, arguments=part.arguments)
            )
            self._calls += 1
        return events

    def _finish(self, line: Line, data: bytes) -> list[ChatEvent]:
        self._ended = True
        finished = Finished(reason=finish_reason(line, has_calls=self._calls > 0))
        usage = read_usage(data)
        return [finished, Ended()] if usage is None else [finished, UsageReported(usage=usage), Ended()]
