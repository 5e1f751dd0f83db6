"""Hands jobs in, and says how they stand; `job_work` carries them to their end."""

import asyncio
import logging
from collections.abc import Callable
from math import ceil
from typing import Any

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import (
    Conflict,
    GateError,
    InvalidRequest,
    NotFound,
    ProviderError,
    StoreUnavailable,
)
from llm_gate.domain.jobs import Job, Jobs
from llm_gate.domain.media import VideoRequest
from llm_gate.domain.provider import Target, Ticket
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted
from llm_gate.engine.attempts import Call
from llm_gate.engine.exchanges import Traced, framed
from llm_gate.engine.exchanging import drive, facts
from llm_gate.engine.fleet import Turn
from llm_gate.engine.media import MediaDesk, Offered
from llm_gate.engine.media_bounds import priced_draft
from llm_gate.engine.pipeline import Pipeline
from llm_gate.engine.working import Working

LEASE_MS = 30_000
"""How long a job is nobody else's without a word from the one who works on it."""

SUBMITTING, POLLING = 10.0, 20.0
"""Progress, in percent, while a job is handed in and when its vendor has taken it."""

_SAVE_AGAIN_S = 1.0
_logger = logging.getLogger("llm_gate.jobs")
_TOLD = (
    "prompt",
    "duration_s",
    "resolution",
    "aspect_ratio",
    "negative_prompt",
    "seed",
    "generate_audio",
    "width",
    "height",
)


class Submitted(Struct, frozen=True, kw_only=True):
    """What a vendor gave for a job, and where."""

    ticket: Ticket
    target: Target


