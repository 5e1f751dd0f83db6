"""The pipeline every call goes through: resolve, estimate, reserve, attempt, settle; the same for every operation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from time import perf_counter
from typing import Any, Generic, TypeVar

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import (
    GateError,
    InvalidRequest,
    LoopDetected,
    NotAllowed,
    ProviderError,
    ProviderTimeout,
)
from llm_gate.domain.plans import Standing
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.pricing import Cost, cost_of, total_cost
from llm_gate.domain.provider import ChatCodec, EmbeddingCodec, Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.secret import Secret
from llm_gate.domain.usage import Usage, total_usage
from llm_gate.engine.access import Access
from llm_gate.engine.admission import Admission, Booking
from llm_gate.engine.attempts import try_each
from llm_gate.engine.deadline import Deadline
from llm_gate.engine.estimate import (
    Bound,
    bound,
    check_bounded,
    limit_output,
    size_of_chat,
    size_of_embedding,
)
from llm_gate.engine.holds import check_model
from llm_gate.engine.resolve import Directory
from llm_gate.engine.stream import ChatAnswerStream, Silence
from llm_gate.engine.structured import StreamedForm, ask_in_form, is_structured
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
    """What one target gave: the result, and the usage and cost of every call it took to get it."""

    result: T
    usages: tuple[Usage | None, ...]
    costs: tuple[Cost | None, ...]
    dropped: tuple[str, ...]
    shown_headers: Mapping[str, str]


class Admitted(Struct, Generic[T], frozen=True, kw_only=True):
    """A request that was let in, with its place in the ledger and the targets that may answer it."""

    request: T
    targets: tuple[Target, ...]
    booking: Booking


class Gate:
    """The use-cases. `instance_id` names this gateway in the hop header; `check` validates structured answers."""

    def __init__(
        self,
        *,
        working: Working,
        instance_id: str,
        check: SchemaCheck,
        access: Access,
        admission: Admission,
    ) -> None:
        self.instance_id = instance_id
        self.access = access
        self.admission = admission
        self._working = working
        self._check = check

    @property
    def directory(self) -> Directory:
        """What can be named and reached now."""
        return self._working.directory

    def directory_of(self, tenant: str) -> Directory:
        """What a tenant can name and reach now."""
        return self._working.directory_of(tenant)

    def use_credentials(self, credentials: Mapping[str, Mapping[str, Secret]]) -> None:
        """Use these credentials of tenants from now on, by tenant and provider."""
        self._working.tenants.use(credentials)

    def start(self) -> None:
        """Begin with what goes on beside the calls; in their event loop."""
        self._working.start()

    def replace(self, working: Working) -> None:
        """Serve from another state of the configuration; calls under way keep the one they began with."""
        old, self._working = self._working, working
        working.start()
        old.retire()

    async def close(self) -> None:
        """Close every connection to providers."""
        await self._working.close()

    async def chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        """Answer a chat request completely."""
        working = self._working.enter()
        try:
            admitted = await self._admit_chat(working, request, context)

            async def attempt(target: Target) -> Attempted[ChatResult]:
                return await self._chat_once(working, admitted, target, context)

            return await _answer(working, admitted, attempt)
        finally:
            working.leave()

    async def _admit_chat(
        self, working: Working, request: ChatRequest, context: CallContext
    ) -> Admitted[ChatRequest]:
        holds = await self.access.holds(context.caller)
        standing = holds.standing
        targets = _resolve(working, request.model, "chat", context, standing)
        _check_size(request, targets)
        request = limit_output(request, standing, targets)
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        bounds: list[Bound] = []
        for target in targets:
            if is_strict:
                check_bounded(request, target)
            bounds.append(_chat_bound(working, request, target, on, strict=is_strict))
        bounds = _priced(bounds, standing)
        booking = await self.admission.book(context, "chat", holds, bounds)
        return Admitted(request=request, targets=tuple(each.target for each in bounds), booking=booking)

    async def _chat_once(
        self, working: Working, admitted: Admitted[ChatRequest], target: Target, context: CallContext
    ) -> Attempted[ChatResult]:
        codec = _chat_codec(target)
        request, booking = admitted.request, admitted.booking
        dropped: tuple[str, ...] = ()
        shown: Mapping[str, str] = {}
        costs: tuple[Cost | None, ...] = ()

        async def ask(asked: ChatRequest) -> ChatResult:
            nonlocal costs, dropped, shown
            encoded = codec.encode(asked, target)
            dropped = encoded.dropped
            on = context.received_at.date()
            # What is asked again is longer than what was let in.
            longer = None
            if asked is not request:
                longer = _chat_bound(working, asked, target, on, strict=booking.is_strict)
            async with _attempt(booking, target, longer):
                reply = await self._send(working, encoded, target, context)
                shown = _shown(reply.headers, target)
                result = codec.decode(reply, asked, target)
            cost = _price(target, result.usage, context.received_at)
            booking.answered(result.usage, cost)
            costs = (*costs, cost)
            return result

        rejected: Sequence[ChatResult] = ()
        if is_structured(request):
            checked = await ask_in_form(request, target, ask, self._check)
            result, rejected = checked.result, checked.rejected
        else:
            result = await ask(request)
        usages: tuple[Usage | None, ...] = tuple(each.usage for each in (*rejected, result))
        if rejected:
            # What the vendor said of the last try alone no longer tells what was consumed.
            result = structs.replace(result, usage=total_usage(usages), wire=None)
        return Attempted(result=result, usages=usages, costs=costs, dropped=dropped, shown_headers=shown)

    async def embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""
        working = self._working.enter()
        try:
            admitted = await self._admit_embedding(working, request, context)
            booking = admitted.booking

            async def attempt(target: Target) -> Attempted[EmbeddingResult]:
                codec = _embedding_codec(target)
                encoded = codec.encode(request, target)
                async with _attempt(booking, target):
                    reply = await self._send(working, encoded, target, context)
                    result = codec.decode(reply, request, target)
                cost = _price(target, result.usage, context.received_at)
                booking.answered(result.usage, cost)
                return Attempted(
                    result=result,
                    usages=(result.usage,),
                    costs=(cost,),
                    dropped=encoded.dropped,
                    shown_headers=_shown(reply.headers, target),
                )

            return await _answer(working, admitted, attempt)
        finally:
            working.leave()

    async def _admit_embedding(
        self, working: Working, request: EmbeddingRequest, context: CallContext
    ) -> Admitted[EmbeddingRequest]:
        holds = await self.access.holds(context.caller)
        standing = holds.standing
        targets = _resolve(working, request.model, "embedding", context, standing)
        size = size_of_embedding(request)
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        bounds = _priced(
            [
                bound(target, size, working.rates.of(target.model, on, reads_only=True), strict=is_strict)
                for target in targets
            ],
            standing,
        )
        booking = await self.admission.book(context, "embedding", holds, bounds)
        return Admitted(request=request, targets=tuple(each.target for each in bounds), booking=booking)

    async def chat_stream(self, request: ChatRequest, context: CallContext) -> ChatAnswerStream:
        """Begin to answer a chat request as a stream; returns when the first events have arrived."""
        working = self._working.enter()
        async with AsyncExitStack() as stack:
            stack.callback(working.leave)
            admitted = await self._admit_chat(working, request, context)
            stack.callback(admitted.booking.close)

            async def attempt(target: Target) -> ChatAnswerStream:
                return await self._open_stream(working, admitted, target, context)

            try:
                stream, _, attempts = await try_each(admitted.targets, attempt)
            except GateError as error:
                await admitted.booking.settle_failed(error)
                raise
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
        self, working: Working, admitted: Admitted[ChatRequest], target: Target, context: CallContext
    ) -> ChatAnswerStream:
        codec = _chat_codec(target)
        request, booking = admitted.request, admitted.booking
        schema = request.answer_schema
        form = None if schema is None else StreamedForm(schema, target, self._check)
        encoded = codec.encode(request, target)
        deadlines = working.deadlines
        async with _attempt(booking, target), AsyncExitStack() as stack:
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
                form=form,
                booking=booking,
            )
            try:
                await stream.start(reply)
            except ProviderError as error:
                if stream.usage is not None:
                    booking.failed(error, stream.usage, stream.cost)
                raise
            # From here on the stream owns what was opened.
            stream.on_close(stack.pop_all())
        return stream


@asynccontextmanager
async def _attempt(booking: Booking, target: Target, longer: Bound | None = None) -> AsyncIterator[None]:
    """Frame one exchange with a target: its intent is on disk before, and how it failed is noted after."""
    await booking.begin(target, longer)
    try:
        yield
    except ProviderError as error:
        booking.failed(error)
        raise


async def _answer(
    working: Working,
    admitted: Admitted[Any],
    attempt: Callable[[Target], Awaitable[Attempted[T]]],
) -> Answer[T]:
    started_s = perf_counter()
    booking = admitted.booking
    try:
        try:
            with Deadline(working.deadlines.total_s):
                attempted, target, attempts = await try_each(admitted.targets, attempt)
        except TimeoutError:
            raise _late(admitted.targets[-1]) from None
        except GateError as error:
            await booking.settle_failed(error)
            raise
        upstream_s = perf_counter() - started_s
        await booking.settle()
    finally:
        booking.close()
    costs = attempted.costs
    return Answer(
        result=attempted.result,
        target=target,
        cost=costs[0] if len(costs) == 1 else total_cost(costs),
        usage=attempted.usages[0] if len(costs) == 1 else total_usage(attempted.usages),
        attempts=attempts + len(costs) - 1,
        dropped=attempted.dropped,
        upstream_s=upstream_s,
        shown_headers=attempted.shown_headers,
    )


def _resolve(
    working: Working, name: str, operation: Operation, context: CallContext, standing: Standing
) -> tuple[Target, ...]:
    """Return the targets of a name that the caller may use."""
    directory = working.directory_of(context.caller.tenant)
    targets = directory.resolve(name, operation, context.received_at.date(), context.headers)
    if not standing.allowed_models and not standing.excluded:
        return targets
    usable = [target for target in targets if target.provider not in standing.excluded] or targets
    allowed: list[Target] = []
    refused: NotAllowed | None = None
    for target in usable:
        try:
            check_model(standing, (target.name, target.model.name, name, *target.model.aliases))
        except NotAllowed as error:
            refused = error
        else:
            allowed.append(target)
    if refused is not None and not allowed:
        raise refused
    return tuple(allowed)


def _chat_bound(working: Working, request: ChatRequest, target: Target, on: date, *, strict: bool) -> Bound:
    rates = working.rates.of(target.model, on, reads_only=False)
    return bound(target, size_of_chat(request, target), rates, strict=strict)


def _priced(bounds: Sequence[Bound], standing: Standing) -> list[Bound]:
    """Leave out targets without a price where money is limited, as long as there is one with a price."""
    if all(quota.limit.meter != "cost" for quota in standing.quotas):
        return list(bounds)
    return [bound for bound in bounds if bound.cost_nanos is not None] or list(bounds)


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
