"""Streamed chat answers in the OpenAI wire format: read from providers, written to callers."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._sse import EventTooLargeError, SseEvent, SseParser
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_results import (
    content_text,
    finish_reason,
    plain_choices,
    read_completion,
    reasoning_text,
)
from llm_gate.dialects.openai_usage import add_cost, read_usage, write_usage
from llm_gate.dialects.openai_wire import Completion, ReplyMessage, ToolCall
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
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.usage import Usage

_DONE = b"[DONE]"
_NULL = b"null"
_COMPLAINT = frozenset({"detail", "details", "message"})
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_calls_decoder = msgspec.json.Decoder(list[dict[str, Raw]])


class _Call(Struct, frozen=True, kw_only=True):
    choice: int
    index: int
    id: str | None
    number: int


class OpenAIChatStream:
    """Reads one streamed answer.

    With `verbatim`, wire events pass as they are; only those that carry usage, an error or the end are
    handed out as typed events. With `explained`, each passes by itself, its meaning beside it.
    """

    def __init__(self, target: Target, *, verbatim: bool, explained: bool = False) -> None:
        self._target = target
        self._verbatim = verbatim
        self._explained = explained
        self._sse = SseParser()
        self._started = False
        self._announced = False
        self._ended = False
        self._open_choices: set[int] = set()
        self._finished: set[int] = set()
        self._calls: list[_Call] = []

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete."""
        try:
            return self._read(self._sse.feed(data))
        except EventTooLargeError:
            raise bad_response(self._target, "holds an event that is too large") from None

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes."""
        events = list(self._read(self._sse.flush()))
        if self._ended:
            return events
        # Some vendors are known to send no [DONE]; only for them is a finish reason the end.
        if self._target.deployment.spec.finish_is_end and self._finished and not self._open_choices:
            return [*events, *self._end()]
        what = "ended before it was complete" if self._started else "is not an event stream"
        raise bad_response(self._target, what, preceding=events)

    def _read(self, wire_events: list[SseEvent]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        passing: list[bytes] = []
        try:
            self._sort(wire_events, passing, events)
        except ProviderError as error:
            self._flush(passing, events)
            error.preceding = tuple(events)
            raise
        self._flush(passing, events)
        return events

    def _sort(self, wire_events: list[SseEvent], passing: list[bytes], events: list[ChatEvent]) -> None:
        """Sort wire events into those that pass as they are and those that mean something to the engine."""
        for wire_event in wire_events:
            if self._ended:
                break
            if not wire_event.data:
                continue
            if wire_event.data == _DONE:
                self._flush(passing, events)
                events += self._end()
                break
            already_finished = frozenset(self._finished)
            chunk, data = self._chunk(wire_event)
            usage = read_usage(chunk.usage) or _usage_aside(data)
            if not self._verbatim:
                events += self._translate(chunk, usage, already_finished)
            elif usage is not None:
                self._flush(passing, events)
                payload, meaning = self._plain(data, chunk), self._meaning(chunk, already_finished)
                events.append(VerbatimUsage(payload=payload, usage=usage, meaning=meaning))
            else:
                is_as_it_came = data is wire_event.data and not _is_irregular(chunk)
                passing.append(
                    wire_event.raw if is_as_it_came else b"data: " + self._plain(data, chunk) + b"\n\n"
                )
                if self._explained:
                    self._flush(passing, events, self._meaning(chunk, already_finished))

    def _end(self) -> list[ChatEvent]:
        """Close the answer; a choice whose finish reason the vendor left out counts as a plain stop."""
        if not (self._finished or self._open_choices):
            raise bad_response(self._target, "holds no choices")
        self._ended = True
        if self._verbatim:
            return [Ended()]
        return [*(Finished(reason="stop", index=index) for index in sorted(self._open_choices)), Ended()]

    @staticmethod
    def _flush(passing: list[bytes], events: list[ChatEvent], meaning: tuple[ChatEvent, ...] = ()) -> None:
        if passing:
            events.append(Verbatim(data=b"".join(passing), meaning=meaning))
            passing.clear()

    def _meaning(self, chunk: Completion, already_finished: AbstractSet[int]) -> tuple[ChatEvent, ...]:
        """Return the text and the ends of a chunk that passes; calls are numbered once only, so they are left out."""
        if not self._explained:
            return ()
        events: list[ChatEvent] = []
        for choice in chunk.choices or ():
            if choice.delta is not None:
                events += _texts(choice.delta, choice.index)
            if choice.finish_reason and choice.index not in already_finished:
                events.append(Finished(reason=finish_reason(choice.finish_reason), index=choice.index))
        return tuple(events)

    def _chunk(self, wire_event: SseEvent) -> tuple[Completion, bytes]:
        """Read one event; its data comes back with it, mended where need be."""
        try:
            chunk, data = read_completion(wire_event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_response(self._target, "holds an event that is no chat completion chunk") from None
        if is_given(chunk.error):
            raise error_in_success(chunk.error, self._target)
        if wire_event.event == b"error" or chunk.object == "error" or _is_complaint(chunk, wire_event.data):
            raise error_in_success(wire_event.data, self._target)
        if wire_event.bare:
            raise bad_response(self._target, "is not an event stream")
        self._started = True
        for choice in chunk.choices or ():
            if choice.finish_reason == "error":
                raise bad_response(self._target, "ended with an error of the model")
            if choice.finish_reason:
                self._finished.add(choice.index)
                self._open_choices.discard(choice.index)
            elif choice.index not in self._finished:
                self._open_choices.add(choice.index)
        return chunk, data

    def _translate(
        self, chunk: Completion, usage: Usage | None, already_finished: AbstractSet[int]
    ) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if not self._announced and (chunk.id or chunk.choices):
            self._announced = True
            created_s = None if chunk.created is None else int(chunk.created)
            events.append(Started(id=chunk.id, model=chunk.model, created_s=created_s))
        for choice in chunk.choices or ():
            if choice.delta is not None:
                events += self._deltas(choice.delta, choice.index)
            # Some vendors repeat the finish reason in the event that brings the usage.
            if choice.finish_reason and choice.index not in already_finished:
                events.append(Finished(reason=finish_reason(choice.finish_reason), index=choice.index))
        if usage is not None:
            events.append(UsageReported(usage=usage))
        return events

    def _deltas(self, delta: ReplyMessage, index: int) -> list[ChatEvent]:
        events = _texts(delta, index)
        calls = delta.tool_calls or ()
        if delta.function_call is not None:
            # The form before tools: one call, without id.
            calls = [ToolCall(index=0, function=delta.function_call)]
        for position, call in enumerate(calls):
            if call.function is None:
                continue
            number, is_new = self._number(call, index, position)
            events.append(
                ToolCallDelta(
                    call=number,
                    id=(call.id or f"call_{number}") if is_new else None,
                    name=call.function.name if is_new else None,
                    arguments=call.function.arguments or "",
                    signature=call.signature,
                    index=index,
                )
            )
        return events

    def _plain(self, data: bytes, chunk: Completion) -> bytes:
        """Return the payload of a chunk as clients rely on it: a delta, text as content, calls with an index."""
        if not _is_irregular(chunk):
            return data
        fields: dict[str, Any] = _fields_decoder.decode(data)
        choices = plain_choices(fields["choices"], "delta")
        for written, choice in zip(choices, chunk.choices or (), strict=True):
            calls = choice.delta.tool_calls if choice.delta is not None else None
            if calls:
                delta = msgspec.json.decode(msgspec.json.encode(written["delta"]), type=dict[str, Raw])
                raw_calls = _calls_decoder.decode(delta["tool_calls"])
                numbered: list[dict[str, Any]] = []
                for position, call in enumerate(calls):
                    number, is_new = self._number(call, choice.index, position)
                    kind = {"type": "function"} if is_new else {}
                    numbered.append({**kind, **raw_calls[position], "index": number})
                written["delta"] = {**delta, "tool_calls": numbered}
        return msgspec.json.encode({**fields, "choices": choices})

    def _number(self, call: ToolCall, choice: int, position: int) -> tuple[int, bool]:
        """Return the number of the call a delta belongs to, and whether the delta opens it.

        A delta belongs to the last call of its index; vendors that leave the index out, or give every call the
        same, tell calls apart by a new id that comes with a name.
        """
        known = [one for one in self._calls if one.choice == choice]
        named = call.function is not None and bool(call.function.name)
        for one in reversed(known):
            if call.id:
                same = call.id == one.id or (call.index == one.index and not named)
            elif call.index is not None:
                same = call.index == one.index
            else:
                same = not named
            if same:
                return one.number, False
        index = position if call.index is None else call.index
        self._calls.append(_Call(choice=choice, index=index, id=call.id, number=len(known)))
        return len(known), True


def _texts(delta: ReplyMessage, index: int) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    if thought := reasoning_text(delta):
        events.append(ThinkingDelta(text=thought, index=index))
    if text := content_text(delta.content):
        events.append(TextDelta(text=text, index=index))
    if delta.refusal:
        events.append(TextDelta(text=delta.refusal, refusal=True, index=index))
    return events


class ChunkEncoder:
    """Writes one streamed answer: verbatim events as they are, neutral ones as chunks.

    `price` gives the cost of a usage. The usage chunk is written only for a caller who asked for it.
    """

    def __init__(
        self,
        *,
        fallback_id: str,
        model: str,
        created_s: int,
        include_usage: bool,
        price: Callable[[Usage], Cost | None],
    ) -> None:
        self._head: dict[str, Any] = {
            "id": fallback_id,
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._include_usage = include_usage
        self._price = price
        self._usage: Usage | None = None
        self._greeted: set[int] = set()

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events; may be empty."""
        return b"".join(self._one(event) for event in events)

    def _one(self, event: ChatEvent) -> bytes:
        match event:
            case Verbatim():
                return event.data
            case VerbatimUsage():
                return self._complete(event)
            case Started():
                self._head["id"] = event.id or self._head["id"]
                self._head["model"] = event.model or self._head["model"]
                self._head["created"] = event.created_s or self._head["created"]
                return b""
            case UsageReported():
                self._usage = event.usage
                return b""
            case Finished():
                return self._chunk(event.index, {}, event.reason)
            case Ended():
                return self._usage_chunk() + b"data: [DONE]\n\n"
            case _:
                return self._chunk(event.index, self._delta(event), None)

    def _delta(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> dict[str, Any]:
        match event:
            case TextDelta():
                return {"refusal" if event.refusal else "content": event.text}
            case ThinkingDelta():
                return {"reasoning_content": event.text} if event.text else {}
            case ToolCallDelta():
                function: dict[str, Any] = {"arguments": event.arguments}
                call: dict[str, Any] = {"index": event.call, "function": function}
                if event.id is not None:
                    call |= {"id": event.id, "type": "function"}
                    function["name"] = event.name
                if event.signature is not None:
                    call["extra_content"] = {"google": {"thought_signature": event.signature}}
                return {"tool_calls": [call]}

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        if index not in self._greeted:
            self._greeted.add(index)
            delta = {"role": "assistant", **delta}
        elif not delta and reason is None:
            return b""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head, "choices": [choice]})

    def _usage_chunk(self) -> bytes:
        if not self._include_usage or self._usage is None:
            return b""
        usage = write_usage(self._usage, self._price(self._usage))
        return _event({**self._head, "choices": [], "usage": usage})

    def _complete(self, event: VerbatimUsage) -> bytes:
        fields: dict[str, Any] = _fields_decoder.decode(event.payload)
        if self._include_usage:
            cost = self._price(event.usage)
            raw = fields.get("usage", ABSENT)
            fields["usage"] = add_cost(raw, cost) if is_given(raw) else write_usage(event.usage, cost)
            return _event(fields)
        fields.pop("usage", None)
        empty = bytes(fields.get("choices", Raw(b"[]"))).replace(b" ", b"") in {b"[]", _NULL}
        return b"" if empty else _event(fields)


def _is_complaint(chunk: Completion, data: bytes) -> bool:
    """Tell whether an event is an error that does not say so: no part of any chunk, but a text."""
    if chunk.choices is not None or chunk.object is not None or is_given(chunk.usage):
        return False
    return not _COMPLAINT.isdisjoint(_fields_decoder.decode(data))


def _is_irregular(chunk: Completion) -> bool:
    return any(
        choice.delta is None
        or isinstance(choice.delta.content, list)
        or any(call.index is None for call in choice.delta.tool_calls or ())
        for choice in chunk.choices or ()
    )


def _usage_aside(data: bytes) -> Usage | None:
    """Return the usage that some vendors put into an object of their own, named x_…, beside the choices."""
    if b'"x_' not in data:
        return None
    fields: dict[str, Raw] = _fields_decoder.decode(data)
    for name, raw in fields.items():
        if name.startswith("x_") and bytes(raw).startswith(b"{"):
            return read_usage(_fields_decoder.decode(raw).get("usage", ABSENT))
    return None


def encode_stream_error(error: bytes) -> bytes:
    """Write an error's body as an event, after which the stream ends without a terminal event."""
    return b"data: " + error + b"\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
