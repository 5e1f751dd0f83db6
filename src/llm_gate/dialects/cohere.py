"""The outbound side of Cohere's second format: complete answers, errors, and the dialect as one value.

Contract: https://docs.cohere.com/reference/chat
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects.cohere_embeddings import CohereEmbedding
from llm_gate.dialects.cohere_requests import write_request
from llm_gate.dialects.cohere_stream import CohereStream
from llm_gate.dialects.cohere_wire import UNREADABLE, finish_reason, read_failure, read_usage
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, Provider, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice

_Name = Annotated[str, Meta(min_length=1)]


class _Content(Struct, frozen=True):
    type: str
    text: str = ""
    thinking: str = ""


class _Function(Struct, frozen=True):
    name: _Name
    arguments: str | None = None


class _ToolCall(Struct, frozen=True):
    id: _Name
    function: _Function


class _Message(Struct, frozen=True):
    content: list[_Content] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_plan: str | None = None
    citations: Raw = ABSENT


class _Answer(Struct, frozen=True):
    message: _Message
    finish_reason: str
    id: str | None = None
    usage: Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)


class CohereChat:
    """The chat operation."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return write_request(request, target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:  # noqa: ARG002
        """Read a successful reply."""
        try:
            answer = _answer_decoder.decode(reply.body)
        except UNREADABLE:
            failure = read_failure(reply.body)
            if failure is not None:
                raise typed_error(failure, target) from None
            raise bad_response(target, "is no chat answer of this format", status=reply.status) from None
        message = answer.message
        reason = finish_reason(answer.finish_reason, target, has_calls=bool(message.tool_calls))
        citations = {"citations": message.citations} if is_given(message.citations) else {}
        return ChatResult(
            choices=(Choice(parts=_parts(message), finish_reason=reason),),
            usage=read_usage(answer.usage),
            id=answer.id,
            notices=citations,
        )

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:  # noqa: ARG002
        """Return a decoder for one streamed answer."""
        return CohereStream(target)


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    failure = read_failure(reply.body, status=reply.status)
    if failure is None:
        failure = VendorFailure(status=reply.status, message=plain_text(reply))
    patient = msgspec.structs.replace(failure, retry_after_s=retry_after_s(reply.headers))
    return typed_error(patient, target)


def _parts(message: _Message) -> tuple[Part, ...]:
    parts: list[Part] = []
    if message.tool_plan:
        # What the model means to do with its tools is reasoning, not what it answers.
        parts.append(ThinkingPart(text=message.tool_plan))
    for block in message.content or ():
        if block.type == "thinking":
            parts.append(ThinkingPart(text=block.thinking))
        elif block.type == "text":
            parts.append(TextPart(text=block.text))
    for call in message.tool_calls or ():
        arguments = call.function.arguments or "{}"
        parts.append(ToolCallPart(id=call.id, name=call.function.name, arguments=arguments))
    return tuple(parts)


provider = Provider(
    dialect="cohere", chat=CohereChat(), embedding=CohereEmbedding(), decode_error=decode_error
)
