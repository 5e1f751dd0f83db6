"""The native surface, `/llm-gate/v1`: providers, chat, streamed chat, embeddings."""

from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType, structs

from llm_gate.dialects.native import (
    decode_chat_request,
    decode_chat_stream_request,
    decode_embedding_request,
    encode_chat_result,
    encode_embedding_result,
    encode_error,
    error_code,
)
from llm_gate.dialects.native_catalog import ProvidersReply, encode_providers
from llm_gate.dialects.native_stream import NativeStreamEncoder
from llm_gate.dialects.native_stream import encode_stream_error as encode_in_band
from llm_gate.dialects.native_wire import (
    ChatBody,
    ChatReply,
    EmbeddingsBody,
    EmbeddingsReply,
    ErrorDetail,
    ErrorReply,
    UsageInfoReply,
)
from llm_gate.dialects.usage_info import native_usage_info
from llm_gate.domain.errors import Fault, InvalidRequest
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.engine.gate import Gate
from llm_gate.http.app import watched
from llm_gate.http.exchange import JSON, Exchange, Reply
from llm_gate.http.failures import Failure
from llm_gate.http.openai import send_answer
from llm_gate.http.routes import Parameter, Route
from llm_gate.http.sse import EventEncoder, send_stream

_TAG = "LLM Gate"
NATIVE_REPAIRS = 1
"""How often an answer that does not fit its schema is asked for again here."""
HEADERS = (
    Parameter(
        name="X-Correlation-Id", place="header", format="uuid", description="Your id of the matter; echoed"
    ),
    Parameter(name="X-User-Id", place="header", description="The user on whose behalf the call is made"),
    Parameter(
        name="client_id", place="header", description="Your application; X-Client-Id is accepted as well"
    ),
)


class NativeSurface:
    """Writes errors as `errorDetails`, one entry for each fault."""

    id_header: str | None = None
    content_type = JSON

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""
        return encode_error(_details(failure), _usage_info(failure))

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun."""
        return encode_in_band(_details(failure), _usage_info(failure))


def _usage_info(failure: Failure) -> UsageInfoReply | UnsetType:
    return UNSET if failure.quota is None else native_usage_info(failure.quota)


def _details(failure: Failure) -> list[ErrorDetail]:
    code = error_code(failure.status)
    if not failure.faults:
        return [ErrorDetail(status_code=code, message=failure.message, details=failure.code)]
    return [
        ErrorDetail(status_code=code, message=_sentence(fault), details=fault.path or failure.code)
        for fault in failure.faults
    ]


def _sentence(fault: Fault) -> str:
    return (
        fault.message if not fault.path or fault.path in fault.message else f"{fault.path}: {fault.message}"
    )


def require_headers(exchange: Exchange) -> None:
    """Check the three headers every native call must carry.

    Raises:
        InvalidRequest: with one fault for each that is missing or malformed.
    """
    faults: list[Fault] = []
    correlation_id = exchange.headers.get("x-correlation-id")
    if not correlation_id:
        faults.append(Fault("X-Correlation-Id", "required header is missing"))
    elif not _is_uuid(correlation_id):
        faults.append(Fault("X-Correlation-Id", "must be a UUID"))
    if not exchange.headers.get("x-user-id"):
        faults.append(Fault("X-User-Id", "required header is missing"))
    if not exchange.client_id:
        faults.append(Fault("client_id", "required header is missing (X-Client-Id is accepted as well)"))
    if faults:
        raise InvalidRequest("required headers are missing or malformed", faults=faults)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


class NativeRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints of the surface."""

    gate: Gate
    heartbeat_s: float
    api_path: str

    async def providers(self, exchange: Exchange) -> None:
        """List every provider of the catalog with its models."""
        require_headers(exchange)
        offers = self.gate.directory_of(exchange.identity.tenant).offers()
        await exchange.reply(Reply(body=encode_providers(offers, exchange.received_at.date())))

    async def chat(self, exchange: Exchange) -> None:
        """Answer a conversation."""
        require_headers(exchange)
        request = structs.replace(decode_chat_request(await exchange.body()), repairs=NATIVE_REPAIRS)

        async def work() -> None:
            answer = await self.gate.chat(request, exchange.context())
            body = encode_chat_result(
                answer.result,
                provider=answer.target.provider,
                model=answer.target.model.name,
                cost=answer.cost,
            )
            await send_answer(exchange, answer, body)

        await watched(exchange, work())

    async def chat_stream(self, exchange: Exchange) -> None:
        """Answer a conversation as a stream."""
        require_headers(exchange)
        request = decode_chat_stream_request(await exchange.body())

        def encoder(stream: AnswerStream) -> EventEncoder:
            return NativeStreamEncoder(
                provider=stream.target.provider, model=stream.target.model.name, price=stream.price
            )

        opening = self.gate.chat_stream(request, exchange.context())
        await watched(exchange, send_stream(exchange, opening, encoder, heartbeat_s=self.heartbeat_s))

    async def embeddings(self, exchange: Exchange) -> None:
        """Turn texts into vectors."""
        require_headers(exchange)
        request = decode_embedding_request(await exchange.body())

        async def work() -> None:
            answer = await self.gate.embed(request, exchange.context())
            body = encode_embedding_result(
                answer.result,
                provider=answer.target.provider,
                model=answer.target.model.name,
                cost=answer.cost,
            )
            await send_answer(exchange, answer, body)

        await watched(exchange, work())

    def routes(self) -> list[Route]:
        """Return the rows of the surface."""
        shared: dict[str, Any] = {
            "surface": NativeSurface(),
            "tag": _TAG,
            "error_type": ErrorReply,
            "parameters": HEADERS,
        }
        root = f"{self.api_path}/v1"
        chat_example = {"prompt": {"messages": [{"role": "user", "content": "Hello, how are you?"}]}}
        return [
            Route(
                method="GET",
                path=f"{root}/providers",
                endpoint=self.providers,
                summary="List every provider and model, with prices and whether it can be used now",
                response_type=ProvidersReply,
                **shared,
            ),
            Route(
                method="POST",
                path=f"{root}/chat",
                endpoint=self.chat,
                summary="Answer a conversation",
                operation="chat",
                request_type=ChatBody,
                response_type=ChatReply,
                example=chat_example,
                **shared,
            ),
            Route(
                method="POST",
                path=f"{root}/chat/stream",
                endpoint=self.chat_stream,
                summary="Answer a conversation as server-sent events, usage and cost in the last one",
                operation="chat",
                request_type=ChatBody,
                stream="always",
                example=chat_example,
                **shared,
            ),
            Route(
                method="POST",
                path=f"{root}/embeddings",
                endpoint=self.embeddings,
                summary="Turn texts into vectors",
                operation="embedding",
                request_type=EmbeddingsBody,
                response_type=EmbeddingsReply,
                example={"content": {"texts": ["Hello"]}},
                **shared,
            ),
        ]
