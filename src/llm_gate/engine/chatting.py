"""Chat, whole and streamed: let in, looked up, asked, checked, settled, kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from datetime import date

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import InvalidRequest, ProviderError
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import HttpReply, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult
from llm_gate.domain.usage import Usage, total_usage
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted, Answer, Asking, Attempted
from llm_gate.engine.attempts import Call
from llm_gate.engine.cached_stream import NO_COST, AnswerStream, ReplayedStream
from llm_gate.engine.caching import Caching, Hit, Lead, Question, Vector
from llm_gate.engine.choice import Route
from llm_gate.engine.estimate import Bound, bound, bounded_targets, limit_output, size_of_chat
from llm_gate.engine.exchanges import (
    FIRST_FAILURE_STATUS,
    Traced,
    chat_codec,
    failure_of,
    framed,
    late_error,
    marked,
    priced,
    send,
    shown_headers,
)
from llm_gate.engine.fleet import Turn
from llm_gate.engine.guards import texts_out
from llm_gate.engine.holds import Holds
from llm_gate.engine.kept_answers import KeptChat, Recording, read_chat, write_chat
from llm_gate.engine.pipeline import Pipeline, left_s
from llm_gate.engine.stream import ChatAnswerStream, Silence
from llm_gate.engine.structured import StreamedForm, ask_in_form, is_structured
from llm_gate.engine.working import Working

VectorOf = Callable[[Working, str, CallContext], Awaitable[Sequence[float] | None]]
"""Turns a text into a vector on a caller's account; None where that fails."""


class Prepared(Struct, frozen=True, kw_only=True):
    """A request that may be made, before anything is held: what binds the caller, and who may answer."""

    request: ChatRequest
    holds: Holds
    route: Route
    targets: tuple[Target, ...]


