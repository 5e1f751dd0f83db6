"""Jobs in the native wire format."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from llm_gate.dialects.native_media import MadeMedium, money
from llm_gate.dialects.native_media_wire import MediumReply, MoneyReply
from llm_gate.dialects.native_wire import ModelName, ProviderName, Reply
from llm_gate.domain.jobs import TERMINAL, Job, JobStatus
from llm_gate.domain.windows import instant


class JobError(Reply, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str


class JobReply(Reply, frozen=True, kw_only=True):
    """A job as it stands. `progress` is a percentage; `cost` stands there when it has ended, `data` when it succeeded.

    `parameter` says how it is made: what the caller asked for, and what the model takes where nobody said.
    """

    id: str
    operation: str
    status: JobStatus
    progress: float
    message: str
    provider: ProviderName | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    parameter: dict[str, Any] | UnsetType = UNSET
    created_at: str
    ended_at: str | UnsetType = UNSET
    expected_cost: MoneyReply | UnsetType = UNSET
    cost: MoneyReply | UnsetType = UNSET
    error: JobError | UnsetType = UNSET
    data: list[MediumReply] | UnsetType = UNSET
    tuned_model: str | UnsetType = UNSET
    trained_tokens: int | UnsetType = UNSET
    result_files: list[str] | UnsetType = UNSET
    synthetic: bool | UnsetType = UNSET


class JobList(Reply, frozen=True, kw_only=True):
    """Jobs, the newest first. `next` is what to ask for those before them, left out where there are none."""

    data: list[JobReply]
    next: str | UnsetType = UNSET


_CAMEL = {
    "duration_s": "duration",
    "aspect_ratio": "aspectRatio",
    "negative_prompt": "negativePrompt",
    "generate_audio": "generateAudio",
    "training_file": "trainingFile",
    "validation_file": "validationFile",
}
_JSON_TEXTS = frozenset({"options", "metadata"})


def job_reply(job: Job, made: MadeMedium | None = None) -> JobReply:
    """Return a job as it is shown; `made` is the link to what came of it."""
    is_over = job.status in TERMINAL
    asked = {
        _CAMEL.get(name, name): msgspec.json.decode(str(value)) if name in _JSON_TEXTS else value
        for name, value in job.asked.items()
        if name != "prompt"
    }
    return JobReply(
        id=job.id,
        operation=job.operation,
        status=job.status,
        progress=job.progress,
        message=job.message,
        provider=ProviderName(name=job.provider, model=ModelName(name=job.model)) if job.provider else UNSET,
        prompt=str(job.asked["prompt"]) if "prompt" in job.asked else UNSET,
        parameter=asked or UNSET,
        created_at=instant(job.made_ms).isoformat(timespec="milliseconds"),
        ended_at=UNSET if job.ended_ms is None else instant(job.ended_ms).isoformat(timespec="milliseconds"),
        expected_cost=UNSET if is_over else money(job.cost_nanos),
        cost=money(job.charged_nanos) if is_over else UNSET,
        error=UNSET
        if job.error_code is None
        else JobError(code=job.error_code, message=job.error_message or ""),
        data=_data(job, made),
        tuned_model=job.results.get("model", UNSET) if job.status == "succeeded" else UNSET,
        trained_tokens=job.units.get("training_tokens", UNSET) if is_over else UNSET,
        result_files=msgspec.json.decode(job.results["files"]) if "files" in job.results else UNSET,
        synthetic=job.synthetic or UNSET,
    )


def encode_job(job: Job, made: MadeMedium | None = None) -> bytes:
    """Write a job as it is shown."""
    return msgspec.json.encode(job_reply(job, made))


def _data(job: Job, made: MadeMedium | None) -> list[MediumReply] | UnsetType:
    found = job.made
    if found is None or made is None or job.status != "succeeded":
        return UNSET
    return [
        MediumReply(
            url=made.url,
            expires_at=made.expires_at,
            type=found.type,
            width=found.width or UNSET,
            height=found.height or UNSET,
            duration=found.duration_s or UNSET,
        )
    ]
