"""The pipeline every call goes through: resolve, attempt, settle; the same for every operation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from time import perf_counter
from typing import Generic, TypeVar

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import GateError, InvalidRequest, LoopDetected, ProviderTimeout
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.pricing import Cost, cost_of, total_cost
from llm_gate.domain.provider import ChatCodec, EmbeddingCodec, Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.usage import Usage, total_usage
from llm_gate.engine.attempts import try_each
from llm_gate.engine.deadline import Deadline
from llm_gate.engine.resolve import Directory
from llm_gate.engine.stream import ChatAnswerStream, Silence
from llm_gate.engine.structured import ask_in_form, is_structured
from llm_gate.engine.working import Working

HOP_HEADER = "x-llm-gate-hop"
"""Carries the gateways a request came through, so that a loop is noticed."""

_FIRST_FAILURE_STATUS = 300
_LOOP_STATUS = 508
_SHOWN_CHARS = 256

T = TypeVar("T")


class Answer(Struct, Generic[T], frozen=True, kw_only=True):
    """A complete answer and how it came about.

    `usage` and `cost` are of all calls it took; `upstream_s` is the time spent waiting for providers.
    `shown_headers` are those of the provider's answer that the caller is to see, under our names.
    """

    result: T
    target: Target
    usage: Usage | None
    cost: Cost | None
    attempts: int
    dropped: tuple[str, ...]
    upstream_s: float
    shown_headers: Mapping[str, str] = {}


class Attempted(Struct, Generic[T], frozen=True, kw_only=True):
    """What one target gave: the result, and the usage of every call it took to get it."""

    result: T
    usages: tuple[Usage | None, ...]
    dropped: tuple[str, ...]
    shown_headers: Mapping[str, str]


class Gate:
    """The use-cases. `instance_id` names this gateway in the hop header; `check` validates structured answers."""

    def __init__(self, *, working: Working, instance_id: str, check: SchemaCheck) -> None:
        self.instance_id = instance_id
        self._working = working
        self._check = check

    @property
    def directory(self) -> Directory:
        """What can be named and reached now."""
        return self._working.directory

    def replace(self, working: Working) -> None:
        """Serve from another state of the configuration; calls under way keep the one they began with."""
        old, self._working = self._working, working
        old.retire()

    async def close(self) -> None:
        """Close every connection to providers."""
        await self._working.close()

    async def chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        """Answer a chat request completely."""
        working = self._working.enter()
        try:
            targets = _resolve(working, request.model, "chat", context)
            _check_size(request, targets)

            async def attempt(target: Target) -> Attempted[ChatResult]:
                return await self._chat_once(working, request, target, context)

            return await _answer(working, targets, attempt, context)
        finally:
            working.leave()

    async def _chat_once(
        self, working: Working, request: ChatRequest, target: Target, context: CallContext
    ) -> Attempted[ChatResult]:
        codec = _chat_codec(target)
        dropped: tuple[str, ...] = ()
        shown: Mapping[str, str] = {}

        async def ask(asked: ChatRequest) -> ChatResult:
            nonlocal dropped, shown
            encoded = codec.encode(asked, target)
            dropped = encoded.dropped
            reply = await self._send(working, encoded, target, context)
            shown = _shown(reply.headers, target)
            return codec.decode(reply, asked, target)

        if not is_structured(request):
            result = await ask(request)
            return Attempted(result=result, usages=(result.usage,), dropped=dropped, shown_headers=shown)
        checked = await ask_in_form(request, target, ask, self._check)
        if not checked.rejected:
            usages: tuple[Usage | None, ...] = (checked.result.usage,)
            return Attempted(result=checked.result, usages=usages, dropped=dropped, shown_headers=shown)
        usages = tuple(each.usage for each in (*checked.rejected, checked.result))
        # What the vendor said of the last try alone no longer tells what was consumed.
        result = structs.replace(checked.result, usage=total_usage(usages), wire=None)
        return Attempted(result=result, usages=usages, dropped=dropped, shown_headers=shown)

    async def embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""
        working = self._working.enter()
        try:
            targets = _resolve(working, request.model, "embedding", context)

            async def attempt(target: Target) -> Attempted[EmbeddingResult]:
                codec = _embedding_codec(target)
                encoded = codec.encode(request, target)
                reply = await self._send(working, encoded, target, context)
                result = codec.decode(reply, request, target)
                return Attempted(
                    result=result,
                    usages=(result.usage,),
                    dropped=encoded.dropped,
                    shown_headers=_shown(reply.headers, target),
                )

            return await _answer(working, targets, attempt, context)
        finally:
            working.leave()

    async def chat_stream(self, request: ChatRequest, context: CallContext) -> ChatAnswerStream:
        """Begin to answer a chat request as a stream; returns when the first events have arrived."""
        working = self._working.enter()
        async with AsyncExitStack() as stack:
            stack.callback(working.leave)
            targets = _resolve(working, request.model, "chat", context)
            _check_size(request, targets)

            async def attempt(target: Target) -> ChatAnswerStream:
                return await self._open_stream(working, request, target, context)

            stream, _, attempts = await try_each(targets, attempt)
            stream.attempts = attempts
            # From here on the stream gives the state back when it is closed.
            stream.on_close(stack.pop_all())
        return stream

    async def _send(
        self, working: Working, encoded: Encoded, target: Target, context: CallContext
    ) -> HttpReply:
        request = _marked(encoded.request, context, self.instance_id)
        reply = await working.transport.send(request, target.deployment)
        if reply.status >= _FIRST_FAILURE_STATUS:
            raise _failure(reply, target)
        return reply

    async def _open_stream(
        self, working: Working, request: ChatRequest, target: Target, context: CallContext
    ) -> ChatAnswerStream:
        codec = _chat_codec(target)
        encoded = codec.encode(request, target)
        deadlines = working.deadlines
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(deadlines.headers_s):
                    sent = _marked(encoded.request, context, self.instance_id)
                    reply = await stack.enter_async_context(working.transport.stream(sent, target.deployment))
                    if reply.status >= _FIRST_FAILURE_STATUS:
                        whole = HttpReply(status=reply.status, headers=reply.headers, body=await reply.read())
                        raise _failure(whole, target)
            except TimeoutError:
                raise _late(target) from None
            silence = Silence(
                first_s=deadlines.headers_s,
                idle_s=deadlines.idle_s,
                total_s=deadlines.stream_total_s,
                provider=target.provider,
            )
            stack.callback(silence.stop)
            stream = ChatAnswerStream(
                target=target,
                dropped=encoded.dropped,
                shown_headers=_shown(reply.headers, target),
                price=lambda usage: _price(target, usage, context.received_at),
                decoder=codec.open_stream(request, target),
                silence=silence,
            )
            await stream.start(reply)
            # From here on the stream owns what was opened.
            stream.on_close(stack.pop_all())
        return stream


async def _answer(
    working: Working,
    targets: tuple[Target, ...],
    attempt: Callable[[Target], Awaitable[Attempted[T]]],
    context: CallContext,
) -> Answer[T]:
    started_s = perf_counter()
    try:
        with Deadline(working.deadlines.total_s):
            attempted, target, attempts = await try_each(targets, attempt)
    except TimeoutError:
        raise _late(targets[-1]) from None
    costs = [_price(target, usage, context.received_at) for usage in attempted.usages]
    return Answer(
        result=attempted.result,
        target=target,
        cost=costs[0] if len(costs) == 1 else total_cost(costs),
        usage=attempted.usages[0] if len(costs) == 1 else total_usage(attempted.usages),
        attempts=attempts + len(costs) - 1,
        dropped=attempted.dropped,
        upstream_s=perf_counter() - started_s,
        shown_headers=attempted.shown_headers,
    )


def _resolve(working: Working, name: str, operation: Operation, context: CallContext) -> tuple[Target, ...]:
    return working.directory.resolve(name, operation, context.received_at.date(), context.headers)


def _failure(reply: HttpReply, target: Target) -> GateError:
    if reply.status == _LOOP_STATUS:
        # Only another gateway says this: the address of the provider leads back to one of them.
        return LoopDetected(f"the address of provider {target.provider!r} leads back to this gateway")
    return target.deployment.codecs.decode_error(reply, target)


def _shown(headers: Mapping[str, str], target: Target) -> Mapping[str, str]:
    """Return what the caller is to see of an answer's headers, under our names."""
    named = target.deployment.spec.reply_headers
    return {
        ours: headers[name][:_SHOWN_CHARS]
        for name, ours in ((vendors.lower(), ours.lower()) for vendors, ours in named.items())
        if name in headers
    }


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
