"""Batches in the OpenAI wire format, outbound: a file of calls goes up, a batch is made of it, files come back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects._multipart import Field, form_request
from llm_gate.dialects.openai_errors import error_in_success
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Medium
from llm_gate.domain.provider import (
    BatchAnswer,
    BatchLine,
    BatchView,
    Exchanges,
    Facts,
    HttpReply,
    HttpRequest,
    Send,
    Target,
    Ticket,
)

WINDOW = "24h"
_KINDS = ("chat/completions", "responses", "embeddings")
_Standing = Literal[
    "queued", "running", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
_STANDINGS: Mapping[str, _Standing] = {
    "validating": "queued",
    "in_progress": "running",
    "finalizing": "finalizing",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelling": "cancelling",
    "cancelled": "cancelled",
}


class _Counts(Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Fault(Struct, frozen=True):
    code: str | None = None
    message: str | None = None
    line: int | None = None
    param: str | None = None


class _Faults(Struct, frozen=True):
    data: list[_Fault] | None = None


class _Batch(Struct, frozen=True):
    """What a vendor says of a batch."""

    id: str | None = None
    status: str | None = None
    errors: _Faults | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
    error: Raw = ABSENT


class _Reply(Struct, frozen=True):
    status_code: int = 0
    body: Raw = ABSENT


class _Lost(Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Line(Struct, frozen=True):
    custom_id: str
    response: _Reply | None = None
    error: _Lost | None = None


_batch_decoder = msgspec.json.Decoder(_Batch)
_line_decoder = msgspec.json.Decoder(_Line)


def versioned(kind: str) -> str:
    """Return the endpoint of a kind of call as OpenAI writes it."""
    return f"/v1/{kind}"


class OpenAIBatches:
    """The batches of a provider that speaks this dialect.

    `address` gives the URL of a path that belongs to no model, `endpoint` how a kind of call is written in files.
    """

    look_every_s = 2.0

    def __init__(
        self, address: Callable[[Target, str], str], endpoint: Callable[[str], str] = versioned
    ) -> None:
        self._address = address
        self._endpoint = endpoint

    def upload(self, lines: Sequence[BatchLine], target: Target, facts: Facts) -> Exchanges[str]:
        """Hand the file in.

        Raises:
            InvalidRequest: the lines are of different kinds, or of one that cannot be in a batch.
            ProviderError: the vendor does not take it.
        """
        url = self._endpoint(_kind_of(lines))
        data = b"".join(
            b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n'
            % (msgspec.json.encode(line.mark), msgspec.json.encode(url), line.call.body)
            for line in lines
        )
        fields = [
            Field(name="purpose", value="batch"),
            Field(name="file", value=Medium(data=data, type="application/jsonl", name="batch.jsonl")),
        ]
        request = form_request(self._address(target, "files"), fields, boundary=facts.token, headers={})
        batch = _read((yield Send(request=request)), target)
        if not batch.id:
            raise _none(batch, target, "file")
        return batch.id

    def create(
        self, file_id: str, lines: Sequence[BatchLine], target: Target, facts: Facts
    ) -> Exchanges[Ticket]:
        """Begin the batch.

        Raises:
            ProviderError: the answer is no batch.
        """
        del facts
        body = {
            "input_file_id": file_id,
            "endpoint": self._endpoint(_kind_of(lines)),
            "completion_window": WINDOW,
        }
        request = HttpRequest(
            method="POST",
            url=self._address(target, "batches"),
            headers={"content-type": "application/json"},
            body=msgspec.json.encode(body),
        )
        batch = _read((yield Send(request=request, is_paid=True)), target)
        if not batch.id:
            raise _none(batch, target, "batch")
        return Ticket(id=batch.id, data={"file": file_id})

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[BatchView]:
        """Ask how it stands.

        Raises:
            ProviderError: the answer is no batch.
        """
        del facts
        batch = _read((yield Send(request=self._request("GET", ticket, target, ""))), target)
        if batch.status is None:
            raise _none(batch, target, "batch")
        counts = batch.request_counts or _Counts()
        faults = batch.errors.data or [] if batch.errors is not None else []
        return BatchView(
            # A word that is not known here is one of work under way.
            status=_STANDINGS.get(batch.status.lower(), "running"),
            counts=(counts.total, counts.completed, counts.failed),
            files=tuple(filter(None, (batch.output_file_id, batch.error_file_id))),
            faults=tuple(
                (each.code or "invalid_batch", each.message or "", each.line, each.param) for each in faults
            ),
        )

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[None]:
        """Call it off; one that has ended meanwhile is no failure."""
        del facts
        yield Send(request=self._request("POST", ticket, target, "/cancel"), reads_failures=True)

    def fetch(self, file_id: str, target: Target) -> HttpRequest:
        """Return the request for one file of what came of it."""
        url = self._address(target, f"files/{quote(file_id, safe='')}/content")
        return HttpRequest(method="GET", url=url, body=b"")

    def read(self, line: bytes, target: Target) -> BatchAnswer:
        """Read one line of such a file.

        Raises:
            ProviderError: it is none.
        """
        try:
            found = _line_decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_response(target, "holds a line that is none of a batch") from None
        reply = found.response
        if reply is not None and is_given(reply.body):
            headers = {"content-type": "application/json"}
            return BatchAnswer(
                mark=found.custom_id,
                reply=HttpReply(status=reply.status_code, headers=headers, body=bytes(reply.body)),
            )
        lost = found.error or _Lost()
        return BatchAnswer(
            mark=found.custom_id, code=lost.code or "batch_line_lost", message=lost.message or ""
        )

    def _request(self, method: str, ticket: Ticket, target: Target, rest: str) -> HttpRequest:
        url = self._address(target, f"batches/{quote(ticket.id, safe='')}{rest}")
        return HttpRequest(method=method, url=url, body=b"")


def _kind_of(lines: Sequence[BatchLine]) -> str:
    """Return which kind of call all lines are, by the end of their addresses."""
    found = {kind for line in lines for kind in _KINDS if urlsplit(line.call.url).path.endswith(f"/{kind}")}
    if len(found) != 1:
        raise InvalidRequest("the lines of a batch at its vendor must all be of one kind", param="url")
    return found.pop()


def _read(reply: HttpReply | None, target: Target) -> _Batch:
    try:
        return _batch_decoder.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is no batch", status=None if reply is None else reply.status) from None


def _none(batch: _Batch, target: Target, what: str) -> Exception:
    return (
        error_in_success(batch.error, target)
        if is_given(batch.error)
        else bad_response(target, f"is no {what}")
    )
