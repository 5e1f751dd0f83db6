"""Slow work: it waits in a queue, whose addresses are built here, so that no answer leads the credential astray."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.provider import Exchanges, HttpReply, HttpRequest, Send, Target, Ticket
from llm_gate.providers.huggingface.answers import Made, read
from llm_gate.providers.huggingface.places import MAKER, PATH, ROUTER, maker_url, path_at_maker

FIRST_FAILURE_STATUS = 300
QUEUED, RUNNING = "IN_QUEUE", "IN_PROGRESS"
_DONE, _OVER = "COMPLETED", frozenset({"FAILED", "ERROR", "CANCELED", "CANCELLED"})
_QUEUE = "?_subdomain=queue"
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_MAKER_HOST = "fal.run"
_APP_PARTS = 2
# A result with one of these is the work's own failure; any other says only that it cannot be had now.
_WORK_FAILED = frozenset({400, 422})
_REJECTED, _BROKEN = 422, 502


class Standing(Struct, frozen=True, kw_only=True):
    """How work in the queue stands; `response_url` says where the queue keeps it."""

    status: str | None = None
    request_id: Any = None
    response_url: Any = None
    error: Any = None
    error_type: Any = None


def queue_url(ticket: Ticket, target: Target, what: str = "") -> str:
    """Return the address of work in the queue, or of something about it ("/status")."""
    return maker_url(target, f"{ticket.data['path']}/requests/{ticket.id}{what}{_QUEUE}")


def post(target: Target, path: str, payload: Mapping[str, Any]) -> HttpRequest:
    """Build the request for work."""
    return HttpRequest(
        method="POST",
        url=maker_url(target, path),
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(payload),
    )


def hand_in(target: Target, task: str, payload: Mapping[str, Any]) -> Exchanges[Ticket]:
    """Hand work in.

    Raises:
        ProviderError: nobody serves the model, or the answer names no work.
    """
    path = yield from path_at_maker(target, task)
    reply = yield Send(request=post(target, path + _QUEUE, payload), is_paid=True)
    standing = read(reply, Standing, target, "holds no number of the work")
    number = standing.request_id
    if not isinstance(number, str) or not _ID.fullmatch(number):
        raise bad_response(
            target, "holds no number of the work", status=None if reply is None else reply.status
        )
    return Ticket(id=number, data={"path": _kept_at(standing.response_url, number, path)})


def _kept_at(response_url: object, number: str, path: str) -> str:
    """Return the path under which the queue keeps the work: the one that it names itself, if it is the maker's."""
    try:
        parts = urlsplit(response_url if isinstance(response_url, str) else "")
        host = parts.hostname or ""
    except ValueError:
        return _app_of(path)
    named = parts.path.removeprefix("/")
    if host == ROUTER:
        named = named.removeprefix(f"{MAKER}/")
    elif host != _MAKER_HOST and not host.endswith(f".{_MAKER_HOST}"):
        return _app_of(path)
    app, slash, rest = named.partition("/requests/")
    return app if slash and rest == number and PATH.fullmatch(app) else _app_of(path)


def _app_of(path: str) -> str:
    # The queue keeps work under its owner and app alone; what follows them picks the way into the app.
    return "/".join(path.split("/")[:_APP_PARTS])


def standing_of(ticket: Ticket, target: Target) -> Exchanges[Standing]:
    """Ask how work stands.

    Raises:
        BadProviderResponse: the answer does not tell.
    """
    url = queue_url(ticket, target, "/status")
    reply = yield Send(request=HttpRequest(method="GET", url=url, body=b""))
    standing = read(reply, Standing, target, "holds no status")
    if standing.status not in {QUEUED, RUNNING, _DONE, *_OVER}:
        raise bad_response(target, "holds no known status", status=None if reply is None else reply.status)
    return standing


def result_of(ticket: Ticket, standing: Standing, target: Target) -> Exchanges[Made | ProviderError]:
    """Fetch what came of finished work, or return why it failed; failed work is not billed.

    Raises:
        ProviderError: the result cannot be had now.
    """
    if standing.status in _OVER or standing.error:
        return _failed(standing.error, standing.error_type, _BROKEN, target)
    request = HttpRequest(method="GET", url=queue_url(ticket, target), body=b"")
    reply = yield Send(request=request, reads_failures=True)
    if reply is not None and reply.status in _WORK_FAILED:
        detail = _detail(reply)
        return _failed(detail.get("msg"), detail.get("type"), reply.status, target)
    if reply is not None and reply.status >= FIRST_FAILURE_STATUS:
        raise target.deployment.codecs.decode_error(reply, target)
    return read(reply, Made, target, "holds no result")


def _detail(reply: HttpReply) -> dict[str, Any]:
    """Read what is wrong by the maker's words: a text, or a list of faults of which the first is taken."""
    try:
        document = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    said = document.get("detail", document.get("error")) if isinstance(document, dict) else None
    first = said[0] if isinstance(said, list) and said else said
    return first if isinstance(first, dict) else {"msg": first}


def _failed(message: object, kind: object, status: int, target: Target) -> ProviderError:
    codes = (kind,) if isinstance(kind, str) and kind else ()
    error = typed_error(
        VendorFailure(
            status=_REJECTED if "content_policy_violation" in codes else status,
            message=message if isinstance(message, str) else "",
            codes=codes,
        ),
        target,
    )
    error.is_unbilled = True
    return error
