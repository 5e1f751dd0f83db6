"""Fine-tuning in the OpenAI wire format, inbound: jobs as they are asked for and shown, events, checkpoints."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from llm_gate.dialects._json import read_as, read_object
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.fine_tuning import FineTuneRequest, Method, TuningCheckpoint, TuningEvent, TuningState
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.domain.money import format_usd

PREFIX = "ftjob-"
MOST_METADATA, MOST_KEY_CHARS, MOST_VALUE_CHARS = 16, 64, 512

Word = Annotated[str, Meta(min_length=1, max_length=256)]
Epochs = Annotated[int, Meta(ge=1, le=50)] | Literal["auto"]
_SECOND_MS = 1000
_AUTO: Mapping[str, Any] = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


class MethodBody(Struct, frozen=True, kw_only=True):
    """How a model is trained; below the name of the method stands what it needs."""

    type: Method
    supervised: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class FineTuningBody(Struct, frozen=True, kw_only=True):
    """The body of a request for a tuned model."""

    model: Word
    training_file: Word
    validation_file: Word | None = None
    suffix: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    method: MethodBody | None = None
    hyperparameters: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    integrations: list[Any] | None = None
    user: str | None = None


class TuningError(Struct, frozen=True, kw_only=True):
    """Why there is no model."""

    code: str
    message: str
    param: str | None = None


class FineTuningJob(Struct, frozen=True, kw_only=True):
    """How a training stands; times in seconds since 1970. The last four are this gateway's own."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    id: str
    model: str
    created_at: int
    finished_at: int | None
    fine_tuned_model: str | None
    organization_id: str
    result_files: list[str]
    status: TuningState
    validation_file: str | None
    training_file: str
    hyperparameters: dict[str, Any]
    trained_tokens: int | None
    error: TuningError | None
    seed: int
    estimated_finish: int | None
    integrations: list[Any]
    method: dict[str, Any] | None
    metadata: dict[str, str] | None
    provider: str | None
    note: str | None
    expected_cost_usd: str | None
    cost_usd: str | None


class FineTuningJobs(Struct, frozen=True, kw_only=True):
    """A page of trainings, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class EventShape(Struct, frozen=True, kw_only=True):
    """Something that happened in a training."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: Any


class Events(Struct, frozen=True, kw_only=True):
    """A page of what happened, the newest first."""

    object: Literal["list"] = "list"
    data: list[EventShape]
    has_more: bool


class CheckpointShape(Struct, frozen=True, kw_only=True):
    """A model as it was at one step."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    id: str
    created_at: int
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, Any]
    fine_tuning_job_id: str


class Checkpoints(Struct, frozen=True, kw_only=True):
    """A page of models between, the newest first."""

    object: Literal["list"] = "list"
    data: list[CheckpointShape]
    first_id: str | None
    last_id: str | None
    has_more: bool


_decoder = msgspec.json.Decoder(FineTuningBody)
_epochs_decoder = msgspec.json.Decoder(Epochs)
_known = frozenset(field.encode_name for field in msgspec.structs.fields(FineTuningBody))


def decode_fine_tuning(body: bytes) -> FineTuneRequest:
    """Read a request for a tuned model.

    Raises:
        InvalidRequest: it is malformed, or asks for what cannot be done here.
    """
    fields = read_object(body)
    for name in fields:
        if name not in _known:
            raise InvalidRequest(f"{name}: unknown field", param=name)
    parsed = read_as(_decoder, body)
    if parsed.integrations:
        raise InvalidRequest(
            "integrations: not offered here: they belong to the account at the vendor", param="integrations"
        )
    method, options = _method(parsed)
    check_options(options, f"method.{method}" if parsed.method is not None else "")
    metadata = parsed.metadata or {}
    check_metadata(metadata)
    return FineTuneRequest(
        model=parsed.model,
        training_file=parsed.training_file,
        validation_file=parsed.validation_file,
        suffix=parsed.suffix,
        seed=parsed.seed,
        method=method,
        options=options,
        metadata=metadata,
        user=parsed.user,
    )


def _method(parsed: FineTuningBody) -> tuple[Method, dict[str, Any]]:
    if parsed.method is None:
        return "supervised", {} if not parsed.hyperparameters else {"hyperparameters": parsed.hyperparameters}
    method = parsed.method
    for name in ("supervised", "dpo", "reinforcement"):
        if name != method.type and getattr(method, name) is not None:
            raise InvalidRequest(f"method.{name}: the method is {method.type}", param=f"method.{name}")
    if parsed.hyperparameters:
        raise InvalidRequest(
            "hyperparameters: stand below method where there is one", param="hyperparameters"
        )
    return method.type, getattr(method, method.type) or {}


def check_options(options: Mapping[str, Any], where: str) -> None:
    """Check what decides over the cost of a training.

    Raises:
        InvalidRequest: it is malformed.
    """
    path = f"{where}.hyperparameters".lstrip(".")
    found = options.get("hyperparameters", {})
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path}: expected an object", param=path)
    epochs = found.get("n_epochs", "auto")
    try:
        msgspec.convert(epochs, Epochs)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"{path}.n_epochs: expected a whole number from 1 to 50, or auto", param=f"{path}.n_epochs"
        ) from None


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check the notes that a caller gives a job.

    Raises:
        InvalidRequest: there are too many, or one is too long.
    """
    if len(metadata) > MOST_METADATA:
        raise InvalidRequest(f"metadata: at most {MOST_METADATA} pairs", param="metadata")
    for key, value in metadata.items():
        if not key or len(key) > MOST_KEY_CHARS or len(value) > MOST_VALUE_CHARS:
            raise InvalidRequest(
                f"metadata: a key has 1 to {MOST_KEY_CHARS} characters, a value at most {MOST_VALUE_CHARS}",
                param="metadata",
            )