class JobDesk:
    """Takes jobs in, shows them, calls them off. `take_up` hands a job to whoever works on it in this process."""

    def __init__(
        self,
        pipeline: Pipeline,
        media: MediaDesk,
        jobs: Jobs,
        *,
        now_ms: Callable[[], int],
        take_up: Callable[[Job], None],
    ) -> None:
        self.jobs = jobs
        self._pipeline = pipeline
        self._media = media
        self._now_ms = now_ms
        self._take_up = take_up
        self._submitting: set[asyncio.Task[Job]] = set()

    @property
    def owner(self) -> str:
        """This process, as jobs know it."""
        return self._pipeline.admission.owner

    async def submit(
        self, working: Working, request: VideoRequest, context: CallContext, *, webhook: str | None = None
    ) -> Job:
        """Hand a job in: the first vendor that takes it has it. It goes on though the caller leaves meanwhile.

        Raises:
            GateError: as every call of the gate; nobody has taken the job then.
        """
        if webhook is not None and not self._media.fetcher.allows(webhook):
            raise InvalidRequest("webhook: not an address that everybody can reach", param="webhook")
        with Traced(context, request.operation, request.model) as traced:
            request = await self._media.prepared(working, request, traced)
            offered = await self._media.offered(working, request, traced)
            task = asyncio.get_running_loop().create_task(
                self._submit(working, request, traced, offered, webhook)
            )
            self._submitting.add(task)
            task.add_done_callback(self._submitting.discard)
            return await asyncio.shield(task)

    async def close(self) -> None:
        """Let what is being handed in come to its end."""
        if self._submitting:
            await asyncio.wait(self._submitting)

    async def _submit(
        self, working: Working, request: Any, context: CallContext, offered: Offered, webhook: str | None
    ) -> Job:
        working.enter()
        try:
            operation: Operation = request.operation
            usable, tried = self._pipeline.choose(
                offered.route, offered.bounds, offered.holds.standing, context
            )
            job = self._new_job(request, context, webhook)
            await self.jobs.add(job, owner=self.owner, until_ms=self._now_ms() + LEASE_MS)
            try:
                booking = await self._pipeline.admission.book(
                    context, operation, offered.holds, usable, job_id=job.id
                )
                admitted = Admitted(
                    request=request, bounds=usable, holds=offered.holds, booking=booking, tried=tried
                )

                def calls(booking: Booking) -> Call[Submitted]:
                    return lambda target, turn: self._once(working, context, offered, booking, (target, turn))

                success = await self._pipeline.run(working, admitted, calls, context, discard=None)
            except GateError:
                await self._forget(job)
                raise
            job = _accepted(job, success.value, offered, booking.hand_over(), context)
            if await self._keep(job):
                self._take_up(job)
                return job
            # Another process found its lease lapsed and has ended it, at its bound.
            _logger.error("a job was given up before its vendor answered", extra={"job": job.id})
            return await self.find(job.id, context.caller)
        finally:
            working.leave()

    def _new_job(self, request: VideoRequest, context: CallContext, webhook: str | None) -> Job:
        told = {name: value for name in _TOLD if (value := getattr(request, name)) is not None}
        return Job(
            id=self._pipeline.admission.new_id(),
            tenant=context.caller.tenant,
            application=context.caller.application,
            user=context.caller.user,
            request_id=context.request_id,
            operation=request.operation,
            progress=SUBMITTING,
            message="submitting",
            asked=told,
            model=request.model,
            webhook=webhook,
            made_ms=milliseconds(context.received_at),
        )

    async def _once(
        self,
        working: Working,
        context: CallContext,
        offered: Offered,
        booking: Booking,
        place: tuple[Target, Turn],
    ) -> Submitted:
        target, turn = place
        request = offered.fittings[id(target)].request
        codec = target.deployment.codecs.jobs[request.operation]
        road = self._media.road(working, context, target, turn.span)
        try:
            async with framed(booking, target):
                ticket = await drive(codec.submit(request, target, facts()), road)
        except ProviderError as error:
            if not error.may_repeat:
                # Perhaps it was taken: nobody else may be paid for it as well.
                error.moves_on = False
            raise
        finally:
            turn.leave_room()
        return Submitted(ticket=ticket, target=target)

    async def _forget(self, job: Job) -> None:
        try:
            await self.jobs.remove(job.id)
        except StoreUnavailable:
            # Its lease runs out, and whoever finds it ends it.
            return

    async def _keep(self, job: Job) -> bool:
        """Write what must not be lost, however long the store is away; False where somebody else has the job."""
        while True:
            try:
                return await self.jobs.save(job, owner=self.owner, until_ms=self._now_ms() + LEASE_MS)
            except StoreUnavailable:
                await asyncio.sleep(_SAVE_AGAIN_S)

    async def find(self, job_id: str, caller: Caller) -> Job:
        """Return a caller's job.

        Raises:
            NotFound: there is none of that id that is the caller's.
        """
        job = await self.jobs.find(job_id)
        if job is None or (job.tenant, job.user) != (caller.tenant, caller.user):
            raise NotFound(f"there is no job {job_id!r}", param="id", code="job_not_found")
        return job

    async def listed(self, caller: Caller, *, limit: int, before: str = "") -> tuple[Job, ...]:
        """Return a caller's jobs, the newest first."""
        return await self.jobs.listed(caller.tenant, caller.user, limit=limit, before=before)

    async def cancel(self, job_id: str, caller: Caller) -> Job:
        """Call a job off; it is so when whoever works on it has told the vendor.

        Raises:
            NotFound: there is none of that id that is the caller's.
            Conflict: it has ended already.
        """
        job = await self.find(job_id, caller)
        if job.is_over or not await self.jobs.cancel(job_id):
            raise Conflict(f"job {job_id!r} has ended already", code="job_over")
        return structs.replace(job, is_cancelled=True)


def _accepted(
    job: Job, submitted: Submitted, offered: Offered, attempt: tuple[int, int], context: CallContext
) -> Job:
    """Return the job with what its vendor gave for it, and what it will cost."""
    target, ticket = submitted.target, submitted.ticket
    fitting = offered.fittings[id(target)]
    priced = priced_draft(fitting.draft, target, context.received_at.date(), None)
    cost = priced.cost
    duration = fitting.draft.duration_s
    asked = dict(job.asked)
    if duration is not None and duration.is_exact:
        asked["duration_s"] = ceil(duration.most)
    if fitting.request.resolution is not None:
        asked["resolution"] = fitting.request.resolution
    return structs.replace(
        job,
        phase="waiting",
        status="queued",
        progress=POLLING,
        message="; ".join(("waiting for the provider", *fitting.notes)),
        asked=asked,
        provider=target.provider,
        model=target.model.name,
        deployment=target.deployment.key,
        number=attempt[0],
        started_ms=attempt[1],
        ticket=ticket.id,
        ticket_data=dict(ticket.data),
        units=priced.units,
        cost_nanos=None if cost is None else cost.nanos,
        prices=() if cost is None else tuple(line.price.id for line in cost.lines),
        synthetic=target.deployment.spec.synthetic,
        version=job.version + 1,
    )
