"""Embeddings in the OpenAI wire format, both directions."""

import base64
import sys
from array import array
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given, read_as, read_object
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.dialects.openai_usage import add_cost, read_usage, write_usage
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import EmbeddingRequest, Wire
from llm_gate.domain.results import EmbeddingResult

DIALECT = "openai"
MAX_INPUTS = 2048

Text = Annotated[str, Meta(min_length=1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31)]


class EmbeddingBody(Struct, frozen=True):
    """The body of an embedding request."""

    model: Annotated[str, Meta(min_length=1)]
    input: Text | list[Text | TokenId | list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**20)] | None = None
    user: str | None = None


class _Item(Struct, frozen=True):
    embedding: list[float] | str
    index: int | None = None


class _Reply(Struct, frozen=True):
    data: list[_Item] | None = None
    model: str | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


_body_decoder = msgspec.json.Decoder(EmbeddingBody)
_reply_decoder = msgspec.json.Decoder(_Reply)
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(EmbeddingBody))


def decode_embedding_request(body: bytes) -> EmbeddingRequest:
    """Read an embedding request.

    Raises:
        InvalidRequest: it is malformed.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    return EmbeddingRequest(
        model=parsed.model,
        inputs=_read_inputs(parsed.input),
        encoding=parsed.encoding_format or "float",
        dimensions=parsed.dimensions,
        user=parsed.user,
        extra={key: value for key, value in fields.items() if key not in _modelled and is_given(value)},
        wire=Wire(dialect=DIALECT, fields=fields),
    )


def _read_inputs(given: Any) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    if not given:
        raise InvalidRequest("input: must not be empty", param="input")
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise InvalidRequest(
            "input: must hold only texts, only token ids or only lists of them", param="input"
        )
    if kinds == {int}:
        return (tuple(given),)
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"input: must hold at most {MAX_INPUTS} items", param="input")
    if kinds == {list}:
        if not all(given):
            raise InvalidRequest("input: a list of token ids must not be empty", param="input")
        return tuple(tuple(item) for item in given)
    return tuple(given)


class OpenAIEmbedding:
    """The embedding operation of every provider that speaks this dialect."""

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request; a body that came in this dialect goes out as it came."""
        body: dict[str, Any]
        dropped: tuple[str, ...] = ()
        if request.wire is not None and request.wire.dialect == DIALECT:
            body = dict(request.wire.fields)
            dropped = tuple(name for name in target.deployment.spec.drop if name in body)
            for name in dropped:
                del body[name]
        else:
            body = {"input": list(request.inputs)}
            optional = {"dimensions": request.dimensions, "user": request.user}
            given = {name: value for name, value in optional.items() if value is not None}
            unwanted = target.deployment.spec.drop
            body.update((name, value) for name, value in given.items() if name not in unwanted)
            dropped = (*(name for name in given if name in unwanted), *request.extra)
        body["model"] = target.wire_model
        return Encoded(
            request=HttpRequest(
                method="POST",
                url=self._address(target, "embeddings"),
                headers={"content-type": "application/json"},
                body=msgspec.json.encode(body),
            ),
            dropped=dropped,
        )

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read the vectors, in the order of the inputs."""
        try:
            parsed = _reply_decoder.decode(reply.body)
            fields = _fields_decoder.decode(reply.body)
            if is_given(parsed.error):
                raise error_in_success(parsed.error, target)
            if parsed.data is None or len(parsed.data) != len(request.inputs):
                raise bad_response(target, "does not hold one vector for each input", status=reply.status)
            vectors = _in_order(parsed.data)
            packed = request.encoding == "base64"
            as_asked = all(isinstance(item.embedding, str) == packed for item in parsed.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            raise bad_response(target, "is no list of embeddings", status=reply.status) from None
        return EmbeddingResult(
            vectors=vectors,
            usage=read_usage(parsed.usage),
            model=parsed.model,
            # Vendors that ignore the wanted encoding exist; their answer is then written anew.
            wire=Wire(dialect=DIALECT, fields=fields) if as_asked else None,
        )


def _in_order(items: list[_Item]) -> tuple[tuple[float, ...], ...]:
    ordered = sorted(enumerate(items), key=lambda pair: pair[0] if pair[1].index is None else pair[1].index)
    return tuple(
        _unpack(item.embedding) if isinstance(item.embedding, str) else tuple(item.embedding)
        for _, item in ordered
    )


def _unpack(text: str) -> tuple[float, ...]:
    numbers = array("f", base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def pack(vector: tuple[float, ...]) -> str:
    """Write a vector as base64 of little-endian 32-bit floats."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def encode_embedding_result(
    result: EmbeddingResult, request: EmbeddingRequest, *, model: str, cost: Cost | None
) -> bytes:
    """Write the vectors as the caller asked for them: numbers, or base64 of little-endian 32-bit floats."""
    if result.wire is not None and request.wire is not None and request.wire.dialect == result.wire.dialect:
        fields: dict[str, Any] = dict(result.wire.fields)
        if result.usage is not None:
            fields["usage"] = add_cost(fields["usage"], cost)
        return msgspec.json.encode(fields)
    packed = request.encoding == "base64"
    body: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": pack(vector) if packed else vector}
            for index, vector in enumerate(result.vectors)
        ],
        "model": result.model or model,
    }
    if result.usage is not None:
        counts = write_usage(result.usage, cost)
        body["usage"] = {key: counts[key] for key in ("prompt_tokens", "total_tokens", "cost")}
    return msgspec.json.encode(body)
