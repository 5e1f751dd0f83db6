"""OpenAI's older text completions, `/v1/completions`: a prompt in, text out."""

from msgspec import Struct

from llm_gate.dialects.openai_completions import (
    CompletionChunkEncoder,
    Head,
    decode_completion_request,
    encode_completion,
)
from llm_gate.dialects.openai_responses_shapes import CompletionBodyShape, CompletionReplyShape
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange
from llm_gate.http.openai import TAG, OpenAISurface, send_answer
from llm_gate.http.routes import Route
from llm_gate.http.sse import EventEncoder, send_stream


class CompletionsRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint of the format."""

    gate: Gate
    heartbeat_s: float

    async def completions(self, exchange: Exchange) -> None:
        """Answer a prompt, whole or streamed."""
        request = decode_completion_request(await exchange.body())
        if request.stream:
            await watched(exchange, self._stream(exchange, request))
        else:
            await watched(exchange, self._complete(exchange, request))

    async def _complete(self, exchange: Exchange, request: ChatRequest) -> None:
        answer = await self.gate.chat(request, exchange.context(user=request.user))
        body = encode_completion(answer.result, _head(exchange, answer.target), cost=answer.cost)
        await send_answer(exchange, answer, body)

    async def _stream(self, exchange: Exchange, request: ChatRequest) -> None:
        def encoder(stream: AnswerStream) -> EventEncoder:
            return CompletionChunkEncoder(
                _head(exchange, stream.target), include_usage=request.include_usage, price=stream.price
            )

        opening = self.gate.chat_stream(request, exchange.context(user=request.user))
        await send_stream(exchange, opening, encoder, heartbeat_s=self.heartbeat_s)

    def routes(self) -> list[Route]:
        """Return the row."""
        return [
            Route(
                method="POST",
                path="/v1/completions",
                endpoint=self.completions,
                surface=OpenAISurface(),
                summary="Answer a prompt with plain text, whole or as a stream",
                tag=TAG,
                operation="chat",
                request_type=CompletionBodyShape,
                response_type=CompletionReplyShape,
                error_type=ErrorShape,
                stream="asked",
                example={"model": "default", "prompt": "Hello"},
            )
        ]


def _head(exchange: Exchange, target: Target) -> Head:
    return Head(
        id=f"cmpl-{exchange.request_id}",
        model=target.model.name,
        created_s=int(exchange.received_at.timestamp()),
        synthetic=target.deployment.spec.synthetic,
    )
