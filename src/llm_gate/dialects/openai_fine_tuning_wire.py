"""What vendors say of training in the OpenAI wire format and near it, read by their description in the catalog."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

import msgspec

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.domain.catalog import FineTuningSpec
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.fine_tuning import TuningCheckpoint, TuningEvent, TuningState
from llm_gate.domain.provider import HttpReply, JobView, Target

_STANDINGS: Mapping[str, Any] = {
    "validating_files": "queued",
    "queued": "queued",
    "running": "running",
    "paused": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
_STATES = frozenset(get_args(TuningState))
_LEVELS = {"warn": "warn", "warning": "warn", "error": "error"}
_REJECTED = 400


def tuning_of(target: Target) -> FineTuningSpec:
    """Return how a target's provider trains models."""
    return target.deployment.spec.fine_tuning or FineTuningSpec()


def read_object(reply: HttpReply | None, target: Target) -> dict[str, Any]:
    """Read a reply that is one JSON object.

    Raises:
        BadProviderResponse: it is something else.
    """
    status = None if reply is None else reply.status
    try:
        found = msgspec.json.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is no JSON", status=status) from None
    if not isinstance(found, dict):
        raise bad_response(target, "is no JSON object", status=status)
    return found


def id_of(found: Mapping[str, Any], target: Target) -> str:
    """Return the id that an object bears.

    Raises:
        BadProviderResponse: it bears none.
    """
    name = found.get("id")
    if not isinstance(name, str) or not name:
        raise bad_response(target, "holds no id")
    return name


def state_of(found: Mapping[str, Any], spec: FineTuningSpec) -> TuningState:
    """Return how a job stands; a word that is not known here is one of work under way."""
    word = str(found.get("status") or "").lower()
    said: Any = spec.states.get(word, word)
    state: TuningState = said if said in _STATES else "running"
    return state


def view_of(found: Mapping[str, Any], target: Target) -> JobView:
    """Return how a vendor's job object says it stands."""
    spec = tuning_of(target)
    state = state_of(found, spec)
    results: dict[str, str] = {"state": state}
    model = found.get(spec.model_field)
    if isinstance(model, str) and model and state == "succeeded":
        results["model"] = model
    for name in ("hyperparameters", "method"):
        if isinstance(found.get(name), dict):
            results[name] = json.dumps(found[name])
    for name in ("seed", "estimated_finish"):
        if _is_whole(found.get(name)):
            results[name] = str(found[name])
    error = _failure(found, target) if state == "failed" else None
    if error is not None:
        said = {"error_code": error.vendor_code, "error_message": error.detail, "error_param": error.param}
        results |= {name: value for name, value in said.items() if value}
    tokens = found.get(spec.tokens_field)
    counted = isinstance(tokens, int) and _is_whole(tokens) and tokens >= 0
    return JobView(
        status=_STANDINGS[state],
        error=error,
        units={"training_tokens": tokens} if counted and isinstance(tokens, int) else {},
        data={"result_files": json.dumps(_texts(found.get("result_files"))), **_named(results)},
        results=results,
    )


def _named(results: Mapping[str, str]) -> Mapping[str, str]:
    return {"model": results["model"]} if "model" in results else {}


def _failure(found: Mapping[str, Any], target: Target) -> ProviderError:
    """Return why training failed; the vendor's work came to nothing, by its own word."""
    said = found.get("error")
    said = said if isinstance(said, dict) else {"message": said if isinstance(said, str) else ""}
    message, code, param = (said.get(name) for name in ("message", "code", "param"))
    failure = VendorFailure(
        status=_REJECTED,
        message=message if isinstance(message, str) and message else "no reason is given",
        codes=(code,) if isinstance(code, str) and code else (),
        param=param if isinstance(param, str) else None,
    )
    return typed_error(failure, target)


def events_of(found: Sequence[Any]) -> tuple[TuningEvent, ...]:
    """Read events, the newest first. Those without an id are numbered in the order in which they came."""
    events = [_event(number, each) for number, each in enumerate(found) if isinstance(each, dict)]
    return tuple(sorted(events, key=_when, reverse=True))


def _when(event: TuningEvent) -> int:
    return event.created_s


def _event(number: int, said: Mapping[str, Any]) -> TuningEvent:
    data = said.get("data")
    message = said.get("message") or said.get("name") or ""
    if not said.get("message") and isinstance(data, dict) and data:
        message = f"{message}: {json.dumps(data)}"
    name = said.get("id")
    level: Any = _LEVELS.get(str(said.get("level") or "").lower(), "info")
    return TuningEvent(
        id=name if isinstance(name, str) and name else f"ftevent-{number}",
        created_s=seconds_of(said.get("created_at")),
        level=level,
        message=str(message),
        type="metrics" if said.get("type") == "metrics" else "message",
        data=json.dumps(data) if isinstance(data, dict) else None,
    )


def checkpoints_of(found: Sequence[Any]) -> tuple[TuningCheckpoint, ...]:
    """Read checkpoints, the last step first."""
    checkpoints = [_checkpoint(each) for each in found if isinstance(each, dict)]
    return tuple(sorted(checkpoints, key=_step, reverse=True))


def _step(checkpoint: TuningCheckpoint) -> int:
    return checkpoint.step


def _checkpoint(said: Mapping[str, Any]) -> TuningCheckpoint:
    step = said.get("step_number", said.get("step"))
    number = step if isinstance(step, int) and _is_whole(step) else 0
    name, metrics = said.get("id"), said.get("metrics")
    return TuningCheckpoint(
        id=name if isinstance(name, str) and name else f"ftckpt-{number}",
        created_s=seconds_of(said.get("created_at")),
        model=str(said.get("fine_tuned_model_checkpoint") or said.get("path") or ""),
        step=number,
        metrics=json.dumps(metrics) if isinstance(metrics, dict) else "{}",
    )


def seconds_of(said: Any) -> int:
    """Read an instant: seconds since 1970, or a date as ISO 8601 writes it; 0 where it is neither."""
    if _is_whole(said):
        return int(said)
    try:
        return int(datetime.fromisoformat(str(said)).timestamp())
    except ValueError:
        return 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
