"""The Anthropic surface, `/v1/messages`: a drop-in for Anthropic's own API, whoever answers."""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from llm_gate.dialects.anthropic_answers import encode_answer
from llm_gate.dialects.anthropic_events import PING, MessageEncoder
from llm_gate.dialects.anthropic_faults import encode_error, encode_stream_error, in_wire_names, in_wire_words
from llm_gate.dialects.anthropic_inbound import decode_count_request, decode_messages_request
from llm_gate.dialects.anthropic_models import ModelEntry, ModelPage, model_entry, model_page, read_query
from llm_gate.dialects.anthropic_shapes import (
    CountBodyShape,
    CountShape,
    MessagesBodyShape,
    MessagesErrorShape,
    MessagesReplyShape,
)
from llm_gate.dialects.openai_models import usable_models
from llm_gate.dialects.usage_info import usage_info
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.counting import Counting
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.counting import COUNT_PARAMETER, asked_source, send_count
from llm_gate.http.exchange import JSON, Exchange, Reply
from llm_gate.http.failures import Failure
from llm_gate.http.openai import asked_repairs, send_answer
from llm_gate.http.routes import Parameter, Route
from llm_gate.http.sse import EventEncoder, send_stream

VERSION_HEADER = "anthropic-version"
"""Sent by callers of this surface only; it decides who answers where two surfaces have the same path."""

_TAG = "Anthropic-compatible"


class AnthropicSurface:
    """Writes errors as Anthropic does."""

    id_header: str | None = "request-id"
    content_type = JSON

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""
        facts = failure.quota
        return encode_error(
            failure.message,
            status=failure.status,
            request_id=failure.request_id,
            usage_info=None if facts is None else usage_info(facts),
        )

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun."""
        return encode_stream_error(self.error(failure))


class AnthropicRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of the surface."""

    gate: Gate
    counting: Counting
    heartbeat_s: float

    async def messages(self, exchange: Exchange) -> None:
        """Answer a chat request, whole or streamed."""
        request = decode_messages_request(await exchange.body(), exchange.headers)
        if (repairs := asked_repairs(exchange)) != request.repairs:
            request = structs.replace(request, repairs=repairs)
        try:
            if request.stream:
                await watched(exchange, self._stream(exchange, request))
            else:
                await watched(exchange, self._complete(exchange, request))
        except InvalidRequest as error:
            raise in_wire_words(error, request) from None

    async def _complete(self, exchange: Exchange, request: ChatRequest) -> None:
        answer = await self.gate.chat(request, exchange.context(user=request.user))
        body = encode_answer(
            answer.result, fallback_id=exchange.request_id, model=answer.target.model.name, cost=answer.cost
        )
        dropped = in_wire_names(answer.dropped, request)
        await send_answer(exchange, structs.replace(answer, dropped=dropped), body)

    async def _stream(self, exchange: Exchange, request: ChatRequest) -> None:
        async def opening() -> AnswerStream:
            stream = await self.gate.chat_stream(request, exchange.context(user=request.user))
            stream.dropped = in_wire_names(stream.dropped, request)
            return stream

        def encoder(stream: AnswerStream) -> EventEncoder:
            return MessageEncoder(
                fallback_id=exchange.request_id, model=stream.target.model.name, price=stream.price
            )

        await send_stream(exchange, opening(), encoder, heartbeat_s=self.heartbeat_s, beat=PING)

    async def count(self, exchange: Exchange) -> None:
        """Say how many tokens a request has; the vendor is asked where the caller wants its own count."""
        request = decode_count_request(await exchange.body(), exchange.headers)
        source = asked_source(exchange)

        async def work() -> None:
            answer = await self.counting.count(request, exchange.context(user=request.user), source)
            body = msgspec.json.encode({"input_tokens": answer.result.input_tokens})
            await send_count(exchange, answer, body)

        try:
            await watched(exchange, work())
        except InvalidRequest as error:
            raise in_wire_words(error, request) from None

    async def models(self, exchange: Exchange) -> None:
        """List what can be asked now, a page at a time."""
        directory = self.gate.directory_of(exchange.identity.tenant)
        query = read_query(dict(parse_qsl(exchange.query.decode("latin-1"))))
        usable = usable_models(directory.offers(), exchange.received_at.date())
        await exchange.reply(Reply(body=model_page(usable, query)))

    async def model(self, exchange: Exchange) -> None:
        """Describe one model, by any name it can be asked for."""
        name = exchange.path_value
        model = self.gate.directory_of(exchange.identity.tenant).describe(name, exchange.received_at.date())
        await exchange.reply(Reply(body=msgspec.json.encode(model_entry(name, model))))

    def routes(self) -> list[Route]:
        """Return the rows of the surface."""
        shared: dict[str, Any] = {
            "surface": AnthropicSurface(),
            "tag": _TAG,
            "error_type": MessagesErrorShape,
        }
        messages = [{"role": "user", "content": "Hello"}]
        # The document has one form for each path; where the paths are OpenAI's too, it shows that one.
        by_version: dict[str, Any] = {**shared, "header": VERSION_HEADER, "documented": False}
        return [
            Route(
                method="POST",
                path="/v1/messages",
                endpoint=self.messages,
                summary="Answer a conversation, whole or as a stream",
                operation="chat",
                request_type=MessagesBodyShape,
                response_type=MessagesReplyShape,
                stream="asked",
                example={"model": "default", "max_tokens": 1024, "messages": messages},
                **shared,
            ),
            Route(
                method="POST",
                path="/v1/messages/count_tokens",
                endpoint=self.count,
                summary="Say how many tokens a conversation has",
                needs="inference",
                parameters=(COUNT_PARAMETER,),
                request_type=CountBodyShape,
                response_type=CountShape,
                example={"model": "default", "messages": messages},
                **shared,
            ),
            Route(
                method="GET",
                path="/v1/models",
                endpoint=self.models,
                summary="List the models that can be used now",
                response_type=ModelPage,
                **by_version,
            ),
            Route(
                method="GET",
                path="/v1/models/{id}",
                endpoint=self.model,
                summary="Describe one model",
                response_type=ModelEntry,
                parameters=(
                    Parameter(name="id", place="path", description="Any name the model can be asked for"),
                ),
                **by_version,
            ),
        ]
