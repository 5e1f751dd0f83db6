"""Carries jobs to their end: looks how they stand, fetches what was made, settles, tells.

Theory of operation: a process works on the jobs it handed in, and on those whose owner's lease has run out. Each change
of phase is written before the next begins, and every step may be done again without harm: looking and fetching cost
nothing, keeping a medium twice leaves one that nobody names, and the ledger settles an id once. Looks are paced over
all jobs, so that many of them never get in the way of calls.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Protocol

from msgspec import structs

from llm_gate.domain.errors import (
    BadProviderResponse,
    GateError,
    GateFault,
    NotFound,
    ProviderError,
    StoreUnavailable,
)
from llm_gate.domain.jobs import Job, JobMade, Jobs
from llm_gate.domain.ledger import AttemptStatus, Ended, Expire, Outcome, Quality, RecordStatus, Settle
from llm_gate.domain.media import Medium
from llm_gate.domain.ports import PictureFacts
from llm_gate.domain.provider import JobView, Target, Ticket
from llm_gate.domain.tracing import NO_SPAN
from llm_gate.domain.windows import instant
from llm_gate.engine.admission import is_unbilled
from llm_gate.engine.exchanging import MOST_FILM_BYTES, Road, drive, facts
from llm_gate.engine.job_training import (
    CANCEL_TOLD,
    LONGEST_S,
    LONGEST_TRAINING_S,
    TrainedKeeper,
    codec_of,
    collected,
    longest_s_of,
    noted,
    owed,
    stopped,
    tidied,
)
from llm_gate.engine.jobs import LEASE_MS, POLLING
from llm_gate.engine.keeping import Keeping
from llm_gate.engine.media import MediaDesk
from llm_gate.engine.working import Working

MOST_LOOKS_A_SECOND = 25
"""How often one process asks vendors how jobs stand."""

AT_ONCE = 16
"""How many jobs one process works on at the same moment."""

_USUAL_SHARE = 0.01
_TICK_S, _CLAIM_EVERY_S, _RENEW_EVERY_S, _WISHES_EVERY_S = 0.2, 2.0, 8.0, 1.0
_CLAIMED = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_SLOWER_AFTER_S = 30.0
_LONGEST_LOOK_S = 15.0
_USUAL_S, _POLLED, _COLLECTING, _DONE = 120.0, 80.0, 90.0, 100.0
_GIVEN_UP_AFTER = 5
_TELL_S = 24 * 3_600.0
_logger = logging.getLogger("llm_gate.jobs")


class Told(Protocol):
    """Tells whoever asked for it that a job has ended."""

    async def __call__(self, job: Job) -> bool:
        """Tell it once, and say whether the word was taken."""


class _Amended(Exception):
    """Somebody else has changed a job that is ours to work on."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class _Mine:
    """A job that this process works on: when it is to be looked at next, and how often that failed in a row."""

    __slots__ = ("due_s", "failures", "is_busy", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.due_s = monotonic()
        self.failures = 0
        self.is_busy = False


class JobWork:
    """Works on the jobs of one process."""

    def __init__(
        self,
        media: MediaDesk,
        jobs: Jobs,
        keeping: Keeping,
        *,
        working: Callable[[], Working],
        now_ms: Callable[[], int],
        tell: Told,
        trained: TrainedKeeper | None = None,
    ) -> None:
        self._media = media
        self._jobs = jobs
        self._keeping = keeping
        self._working = working
        self._now_ms = now_ms
        self._tell = tell
        self._trained = trained
        self._admission = media.pipeline.admission
        self._mine: dict[str, _Mine] = {}
        self._steps: set[asyncio.Task[None]] = set()
        self._tellings: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._looks = 0.0
        self._at_s = {"claim": 0.0, "renew": 0.0, "wishes": 0.0}

    @property
    def open_jobs(self) -> int:
        """How many jobs this process works on."""
        return len(self._mine)

    def start(self) -> None:
        """Begin to work."""
        self._loop = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop working; what is open is taken up again by whoever comes next."""
        tasks = [*self._steps, *self._tellings, *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._mine:
            with suppress(StoreUnavailable):
                await self._jobs.leave(self._admission.owner)

    def take_up(self, job: Job) -> None:
        """Work on a job from now on."""
        self._mine.setdefault(job.id, _Mine(job))

    def known(self, job_id: str) -> Job | None:
        """Return a job as it stands, where this process works on it."""
        mine = self._mine.get(job_id)
        return None if mine is None else mine.job

    async def _work(self) -> None:
        while True:
            try:
                await self._do_chores()
            except StoreUnavailable as error:
                _logger.warning("jobs cannot be looked for", extra={"error": error.message})
                await asyncio.sleep(_CLAIM_EVERY_S)
            self._begin_steps()
            await asyncio.sleep(_TICK_S)

    async def _do_chores(self) -> None:
        owner, now_ms = self._admission.owner, self._now_ms()
        if self._is_due("claim", _CLAIM_EVERY_S):
            claimed = await self._jobs.claim(owner, now_ms=now_ms, until_ms=now_ms + LEASE_MS, limit=_CLAIMED)
            for job in claimed:
                self.take_up(job)
        # Also for those that are being handed in, which are not worked on yet.
        if self._is_due("renew", _RENEW_EVERY_S):
            await self._jobs.renew(owner, until_ms=now_ms + LEASE_MS)
        if self._mine and self._is_due("wishes", _WISHES_EVERY_S):
            for job_id in await self._jobs.wishes(owner):
                mine = self._mine.get(job_id)
                if mine is not None and not mine.job.is_cancelled:
                    mine.job = structs.replace(mine.job, is_cancelled=True)
                    mine.due_s = monotonic()
            await self._follow_amended(owner)

    async def _follow_amended(self, owner: str) -> None:
        """Take over what callers have changed at the vendor, such as a training that pauses."""
        watched = [each for each in self._mine.values() if each.job.operation == "fine_tune"]
        if not watched:
            return
        versions = await self._jobs.versions(each.job.id for each in watched)
        for mine in watched:
            if versions.get(mine.job.id, 0) > mine.job.version and not mine.is_busy:
                held = await self._jobs.held(mine.job.id, owner=owner)
                if held is not None and not mine.is_busy:
                    mine.job, mine.due_s = held, monotonic()

    def _is_due(self, chore: str, every_s: float) -> bool:
        now_s = monotonic()
        if now_s - self._at_s[chore] < every_s:
            return False
        self._at_s[chore] = now_s
        return True

    def _begin_steps(self) -> None:
        self._looks = min(self._looks + MOST_LOOKS_A_SECOND * _TICK_S, MOST_LOOKS_A_SECOND)
        now_s = monotonic()
        due = sorted(
            (each for each in self._mine.values() if each.due_s <= now_s and not each.is_busy), key=_due
        )
        for mine in due:
            # Addresses that take no word must not be in the way of the work.
            is_told = mine.job.phase == "telling"
            steps = self._tellings if is_told else self._steps
            if len(steps) >= AT_ONCE or (not is_told and self._looks < 1):
                continue
            self._looks -= 0 if is_told else 1
            mine.is_busy = True
            step = asyncio.get_running_loop().create_task(self._step(mine))
            steps.add(step)
            step.add_done_callback(steps.discard)

    async def _step(self, mine: _Mine) -> None:
        """Do what is to be done next for a job, until there is something to wait for."""
        working = self._working().enter()
        try:
            job = await self._advance(mine, working)
            if mine.job.phase != "telling":
                mine.failures = 0
            if job is None or job.is_over:
                del self._mine[mine.job.id]
        except _Amended as amended:
            mine.job, mine.due_s = amended.job, monotonic()
        except ProviderError as error:
            await self._note_failure(mine, error)
        except (StoreUnavailable, OSError) as error:
            self._again_later(mine, error)
        except Exception as error:
            # Its vendor is not configured any more, for instance: that may be mended, but not for ever.
            text = (
                error.message
                if isinstance(error, GateError)
                else f"a fault of the gateway: {type(error).__name__}"
            )
            if not isinstance(error, GateError):
                _logger.exception("a job's step broke down", extra={"job": mine.job.id})
            lost = BadProviderResponse(text, provider=mine.job.provider, model=mine.job.model)
            await self._note_failure(mine, lost)
        finally:
            mine.is_busy = False
            working.leave()

    async def _advance(self, mine: _Mine, working: Working) -> Job | None:
        """Go on with a job as far as it goes now; None where somebody else works on it."""
        while not mine.job.is_over:
            before = mine.job.phase
            job = await self._do_next(mine, working)
            if job is None:
                return None
            mine.job = job
            if job.phase in {before, "telling"}:
                break
        return mine.job

    async def _do_next(self, mine: _Mine, working: Working) -> Job | None:
        """Do what the phase of a job asks for; one that has the same phase then must wait."""
        job = mine.job
        match job.phase:
            case "submitting":
                return await self._abandon(job)
            case "waiting":
                return await self._look(mine, job, working)
            case "collecting":
                return await self._collect(job, working)
            case "settling":
                return await self._settle(job)
            case _:
                return await self._inform(mine, job)

    async def _save(self, job: Job, **changed: object) -> Job | None:
        """Write a job with its changes; None where somebody else has taken it over."""
        owner = self._admission.owner
        job = structs.replace(job, version=job.version + 1, **changed)
        if await self._jobs.save(job, owner=owner, until_ms=self._now_ms() + LEASE_MS):
            return job
        held = await self._jobs.held(job.id, owner=owner)
        if held is not None:
            # What was done just now is done again with what stands there, which harms nothing.
            raise _Amended(held)
        return None

    async def _abandon(self, job: Job) -> Job | None:
        """End a job whose process died while it was handed in: nobody knows whether the vendor has it."""
        ended = await self._admission.ledger.submit(Expire(id=job.id, at_ms=self._now_ms()))
        charged = ended.record.cost_nanos if isinstance(ended, Ended) and ended.record is not None else None
        return await self._save(
            job,
            status="failed",
            phase="telling",
            message="failed",
            error_code="submission_unclear",
            error_message="the gateway stopped while the job was handed in; it is not handed in a second time",
            charged_nanos=charged if charged is not None else 0,
            ended_ms=self._now_ms(),
        )

    def _road(self, job: Job, working: Working) -> Road:
        """Return what exchanges with a job's vendor are made over.

        Raises:
            GateFault: the vendor is not configured any more.
        """
        places = working.directory_of(job.tenant).deployments.get(job.provider, ())
        place = next((each for each in places if each.key == job.deployment), next(iter(places), None))
        if place is None or not place.codecs.does(job.operation):
            raise GateFault(f"provider {job.provider!r} is not configured any more")
        model = working.directory.catalogued(
            job.provider, job.model, job.operation, instant(job.made_ms).date()
        )
        target = Target(deployment=place, model=model)
        road = self._media.road(working, None, target, NO_SPAN)
        return structs.replace(road, most_bytes=MOST_FILM_BYTES)

    async def _look(self, mine: _Mine, job: Job, working: Working) -> Job | None:
        try:
            road = self._road(job, working)
        except NotFound as error:
            raise GateFault(error.message) from error
        codec = codec_of(job, road.target)
        ticket = Ticket(id=job.ticket, data=job.ticket_data)
        if job.is_cancelled and CANCEL_TOLD not in job.results:
            mine.due_s = monotonic() + _FIRST_PAUSE_S
            return await self._cancel(job, road)
        view = await drive(codec.look(ticket, road.target, facts()), road)
        job = noted(job, view)
        age_s = (self._now_ms() - job.started_ms) / 1000
        pause_s = codec.look_every_s * (1 + age_s / _SLOWER_AFTER_S)
        mine.due_s = monotonic() + min(pause_s, max(_LONGEST_LOOK_S, codec.look_every_s))
        match view.status:
            case "succeeded":
                return await self._save(
                    job, status="running", phase="collecting", progress=_COLLECTING, message="downloading",
                    view_data=dict(view.data),
                )  # fmt: skip
            case "failed" | "cancelled":
                await tidied(job, road)
                return await self._fail(job, _why(view, road.target), is_cancelled=view.status == "cancelled")
            case _:
                return await self._go_on(mine.job, job, view, age_s, longest_s_of(codec))

    async def _go_on(
        self, before: Job, job: Job, view: JobView, age_s: float, longest_s: float
    ) -> Job | None:
        if age_s > longest_s:
            error = BadProviderResponse(
                f"the job did not end within {longest_s:.0f} s", provider=job.provider, model=job.model
            )
            return await self._fail(job, error, code="job_timed_out")
        usual_s = max(_USUAL_S, longest_s * _USUAL_SHARE)
        share = view.progress / 100 if view.progress is not None else age_s / usual_s
        progress = round(max(job.progress, min(_POLLED, POLLING + share * (_POLLED - POLLING))), 1)
        status = view.status
        changed = structs.replace(job, progress=progress, status=status, message="the provider is working")
        is_shown = (job.results, job.units) == (before.results, before.units)
        if is_shown and status == job.status and int(progress) == int(job.progress):
            return changed
        return await self._save(changed)

    async def _cancel(self, job: Job, road: Road) -> Job | None:
        """Call a job off at its vendor; what a vendor that takes no notice makes is paid for all the same."""
        if job.operation == "fine_tune":
            return await self._save(await stopped(job, road))
        codec = road.target.deployment.codecs.jobs[job.operation]
        calling_off = codec.cancel(Ticket(id=job.ticket, data=job.ticket_data), road.target, facts())
        is_off = calling_off is not None and await drive(calling_off, road)
        message = (
            "cancelled" if is_off else "cancelled here; the provider offers no way to stop it and bills it"
        )
        return await self._finish(
            job, status="cancelled", attempt="cut", charged=0 if is_off else job.cost_nanos, message=message
        )

    async def _collect(self, job: Job, working: Working) -> Job | None:
        road = self._road(job, working)
        if job.operation == "fine_tune":
            job = await collected(job, road, self._trained)
            return await self._save(job, phase="settling", progress=_COLLECTING, message="settling")
        codec = road.target.deployment.codecs.jobs[job.operation]
        view = JobView(status="succeeded", data=job.view_data)
        ticket = Ticket(id=job.ticket, data=job.ticket_data)
        medium = await drive(codec.collect(ticket, view, road.target, facts()), road)
        found = await self._media.measures.picture(medium.data) if medium.type.startswith("image/") else None
        blob = await self._keeping.keep(job.tenant, medium)
        made = _made(blob.id, medium, found)
        return await self._save(job, phase="settling", made=made, progress=_COLLECTING, message="settling")

    async def _settle(self, job: Job) -> Job | None:
        charged, quality = owed(job, "succeeded")
        message = job.results.get("note", "done")
        return await self._finish(
            job, status="succeeded", attempt="ok", charged=charged, quality=quality, message=message,
            units=job.units,
        )  # fmt: skip

    async def _fail(
        self, job: Job, error: ProviderError, *, code: str | None = None, is_cancelled: bool = False
    ) -> Job | None:
        if job.operation == "fine_tune":
            charged, quality = owed(job, "cancelled" if is_cancelled else "failed")
        else:
            charged = 0 if is_unbilled(error) else job.cost_nanos
            quality = "measured" if charged == 0 else "estimated"
        if is_cancelled and job.is_cancelled:
            return await self._finish(
                job, status="cancelled", attempt="cut", charged=charged, quality=quality, message="cancelled",
                units=job.units,
            )  # fmt: skip
        job = structs.replace(job, error_code=code or error.code, error_message=error.message)
        return await self._finish(
            job,
            status="cancelled" if is_cancelled else "failed",
            attempt="failed",
            charged=charged,
            quality=quality,
            message="failed",
            units=job.units if job.rates else None,
        )

    async def _finish(
        self,
        job: Job,
        *,
        status: str,
        attempt: AttemptStatus,
        charged: int | None,
        message: str,
        quality: Quality | None = None,
        units: Mapping[str, int] | None = None,
    ) -> Job | None:
        """Settle a job, once, and write how it ended."""
        now_ms = self._now_ms()
        if quality is None:
            quality = "measured" if attempt == "ok" or charged == 0 else "estimated"
        record: RecordStatus = "ok" if attempt == "ok" else "cut" if attempt == "cut" else "failed"
        outcome = Outcome(
            number=job.number,
            provider=job.provider,
            model=job.model,
            started_ms=job.started_ms,
            ended_ms=now_ms,
            status=attempt,
            quality=quality,
            units=units or {},
            cost_nanos=charged,
            prices=job.prices if charged else (),
            error_code=job.error_code,
            synthetic=job.synthetic,
        )
        step = Settle(id=job.id, outcome=outcome, status=record, ended_ms=now_ms, error_code=job.error_code)
        await self._admission.ledger.submit(step)
        return await self._save(
            job,
            status=status,
            phase="telling",
            progress=_DONE if status == "succeeded" else job.progress,
            message=message,
            charged_nanos=charged,
            ended_ms=now_ms,
        )

    async def _inform(self, mine: _Mine, job: Job) -> Job | None:
        """Tell whoever asked for it that a job has ended; after a day it is enough."""
        waited_s = (self._now_ms() - (job.ended_ms or 0)) / 1000
        if job.webhook is None or waited_s > _TELL_S or await self._tell(job):
            return await self._save(job, phase="over")
        mine.failures += 1
        mine.due_s = monotonic() + min(_FIRST_PAUSE_S * 2**mine.failures, 3_600.0)
        return job

    async def _note_failure(self, mine: _Mine, error: ProviderError) -> None:
        """Try again later what a vendor failed to answer; what it refuses, or fails for too long, ends the job."""
        job = mine.job
        age_s = (self._now_ms() - job.started_ms) / 1000
        refuses = not error.moves_on or error.code == "provider_model_not_found"
        longest_s = LONGEST_TRAINING_S if job.operation == "fine_tune" else LONGEST_S
        if (refuses and mine.failures >= _GIVEN_UP_AFTER) or age_s > longest_s:
            try:
                # It was taken once: what became of it is not known, so that it counts as billed.
                error.is_unbilled, error.status, error.was_sent = False, None, True
                ended = await self._fail(job, error, code="result_lost")
            except GateError as fault:
                self._again_later(mine, fault)
            else:
                if ended is not None:
                    mine.job = ended
                else:
                    del self._mine[job.id]
            return
        self._again_later(mine, error)

    def _again_later(self, mine: _Mine, error: Exception) -> None:
        mine.failures += 1
        mine.due_s = monotonic() + min(_FIRST_PAUSE_S * 2 ** min(mine.failures, 10), _LONGEST_PAUSE_S)
        _logger.warning("a job's step failed", extra={"job": mine.job.id, "error": str(error)})


def _due(mine: _Mine) -> float:
    return mine.due_s


def _why(view: JobView, target: Target) -> ProviderError:
    if view.error is not None:
        return view.error
    error = BadProviderResponse(
        f"provider {target.provider!r} says that the job failed",
        provider=target.provider,
        model=target.wire_model,
    )
    error.is_unbilled = True
    return error


def _made(blob: str, medium: Medium, found: PictureFacts | None) -> JobMade:
    return JobMade(
        blob=blob,
        type=medium.type if found is None else found.type,
        size=len(medium.data),
        width=None if found is None else found.width,
        height=None if found is None else found.height,
        duration_s=None if found is None else found.duration_s,
    )
