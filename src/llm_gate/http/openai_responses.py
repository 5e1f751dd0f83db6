"""OpenAI's Responses, `/v1/responses`, without any state: every call brings the whole conversation."""

from time import time

from msgspec import Struct, structs

from llm_gate.dialects.openai_responses import ResponsesRequest, decode_responses_request
from llm_gate.dialects.openai_responses_results import Frame, encode_response
from llm_gate.dialects.openai_responses_shapes import ResponsesBodyShape, ResponsesReplyShape
from llm_gate.dialects.openai_responses_stream import ResponsesStreamEncoder
from llm_gate.dialects.openai_shapes import ErrorShape
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.exchange import Exchange
from llm_gate.http.failures import Failure
from llm_gate.http.openai import TAG, OpenAISurface, asked_repairs, error_kind, send_answer
from llm_gate.http.routes import Route
from llm_gate.http.sse import EventEncoder, send_stream

_TOO_MANY, _FIRST_OF_OURS = 429, 500


class ResponsesRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint of the format."""

    gate: Gate
    heartbeat_s: float

    async def responses(self, exchange: Exchange) -> None:
        """Answer a conversation, whole or streamed."""
        request = decode_responses_request(await exchange.body())
        if repairs := asked_repairs(exchange):
            request = structs.replace(request, chat=structs.replace(request.chat, repairs=repairs))
        if request.chat.stream:
            await watched(exchange, self._stream(exchange, request))
        else:
            await watched(exchange, self._complete(exchange, request))

    async def _complete(self, exchange: Exchange, request: ResponsesRequest) -> None:
        answer = await self.gate.chat(request.chat, exchange.context(user=request.chat.user))
        result, target = answer.result, answer.target
        frame = structs.replace(
            _frame(exchange, request, result.model or target.model.name),
            created_s=result.created_s or int(exchange.received_at.timestamp()),
            synthetic=target.deployment.spec.synthetic,
        )
        body = encode_response(result, frame, completed_s=int(time()), cost=answer.cost)
        await send_answer(exchange, answer, body)

    async def _stream(self, exchange: Exchange, request: ResponsesRequest) -> None:
        encoder = ResponsesStreamEncoder(_frame(exchange, request, request.chat.model), clock=time)

        def fail(failure: Failure) -> bytes:
            return encoder.fail(
                failure.message,
                code=failure.code,
                param=failure.param,
                kind=error_kind(failure),
                response_code=_response_code(failure),
            )

        def begin(stream: AnswerStream) -> EventEncoder:
            target = stream.target
            encoder.answered_by(target.model.name, stream.price, synthetic=target.deployment.spec.synthetic)
            return encoder

        # An error inside the stream needs the answer's id and the number of the next event.
        exchange.write_stream_error = fail
        opening = self.gate.chat_stream(request.chat, exchange.context(user=request.chat.user))
        await send_stream(exchange, opening, begin, heartbeat_s=self.heartbeat_s)

    def routes(self) -> list[Route]:
        """Return the row."""
        return [
            Route(
                method="POST",
                path="/v1/responses",
                endpoint=self.responses,
                surface=OpenAISurface(),
                summary="Answer a conversation of items, whole or as a stream",
                tag=TAG,
                operation="chat",
                request_type=ResponsesBodyShape,
                response_type=ResponsesReplyShape,
                error_type=ErrorShape,
                stream="asked",
                example={"model": "default", "input": "Hello"},
            )
        ]


def _frame(exchange: Exchange, request: ResponsesRequest, model: str) -> Frame:
    return Frame(
        id_stem=exchange.request_id.removeprefix("req_"),
        model=model,
        created_s=int(exchange.received_at.timestamp()),
        echo=request.echo,
    )


def _response_code(failure: Failure) -> str:
    """Return the code for the response object, whose format knows only a few."""
    if failure.status == _TOO_MANY:
        return "rate_limit_exceeded"
    return "server_error" if failure.status >= _FIRST_OF_OURS else "invalid_prompt"