class Chatting:
    """Answers chat requests. `instance_id` names this gateway in the hop header; `check` validates answers."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        instance_id: str,
        check: SchemaCheck,
        caching: Caching,
        vector_of: VectorOf,
    ) -> None:
        self._pipeline = pipeline
        self._admission = pipeline.admission
        self._instance_id = instance_id
        self._check = check
        self._caching = caching
        self._vector_of = vector_of

    async def answer(
        self, working: Working, request: ChatRequest, context: CallContext
    ) -> Answer[ChatResult]:
        """Answer a request completely."""
        prepared = await self._prepare(working, request, context)
        question = self._question(prepared, context, working.deadlines.total_s)
        if question is None:
            return await self._ask(working, prepared, context)
        turn = await self._caching.turn(question, read_chat, self._vector(working, context))
        if isinstance(turn, Hit):
            return await self._kept(working, prepared, turn, context)
        # Whatever fails up to its end, those who wait for this call must hear of it.
        with turn:
            answer = await self._ask(working, prepared, context)
            cost_nanos = None if answer.cost is None else answer.cost.nanos
            body = None
            if turn.keeps:
                in_form = is_structured(prepared.request)
                body = write_chat(answer.result, answer.target, answer.usage, cost_nanos, in_form=in_form)
            await turn.keep(body, cost_nanos)
        self._caching.meters.cached("chat", turn.word, None)
        return structs.replace(answer, cache=turn.word)

    async def _ask(self, working: Working, prepared: Prepared, context: CallContext) -> Answer[ChatResult]:
        admitted = await self._book(working, prepared, context)

        def calls(booking: Booking) -> Call[Attempted[ChatResult]]:
            asking = Asking(working=working, request=admitted.request, booking=booking, context=context)
            return lambda target, turn: self._once(asking, target, turn)

        answer = await self._pipeline.answer(working, admitted, calls, context)
        await self._check_output(working, answer.result, answer.target, prepared.request, context)
        return answer

    async def _kept(
        self, working: Working, prepared: Prepared, hit: Hit[KeptChat], context: CallContext
    ) -> Answer[ChatResult]:
        """Answer with what was kept."""
        kept, target = await self._take(working, prepared, hit, context)
        return Answer(
            result=kept.result,
            target=target,
            usage=kept.usage,
            cost=NO_COST,
            attempts=0,
            dropped=(),
            upstream_s=0.0,
            cache=hit.word,
            age_s=hit.age_ms // 1000,
        )

    async def _take(
        self, working: Working, prepared: Prepared, hit: Hit[KeptChat], context: CallContext
    ) -> tuple[KeptChat, Target]:
        """Book a kept answer, and show it to the guards, which may be others than when it was kept."""
        kept = hit.kept
        target = giver(kept.provider, kept.wire_model, prepared.targets)
        await self._admission.book_kept(context, "chat", prepared.holds, target, saved_nanos=kept.cost_nanos)
        await self._check_output(working, kept.result, target, prepared.request, context)
        self._caching.meters.cached("chat", hit.word, kept.cost_nanos)
        return kept, target

    async def stream(self, working: Working, request: ChatRequest, context: CallContext) -> AnswerStream:
        """Begin to answer as a stream; returns when the first events have arrived."""
        async with AsyncExitStack() as stack:
            stack.callback(working.leave)
            context = stack.enter_context(Traced(context, "chat", request.model))
            prepared = await self._prepare(working, request, context)
            question = self._question(prepared, context, working.deadlines.stream_total_s)
            lead: Lead | None = None
            if question is not None:
                turn = await self._caching.turn(question, read_chat, self._vector(working, context))
                if isinstance(turn, Hit):
                    kept, target = await self._take(working, prepared, turn, context)
                    replay = ReplayedStream(kept, target, cache=turn.word, age_s=turn.age_ms // 1000)
                    context.span.used(target, kept.usage, kept.model)
                    replay.on_close(stack.pop_all())
                    return replay
                lead = turn
            with lead or nullcontext():
                return await self._open(working, prepared, context, lead, stack)

    async def _open(
        self,
        working: Working,
        prepared: Prepared,
        context: CallContext,
        lead: Lead | None,
        stack: AsyncExitStack,
    ) -> ChatAnswerStream:
        admitted = await self._book(working, prepared, context)
        stack.callback(admitted.booking.close)
        records = lead is not None and lead.keeps

        def calls(booking: Booking) -> Call[ChatAnswerStream]:
            asking = Asking(working=working, request=admitted.request, booking=booking, context=context)
            return lambda target, turn: self._open_once(asking, target, turn, records=records)

        success = await self._pipeline.run(working, admitted, calls, context, discard=ChatAnswerStream.close)
        stream = success.value
        if stream.booking is not admitted.booking:
            admitted.booking.lost()
            stack.callback(stream.booking.close)
        stream.attempts = success.attempts
        stream.tried = (*admitted.tried, *success.tried)
        stack.callback(stream.tell, context.span)
        if lead is not None:
            stream.lead, stream.cache = lead, lead.word
            self._caching.meters.cached("chat", lead.word, None)
        # From here on the stream gives the state back when it is closed.
        stream.on_close(stack.pop_all())
        return stream

    def _question(self, prepared: Prepared, context: CallContext, total_s: float) -> Question | None:
        return self._caching.ask_chat(
            prepared.request,
            prepared.targets,
            prepared.holds.standing,
            context,
            within_s=left_s(context, total_s),
        )

    def _vector(self, working: Working, context: CallContext) -> Vector:
        return lambda text: self._vector_of(working, text, context)

    async def _check_output(
        self,
        working: Working,
        result: ChatResult,
        target: Target,
        request: ChatRequest,
        context: CallContext,
    ) -> None:
        if working.guards is not None:
            texts = texts_out(result)
            await working.guards.check_output(texts, request.model, "chat", context, target.provider)

    async def _prepare(self, working: Working, request: ChatRequest, context: CallContext) -> Prepared:
        """Check a request, and find out who may answer it."""
        if working.guards is not None:
            await working.guards.check_input(request, "chat", context)
            request = structs.replace(request, is_guarded=bool(working.guards.outputs))
        holds, route = await self._pipeline.routed(working, "chat", request, context, request.needs)
        standing = holds.standing
        targets = [each.target for each in route.candidates]
        _check_size(request, targets)
        request = limit_output(request, standing, targets)
        if standing.is_strict and standing.is_capped:
            targets = bounded_targets(request, targets)
        return Prepared(request=request, holds=holds, route=route, targets=tuple(targets))

    async def _book(
        self, working: Working, prepared: Prepared, context: CallContext
    ) -> Admitted[ChatRequest]:
        request, standing = prepared.request, prepared.holds.standing
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        bounds = [
            _chat_bound(working, request.at(target.provider), target, on, strict=is_strict)
            for target in prepared.targets
        ]
        usable, tried = self._pipeline.choose(prepared.route, bounds, standing, context)
        booking = await self._admission.book(context, "chat", prepared.holds, usable)
        return Admitted(request=request, bounds=usable, holds=prepared.holds, booking=booking, tried=tried)

    async def _once(self, asking: Asking, target: Target, turn: Turn) -> Attempted[ChatResult]:
        codec = chat_codec(target)
        working, booking, context = asking.working, asking.booking, asking.context
        request = asking.request.at(target.provider)
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
                await turn.again(longer.tokens)
            async with framed(booking, target, longer):
                sent = marked(encoded.request, context, self._instance_id, turn.span)
                reply = await send(working.transport, sent, target)
                shown = shown_headers(reply.headers, target)
                result = codec.decode(reply, asked, target)
            cost = priced(target, result.usage, context.received_at)
            booking.answered(result.usage, cost)
            turn.used(result.usage, result.model)
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
        return Attempted(
            result=result, usages=usages, costs=costs, dropped=dropped, shown_headers=shown, booking=booking
        )

    async def _open_once(
        self, asking: Asking, target: Target, turn: Turn, *, records: bool
    ) -> ChatAnswerStream:
        codec = chat_codec(target)
        working, booking, context = asking.working, asking.booking, asking.context
        request = asking.request.at(target.provider)
        schema = request.answer_schema
        form = None if schema is None else StreamedForm(schema, target, self._check)
        encoded = codec.encode(request, target)
        # What is to be kept must be understood; what passes as it comes is not.
        read_as = structs.replace(request, wire=None) if records else request
        deadlines = target.deployment.deadlines
        async with framed(booking, target), AsyncExitStack() as stack:
            stack.callback(turn.leave_room)
            try:
                async with asyncio.timeout(deadlines.headers_s):
                    sent = marked(encoded.request, context, self._instance_id, turn.span)
                    reply = await stack.enter_async_context(working.transport.stream(sent, target.deployment))
                    if reply.status >= FIRST_FAILURE_STATUS:
                        whole = HttpReply(status=reply.status, headers=reply.headers, body=await reply.read())
                        raise failure_of(whole, target)
            except TimeoutError:
                raise late_error(target) from None
            silence = Silence(
                first_s=deadlines.first_event_s,
                idle_s=deadlines.idle_s,
                total_s=left_s(context, deadlines.stream_total_s),
                provider=target.provider,
            )
            stack.callback(silence.stop)
            stream = ChatAnswerStream(
                target=target,
                dropped=encoded.dropped,
                shown_headers=shown_headers(reply.headers, target),
                price=lambda usage: priced(target, usage, context.received_at),
                decoder=codec.open_stream(read_as, target),
                silence=silence,
                form=form,
                booking=booking,
                turn=turn,
                guard=_stream_guard(asking, target),
                recording=Recording() if records else None,
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


def giver(provider: str, wire_model: str, targets: Sequence[Target]) -> Target:
    """Return the target that a kept answer came from: it is among those of its key."""
    return next(each for each in targets if (each.provider, each.wire_model) == (provider, wire_model))


def _stream_guard(asking: Asking, target: Target) -> Callable[[Sequence[str]], Awaitable[None]] | None:
    guards = asking.working.guards
    if guards is None or not guards.outputs:
        return None
    name, context = asking.request.model, asking.context
    return lambda texts: guards.check_output(texts, name, "chat", context, target.provider)


def _chat_bound(working: Working, request: ChatRequest, target: Target, on: date, *, strict: bool) -> Bound:
    rates = working.rates.of(target.model, on, reads_only=False)
    return bound(target, size_of_chat(request, target), rates, strict=strict)


def _check_size(request: ChatRequest, targets: Sequence[Target]) -> None:
    wanted = request.max_output_tokens
    for target in targets:
        window = target.model.context_window
        if wanted is not None and window is not None and wanted > window:
            raise InvalidRequest(
                f"max_tokens: {wanted} is more than the context window of {target.name} ({window} tokens)",
                param="max_tokens",
            )
