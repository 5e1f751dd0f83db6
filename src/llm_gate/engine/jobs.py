"""Hands jobs in, and says how they stand; `job_work` carries them to their end."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Protocol

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.bounds import price_range
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import (
    AlreadyOver,
    GateError,
    InvalidRequest,
    NotFound,
    ProviderError,
    StoreUnavailable,
)
from llm_gate.domain.fine_tuning import FineTuneRequest
from llm_gate.domain.jobs import Job, Jobs, pinned
from llm_gate.domain.media import VideoRequest
from llm_gate.domain.media_prices import fitting_prices
from llm_gate.domain.provider import Exchanges, Facts, Target, Ticket
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted
from llm_gate.engine.attempts import Call
from llm_gate.engine.drafts import likely_draft
from llm_gate.engine.exchanges import Traced, framed
from llm_gate.engine.exchanging import drive, facts
from llm_gate.engine.fleet import Turn
from llm_gate.engine.media import Fitting, MediaDesk, Offered
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


class Preparing(Protocol):
    """Makes requests of one operation ready, and says who may carry them out."""

    async def prepared(self, working: Working, request: Any, context: CallContext) -> Any:
        """Return the request with everything at hand that it needs."""

    async def offered(self, working: Working, request: Any, context: CallContext) -> Offered:
        """Return what may be tried for a prepared request, and what it may cost."""


class JobDesk:
    """Takes jobs in, shows them, calls them off. `take_up` hands a job to whoever works on it in this process.

    `desks` prepare the operations that are no media.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        media: MediaDesk,
        jobs: Jobs,
        *,
        now_ms: Callable[[], int],
        take_up: Callable[[Job], None],
        desks: Mapping[Operation, Preparing] = {},
    ) -> None:
        self.jobs = jobs
        self._pipeline = pipeline
        self._media = media
        self._now_ms = now_ms
        self._take_up = take_up
        self._desks = desks
        self._submitting: set[asyncio.Task[Job]] = set()

    @property
    def owner(self) -> str:
        """This process, as jobs know it."""
        return self._pipeline.admission.owner

    async def submit(
        self,
        working: Working,
        request: VideoRequest | FineTuneRequest,
        context: CallContext,
        *,
        webhook: str | None = None,
    ) -> Job:
        """Hand a job in: the first vendor that takes it has it. It goes on though the caller leaves meanwhile.

        Raises:
            GateError: as every call of the gate; nobody has taken the job then.
        """
        if webhook is not None and not self._media.fetcher.allows(webhook):
            raise InvalidRequest("webhook: not an address that everybody can reach", param="webhook")
        with Traced(context, request.operation, request.model) as traced:
            desk: Preparing = self._desks.get(request.operation, self._media)
            request = await desk.prepared(working, request, traced)
            offered = await desk.offered(working, request, traced)
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

    def _new_job(
        self, request: VideoRequest | FineTuneRequest, context: CallContext, webhook: str | None
    ) -> Job:
        return Job(
            id=self._pipeline.admission.new_id(),
            tenant=context.caller.tenant,
            application=context.caller.application,
            user=context.caller.user,
            request_id=context.request_id,
            operation=request.operation,
            progress=SUBMITTING,
            message="submitting",
            asked=_told(request),
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
        road = self._media.road(working, context, target, turn.span)
        try:
            async with framed(booking, target):
                ticket = await drive(_submitting(request, target, facts()), road)
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

    async def find(self, job_id: str, caller: Caller, *, operation: Operation | None = None) -> Job:
        """Return a caller's job, of any operation where none is given.

        Raises:
            NotFound: there is none of that id that is the caller's.
        """
        job = await self.jobs.find(job_id)
        is_theirs = job is not None and (job.tenant, job.user) == (caller.tenant, caller.user)
        if job is None or not is_theirs or operation not in {None, job.operation}:
            raise NotFound(f"there is no job {job_id!r}", param="id", code="job_not_found")
        return job

    async def listed(self, caller: Caller, *, limit: int, before: str = "") -> tuple[Job, ...]:
        """Return a caller's jobs, the newest first."""
        return await self.jobs.listed(caller.tenant, caller.user, limit=limit, before=before)

    async def cancel(self, job_id: str, caller: Caller) -> Job:
        """Call a job off; it is so when whoever works on it has told the vendor.

        Raises:
            NotFound: there is none of that id that is the caller's.
            AlreadyOver: it has ended already.
        """
        job = await self.find(job_id, caller)
        if job.is_over or not await self.jobs.cancel(job_id):
            raise AlreadyOver(f"job {job_id!r} has ended already", code="job_over")
        return structs.replace(job, is_cancelled=True)


def _accepted(
    job: Job, submitted: Submitted, offered: Offered, attempt: tuple[int, int], context: CallContext
) -> Job:
    """Return the job with what its vendor gave for it, and what it will cost."""
    target, ticket = submitted.target, submitted.ticket
    fitting = offered.fittings[id(target)]
    job = structs.replace(
        job,
        phase="waiting",
        status="queued",
        progress=POLLING,
        message="; ".join(("waiting for the provider", *fitting.notes)),
        provider=target.provider,
        model=target.model.name,
        deployment=target.deployment.key,
        number=attempt[0],
        started_ms=attempt[1],
        ticket=ticket.id,
        ticket_data=dict(ticket.data),
        synthetic=target.deployment.spec.synthetic,
        version=job.version + 1,
    )
    if isinstance(fitting.request, FineTuneRequest):
        return _estimated(job, fitting, target, context)
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
        asked=asked,
        units=priced.units,
        cost_nanos=None if cost is None else cost.nanos,
        prices=() if cost is None else tuple(line.price.id for line in cost.lines),
    )


def _estimated(job: Job, fitting: Fitting, target: Target, context: CallContext) -> Job:
    """Return a job whose vendor counts what it bills: with what it will likely cost, and the price of each unit."""
    on = context.received_at.date()
    prices = target.model.prices
    likely = price_range(prices, likely_draft(fitting.draft), on)
    rates = pinned(fitting_prices(prices, "training_tokens", fitting.draft, on)[:1])
    return structs.replace(
        job,
        cost_nanos=None if likely is None else likely.max_nanos,
        prices=tuple(rate.price for rate in rates),
        rates=rates,
    )


def _submitting(request: VideoRequest | FineTuneRequest, target: Target, told: Facts) -> Exchanges[Ticket]:
    codecs = target.deployment.codecs
    if not isinstance(request, FineTuneRequest):
        return codecs.jobs[request.operation].submit(request, target, told)
    assert codecs.tuning is not None  # noqa: S101 - others are not offered
    return codecs.tuning.submit(request, target, told)


def _told(request: VideoRequest | FineTuneRequest) -> dict[str, str | int | float | bool]:
    """Return what a caller said, as it is shown."""
    if not isinstance(request, FineTuneRequest):
        return {name: value for name in _TOLD if (value := getattr(request, name)) is not None}
    said: dict[str, Any] = {
        "training_file": request.training_file,
        "validation_file": request.validation_file,
        "suffix": request.suffix,
        "seed": request.seed,
        "method": request.method,
        "options": json.dumps(request.options) if request.options else None,
        "metadata": json.dumps(request.metadata) if request.metadata else None,
    }
    return {name: value for name, value in said.items() if value is not None}
