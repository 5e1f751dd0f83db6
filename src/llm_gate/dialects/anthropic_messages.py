"""The outbound side of Anthropic's Messages format: complete answers, errors, and the codec as a whole."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects.anthropic_counting import AnthropicCount
from llm_gate.dialects.anthropic_requests import write_request
from llm_gate.dialects.anthropic_stream import AnthropicStream
from llm_gate.dialects.anthropic_wire import (
    DIALECT,
    UNREADABLE,
    finish_reason,
    is_own,
    read_failure,
    read_usage,
)
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, Provider, Target
from llm_gate.domain.requests import ChatRequest, Wire
from llm_gate.domain.results import ChatResult, Choice

_Name = Annotated[str, Meta(min_length=1)]

# Stop reasons that the finish reason says completely; the others are kept as a notice.
_PLAIN_STOPS = frozenset({"end_turn", "max_tokens", "tool_use"})


class _BlockKind(Struct, frozen=True):
    type: str


class _Text(Struct, frozen=True):
    text: str
    citations: Raw = ABSENT


class _ToolUse(Struct, frozen=True):
    id: _Name
    name: _Name
    input: Raw


class _Thinking(Struct, frozen=True):
    thinking: str
    signature: str | None = None


class _Redacted(Struct, frozen=True):
    data: str


class _Answer(Struct, frozen=True):
    type: Literal["message"]
    content: list[Raw]
    stop_reason: str
    id: str | None = None
    model: str | None = None
    usage: Raw = ABSENT
    stop_sequence: Raw = ABSENT
    stop_details: Raw = ABSENT
    container: Raw = ABSENT
    context_management: Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_kind_decoder = msgspec.json.Decoder(_BlockKind)
_text_decoder = msgspec.json.Decoder(_Text)
_tool_use_decoder = msgspec.json.Decoder(_ToolUse)
_thinking_decoder = msgspec.json.Decoder(_Thinking)
_redacted_decoder = msgspec.json.Decoder(_Redacted)


class AnthropicChat:
    """The chat operation."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return write_request(request, target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a successful reply; for a caller of this dialect with every field of the vendor's."""
        try:
            result = _read_answer(_answer_decoder.decode(reply.body))
            if not is_own(request):
                return result
            wire = Wire(dialect=DIALECT, fields=_fields_decoder.decode(reply.body))
            return msgspec.structs.replace(result, wire=wire)
        except UNREADABLE:
            failure = read_failure(reply.body)
        if failure is not None:
            raise typed_error(failure, target)
        raise bad_response(target, "is no message of the Messages format", status=reply.status)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Return a decoder for one streamed answer; verbatim for a caller of this dialect."""
        return AnthropicStream(target, verbatim=is_own(request), explained=request.is_read)


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    failure = read_failure(reply.body, status=reply.status)
    if failure is None:
        failure = VendorFailure(status=reply.status, message=plain_text(reply))
    patient = msgspec.structs.replace(failure, retry_after_s=retry_after_s(reply.headers))
    return typed_error(patient, target)


def _read_answer(answer: _Answer) -> ChatResult:
    parts: list[Part] = []
    citations: list[Raw] = []
    left_out: list[Raw] = []
    for block in answer.content:
        match _kind_decoder.decode(block).type:
            case "text":
                text = _text_decoder.decode(block)
                parts.append(TextPart(text=text.text))
                if is_given(text.citations):
                    citations.append(text.citations)
            case "tool_use":
                parts.append(_tool_call(_tool_use_decoder.decode(block)))
            case "thinking":
                thinking = _thinking_decoder.decode(block)
                parts.append(ThinkingPart(text=thinking.thinking, signature=thinking.signature))
            case "redacted_thinking":
                parts.append(ThinkingPart(redacted=_redacted_decoder.decode(block).data))
            case _:
                # Tools that ran at the vendor are no calls for the caller to answer.
                left_out.append(block)
    return ChatResult(
        choices=(Choice(parts=tuple(parts), finish_reason=finish_reason(answer.stop_reason)),),
        usage=read_usage(answer.usage),
        id=answer.id,
        model=answer.model,
        notices=_notices(answer, citations, left_out),
    )


def _tool_call(block: _ToolUse) -> ToolCallPart:
    arguments = bytes(block.input)
    if not arguments.startswith(b"{"):
        raise msgspec.ValidationError("the input of a tool call must be an object")
    return ToolCallPart(id=block.id, name=block.name, arguments=arguments.decode())


def _notices(answer: _Answer, citations: Sequence[Raw], left_out: Sequence[Raw]) -> dict[str, Raw]:
    """Keep what the neutral answer has no place for; `other_content` holds the blocks that are not in it."""
    named = {
        "stop_sequence": answer.stop_sequence,
        "stop_details": answer.stop_details,
        "container": answer.container,
        "context_management": answer.context_management,
    }
    notices = {name: raw for name, raw in named.items() if is_given(raw)}
    if answer.stop_reason not in _PLAIN_STOPS:
        notices["stop_reason"] = Raw(msgspec.json.encode(answer.stop_reason))
    if citations:
        notices["citations"] = Raw(msgspec.json.encode(citations))
    if left_out:
        notices["other_content"] = Raw(msgspec.json.encode(left_out))
    return notices


provider = Provider(dialect=DIALECT, chat=AnthropicChat(), count=AnthropicCount(), decode_error=decode_error)