def state_of(job: Job) -> TuningState:
    """Return how a training stands, in this format's words."""
    if job.status in TERMINAL or job.status == "queued":
        said = job.results.get("state", "")
        return "validating_files" if said == "validating_files" and job.status == "queued" else _plain(job)
    return "paused" if job.results.get("state") == "paused" else "running"


def _plain(job: Job) -> TuningState:
    state: TuningState = job.status
    if job.status == "queued" and "state" not in job.results:
        return "validating_files"
    return state


def job_object(job: Job) -> FineTuningJob:
    """Return a training as this format shows it."""
    results, asked = job.results, job.asked
    is_over = job.status in TERMINAL
    options = json.loads(str(asked.get("options", "{}")))
    method = str(asked.get("method", "supervised"))
    hyperparameters = _object(results, "hyperparameters") or {**_AUTO, **options.get("hyperparameters", {})}
    tokens = job.units.get("training_tokens")
    return FineTuningJob(
        id=f"{PREFIX}{job.id}",
        model=job.model,
        created_at=job.made_ms // _SECOND_MS,
        finished_at=None if job.ended_ms is None else job.ended_ms // _SECOND_MS,
        fine_tuned_model=results.get("model") if job.status == "succeeded" else None,
        organization_id=job.tenant,
        result_files=json.loads(results.get("files", "[]")),
        status=state_of(job),
        validation_file=_text(asked.get("validation_file")),
        training_file=str(asked.get("training_file", "")),
        hyperparameters=hyperparameters,
        trained_tokens=tokens if is_over else None,
        error=_error(job),
        seed=int(results.get("seed") or asked.get("seed") or 0),
        estimated_finish=None if is_over else _whole(results.get("estimated_finish")),
        integrations=[],
        method=_object(results, "method") or {"type": method, method: options},
        metadata=json.loads(str(asked["metadata"])) if "metadata" in asked else None,
        provider=job.provider or None,
        note=results.get("note"),
        expected_cost_usd=None if job.cost_nanos is None else format_usd(job.cost_nanos),
        cost_usd=None if job.charged_nanos is None else format_usd(job.charged_nanos),
    )


def _error(job: Job) -> TuningError | None:
    """Return why a training failed: in its vendor's words where there are some."""
    if job.error_code is None:
        return None
    said = job.results
    return TuningError(
        code=said.get("error_code", job.error_code),
        message=said.get("error_message", job.error_message or ""),
        param=said.get("error_param"),
    )


def encode_tuning_job(job: Job) -> bytes:
    """Write a training."""
    return msgspec.json.encode(job_object(job))


def encode_tuning_jobs(jobs: Sequence[Job], *, has_more: bool) -> bytes:
    """Write a page of trainings."""
    return msgspec.json.encode(FineTuningJobs(data=[job_object(job) for job in jobs], has_more=has_more))


def encode_events(events: Sequence[TuningEvent], *, has_more: bool) -> bytes:
    """Write a page of what happened."""
    shapes = [
        EventShape(
            id=event.id,
            created_at=event.created_s,
            level=event.level,
            message=event.message,
            type=event.type,
            data=None if event.data is None else json.loads(event.data),
        )
        for event in events
    ]
    return msgspec.json.encode(Events(data=shapes, has_more=has_more))


def encode_checkpoints(checkpoints: Sequence[TuningCheckpoint], job: Job, *, has_more: bool) -> bytes:
    """Write a page of the models between of a training."""
    shapes = [
        CheckpointShape(
            id=each.id,
            created_at=each.created_s,
            fine_tuned_model_checkpoint=each.model,
            step_number=each.step,
            metrics=json.loads(each.metrics),
            fine_tuning_job_id=f"{PREFIX}{job.id}",
        )
        for each in checkpoints
    ]
    first, last = (shapes[0].id, shapes[-1].id) if shapes else (None, None)
    page = Checkpoints(data=shapes, first_id=first, last_id=last, has_more=has_more)
    return msgspec.json.encode(page)


def _object(results: Mapping[str, str], name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(results[name]) if name in results else None
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: str | None) -> int | None:
    return None if value is None else int(value)
