"""The OpenAI surface, `/v1`: a drop-in for OpenAI's own API."""

from typing import Any

import msgspec
from msgspec import Struct, structs

from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_embeddings import (
    EmbeddingBody,
    decode_embedding_request,
    encode_embedding_result,
)
from llm_gate.dialects.openai_errors import encode_error
from llm_gate.dialects.openai_models import ModelList, ModelObject, list_models, model_object
from llm_gate.dialects.openai_results import encode_result
from llm_gate.dialects.openai_shapes import ChatBodyShape, ChatReplyShape, EmbeddingReplyShape, ErrorShape
from llm_gate.dialects.openai_stream import ChunkEncoder, encode_stream_error
from llm_gate.dialects.usage_info import usage_info
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.money import format_usd
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.answer import Answer
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.gate import Gate
from llm_gate.engine.structured import MAX_REPAIRS
from llm_gate.http.app import watched
from llm_gate.http.exchange import JSON, Exchange, Reply
from llm_gate.http.failures import Failure
from llm_gate.http.routes import Parameter, Route
from llm_gate.http.sse import EventEncoder, answer_headers, send_stream

_SERVER_ERROR, _TOO_MANY = 500, 429
TAG = "OpenAI-compatible"
REPAIR_HEADER = "x-llm-gate-repair"


class OpenAISurface:
    """Writes errors as OpenAI does."""

    id_header: str | None = None
    content_type = JSON

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""
        facts = failure.quota
        return encode_error(
            failure.message,
            kind=error_kind(failure),
            code=failure.code,
            param=failure.param,
            usage_info=None if facts is None else usage_info(facts),
        )

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun."""
        return encode_stream_error(self.error(failure))


def error_kind(failure: Failure) -> str:
    """Return OpenAI's word for the kind of an error."""
    if failure.status >= _SERVER_ERROR:
        return "server_error"
    if failure.quota is not None:
        return "rate_limit_exceeded" if failure.heals_soon else "insufficient_quota"
    if failure.status == _TOO_MANY:
        return "insufficient_quota" if failure.code == "insufficient_quota" else "rate_limit_error"
    return "invalid_request_error"


class OpenAIRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of the surface."""

    gate: Gate
    heartbeat_s: float

    async def chat_completions(self, exchange: Exchange) -> None:
        """Answer a chat request, whole or streamed."""
        request = decode_chat_request(await exchange.body())
        if (repairs := asked_repairs(exchange)) != request.repairs:
            request = structs.replace(request, repairs=repairs)
        if request.stream:
            await watched(exchange, self._stream(exchange, request))
        else:
            await watched(exchange, self._complete(exchange, request))

    async def _complete(self, exchange: Exchange, request: ChatRequest) -> None:
        answer = await self.gate.chat(request, exchange.context(user=request.user))
        body = encode_result(
            answer.result,
            fallback_id=f"chatcmpl-{exchange.request_id}",
            model=answer.target.model.name,
            created_s=int(exchange.received_at.timestamp()),
            cost=answer.cost,
        )
        await send_answer(exchange, answer, body)

    async def _stream(self, exchange: Exchange, request: ChatRequest) -> None:
        def encoder(stream: AnswerStream) -> EventEncoder:
            return ChunkEncoder(
                fallback_id=f"chatcmpl-{exchange.request_id}",
                model=stream.target.model.name,
                created_s=int(exchange.received_at.timestamp()),
                include_usage=request.include_usage,
                price=stream.price,
            )

        opening = self.gate.chat_stream(request, exchange.context(user=request.user))
        await send_stream(exchange, opening, encoder, heartbeat_s=self.heartbeat_s)

    async def embeddings(self, exchange: Exchange) -> None:
        """Turn texts into vectors."""
        request = decode_embedding_request(await exchange.body())

        async def work() -> None:
            answer = await self.gate.embed(request, exchange.context(user=request.user))
            body = encode_embedding_result(
                answer.result, request, model=answer.target.model.name, cost=answer.cost
            )
            await send_answer(exchange, answer, body)

        await watched(exchange, work())

    async def models(self, exchange: Exchange) -> None:
        """List what can be used now."""
        models = list_models(
            self.gate.directory_of(exchange.identity.tenant).offers(), exchange.received_at.date()
        )
        await exchange.reply(Reply(body=msgspec.json.encode(ModelList(data=models))))

    async def model(self, exchange: Exchange) -> None:
        """Describe one model, by any name it can be asked for."""
        name, on = exchange.path_value, exchange.received_at.date()
        model = self.gate.directory_of(exchange.identity.tenant).describe(name, on)
        await exchange.reply(Reply(body=msgspec.json.encode(model_object(name, model, on))))

    def routes(self) -> list[Route]:
        """Return the rows of the surface."""
        surface = OpenAISurface()
        shared: dict[str, Any] = {"surface": surface, "tag": TAG, "error_type": ErrorShape}
        message = {"role": "user", "content": "Hello"}
        return [
            Route(
                method="POST",
                path="/v1/chat/completions",
                endpoint=self.chat_completions,
                summary="Answer a conversation, whole or as a stream",
                operation="chat",
                request_type=ChatBodyShape,
                response_type=ChatReplyShape,
                stream="asked",
                example={"model": "default", "messages": [message]},
                **shared,
            ),
            Route(
                method="POST",
                path="/v1/embeddings",
                endpoint=self.embeddings,
                summary="Turn texts into vectors",
                operation="embedding",
                request_type=EmbeddingBody,
                response_type=EmbeddingReplyShape,
                example={"model": "default", "input": "Hello"},
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/models",
                endpoint=self.models,
                summary="List the models that can be used now",
                response_type=ModelList,
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/models/{id}",
                endpoint=self.model,
                summary="Describe one model",
                response_type=ModelObject,
                parameters=(
                    Parameter(name="id", place="path", description="Any name the model can be asked for"),
                ),
                **shared,
            ),
        ]


async def send_answer(exchange: Exchange, answer: Answer[Any], body: bytes) -> None:
    """Send a complete answer with the headers that say who gave it, how, and what it cost."""
    note_answer(exchange, answer)
    await exchange.reply(Reply(body=body, headers=answer_reply_headers(exchange, answer)))


def note_answer(exchange: Exchange, answer: Answer[Any]) -> None:
    """Keep for the log line what a complete answer came to."""
    exchange.note_result(
        answer.target,
        answer.usage,
        answer.cost,
        attempts=answer.attempts,
        upstream_s=answer.upstream_s,
        cache=answer.cache,
    )


def answer_reply_headers(exchange: Exchange, answer: Answer[Any]) -> dict[str, str]:
    """Return the headers that say who gave a complete answer, how, and what it cost."""
    headers: dict[str, str] = dict(
        answer_headers(
            answer.target,
            attempts=answer.attempts,
            tried=answer.tried,
            dropped=answer.dropped,
            shown=answer.shown_headers,
            cache=answer.cache,
            age_s=answer.age_s,
        )
    )
    if answer.cost is not None:
        headers["x-llm-gate-cost-usd"] = format_usd(answer.cost.nanos)
    headers["server-timing"] = server_timing(exchange.elapsed_s, answer.upstream_s)
    return headers


def asked_repairs(exchange: Exchange) -> int:
    """Read how often the caller wants an answer asked for again that does not fit its schema.

    Raises:
        InvalidRequest: the header is no number from 0 to MAX_REPAIRS.
    """
    text = exchange.headers.get(REPAIR_HEADER)
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or int(text) > MAX_REPAIRS:
        raise InvalidRequest(
            f"{REPAIR_HEADER}: must be a number from 0 to {MAX_REPAIRS}", param=REPAIR_HEADER
        )
    return int(text)


def server_timing(total_s: float, upstream_s: float) -> str:
    """Write the Server-Timing header: milliseconds in all, and of those spent waiting for providers."""
    return f"total;dur={total_s * 1000:.2f}, upstream;dur={upstream_s * 1000:.2f}"
