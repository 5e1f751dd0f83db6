"""The pipeline every call goes through: resolve, attempt, settle; the same for every operation."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from time import perf_counter
from typing import Generic, TypeVar

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import GateError, InvalidRequest, LoopDetected, ProviderTimeout
from llm_gate.domain.ports import Transport
from llm_gate.domain.pricing import Cost, cost_of
from llm_gate.domain.provider import ChatCodec, EmbeddingCodec, Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.usage import Usage
from llm_gate.engine.attempts import try_each
from llm_gate.engine.resolve import Directory
from llm_gate.engine.stream import ChatAnswerStream, Silence

HOP_HEADER = "x-llm-gate-hop"
"""Carries the gateways a request came through, so that a loop is noticed."""

_FIRST_FAILURE_STATUS = 300
_LOOP_STATUS = 508

T = TypeVar("T")


class Deadlines(Struct, frozen=True, kw_only=True):
    """How long things may take, in seconds.

    `headers_s` bounds a stream's head, and then its first event; `idle_s` runs between its content events,
    `total_s` over a unary call and `stream_total_s` over a stream.
    """

    headers_s: float = 300.0
    idle_s: float = 300.0
    total_s: float = 600.0
    stream_total_s: float = 14_400.0


class Answer(Struct, Generic[T], frozen=True, kw_only=True):
    """A complete answer and how it came about. `upstream_s` is the time spent waiting for providers."""

    result: T
    target: Target
    cost: Cost | None
    attempts: int
    dropped: tuple[str, ...]
    upstream_s: float


class Gate:
    """The use-cases. `instance_id` names this gateway in the hop header."""

    def __init__(
        self, *, directory: Directory, transport: Transport, deadlines: Deadlines, instance_id: str
    ) -> None:
        self.directory = directory
        self._transport = transport
        self._deadlines = deadlines
        self.instance_id = instance_id

    async def chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        """Answer a chat request completely."""

        async def attempt(target: Target) -> tuple[ChatResult, Encoded]:
            codec = _chat_codec(target)
            encoded = codec.encode(request, target)
            reply = await self._send(encoded, target, context)
            return codec.decode(reply, request, target), encoded

        targets = self._resolve(request.model, "chat", context)
        _check_size(request, targets)
        return await self._answer(targets, attempt, context, lambda result: result.usage)

    async def embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""

        async def attempt(target: Target) -> tuple[EmbeddingResult, Encoded]:
            codec = _embedding_codec(target)
            encoded = codec.encode(request, target)
            reply = await self._send(encoded, target, context)
            return codec.decode(reply, request, target), encoded

        targets = self._resolve(request.model, "embedding", context)
        return await self._answer(targets, attempt, context, lambda result: result.usage)

    async def chat_stream(self, request: ChatRequest, context: CallContext) -> ChatAnswerStream:
        """Begin to answer a chat request as a stream; returns when the first events have arrived."""
        targets = self._resolve(request.model, "chat", context)
        _check_size(request, targets)

        async def attempt(target: Target) -> ChatAnswerStream:
            return await self._open_stream(request, target, context)

        stream, _, attempts = await try_each(targets, attempt)
        stream.attempts = attempts
        return stream

    def _resolve(self, name: str, operation: Operation, context: CallContext) -> tuple[Target, ...]:
        return self.directory.resolve(name, operation, context.received_at.date(), context.headers)

    async def _answer(
        self,
        targets: tuple[Target, ...],
        attempt: Callable[[Target], Awaitable[tuple[T, Encoded]]],
        context: CallContext,
        usage_of: Callable[[T], Usage | None],
    ) -> Answer[T]:
        started_s = perf_counter()
        try:
            async with asyncio.timeout(self._deadlines.total_s):
                (result, encoded), target, attempts = await try_each(targets, attempt)
        except TimeoutError:
            raise _late(targets[-1]) from None
        return Answer(
            result=result,
            target=target,
            cost=_price(target, usage_of(result), context.received_at),
            attempts=attempts,
            dropped=encoded.dropped,
            upstream_s=perf_counter() - started_s,
        )

    async def _send(self, encoded: Encoded, target: Target, context: CallContext) -> HttpReply:
        request = _marked(encoded.request, context, self.instance_id)
        reply = await self._transport.send(request, target.deployment)
        if reply.status >= _FIRST_FAILURE_STATUS:
            raise _failure(reply, target)
        return reply

    async def _open_stream(
        self, request: ChatRequest, target: Target, context: CallContext
    ) -> ChatAnswerStream:
        codec = _chat_codec(target)
        encoded = codec.encode(request, target)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._deadlines.headers_s):
                    sent = _marked(encoded.request, context, self.instance_id)
                    reply = await stack.enter_async_context(self._transport.stream(sent, target.deployment))
                    if reply.status >= _FIRST_FAILURE_STATUS:
                        whole = HttpReply(status=reply.status, headers=reply.headers, body=await reply.read())
                        raise _failure(whole, target)
            except TimeoutError:
                raise _late(target) from None
            silence = Silence(
                first_s=self._deadlines.headers_s,
                idle_s=self._deadlines.idle_s,
                total_s=self._deadlines.stream_total_s,
                provider=target.provider,
            )
            stack.callback(silence.stop)
            stream = ChatAnswerStream(
                target=target,
                dropped=encoded.dropped,
                price=lambda usage: _price(target, usage, context.received_at),
                decoder=codec.open_stream(request, target),
                silence=silence,
            )
            await stream.start(reply)
            # From here on the stream owns what was opened.
            stream.own(stack.pop_all())
        return stream


def _failure(reply: HttpReply, target: Target) -> GateError:
    if reply.status == _LOOP_STATUS:
        # Only another gateway says this: the address of the provider leads back to one of them.
        return LoopDetected(f"the address of provider {target.provider!r} leads back to this gateway")
    return target.deployment.codecs.decode_error(reply, target)


def _price(target: Target, usage: Usage | None, at: datetime) -> Cost | None:
    return cost_of(target.model.prices, usage, at.date())


def _marked(request: HttpRequest, context: CallContext, instance_id: str) -> HttpRequest:
    hops = ",".join((*context.hops, instance_id))
    return structs.replace(request, headers={**request.headers, HOP_HEADER: hops})


def _chat_codec(target: Target) -> ChatCodec:
    codec = target.deployment.codecs.chat
    if codec is None:
        raise InvalidRequest(f"provider {target.provider!r} offers no chat", param="model")
    return codec


def _embedding_codec(target: Target) -> EmbeddingCodec:
    codec = target.deployment.codecs.embedding
    if codec is None:
        raise InvalidRequest(f"provider {target.provider!r} offers no embeddings", param="model")
    return codec


def _check_size(request: ChatRequest, targets: tuple[Target, ...]) -> None:
    wanted = request.max_output_tokens
    for target in targets:
        window = target.model.context_window
        if wanted is not None and window is not None and wanted > window:
            raise InvalidRequest(
                f"max_tokens: {wanted} is more than the context window of {target.name} ({window} tokens)",
                param="max_tokens",
            )


def _late(target: Target) -> ProviderTimeout:
    return ProviderTimeout(f"provider {target.provider!r} did not answer in time", provider=target.provider)
