"""The outbound side of Ollama's own format: complete answers, errors, and the dialect as one value.

Contract: https://docs.ollama.com/api/chat
"""

import msgspec

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects.ollama_embeddings import OllamaEmbedding
from llm_gate.dialects.ollama_presence import OllamaPresence
from llm_gate.dialects.ollama_requests import write_request
from llm_gate.dialects.ollama_stream import OllamaStream
from llm_gate.dialects.ollama_wire import (
    calls_before,
    created_s,
    finish_reason,
    read_call,
    read_failure,
    read_line,
    read_usage,
)
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.messages import Part, TextPart, ThinkingPart
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, Provider, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice


class OllamaChat:
    """The chat operation."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return write_request(request, target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a successful reply."""
        answer = read_line(reply.body, target, "is no chat answer of this format")
        if not answer.done:
            raise bad_response(target, "is not complete", status=reply.status)
        message = answer.message
        parts: list[Part] = []
        if message.thinking:
            parts.append(ThinkingPart(text=message.thinking))
        if message.content:
            parts.append(TextPart(text=message.content))
        calls = message.tool_calls or ()
        first = calls_before(request) if calls else 0
        parts += [read_call(call, first + index, target) for index, call in enumerate(calls)]
        reason = finish_reason(answer, has_calls=bool(calls))
        return ChatResult(
            choices=(Choice(parts=tuple(parts), finish_reason=reason),),
            usage=read_usage(reply.body),
            model=answer.model,
            created_s=created_s(answer),
        )

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Return a decoder for one streamed answer."""
        return OllamaStream(request, target)


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    failure = read_failure(reply.body, status=reply.status)
    if failure is None:
        failure = VendorFailure(status=reply.status, message=plain_text(reply))
    patient = msgspec.structs.replace(failure, retry_after_s=retry_after_s(reply.headers))
    return typed_error(patient, target)


provider = Provider(
    dialect="ollama",
    chat=OllamaChat(),
    embedding=OllamaEmbedding(),
    presence=OllamaPresence(),
    decode_error=decode_error,
)
