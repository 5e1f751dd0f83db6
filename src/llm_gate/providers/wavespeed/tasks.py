"""Tasks from beginning to end: handed in, looked at until they are done, and what they made fetched."""

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.errors import (
    InvalidRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.media import Given, MediaRequest, Medium
from llm_gate.domain.provider import Exchanges, Fetch, HttpReply, HttpRequest, Send, Target, Wait
from llm_gate.providers.wavespeed.answers import (
    STILL_RUNNING,
    Refusal,
    Task,
    decode_error,
    indecent_error,
    look_error,
    read_answer,
    refusal_error,
    task_error,
)

SYNC: Mapping[str, Any] = {"enable_sync_mode": True, "enable_base64_output": False}
"""What tells the vendor to answer when the task is done, and with addresses."""

LAYOUT = "input"
"""The catalog's field that says under which names pictures go out."""

LOOK_EVERY_S, LONGEST_PAUSE_S = 1.0, 30.0
"""How long to wait between two looks, in seconds: usually, and at most after looks that failed."""

_FIRST_FAILURE, _TOO_MANY, _FIRST_SERVER = 300, 429, 500
_PASSING = (ProviderUnavailable, ProviderTimeout, ProviderRateLimited)
_NO_MEDIA = ("text/html", "text/xml", "application/json", "application/xml")


# A model's name becomes an address; these are the vendor's other routes.
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_TAKEN = frozenset({"balance", "media", "model", "models", "predictions", "webhook"})


def submission(path: str, payload: Mapping[str, Any], target: Target) -> Send:
    """Return the paid request that hands a task in; `path` is the vendor's name of the model.

    Raises:
        InvalidRequest: it cannot be the name of a model.
    """
    if not _PATH.fullmatch(path) or path.partition("/")[0].lower() in _TAKEN:
        raise InvalidRequest(f"{target.provider!r} can have no model {path!r}", param="model")
    return Send(
        request=HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/{path}",
            body=msgspec.json.encode(payload),
            headers={"content-type": "application/json"},
        ),
        is_paid=True,
    )


def look_at(task_id: str, target: Target) -> Send:
    """Return the request that asks how a task stands. The address is ours, never one from an answer."""
    url = f"{target.deployment.base_url}/predictions/{task_id}/result"
    return Send(request=HttpRequest(method="GET", url=url, body=b""), reads_failures=True)


def received(reply: HttpReply | None, target: Target) -> HttpReply:
    """Return the reply of an exchange.

    Raises:
        BadProviderResponse: there is none.
    """
    if reply is None:
        raise bad_response(target, "did not come")
    return reply


def accepted(reply: HttpReply | None, target: Target) -> tuple[Task, HttpReply]:
    """Return the task that came of a submission, and the reply that told of it.

    Raises:
        ProviderError: the submission was refused, or the answer holds no task.
    """
    reply = received(reply, target)
    answer = read_answer(reply, target)
    if isinstance(answer, Refusal):
        raise refusal_error(answer, reply, target)
    return answer, reply


def run_task(
    path: str, payload: Mapping[str, Any], target: Target, *, within_s: float
) -> Exchanges[tuple[str, ...]]:
    """Hand a task in, wait for it up to `within_s` seconds, and return the addresses of what it made.

    Raises:
        ProviderError: the task failed, was filtered, or is not done in time.
    """
    task, reply = accepted((yield submission(path, payload, target)), target)
    # The code says that the wait was too long, not the work.
    if task.code != STILL_RUNNING and (error := failure_of(task, reply, target)) is not None:
        raise error
    if task.state == "succeeded" and task.outputs:
        return task.outputs
    if task.id is None:
        raise bad_response(target, "names no task", status=reply.status)
    return (yield from _await_end(task.id, task.said, target, within_s))


def failure_of(task: Task, reply: HttpReply, target: Target) -> ProviderError | None:
    """Return the error of a task that came to nothing; None where it did not."""
    if task.is_indecent:
        return indecent_error(task, reply, target)
    return task_error(task, reply, target) if task.state in {"failed", "cancelled"} else None


