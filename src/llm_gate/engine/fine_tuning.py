"""Fine-tuning on its way in, and what callers may ask of it while it runs; the job machinery carries it to its end.

A job is its tenant's: for everybody else it is not there, in the same words as one that never was.
"""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import AlreadyOver, GateFault, InvalidRequest, NotFound
from llm_gate.domain.files import FileShelf
from llm_gate.domain.fine_tuning import (
    FineTuneRequest,
    Steering,
    TrainingFile,
    TuningCheckpoint,
    TuningEvent,
    trained_tokens,
)
from llm_gate.domain.jobs import TERMINAL, Job, Jobs
from llm_gate.domain.operations import Draft
from llm_gate.domain.provider import Exchanges, Target, TuningCodec
from llm_gate.domain.tracing import NO_SPAN
from llm_gate.domain.windows import instant
from llm_gate.engine.estimate import Bound
from llm_gate.engine.exchanging import Road, drive, facts
from llm_gate.engine.job_training import noted, ticket_of, tuning_codec
from llm_gate.engine.media import Fitting, MediaDesk, Offered
from llm_gate.engine.media_bounds import media_bound
from llm_gate.engine.working import Working

T = TypeVar("T")

_PURPOSE = "fine-tune"
_PAGE = 100


class TuningDesk:
    """Prepares trainings for the job desk, and speaks to their vendors on behalf of the tenants they belong to."""

    def __init__(self, media: MediaDesk, files: FileShelf, jobs: Jobs) -> None:
        self._media = media
        self._files = files
        self._jobs = jobs

    async def prepared(
        self, working: Working, request: FineTuneRequest, context: CallContext
    ) -> FineTuneRequest:
        """Return the request with its files at hand.

        Raises:
            NotFound: a file is none of the tenant's.
            InvalidRequest: a file was handed in for something else.
            GuardRefused: a guard refuses what is in one.
        """
        tenant = context.caller.tenant
        training = await self._read(tenant, request.training_file, "training_file")
        validation = None
        if request.validation_file is not None:
            validation = await self._read(tenant, request.validation_file, "validation_file")
        if working.guards is not None:
            for each in filter(None, (training, validation)):
                texts = each.data.decode(errors="replace").splitlines()
                await working.guards.check_texts(texts, request.model, request.operation, context)
        return structs.replace(request, training=training, validation=validation)

    async def _read(self, tenant: str, file_id: str, param: str) -> TrainingFile:
        try:
            file = await self._files.describe(tenant, file_id)
            data = await self._files.read(tenant, file_id)
        except NotFound as error:
            raise NotFound(f"{param}: {error.message}", param=param, code=error.code) from None
        if file.purpose != _PURPOSE:
            raise InvalidRequest(
                f"{param}: the file was handed in for {file.purpose!r}, not for {_PURPOSE!r}", param=param
            )
        return TrainingFile(id=file.id, name=file.name, data=data, examples=_lines(data))

    async def offered(self, working: Working, request: FineTuneRequest, context: CallContext) -> Offered:
        """Return who may carry out a prepared request, and what it may cost.

        Raises:
            CallerError: the name leads nowhere, the plan allows none of it, or nobody there trains models.
            ProviderUnavailable: everything it leads to is known to be away.
        """
        holds, route = await self._media.pipeline.routed(working, request.operation, request, context)
        standing = holds.standing
        is_strict = standing.is_strict and standing.is_capped
        if is_strict and request.method == "reinforcement":
            raise InvalidRequest(
                "method: what this costs cannot be bounded, which the caller's plan requires",
                param="method",
                code="not_bounded",
            )
        on = context.received_at.date()
        fittings: dict[int, Fitting] = {}
        bounds: list[Bound] = []
        refusal: InvalidRequest | None = None
        draft = Draft(operation=request.operation, input_tokens=trained_tokens(request))
        for candidate in route.candidates:
            target = candidate.target
            if target.deployment.spec.fine_tuning is None or target.deployment.codecs.tuning is None:
                refusal = InvalidRequest(f"provider {target.provider!r} offers no fine-tuning", param="model")
                continue
            fittings[id(target)] = Fitting(request=request, notes=(), draft=draft)
            bounds.append(media_bound(draft, target, on, strict=is_strict))
        if refusal is not None and not bounds:
            raise refusal
        return Offered(route=route, holds=holds, fittings=fittings, bounds=bounds)

    async def find(self, tenant: str, job_id: str) -> Job:
        """Return a training of a tenant's.

        Raises:
            NotFound: there is none of that id that is the tenant's.
        """
        job = await self._jobs.find(job_id)
        if job is None or job.tenant != tenant or job.operation != "fine_tune":
            raise no_training()
        return job

    async def listed(
        self, tenant: str, *, limit: int, before: str = "", wanted: Callable[[Job], bool] | None = None
    ) -> Sequence[Job]:
        """Return trainings of a tenant's, the newest first."""
        found: list[Job] = []
        while len(found) < limit:
            page = await self._jobs.listed(tenant, None, limit=_PAGE, before=before)
            found += [job for job in page if job.operation == "fine_tune" and (wanted is None or wanted(job))]
            if len(page) < _PAGE:
                break
            before = page[-1].id
        return found[:limit]

    async def steer(self, working: Working, tenant: str, job_id: str, way: Steering) -> Job:
        """Pause a training, or let it go on, and return how it stands then.

        Raises:
            NotFound: there is none of that id that is the tenant's.
            AlreadyOver: it has ended, or its vendor has not taken it yet.
            ProviderError: the vendor refuses.
        """
        job = await self.find(tenant, job_id)
        if job.status in TERMINAL or not job.ticket:
            standing = "has ended already" if job.status in TERMINAL else "is still being handed in"
            raise AlreadyOver(f"the fine-tuning job {standing}", code="job_over")
        road, codec = self._road(working, job)
        steered = await drive(codec.steer(ticket_of(job), way, road.target, facts()), road)

        def change(standing: Job) -> Job:
            return structs.replace(
                noted(standing, steered.view),
                ticket=steered.ticket.id,
                ticket_data=dict(steered.ticket.data),
            )

        return await self._jobs.amend(job.id, change) or await self.find(tenant, job_id)

    async def events(self, working: Working, tenant: str, job_id: str) -> Sequence[TuningEvent]:
        """Return what has happened in a training, the newest first; raises what `find` and the vendor raise."""
        job = await self.find(tenant, job_id)
        return await self._asked(working, job, lambda codec, target: codec.events(ticket_of(job), target))

    async def checkpoints(self, working: Working, tenant: str, job_id: str) -> Sequence[TuningCheckpoint]:
        """Return the models between of a training, the newest first; raises what `find` and the vendor raise."""
        job = await self.find(tenant, job_id)
        return await self._asked(
            working, job, lambda codec, target: codec.checkpoints(ticket_of(job), target)
        )

    async def _asked(
        self,
        working: Working,
        job: Job,
        asking: Callable[[TuningCodec, Target], Exchanges[Sequence[T]]],
    ) -> Sequence[T]:
        if not job.ticket:
            return ()
        road, codec = self._road(working, job)
        return await drive(asking(codec, road.target), road)

    def _road(self, working: Working, job: Job) -> tuple[Road, TuningCodec]:
        """Return how a job's vendor is reached.

        Raises:
            GateFault: the vendor is not configured any more.
        """
        places = working.directory_of(job.tenant).deployments.get(job.provider, ())
        place = next((each for each in places if each.key == job.deployment), next(iter(places), None))
        if place is None:
            raise GateFault(f"provider {job.provider!r} is not configured any more")
        on = instant(job.made_ms).date()
        model = working.directory.catalogued(job.provider, job.model, job.operation, on)
        target = Target(deployment=place, model=model)
        return self._media.road(working, None, target, NO_SPAN), tuning_codec(target)


def no_training() -> NotFound:
    """Return the error for a training that is not there, or not the caller's."""
    return NotFound("there is no such fine-tuning job", param="id", code="fine_tuning_job_not_found")


def _lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def metadata_of(job: Job) -> dict[str, str]:
    """Return the notes that a caller gave a job."""
    found: dict[str, str] = json.loads(str(job.asked.get("metadata", "{}")))
    return found
