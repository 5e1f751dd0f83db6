"""What is different about jobs that train models: they may last for days, can be steered, and their vendor counts."""

import logging
from collections.abc import Mapping
from typing import Protocol

from msgspec import structs

from llm_gate.domain.errors import GateFault, ProviderError, ProviderModelGone, ProviderRejected
from llm_gate.domain.jobs import Job, cost_at
from llm_gate.domain.ledger import Quality
from llm_gate.domain.provider import JobCodec, JobView, Target, Ticket, Trained, TuningCodec
from llm_gate.engine.exchanging import Road, drive, facts

LONGEST_S = 3_600.0
"""After how long a job that has not ended is given up."""

LONGEST_TRAINING_S = 30 * 24 * 3_600.0
"""After how long a training whose vendor does not answer is given up."""

CANCEL_TOLD = "cancel_told"
"""What a job's results hold once its vendor has been told to stop."""

_RAN = "ran"
_AT_WORK = frozenset({"running", "paused"})
_logger = logging.getLogger("llm_gate.jobs")


class TrainedKeeper(Protocol):
    """Keeps what came of training."""

    async def keep(self, job: Job, trained: Trained) -> Mapping[str, str]:
        """Keep it for the job's tenant, and return what is shown of it; may be done again without harm."""


def codec_of(job: Job, target: Target) -> JobCodec | TuningCodec:
    """Return what asks a job's vendor how it stands.

    Raises:
        GateFault: the vendor does not do such work any more.
    """
    codecs = target.deployment.codecs
    if job.operation == "fine_tune":
        return tuning_codec(target)
    return codecs.jobs[job.operation]


def tuning_codec(target: Target) -> TuningCodec:
    """Return what speaks to a target about training.

    Raises:
        GateFault: the vendor trains no models any more.
    """
    codec = target.deployment.codecs.tuning
    if codec is None:
        raise GateFault(f"provider {target.provider!r} trains no models any more")
    return codec


def longest_s_of(codec: JobCodec | TuningCodec) -> float:
    """Return after how long a job that has not ended is given up."""
    return getattr(codec, "longest_s", LONGEST_S)


def ticket_of(job: Job) -> Ticket:
    """Return what a job's vendor knows it by."""
    return Ticket(id=job.ticket, data=job.ticket_data)


def noted(job: Job, view: JobView) -> Job:
    """Return a job with what its vendor says beside how it stands."""
    if not view.results and not view.units:
        return job
    ran = {_RAN: "yes"} if view.results.get("state") in _AT_WORK else {}
    return structs.replace(
        job, results={**job.results, **view.results, **ran}, units={**job.units, **view.units}
    )


def owed(job: Job, status: str) -> tuple[int | None, Quality]:
    """Return what a job costs that has ended: by what the vendor counted, or else as it was estimated.

    A training that never began costs nothing. Of one that broke off, without a count, nobody knows better.
    """
    if job.operation != "fine_tune":
        return job.cost_nanos, "measured"
    if "training_tokens" in job.units:
        return (cost_at(job.rates, job.units) if job.rates else None), "measured"
    if status != "succeeded" and _RAN not in job.results:
        return 0, "measured"
    return job.cost_nanos, "estimated"


async def stopped(job: Job, road: Road) -> Job:
    """Tell a vendor to stop training; how it ended, and what it bills, is what the vendor says from then on."""
    try:
        steered = await drive(
            tuning_codec(road.target).steer(ticket_of(job), "cancel", road.target, facts()), road
        )
    except (ProviderRejected, ProviderModelGone):
        # It has ended meanwhile; the next look finds out how.
        return structs.replace(job, results={**job.results, CANCEL_TOLD: "refused"})
    job = noted(job, steered.view)
    return structs.replace(
        job,
        ticket=steered.ticket.id,
        ticket_data=dict(steered.ticket.data),
        results={**job.results, CANCEL_TOLD: "yes"},
        message="cancelling",
    )


async def collected(job: Job, road: Road, keeper: TrainedKeeper | None) -> Job:
    """Fetch and keep what came of training."""
    view = JobView(status="succeeded", data=job.view_data)
    fetching = tuning_codec(road.target).collect(ticket_of(job), view, road.target, facts())
    trained = await drive(fetching, road)
    shown: Mapping[str, str] = {} if keeper is None else await keeper.keep(job, trained)
    await tidied(job, road)
    return structs.replace(job, results={**job.results, **shown})


async def tidied(job: Job, road: Road) -> None:
    """Take away at the vendor what a training needed; what it does not let go of stays there."""
    if job.operation != "fine_tune":
        return
    try:
        await drive(tuning_codec(road.target).tidy(ticket_of(job), road.target), road)
    except ProviderError as error:
        _logger.warning("a vendor keeps files of a job", extra={"job": job.id, "error": error.message})