def _await_end(task_id: str, said: str, target: Target, within_s: float) -> Exchanges[tuple[str, ...]]:
    waited_s, failures, pause_s = 0.0, 0, LOOK_EVERY_S
    while waited_s + pause_s <= within_s:
        yield Wait(seconds=pause_s)
        waited_s += pause_s
        try:
            reply = received((yield look_at(task_id, target)), target)
            task = read_look(reply, task_id, target)
        except _PASSING as error:
            failures += 1
            # The exponent is bounded, so that the number stays small.
            longer_s = max(LOOK_EVERY_S * 2 ** min(failures - 1, 10), error.retry_after_s or 0.0)
            pause_s = min(longer_s, LONGEST_PAUSE_S)
            continue
        failures, pause_s, said = 0, LOOK_EVERY_S, task.said
        if (failed := failure_of(task, reply, target)) is not None:
            raise failed
        if task.state == "succeeded":
            return task.outputs
    raise ProviderTimeout(
        f"provider {target.provider!r} has not completed task {task_id} within {within_s:.0f} s: it is {said}",
        provider=target.provider,
        model=target.wire_model,
    )


def read_look(reply: HttpReply, task_id: str, target: Target) -> Task:
    """Read a look at a task. One that is done has outputs.

    Raises:
        ProviderUnavailable: the look failed and may succeed later, as with ProviderTimeout and ProviderRateLimited.
        BadProviderResponse: it failed for good, or says what the contract does not know.
    """
    if reply.status >= _FIRST_FAILURE:
        error = decode_error(reply, target)
        if reply.status == _TOO_MANY or reply.status >= _FIRST_SERVER:
            raise error if isinstance(error, _PASSING) else _unavailable(error, target)
        raise look_error(task_id, reply.status, error.detail, target)
    answer = read_answer(reply, target)
    if isinstance(answer, Refusal):
        error = refusal_error(answer, reply, target)
        if not isinstance(error, _PASSING):
            raise look_error(task_id, answer.code, error.detail, target)
        # The look was refused, not the task.
        error.is_unbilled = False
        raise error
    if answer.state == "succeeded" and not answer.outputs and not answer.is_indecent:
        raise bad_response(target, "tells of a task that made nothing", status=reply.status)
    return answer


def _unavailable(error: ProviderError, target: Target) -> ProviderUnavailable:
    return ProviderUnavailable(
        error.message, provider=target.provider, model=target.wire_model, status=error.status
    )


def fetched(url: str, target: Target, *, kind: str, usual: str) -> Exchanges[Medium]:
    """Fetch a medium of a kind ("image"). `usual` is its type where the server's word for it says nothing.

    Raises:
        BadProviderResponse: what is there is no such medium.
    """
    reply = received((yield Fetch(url=url)), target)
    type_ = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = reply.body[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))
    if not reply.body or is_page or type_ in _NO_MEDIA:
        raise bad_response(target, f"holds no {kind}", status=reply.status)
    return Medium(data=reply.body, type=type_ if type_.startswith(f"{kind}/") else usual)


def merged(payload: Mapping[str, Any], request: MediaRequest, target: Target) -> dict[str, Any]:
    """Return the payload with the catalog's fields and the caller's own beneath what is set already.

    What is None is not set. The field that says where pictures go is not for the vendor.

    Raises:
        InvalidRequest: several things are asked for at once.
    """
    if request.n > 1:
        raise InvalidRequest(f"n: {target.name} makes one at a time", param="n")
    spec = target.model.media
    fields = {} if spec is None else {name: value for name, value in spec.fields.items() if name != LAYOUT}
    # How the vendor answers is not the caller's to say.
    extra = {name: value for name, value in request.extra.items() if name not in SYNC}
    return {**fields, **extra, **{name: value for name, value in payload.items() if value is not None}}


def data_uri(medium: Given) -> str:
    """Return a medium as text that the vendor takes in the place of an address.

    Raises:
        InvalidRequest: it is an address that nobody has fetched.
    """
    if not isinstance(medium, Medium):
        raise InvalidRequest("a medium must be given as bytes here")
    return f"data:{medium.type};base64,{b64encode(medium.data).decode()}"
