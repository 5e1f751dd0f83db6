"""What WaveSpeed answers: a task in an envelope, or a failure, which also comes with HTTP 200."""

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import (
    VendorFailure,
    bad_response,
    plain_text,
    retry_after_s,
    typed_error,
)
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.provider import HttpReply, Target

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

STILL_RUNNING = 5004
"""The vendor's code for a task that outlasted the wait for it; the task goes on."""

_STATES: dict[str, State] = {
    "created": "queued",
    "queued": "queued",
    "pending": "queued",
    "processing": "running",
    "running": "running",
    "completed": "succeeded",
    "succeeded": "succeeded",
    "failed": "failed",
    "timeout": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "deleted": "cancelled",
}
# Codes below 1000 are those of HTTP; of the vendor's own, these say more than that the work failed.
_MODERATED = 1200
_AT_FAULT = range(1400, 1403)
_FIRST_FAILURE, _FIRST_OWN = 400, 1000
_REFUSED = 400
_NO_CREDIT = re.compile(
    r"(?i)insufficient (?:balance|credits?|funds?)|not enough (?:balance|credits?)"
    r"|(?:balance|credits?) (?:is |are )?(?:not enough|insufficient|too low)"
)
_MODERATION = re.compile(
    r"(?i)\bnsfw\b|content (?:moderation|policy|filter)|sensitive (?:content|information)"
)
# An id becomes a part of an address.
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_MOST_OUTPUTS = 32


class Task(Struct, frozen=True, kw_only=True):
    """A task as the vendor shows it. `outputs` are addresses; `code` is the vendor's own, 0 where it says none."""

    state: State
    said: str
    id: str | None = None
    outputs: tuple[str, ...] = ()
    code: int = 0
    message: str = ""
    is_indecent: bool = False


class Refusal(Struct, frozen=True, kw_only=True):
    """A failure in an answer with HTTP 200 and without a task. `code` is like an HTTP status, or the vendor's own."""

    code: int
    message: str = ""


class _Data(Struct):
    id: str | None = None
    status: str | None = None
    code: int | None = None
    outputs: list[Any] | str | None = None
    output: list[Any] | str | None = None
    error: Any = None
    has_nsfw_contents: Any = None


class _Envelope(Struct):
    code: int | None = None
    message: str | None = None
    data: _Data | None = None


_decoder = msgspec.json.Decoder(_Envelope)


def read_answer(reply: HttpReply, target: Target) -> Task | Refusal:
    """Read a task, or a failure that tells of none, from an answer with a status below 300.

    Raises:
        BadProviderResponse: the answer holds neither.
    """
    try:
        envelope = _decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "holds no task", status=reply.status) from None
    data, code = envelope.data or _Data(), envelope.code or 0
    if data.status is None and code >= _FIRST_FAILURE:
        return Refusal(code=code, message=_words(data.error) or envelope.message or "")
    if data.status is None and data.id is None:
        raise bad_response(target, "holds no task", status=reply.status)
    said = data.status or "created"
    state = _STATES.get(said.lower())
    if state is None:
        raise bad_response(target, "tells of a task in a state that nobody knows", status=reply.status)
    if data.id is not None and not _ID.fullmatch(data.id):
        raise bad_response(target, "names no task", status=reply.status)
    if code >= _FIRST_FAILURE and code != STILL_RUNNING:
        state = "failed"
    return Task(
        state=state,
        said=said.lower(),
        id=data.id,
        outputs=_addresses(data, reply, target) if state == "succeeded" else (),
        code=data.code or (code if code >= _FIRST_FAILURE else 0),
        message=_words(data.error) or ("" if code < _FIRST_FAILURE else envelope.message or ""),
        is_indecent=_is_marked(data.has_nsfw_contents),
    )


def _addresses(data: _Data, reply: HttpReply, target: Target) -> tuple[str, ...]:
    found = data.outputs or data.output or []
    listed = [found] if isinstance(found, str) else found
    addresses = [
        item for item in listed if isinstance(item, str) and item.startswith(("https://", "http://"))
    ]
    if len(addresses) != len(listed):
        raise bad_response(target, "holds an output that is no address", status=reply.status)
    return tuple(addresses[:_MOST_OUTPUTS])


def _is_marked(marks: Any) -> bool:
    return True in marks if isinstance(marks, list) else marks is True


def _words(error: Any) -> str:
    """Return an error's text, also where it is an object that holds one."""
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""


def refusal_error(refusal: Refusal, reply: HttpReply, target: Target) -> ProviderError:
    """Return the error of a submission that was refused: nothing was begun."""
    return _unbilled(_failure(refusal.code, refusal.message, reply), target)


def task_error(task: Task, reply: HttpReply, target: Target) -> ProviderError:
    """Return the error of a task that failed or was called off: the vendor gives back what it cost."""
    code = STILL_RUNNING if task.said == "timeout" and not task.code else task.code
    return _unbilled(_failure(code, task.message or f"the task is {task.said}", reply), target)


def indecent_error(task: Task, reply: HttpReply, target: Target) -> ProviderError:
    """Return the error of a task whose output the vendor marks as indecent. What is done is billed."""
    text = task.message or "what was made is marked as indecent"
    failure = VendorFailure(status=reply.status, message=text, codes=("content_filter",))
    error = typed_error(failure, target)
    error.is_unbilled = task.state != "succeeded"
    return error


def look_error(task_id: str, status: int, detail: str, target: Target) -> ProviderError:
    """Return the error of a look at a task that failed.

    It carries no status: the task was accepted and may be billed, whatever the look came to.
    """
    text = f"to a look at task {task_id} has status {status}"
    return bad_response(target, f"{text}: {detail}" if detail else text)


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply with a status of 300 or above into the typed error."""
    try:
        envelope = _decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        envelope = _Envelope(message=plain_text(reply))
    message = _words(envelope.data.error if envelope.data else None) or envelope.message or ""
    code = (envelope.data.code if envelope.data else None) or envelope.code or 0
    return typed_error(
        VendorFailure(
            status=reply.status,
            message=message,
            codes=_codes(code, message),
            retry_after_s=retry_after_s(reply.headers),
        ),
        target,
    )


def _failure(code: int, message: str, reply: HttpReply) -> VendorFailure:
    """Return a failure that came with HTTP 200: by the code of the answer, else by its words alone."""
    codes = _codes(code, message)
    if _FIRST_FAILURE <= code < _FIRST_OWN:
        wish_s = retry_after_s(reply.headers)
        return VendorFailure(status=code, message=message, codes=codes, retry_after_s=wish_s)
    if code in _AT_FAULT:
        return VendorFailure(status=_REFUSED, message=message, codes=codes)
    kind = "timeout_error" if code == STILL_RUNNING else "server_error"
    return VendorFailure(status=reply.status, message=message, codes=(*codes, kind))


def _codes(code: int, message: str) -> tuple[str, ...]:
    codes = [str(code)] if code >= _FIRST_OWN else []
    if _NO_CREDIT.search(message):
        codes.append("insufficient_quota")
    elif code == _MODERATED or _MODERATION.search(message):
        codes.append("content_filter")
    return tuple(codes)


def _unbilled(failure: VendorFailure, target: Target) -> ProviderError:
    error = typed_error(failure, target)
    error.is_unbilled = True
    return error
