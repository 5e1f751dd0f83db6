"""Embeddings of Cohere: texts only, with a purpose that the vendor insists on.

Contract: https://docs.cohere.com/reference/embed
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import bad_response, typed_error
from llm_gate.dialects._json import ABSENT
from llm_gate.dialects.cohere_requests import JSON_HEADERS
from llm_gate.dialects.cohere_wire import UNREADABLE, read_failure, read_usage
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import EmbeddingRequest
from llm_gate.domain.results import EmbeddingResult

MAX_TEXTS = 96

_Purpose = Literal["search_document", "search_query", "classification", "clustering"]
_Vector = Annotated[tuple[float, ...], Meta(min_length=1)]


class _Vectors(Struct, frozen=True, kw_only=True):
    float: tuple[_Vector, ...]


class _Reply(Struct, frozen=True, kw_only=True):
    embeddings: _Vectors
    meta: Raw = ABSENT


_decoder = msgspec.json.Decoder(_Reply)
_purpose_decoder = msgspec.json.Decoder(_Purpose)


class CohereEmbedding:
    """Embeddings as `/v2/embed`."""

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request; the field `input_type` of the caller says what the vectors are for."""
        if len(request.inputs) > MAX_TEXTS:
            raise InvalidRequest(
                f"input: provider {target.provider!r} takes at most {MAX_TEXTS} texts in one call, "
                f"not {len(request.inputs)}",
                param="input",
            )
        if not all(isinstance(text, str) for text in request.inputs):
            raise InvalidRequest(
                f"input: token ids cannot be carried over to provider {target.provider!r}; send text",
                param="input",
                code="unsupported_parameter",
            )
        body: dict[str, Any] = {
            "model": target.wire_model,
            "texts": request.inputs,
            "input_type": _purpose(request),
            "embedding_types": ["float"],
        }
        if request.dimensions is not None:
            body["output_dimension"] = request.dimensions
        http = HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/v2/embed",
            body=msgspec.json.encode(body),
            headers=JSON_HEADERS,
        )
        user = () if request.user is None else ("user",)
        return Encoded(
            request=http, dropped=(*user, *(name for name in request.extra if name != "input_type"))
        )

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read a successful reply."""
        try:
            answer = _decoder.decode(reply.body)
        except UNREADABLE:
            failure = read_failure(reply.body)
            if failure is not None:
                raise typed_error(failure, target) from None
            raise bad_response(target, "holds no embeddings", status=reply.status) from None
        vectors = answer.embeddings.float
        if len(vectors) != len(request.inputs):
            raise bad_response(target, "does not hold one vector for each input", status=reply.status)
        return EmbeddingResult(vectors=vectors, usage=read_usage(answer.meta, has_output=False))


def _purpose(request: EmbeddingRequest) -> str:
    given = request.extra.get("input_type")
    if given is None:
        return "search_document"
    try:
        purpose: str = _purpose_decoder.decode(given)
    except UNREADABLE:
        raise InvalidRequest(
            "input_type: must be search_document, search_query, classification or clustering",
            param="input_type",
        ) from None
    return purpose
