"""Streamed answers in OpenAI's Responses format, read from providers.

Theory of operation: deltas name the place they belong to, and are passed on as they come; how much of each place
has come is counted, so that the whole text that follows a place's deltas adds only what they left out. The
beginning is held back until there is something to say, so that an answer that fails before can be asked for elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._sse import EventTooLargeError, SseEvent, SseParser
from llm_gate.dialects._streams import collect
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_responses_outbound_results import (
    OutputItem,
    Response,
    finish_reason,
    read_item,
    read_response_usage,
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
from llm_gate.domain.provider import Target

_DONE = b"[DONE]"
_Kind = Literal["text", "refusal", "summary", "reasoning"]
_THOUGHT = frozenset({"summary", "reasoning"})


class _Head(Struct, frozen=True):
    type: str | None = None
    error: Raw = ABSENT


class _Piece(Struct, frozen=True):
    """A delta, or the whole of a place: which of the fields it has depends on its type."""

    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None


class _ItemEvent(Struct, frozen=True):
    item: Raw
    output_index: int = 0


class _ResponseEvent(Struct, frozen=True):
    response: Response


class _Call:
    """A call that has been opened: its number, and how many characters of its arguments have come."""

    __slots__ = ("number", "sent_chars")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent_chars = 0


_head_decoder = msgspec.json.Decoder(_Head)
_piece_decoder = msgspec.json.Decoder(_Piece)
_item_decoder = msgspec.json.Decoder(_ItemEvent)
_response_decoder = msgspec.json.Decoder(_ResponseEvent)


class ResponsesChatStream:
    """Reads one streamed answer."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._sse = SseParser()
        self._opening = Started()
        self._is_stream = False
        self._has_begun = False
        self._ended = False
        self._sent_chars: dict[tuple[int, _Kind, int], int] = {}
        self._calls: dict[int, _Call] = {}

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete."""
        try:
            return self._read(self._sse.feed(data))
        except EventTooLargeError:
            raise bad_response(self._target, "holds an event that is too large") from None

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes."""
        events = self._read(self._sse.flush())
        if self._ended:
            return events
        what = "ended before it was complete" if self._is_stream else "is not an event stream"
        raise bad_response(self._target, what, preceding=events)

    def _read(self, wire_events: list[SseEvent]) -> list[ChatEvent]:
        return collect(self._one(wire_event) for wire_event in wire_events)

    def _one(self, wire_event: SseEvent) -> list[ChatEvent]:
        # Some vendors of this format close with the chat format's mark, which says nothing here.
        if self._ended or not wire_event.data or wire_event.data == _DONE:
            return []
        try:
            head = _head_decoder.decode(wire_event.data)
            kind = head.type or wire_event.event.decode(errors="replace")
            if kind == "error" or is_given(head.error):
                error = head.error if is_given(head.error) else wire_event.data
                raise error_in_success(error, self._target)
            if wire_event.bare:
                raise bad_response(self._target, "is not an event stream")
            self._is_stream = True
            # Read whole before any of it is handed out: an event is passed on entirely or not at all.
            events = list(self._translate(kind, wire_event.data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_response(self._target, "holds an event that is none of a response") from None
        if events and not self._has_begun:
            self._has_begun = True
            return [self._opening, *events]
        return events

    def _translate(self, kind: str, data: bytes) -> Iterator[ChatEvent]:
        match kind:
            case "response.created" | "response.queued" | "response.in_progress":
                self._note(_response_decoder.decode(data).response)
            case "response.output_text.delta" | "response.output_text.done":
                piece = _piece_decoder.decode(data)
                yield from self._say("text", piece, piece.content_index, piece.text)
            case "response.refusal.delta" | "response.refusal.done":
                piece = _piece_decoder.decode(data)
                yield from self._say("refusal", piece, piece.content_index, piece.refusal)
            case "response.reasoning_summary_text.delta" | "response.reasoning_summary_text.done":
                piece = _piece_decoder.decode(data)
                yield from self._say("summary", piece, piece.summary_index, piece.text)
            case "response.reasoning_text.delta" | "response.reasoning_text.done":
                piece = _piece_decoder.decode(data)
                yield from self._say("reasoning", piece, piece.content_index, piece.text)
            case "response.function_call_arguments.delta" | "response.function_call_arguments.done":
                yield from self._argue(_piece_decoder.decode(data))
            case "response.output_item.added" | "response.output_item.done":
                event = _item_decoder.decode(data)
                yield from self._item(read_item(event.item), event.output_index)
            case "response.completed" | "response.incomplete" | "response.failed":
                yield from self._end(_response_decoder.decode(data).response, kind)

    def _note(self, response: Response) -> None:
        created_s = None if response.created_at is None else int(response.created_at)
        self._opening = Started(id=response.id, model=response.model, created_s=created_s)

    def _say(self, kind: _Kind, piece: _Piece, index: int, whole: str | None) -> Iterator[ChatEvent]:
        if piece.delta is not None:
            yield from self._add(kind, piece.output_index, index, piece.delta)
        elif whole is not None:
            yield from self._complete(kind, piece.output_index, index, whole)

    def _complete(self, kind: _Kind, output: int, index: int, whole: str) -> Iterator[ChatEvent]:
        """Add what the deltas of a place left out of its whole text."""
        yield from self._add(kind, output, index, whole[self._sent_chars.get((output, kind, index), 0) :])

    def _add(self, kind: _Kind, output: int, index: int, text: str) -> Iterator[ChatEvent]:
        if not text:
            return
        place = (output, kind, index)
        is_new = place not in self._sent_chars
        self._sent_chars[place] = self._sent_chars.get(place, 0) + len(text)
        if kind in {"text", "refusal"}:
            yield TextDelta(text=text, refusal=kind == "refusal")
            return
        # Several pieces of one item's reasoning are paragraphs.
        thoughts = sum(other == output and named in _THOUGHT for other, named, _ in self._sent_chars)
        follows = is_new and thoughts > 1
        yield ThinkingDelta(text=f"\n\n{text}" if follows else text)

    def _argue(self, piece: _Piece) -> Iterator[ChatEvent]:
        call = self._calls.get(piece.output_index)
        if call is None:
            raise bad_response(self._target, "holds arguments of a call that was not opened")
        text = piece.delta
        if text is None:
            text = (piece.arguments or "")[call.sent_chars :]
        if text:
            call.sent_chars += len(text)
            yield ToolCallDelta(call=call.number, arguments=text)

    def _item(self, item: OutputItem | None, output: int) -> Iterator[ChatEvent]:
        """Take an item that begins or is complete; of the latter only what has not come yet is new."""
        if item is None:
            return
        if item.type == "function_call":
            yield from self._call(item, output)
        elif item.type == "reasoning":
            for index, part in enumerate(item.summary or ()):
                yield from self._complete("summary", output, index, part.text or "")
            for index, part in enumerate(item.content or ()):
                yield from self._complete("reasoning", output, index, part.text or "")
        else:
            for index, part in enumerate(item.content or ()):
                if part.type == "refusal":
                    yield from self._complete("refusal", output, index, part.refusal or "")
                else:
                    yield from self._complete("text", output, index, part.text or "")

    def _call(self, item: OutputItem, output: int) -> Iterator[ChatEvent]:
        arguments = item.arguments or ""
        call = self._calls.get(output)
        if call is None:
            call = self._calls[output] = _Call(len(self._calls))
            call.sent_chars = len(arguments)
            call_id = item.call_id or item.id or f"call_{output}"
            yield ToolCallDelta(call=call.number, id=call_id, name=item.name or "", arguments=arguments)
        elif len(arguments) > call.sent_chars:
            rest = arguments[call.sent_chars :]
            call.sent_chars = len(arguments)
            yield ToolCallDelta(call=call.number, arguments=rest)

    def _end(self, response: Response, kind: str) -> Iterator[ChatEvent]:
        if kind == "response.failed" or is_given(response.error):
            raise error_in_success(response.error, self._target)
        if not self._has_begun:
            self._note(response)
            # Nothing came in pieces: all of it may be here.
            for output, raw in enumerate(response.output or ()):
                yield from self._item(read_item(raw), output)
        usage = read_response_usage(response.usage)
        if usage is not None:
            yield UsageReported(usage=usage)
        # The event says it with certainty; some vendors leave the object's own status as it was.
        response = structs.replace(response, status=kind.removeprefix("response."))
        yield Finished(reason=finish_reason(response, self._target, has_calls=bool(self._calls)))
        self._ended = True
        yield Ended()
