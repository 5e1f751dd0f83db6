"""Embeddings of Ollama: `/api/embed`, one call for all texts.

Contract: https://docs.ollama.com/api/embed
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from llm_gate.dialects._failures import bad_response, typed_error
from llm_gate.dialects.ollama_wire import JSON_HEADERS, UNREADABLE, read_failure, read_usage
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import EmbeddingRequest
from llm_gate.domain.results import EmbeddingResult

_Vector = Annotated[tuple[float, ...], Meta(min_length=1)]


class _Reply(Struct, frozen=True, kw_only=True):
    embeddings: tuple[_Vector, ...]
    model: str | None = None


_decoder = msgspec.json.Decoder(_Reply)


class OllamaEmbedding:
    """The embedding operation."""

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request."""
        if not all(isinstance(text, str) for text in request.inputs):
            raise InvalidRequest(
                f"input: token ids cannot be carried over to provider {target.provider!r}; send text",
                param="input",
                code="unsupported_parameter",
            )
        body: dict[str, Any] = {"model": target.wire_model, "input": request.inputs}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        http = HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/api/embed",
            body=msgspec.json.encode(body),
            headers=JSON_HEADERS,
        )
        user = () if request.user is None else ("user",)
        return Encoded(request=http, dropped=(*user, *request.extra))

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read a successful reply."""
        failure = read_failure(reply.body)
        if failure is not None:
            raise typed_error(failure, target)
        try:
            answer = _decoder.decode(reply.body)
        except UNREADABLE:
            raise bad_response(target, "holds no embeddings", status=reply.status) from None
        if len(answer.embeddings) != len(request.inputs):
            raise bad_response(target, "does not hold one vector for each input", status=reply.status)
        return EmbeddingResult(vectors=answer.embeddings, usage=read_usage(reply.body), model=answer.model)
