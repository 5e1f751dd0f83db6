"""Training that really goes through its states, and trains nothing.

Nothing is remembered: the ids of files, jobs and models hold all that is known of them. Whoever pauses or stops a job
is given another id for it. Words in the suffix decide how it goes: "fail-files" (the files are found wrong), "fail" (it
breaks off half way) and "slow" (it takes a minute); `sandbox_takes_s` among the hyperparameters says how long it takes.
"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from llm_gate.dialects.openai import address
from llm_gate.dialects.openai_fine_tuning import OpenAIFineTuning
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import HttpRequest, LocalReply

TAKES_S, SLOW_S, MOST_S = 3.0, 60.0, 3_600.0
FAIL_FILES, FAIL, SLOW, TAKES = "fail-files", "fail", "slow", "sandbox_takes_s"
MODEL_PREFIX = "ft:sandbox-"

_VALIDATED, _BEGUN = 0.1, 0.25
_HALF = 0.5
_AUTO_EPOCHS = 3
_MOST_SHOWN = 8
_LAST_CHECKPOINTS = 3
_KEY_CHARS = 12
_BYTES_PER_TOKEN = 4
_JSON = {"content-type": "application/json"}
_BOUNDARY = re.compile(r"boundary=([0-9A-Za-z'()+_,./:=?-]+)")
_PATH = re.compile(
    r"/v1/(?:(?P<files>files)(?:/(?P<file>[^/?]+)(?P<content>/content)?)?"
    r"|fine_tuning/jobs(?:/(?P<job>[^/?]+)(?:/(?P<what>cancel|pause|resume|events|checkpoints))?)?)(?:\?.*)?$"
)


class SandboxTuning(OpenAIFineTuning):
    """The OpenAI dialect's training, looked at often since it takes but seconds."""

    look_every_s = 0.2

    def __init__(self) -> None:
        super().__init__(address)


class Lesson(Struct, frozen=True, kw_only=True, array_like=True):
    """A file for training: a word nobody else has, its lines and its tokens."""

    key: str
    lines: int
    tokens: int


class Course(Struct, frozen=True, kw_only=True, array_like=True):
    """A training. Instants in seconds since 1970; `rests` are those between which it paused, the last may be open."""

    key: str
    model: str
    lesson: str
    check: str
    epochs: int
    lines: int
    tokens: int
    suffix: str
    seed: int
    start_s: float
    takes_s: float
    method: str
    rests: tuple[tuple[float, float], ...] = ()
    rests_since_s: float = 0.0
    ended_s: float = 0.0


class _Stand(Struct, frozen=True, kw_only=True):
    """How far a training is: the share of its time, and its state in OpenAI's words."""

    share: float
    state: str


def respond_training(request: HttpRequest, now_s: float) -> LocalReply | None:
    """Answer what is asked about training and its files; None where it is about something else.

    Raises:
        InvalidRequest: the sandbox cannot do what is asked.
    """
    found = _PATH.search(request.url)
    if found is None:
        return None
    if found["files"] is not None:
        return _file(request, found, now_s)
    if found["job"] is None:
        return _answer(_shown(_begun(request, now_s), now_s))
    course = _read(found["job"], "ftjob-", Course)
    match found["what"]:
        case "cancel" | "pause" | "resume":
            return _answer(_shown(_steered(course, found["what"], now_s), now_s))
        case "events":
            return _answer({"object": "list", "data": _events(course, now_s), "has_more": False})
        case "checkpoints":
            return _answer({"object": "list", "data": _checkpoints(course, now_s), "has_more": False})
        case _:
            return _answer(_shown(course, now_s))


def tuned_from(model: str) -> str | None:
    """Return what a model of this sandbox was trained from; None where it was not trained at all."""
    return model.removeprefix(MODEL_PREFIX).partition(":")[0] if model.startswith(MODEL_PREFIX) else None


def _file(request: HttpRequest, found: re.Match[str], now_s: float) -> LocalReply:
    name = found["file"]
    if name is None:
        lesson = _taken_in(request)
        file_id = _id_of("file-", lesson)
    elif found["content"] is not None:
        course = _read(name, "file-", Course)
        return LocalReply(
            status=200, headers={"content-type": "text/csv"}, chunks=iter((_metrics(course, now_s),))
        )
    elif request.method == "DELETE":
        return _answer({"object": "file", "id": name, "deleted": True})
    else:
        file_id = name
    return _answer({"object": "file", "id": file_id, "purpose": "fine-tune", "status": "processed"})


