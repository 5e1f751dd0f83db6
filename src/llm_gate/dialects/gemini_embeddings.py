"""Embeddings of Gemini: one `batchEmbedContents` call, with one request for each text.

Contract: https://ai.google.dev/api/embeddings
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._gemini_schema import Count, error_in_success, is_present, read_lenient
from llm_gate.dialects.gemini_request import JSON_HEADERS, model_path, model_url
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import EmbeddingRequest
from llm_gate.domain.results import EmbeddingResult
from llm_gate.domain.usage import Usage, believed


class _Vector(Struct, frozen=True, kw_only=True):
    values: Annotated[tuple[float, ...], Meta(min_length=1)]


class _UsageMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    prompt_token_count: Count


class _Reply(Struct, frozen=True, kw_only=True, rename="camel"):
    embeddings: tuple[_Vector, ...]
    usage_metadata: Raw = Raw(b"")


_decoder = msgspec.json.Decoder(_Reply)
_usage_decoder = msgspec.json.Decoder(_UsageMetadata)


class GeminiEmbedding:
    """Embeddings as `batchEmbedContents`."""

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request."""
        items: list[dict[str, Any]] = []
        for text in request.inputs:
            if not isinstance(text, str):
                raise InvalidRequest(
                    f"input: token ids cannot be carried over to provider {target.provider!r}; send text",
                    param="input",
                    code="unsupported_parameter",
                )
            item: dict[str, Any] = {"model": model_path(target), "content": {"parts": [{"text": text}]}}
            if request.dimensions is not None:
                item["outputDimensionality"] = request.dimensions
            items.append(item)
        http = HttpRequest(
            method="POST",
            url=model_url(target, "batchEmbedContents"),
            body=msgspec.json.encode({"requests": items}),
            headers=JSON_HEADERS,
        )
        user = () if request.user is None else ("user",)
        return Encoded(request=http, dropped=(*user, *request.extra))

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read a successful reply."""
        failure = error_in_success(reply.body, target)
        if failure is not None:
            raise failure
        answer = read_lenient(_decoder, reply.body)
        if answer is None:
            raise bad_response(target, "holds no embeddings")
        if len(answer.embeddings) != len(request.inputs):
            raise bad_response(target, "holds another number of embeddings than was asked for")
        counts = (
            read_lenient(_usage_decoder, answer.usage_metadata) if is_present(answer.usage_metadata) else None
        )
        return EmbeddingResult(
            vectors=tuple(vector.values for vector in answer.embeddings),
            usage=None if counts is None else believed(Usage(input_tokens=counts.prompt_token_count)),
        )
