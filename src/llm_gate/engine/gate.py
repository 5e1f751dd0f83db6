"""The pipeline every call goes through: resolve, estimate, reserve, attempt, settle; the same for every operation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date
from typing import TypeVar

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Ability, Operation, ProviderEntry
from llm_gate.domain.errors import (
    GateFault,
    InvalidRequest,
    ProviderError,
)
from llm_gate.domain.jobs import Job
from llm_gate.domain.media import MediaRequest, MediaResult, SpeechRequest, VideoRequest
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Deployment, HttpReply, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.secret import Secret
from llm_gate.domain.usage import Usage, total_usage
from llm_gate.engine.access import Access
from llm_gate.engine.admission import Admission, Booking
from llm_gate.engine.answer import Admitted, Answer, Asking, Attempted
from llm_gate.engine.attempts import Call
from llm_gate.engine.choice import Explanation, allowed_part
from llm_gate.engine.estimate import (
    Bound,
    Rates,
    Size,
    bound,
    bounded_targets,
    limit_output,
    size_of_chat,
    size_of_embedding,
)
from llm_gate.engine.exchanges import (
    FIRST_FAILURE_STATUS,
    Traced,
    chat_codec,
    embedding_codec,
    failure_of,
    framed,
    late_error,
    marked,
    priced,
    send,
    shown_headers,
)
from llm_gate.engine.fleet import Fleet, Turn
from llm_gate.engine.guards import texts_out
from llm_gate.engine.job_work import JobWork
from llm_gate.engine.jobs import JobDesk
from llm_gate.engine.media import MediaDesk
from llm_gate.engine.pipeline import Pipeline, left_s, payable
from llm_gate.engine.resolve import Directory
from llm_gate.engine.speaking import Speaking, Voice
from llm_gate.engine.stream import ChatAnswerStream, Silence
from llm_gate.engine.structured import StreamedForm, ask_in_form, is_structured
from llm_gate.engine.working import Working

# What targets are compared by where no request is there to be measured.
_USUAL = Size(likely_input=1_000, most_input=1_000, likely_output=1_000, most_output=1_000)

T = TypeVar("T")


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
        media: Callable[[Pipeline], MediaDesk],
        fleet: Fleet | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.access = access
        self.admission = admission
        self.fleet = fleet or Fleet()
        self.pipeline = Pipeline(
            access=access, admission=admission, fleet=self.fleet, instance_id=instance_id
        )
        self.media = media(self.pipeline)
        self._speaking = Speaking(self.media)
        self._jobs: tuple[JobDesk, JobWork] | None = None
        self._own: dict[str, tuple[ProviderEntry, Deployment]] = {}
        self._working = working
        self._check = check

    @property
    def directory(self) -> Directory:
        """What can be named and reached now."""
        return self._working.directory

    @property
    def rates(self) -> Rates:
        """The rates of models that are known now."""
        return self._working.rates

    def directory_of(self, tenant: str) -> Directory:
        """What a tenant can name and reach now."""
        return self._working.directory_of(tenant)

    def use_credentials(self, credentials: Mapping[str, Mapping[str, Secret]]) -> None:
        """Use these credentials of tenants from now on, by tenant and provider."""
        self._working.tenants.use(credentials)

    def start(self) -> None:
        """Begin with what goes on beside the calls; in their event loop."""
        self._working.start()
        self.fleet.start()
        if self._jobs is not None:
            self._jobs[1].start()

    def replace(self, working: Working) -> None:
        """Serve from another state of the configuration; calls under way keep the one they began with."""
        for entry, deployment in self._own.values():
            working.directory = working.directory.with_provider(entry, deployment)
        old, self._working = self._working, working
        working.start()
        old.retire()

    async def close(self) -> None:
        """Close every connection to providers."""
        if self._jobs is not None:
            await self._jobs[0].close()
            await self._jobs[1].close()
        await self.fleet.close()
        await self._working.close()

    async def chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        """Answer a chat request completely."""
        with Traced(context, "chat", request.model) as traced:
            answer = await self._chat(request, traced)
            traced.span.used(answer.target, answer.usage, answer.result.model)
            return answer

    async def _chat(self, request: ChatRequest, context: CallContext) -> Answer[ChatResult]:
        working = self._working.enter()
        try:
            admitted = await self._admit_chat(working, request, context)

            def calls(booking: Booking) -> Call[Attempted[ChatResult]]:
                asking = Asking(working=working, request=admitted.request, booking=booking, context=context)
                return lambda target, turn: self._chat_once(asking, target, turn)

            answer = await self.pipeline.answer(working, admitted, calls, context)
            if working.guards is not None:
                texts, by = texts_out(answer.result), answer.target.provider
                await working.guards.check_output(texts, request.model, "chat", context, by)
            return answer
        finally:
            working.leave()

    async def _admit_chat(
        self, working: Working, request: ChatRequest, context: CallContext
    ) -> Admitted[ChatRequest]:
        if working.guards is not None:
            await working.guards.check_input(request, "chat", context)
            request = structs.replace(request, is_guarded=bool(working.guards.outputs))
        holds, route = await self.pipeline.routed(working, "chat", request, context, request.needs)
        standing = holds.standing
        targets = [each.target for each in route.candidates]
        _check_size(request, targets)
        request = limit_output(request, standing, targets)
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        if is_strict:
            targets = bounded_targets(request, targets)
        bounds = [
            _chat_bound(working, request.at(target.provider), target, on, strict=is_strict)
            for target in targets
        ]
        usable, tried = self.pipeline.choose(route, bounds, standing, context)
        booking = await self.admission.book(context, "chat", holds, usable)
        return Admitted(request=request, bounds=usable, holds=holds, booking=booking, tried=tried)

    async def _chat_once(self, asking: Asking, target: Target, turn: Turn) -> Attempted[ChatResult]:
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
                sent = marked(encoded.request, context, self.instance_id, turn.span)
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

    async def embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        """Turn texts into vectors."""
        with Traced(context, "embedding", request.model) as traced:
            answer = await self._embed(request, traced)
            traced.span.used(answer.target, answer.usage, answer.result.model)
            return answer

    async def _embed(self, request: EmbeddingRequest, context: CallContext) -> Answer[EmbeddingResult]:
        working = self._working.enter()
        try:
            admitted = await self._admit_embedding(working, request, context)

            def calls(booking: Booking) -> Call[Attempted[EmbeddingResult]]:
                async def attempt(target: Target, turn: Turn) -> Attempted[EmbeddingResult]:
                    codec = embedding_codec(target)
                    encoded = codec.encode(request, target)
                    async with framed(booking, target):
                        sent = marked(encoded.request, context, self.instance_id, turn.span)
                        reply = await send(working.transport, sent, target)
                        result = codec.decode(reply, request, target)
                    cost = priced(target, result.usage, context.received_at)
                    booking.answered(result.usage, cost)
                    turn.used(result.usage, result.model)
                    return Attempted(
                        result=result,
                        usages=(result.usage,),
                        costs=(cost,),
                        dropped=encoded.dropped,
                        shown_headers=shown_headers(reply.headers, target),
                        booking=booking,
                    )

                return attempt

            return await self.pipeline.answer(working, admitted, calls, context)
        finally:
            working.leave()

    async def _admit_embedding(
        self, working: Working, request: EmbeddingRequest, context: CallContext
    ) -> Admitted[EmbeddingRequest]:
        if working.guards is not None:
            await working.guards.check_input(request, "embedding", context)
        holds, route = await self.pipeline.routed(working, "embedding", request, context)
        standing = holds.standing
        size = size_of_embedding(request)
        on = context.received_at.date()
        is_strict = standing.is_strict and standing.is_capped
        bounds = [
            bound(
                each.target, size, working.rates.of(each.target.model, on, reads_only=True), strict=is_strict
            )
            for each in route.candidates
        ]
        usable, tried = self.pipeline.choose(route, bounds, standing, context)
        booking = await self.admission.book(context, "embedding", holds, usable)
        return Admitted(request=request, bounds=usable, holds=holds, booking=booking, tried=tried)

    async def make(self, request: MediaRequest, context: CallContext) -> Answer[MediaResult]:
        """Make pictures, edits, a face swap, a voice or a transcript."""
        working = self._working.enter()
        try:
            return await self.media.make(working, request, context)
        finally:
            working.leave()

    async def speak(self, request: SpeechRequest, context: CallContext) -> Voice | None:
        """Begin to read a text out, piece by piece; None where the first choice answers in one piece (`make`)."""
        return await self._speaking.open(self._working, request, context)

    @property
    def working(self) -> Working:
        """The state of the configuration that calls begin with now."""
        return self._working

    def use_jobs(self, desk: JobDesk, work: JobWork) -> None:
        """Take jobs from now on; without this, there is nowhere to keep them."""
        self._jobs = (desk, work)

    @property
    def jobs(self) -> JobDesk:
        """Where jobs are handed in and asked for.

        Raises:
            GateFault: this gateway keeps nothing, and jobs neither.
        """
        if self._jobs is None:
            raise GateFault("this gateway has no store, and takes no jobs")
        return self._jobs[0]

    @property
    def open_jobs(self) -> int:
        """How many jobs this process works on."""
        return 0 if self._jobs is None else self._jobs[1].open_jobs

    def known_job(self, job_id: str) -> Job | None:
        """Return a job as it stands, where this process works on it."""
        return None if self._jobs is None else self._jobs[1].known(job_id)

    async def submit(self, request: VideoRequest, context: CallContext, *, webhook: str | None = None) -> Job:
        """Hand slow work in, and return its job."""
        working = self._working.enter()
        try:
            return await self.jobs.submit(working, request, context, webhook=webhook)
        finally:
            working.leave()

    async def chat_stream(self, request: ChatRequest, context: CallContext) -> ChatAnswerStream:
        """Begin to answer a chat request as a stream; returns when the first events have arrived."""
        working = self._working.enter()
        async with AsyncExitStack() as stack:
            stack.callback(working.leave)
            context = stack.enter_context(Traced(context, "chat", request.model))
            admitted = await self._admit_chat(working, request, context)
            stack.callback(admitted.booking.close)

            def calls(booking: Booking) -> Call[ChatAnswerStream]:
                asking = Asking(working=working, request=admitted.request, booking=booking, context=context)
                return lambda target, turn: self._open_stream(asking, target, turn)

            success = await self.pipeline.run(
                working, admitted, calls, context, discard=ChatAnswerStream.close
            )
            stream = success.value
            if stream.booking is not admitted.booking:
                admitted.booking.lost()
                stack.callback(stream.booking.close)
            stream.attempts = success.attempts
            stream.tried = (*admitted.tried, *success.tried)
            stack.callback(stream.tell, context.span)
            # From here on the stream gives the state back when it is closed.
            stream.on_close(stack.pop_all())
        return stream

    async def explain(
        self,
        name: str,
        operation: Operation,
        context: CallContext,
        *,
        needs: frozenset[Ability] = frozenset(),
        fallbacks: Sequence[str] = (),
    ) -> Explanation:
        """Say which targets a call by a name would try now, in order, and which not; nothing is called or held.

        Raises:
            CallerError: the name leads nowhere, or the caller's plan allows none of it.
            ProviderUnavailable: everything it leads to is known to be away.
        """
        working = self._working
        standing = await self.access.standing(context.caller)
        on = context.received_at.date()
        directory = working.directory_of(context.caller.tenant)
        route = directory.route(name, operation, on, context.headers, needs=needs, fallbacks=fallbacks)
        if standing.allowed_models or standing.excluded:
            route = allowed_part(route, standing, name)
        reads_only = operation == "embedding"
        bounds = [
            bound(
                each.target,
                _USUAL,
                working.rates.of(each.target.model, on, reads_only=reads_only),
                strict=False,
            )
            for each in route.candidates
        ]
        return self.pipeline.chooser.explain(route, payable(bounds, standing), context.sticky, context.caller)

    def add_provider(self, entry: ProviderEntry, deployment: Deployment) -> None:
        """Let calls go to a provider of the program's own; it stays over changes of the configuration."""
        self._own[entry.name] = (entry, deployment)
        self._working.directory = self._working.directory.with_provider(entry, deployment)

    async def _open_stream(self, asking: Asking, target: Target, turn: Turn) -> ChatAnswerStream:
        codec = chat_codec(target)
        working, booking, context = asking.working, asking.booking, asking.context
        request = asking.request.at(target.provider)
        schema = request.answer_schema
        form = None if schema is None else StreamedForm(schema, target, self._check)
        encoded = codec.encode(request, target)
        deadlines = target.deployment.deadlines
        async with framed(booking, target), AsyncExitStack() as stack:
            stack.callback(turn.leave_room)
            try:
                async with asyncio.timeout(deadlines.headers_s):
                    sent = marked(encoded.request, context, self.instance_id, turn.span)
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
                decoder=codec.open_stream(request, target),
                silence=silence,
                form=form,
                booking=booking,
                turn=turn,
                guard=_stream_guard(asking, target),
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
