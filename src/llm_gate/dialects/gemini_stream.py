"""Streamed chat answers of Gemini: server-sent events, or one JSON array where `alt=sse` is not honoured.

Theory of operation: every event is an answer of the unary form that holds the next piece. There is no end marker:
a candidate is complete when it has given a finish reason, but usage may follow, so what is finished is reported
only when the bytes end. An array has an end of its own, its closing bracket, which must be there as well.
"""

import re
from collections.abc import Sequence

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._gemini_schema import (
    Candidate,
    Reply,
    call_arguments,
    call_id,
    created_s,
    is_blocked,
    read_finish,
    read_replies,
    read_usage,
)
from llm_gate.dialects._sse import MAX_EVENT_BYTES, EventTooLargeError, SseParser
from llm_gate.dialects._streams import collect
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
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage

_BLANK = b"\xef\xbb\xbf \t\r\n"
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_GAP = re.compile(rb"[\s,]*")


class _ArrayError(ValueError):
    """The bytes are no JSON array of objects."""


class _ArrayReader:
    """Cuts one JSON array of objects into its elements; fed in any portions."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._start = 0
        self._depth = 0
        self._in_string = False
        self.ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the elements they complete.

        Raises:
            EventTooLargeError: an element is larger than MAX_EVENT_BYTES.
        """
        self._buffer += data
        elements: list[bytes] = []
        while True:
            match = (_INSIDE if self._in_string else _OUTSIDE).search(self._buffer, self._at)
            if match is None:
                self._at = max(self._at, len(self._buffer))
                break
            self._at = match.end()
            if (element := self._step(match[0], match.start())) is not None:
                elements.append(element)
        del self._buffer[: self._start]
        self._at -= self._start
        self._start = 0
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an element is larger than {MAX_EVENT_BYTES} bytes")
        return elements

    def close(self) -> None:
        """Take the end of the bytes; what stands after the closing bracket must be blank."""
        if self.ended and bytes(self._buffer).strip():
            raise _ArrayError

    def _step(self, token: bytes, at: int) -> bytes | None:
        """Take one structural byte; return the element that it closes."""
        if token == b"\\":
            # The escaped byte may not be here yet; the search goes on behind it.
            self._at += 1
        elif self._depth <= 1:
            self._step_between(token, at)
        elif token == b'"':
            self._in_string = not self._in_string
        else:
            self._depth += 1 if token in b"{[" else -1
            if self._depth == 1:
                element = bytes(self._buffer[self._start : self._at])
                self._start = self._at
                return element
        return None

    def _step_between(self, token: bytes, at: int) -> None:
        """Outside of an element: the opening bracket, the brace of an element, or the closing bracket."""
        expected = b"{]" if self._depth else b"["
        if self.ended or token not in expected or not _GAP.fullmatch(self._buffer, self._start, at):
            raise _ArrayError
        self._depth += -1 if token == b"]" else 1
        self.ended = token == b"]"
        self._start = at if token == b"{" else at + 1


class GeminiChatStream:
    """Reads one streamed answer."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self._request = request
        self._target = target
        self._head = b""
        self._sse: SseParser | None = None
        self._array: _ArrayReader | None = None
        self._started = False
        self._blocked = False
        self._usage: Usage | None = None
        self._reported: Usage | None = None
        self._finish: dict[int, FinishReason | None] = {}
        self._calls: dict[int, int] = {}

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete."""
        return self._read(self._cut(data))

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes."""
        payloads: list[bytes] = []
        if self._array is not None:
            try:
                self._array.close()
            except _ArrayError:
                raise bad_response(self._target, "is not a JSON array") from None
            if not self._array.ended:
                raise bad_response(self._target, "ended before its closing bracket")
        elif self._sse is not None:
            payloads = [event.data for event in self._sse.flush() if event.data]
        events = self._read(payloads)
        if self._blocked and not self._finish:
            self._finish[0] = "content_filter"
        finished = [
            Finished(
                reason="tool_calls" if reason == "stop" and self._calls.get(index) else reason, index=index
            )
            for index, reason in sorted(self._finish.items())
            if reason is not None
        ]
        if not self._started:
            raise bad_response(self._target, "is not an event stream")
        if not finished or len(finished) != len(self._finish):
            raise bad_response(self._target, "ended before its finish reason", preceding=events)
        events += finished
        if self._usage is not None and self._usage != self._reported:
            events.append(UsageReported(usage=self._usage))
        return [*events, Ended()]

    def _cut(self, data: bytes) -> list[bytes]:
        """Return the payloads that are complete now; the first byte tells the framing."""
        if self._sse is None and self._array is None:
            self._head += data
            start = self._head.lstrip(_BLANK)
            if not start:
                return []
            if start.startswith(b"["):
                self._array, data = _ArrayReader(), start
            else:
                self._sse, data = SseParser(), self._head
            self._head = b""
        try:
            if self._array is not None:
                return self._array.feed(data)
            return [] if self._sse is None else [event.data for event in self._sse.feed(data) if event.data]
        except EventTooLargeError:
            raise bad_response(self._target, "holds an event that is too large") from None
        except _ArrayError:
            raise bad_response(self._target, "is not a JSON array") from None

    def _read(self, payloads: list[bytes]) -> list[ChatEvent]:
        # Proxies that also speak another dialect are known to add its end marker.
        wanted = (payload for payload in payloads if payload != b"[DONE]")
        return collect(
            self._read_chunk(chunk) for payload in wanted for chunk in read_replies(payload, self._target)
        )

    def _read_chunk(self, chunk: Reply) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if not self._started:
            self._started = True
            model, made_s = chunk.model_version, created_s(chunk)
            events.append(Started(id=chunk.response_id, model=model, created_s=made_s))
        self._blocked = self._blocked or is_blocked(chunk)
        for position, candidate in enumerate(chunk.candidates or ()):
            index = position if candidate.index is None else candidate.index
            events += self._read_parts(candidate, chunk, index)
            reason = read_finish(candidate.finish_reason, self._target)
            self._finish[index] = reason or self._finish.get(index)
        usage = read_usage(chunk.usage_metadata)
        if usage is not None:
            self._usage = usage
            # Early chunks of older models count the input only; passed on, a cut stream would seem to have
            # no output at all.
            if usage.output_tokens and usage != self._reported:
                self._reported = usage
                events.append(UsageReported(usage=usage))
        return events

    def _read_parts(self, candidate: Candidate, chunk: Reply, index: int) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for part in candidate.parts:
            signature = part.thought_signature
            if part.function_call is not None:
                events.append(
                    ToolCallDelta(
                        call=self._calls.get(index, 0),
                        id=call_id(part.function_call, chunk, sum(self._calls.values()), self._request),
                        name=part.function_call.name,
                        arguments=call_arguments(part.function_call, self._target),
                        signature=signature,
                        index=index,
                    )
                )
                self._calls[index] = self._calls.get(index, 0) + 1
            elif part.thought:
                if part.text or signature:
                    events.append(ThinkingDelta(text=part.text or "", signature=signature, index=index))
            elif part.text is not None or part.inline_data is not None:
                if part.text:
                    events.append(TextDelta(text=part.text, index=index))
                if signature:
                    events.append(ThinkingDelta(signature=signature, index=index))
        return events