def _taken_in(request: HttpRequest) -> Lesson:
    boundary = _BOUNDARY.search(request.headers.get("content-type", ""))
    if boundary is None:
        raise InvalidRequest("file: the sandbox cannot read the form", param="file")
    mark = b"--" + boundary[1].encode()
    for part in request.body.split(mark):
        head, _, data = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            lines = [line for line in data.removesuffix(b"\r\n").split(b"\n") if line.strip()]
            tokens = sum(max(1, len(line) // _BYTES_PER_TOKEN) for line in lines)
            return Lesson(key=boundary[1][:_KEY_CHARS], lines=len(lines), tokens=tokens)
    raise InvalidRequest("file: the form holds none", param="file")


def _begun(request: HttpRequest, now_s: float) -> Course:
    body: dict[str, Any] = msgspec.json.decode(request.body)
    lesson = _read(str(body["training_file"]), "file-", Lesson)
    said = body.get("method") or {"type": "supervised"}
    options = said.get(said["type"]) or {}
    hyperparameters: Mapping[str, Any] = options.get("hyperparameters") or {}
    epochs = hyperparameters.get("n_epochs", "auto")
    suffix = str(body.get("suffix") or "")
    takes_s = hyperparameters.get(TAKES, SLOW_S if SLOW in suffix else TAKES_S)
    if not isinstance(takes_s, int | float) or not 0 < takes_s <= MOST_S:
        raise InvalidRequest(f"{TAKES}: expected a number of seconds up to {MOST_S:.0f}", param=TAKES)
    return Course(
        key=lesson.key,
        model=str(body["model"]),
        lesson=str(body["training_file"]),
        check=str(body.get("validation_file") or ""),
        epochs=epochs if isinstance(epochs, int) else _AUTO_EPOCHS,
        lines=lesson.lines,
        tokens=lesson.tokens,
        suffix=suffix,
        seed=int(body.get("seed") or 0),
        start_s=round(now_s, 3),
        takes_s=float(takes_s),
        method=said["type"],
    )


def _steered(course: Course, way: str, now_s: float) -> Course:
    stand = _stand(course, now_s)
    if stand.state in {"succeeded", "failed", "cancelled"}:
        raise InvalidRequest(f"the job is {stand.state} already (synthetic)", code="invalid_state")
    if way == "cancel":
        return structs.replace(course, ended_s=round(now_s, 3))
    if way == "pause" and stand.state != "running":
        raise InvalidRequest(
            f"only a job that is running can be paused; this one is {stand.state}", code="invalid_state"
        )
    if way == "pause":
        return structs.replace(course, rests_since_s=round(now_s, 3))
    if not course.rests_since_s:
        raise InvalidRequest("only a job that is paused can be resumed", code="invalid_state")
    rests = (*course.rests, (course.rests_since_s, round(now_s, 3)))
    return structs.replace(course, rests=rests, rests_since_s=0.0)


def _stand(course: Course, now_s: float) -> _Stand:
    at_s = min(now_s, course.ended_s or now_s, course.rests_since_s or now_s)
    rested_s = sum(end - start for start, end in course.rests)
    share = min(1.0, max(0.0, (at_s - course.start_s - rested_s) / course.takes_s))
    fails_at = _VALIDATED if FAIL_FILES in course.suffix else _HALF if FAIL in course.suffix else math.inf
    if share >= fails_at:
        return _Stand(share=fails_at, state="failed")
    if course.ended_s:
        return _Stand(share=share, state="cancelled")
    if course.rests_since_s:
        return _Stand(share=share, state="paused")
    for end, state in ((_VALIDATED, "validating_files"), (_BEGUN, "queued"), (1.0, "running")):
        if share < end:
            return _Stand(share=share, state=state)
    return _Stand(share=1.0, state="succeeded")


def _done(stand: _Stand) -> float:
    """Return the share of the work itself that is done."""
    return max(0.0, (stand.share - _BEGUN) / (1 - _BEGUN))


def _shown(course: Course, now_s: float) -> dict[str, Any]:
    stand = _stand(course, now_s)
    trained = math.ceil(course.tokens * course.epochs * _done(stand))
    is_over = stand.state in {"succeeded", "failed", "cancelled"}
    error = None
    if stand.state == "failed":
        is_early = stand.share == _VALIDATED
        code = "invalid_training_file" if is_early else "training_failed"
        word = FAIL_FILES if is_early else FAIL
        error = {
            "code": code,
            "message": f"The sandbox failed, as {word!r} in the suffix asked (synthetic).",
            "param": "training_file" if is_early else None,
        }
    return {
        "object": "fine_tuning.job",
        "id": _id_of("ftjob-", course),
        "model": course.model,
        "status": stand.state,
        "fine_tuned_model": _model(course) if stand.state == "succeeded" else None,
        "trained_tokens": trained if is_over else None,
        "hyperparameters": {
            "n_epochs": course.epochs,
            "batch_size": 1,
            "learning_rate_multiplier": 1.0,
        },
        "seed": course.seed,
        "result_files": [_id_of("file-", course)] if stand.state == "succeeded" else [],
        "error": error,
        "synthetic": True,
    }


def _model(course: Course) -> str:
    return f"{MODEL_PREFIX}{course.model}:llm-gate:{course.suffix}:{_short(course)}"


def _short(course: Course) -> str:
    word = f"{course.key}/{course.start_s}/{course.model}/{course.suffix}"
    return hashlib.sha256(word.encode()).hexdigest()[:8]


def _steps(course: Course, now_s: float) -> range:
    """Return the steps that are done, one for each epoch."""
    return range(1, math.floor(course.epochs * _done(_stand(course, now_s))) + 1)


def _events(course: Course, now_s: float) -> Sequence[dict[str, Any]]:
    stand = _stand(course, now_s)
    told: list[tuple[float, str, Any]] = [(0.0, "Created fine-tuning job", None)]
    if stand.share >= _VALIDATED and stand.state != "failed":
        told.append((_VALIDATED, "Files validated, job queued", None))
    if stand.share >= _BEGUN:
        told.append((_BEGUN, "Fine-tuning job started", None))
    told += [
        (_BEGUN + (1 - _BEGUN) * step / course.epochs, _sentence(course, step), _loss(step))
        for step in _steps(course, now_s)
    ]
    if stand.state in {"succeeded", "failed", "cancelled", "paused"}:
        told.append((stand.share, f"The job has {stand.state}", None))
    events = [
        {
            "object": "fine_tuning.job.event",
            "id": f"ftevent-{_short(course)}-{number}",
            "created_at": int(course.start_s + share * course.takes_s),
            "level": "error" if message.endswith("failed") else "info",
            "message": f"{message} (synthetic)",
            "type": "message" if data is None else "metrics",
            "data": data,
        }
        for number, (share, message, data) in enumerate(told)
    ]
    return events[::-1]


def _sentence(course: Course, step: int) -> str:
    return f"Step {step}/{course.epochs}: training loss={_loss(step)['train_loss']}"


def _loss(step: int) -> dict[str, float]:
    return {"step": step, "train_loss": round(1 / (1 + step), 4)}


def _checkpoints(course: Course, now_s: float) -> Sequence[dict[str, Any]]:
    return [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt-{_short(course)}-{step}",
            "created_at": int(course.start_s + course.takes_s * step / course.epochs),
            "fine_tuned_model_checkpoint": f"{_model(course)}:ckpt-step-{step}",
            "step_number": step,
            "metrics": _loss(step),
            "fine_tuning_job_id": _id_of("ftjob-", course),
        }
        for step in reversed(_steps(course, now_s)[-_LAST_CHECKPOINTS:])
        if step < course.epochs
    ]


def _metrics(course: Course, now_s: float) -> bytes:
    lines = [f"{step},{_loss(step)['train_loss']}" for step in _steps(course, now_s)]
    return "\n".join(("step,train_loss", *lines, "")).encode()


def _answer(body: Mapping[str, Any]) -> LocalReply:
    return LocalReply(status=200, headers=_JSON, chunks=iter((msgspec.json.encode(body),)))


def _id_of(prefix: str, value: Struct) -> str:
    return prefix + base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def _read(name: str, prefix: str, kind: type[Any]) -> Any:
    try:
        text = name.removeprefix(prefix)
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError):
        raise InvalidRequest("id: the sandbox never gave this one", param="id", code="not_found") from None
