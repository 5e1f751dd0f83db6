"""Batches in the OpenAI wire format, inbound: how one is asked for and shown, and the lines of its files."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._json import read_as, read_object
from llm_gate.domain.batches import TERMINAL, WINDOW_MS, Batch, BatchEndpoint, BatchStatus
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.money import format_usd

ENDPOINTS: tuple[BatchEndpoint, ...] = (
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/responses",
)
"""The calls that a batch can be made of."""

WINDOW = "24h"
_MOST_PAIRS, _MOST_KEY_CHARS, _MOST_VALUE_CHARS = 16, 64, 512
_LEAST_S, _MOST_S = 3_600, 2_592_000
_SECOND_MS = 1000


class ExpiresAfter(Struct, frozen=True, kw_only=True):
    """When the files of a batch end, in seconds after they were made."""

    anchor: str
    seconds: int


class BatchBody(Struct, frozen=True, kw_only=True):
    """The body of a request for a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchAsked(Struct, frozen=True, kw_only=True):
    """A request for a batch, checked."""

    input_file: str
    endpoint: BatchEndpoint
    metadata: Mapping[str, str] | None
    output_expires_s: int | None


class BatchErrorObject(Struct, frozen=True, kw_only=True):
    """Something that is wrong with a batch, and the line and the field of its input file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Struct, frozen=True, kw_only=True):
    """What is wrong with a batch."""

    object: Literal["list"] = "list"
    data: list[BatchErrorObject]


class BatchRequestCounts(Struct, frozen=True, kw_only=True):
    """How many lines there are, and how many were answered or failed."""

    total: int
    completed: int
    failed: int


class BatchObject(Struct, frozen=True, kw_only=True):
    """How a batch is shown; times in seconds since 1970. `usage` holds the cost in dollars beside the tokens."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    usage: dict[str, Any] | None
    metadata: Mapping[str, str] | None
    processed_by: str | None


class BatchList(Struct, frozen=True, kw_only=True):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


_decoder = msgspec.json.Decoder(BatchBody)
_known = frozenset(BatchBody.__struct_fields__)


def decode_batch_request(body: bytes) -> BatchAsked:
    """Read a request for a batch.

    Raises:
        InvalidRequest: it is malformed, or asks for what there is not.
    """
    fields = read_object(body)
    for name in fields:
        if name not in _known:
            raise _refused(name, "unknown parameter")
    parsed = read_as(_decoder, body)
    endpoint = next((each for each in ENDPOINTS if each == parsed.endpoint), None)
    if endpoint is None:
        raise _refused("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    if parsed.completion_window != WINDOW:
        raise _refused("completion_window", f"must be {WINDOW}")
    ends = parsed.output_expires_after
    if ends is not None and (ends.anchor != "created_at" or not _LEAST_S <= ends.seconds <= _MOST_S):
        raise _refused(
            "output_expires_after", f"must be {_LEAST_S} to {_MOST_S} seconds after the anchor created_at"
        )
    return BatchAsked(
        input_file=parsed.input_file_id,
        endpoint=endpoint,
        metadata=_metadata(parsed.metadata),
        output_expires_s=None if ends is None else ends.seconds,
    )


def _metadata(given: dict[str, str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    if len(given) > _MOST_PAIRS:
        raise _refused("metadata", f"at most {_MOST_PAIRS} pairs")
    for key, value in given.items():
        if len(key) > _MOST_KEY_CHARS or len(value) > _MOST_VALUE_CHARS:
            raise _refused(
                "metadata", f"keys have at most {_MOST_KEY_CHARS} characters, values {_MOST_VALUE_CHARS}"
            )
    return given


def batch_object(batch: Batch) -> BatchObject:
    """Return a batch as this format shows it."""
    status = batch.status
    if batch.is_cancelled and status not in TERMINAL:
        status = "cancelling"
    ended = {status: _seconds(batch.ended_ms)} if status in TERMINAL else {}
    faults = [
        BatchErrorObject(code=each.code, message=each.message, param=each.param, line=each.line)
        for each in batch.faults
    ]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model or None,
        errors=BatchErrors(data=faults) if faults else None,
        input_file_id=batch.input_file,
        completion_window=WINDOW,
        status=status,
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=batch.made_ms // _SECOND_MS,
        in_progress_at=_seconds(batch.begun_ms),
        expires_at=(batch.expires_ms or batch.made_ms + WINDOW_MS) // _SECOND_MS,
        finalizing_at=_seconds(batch.finalizing_ms),
        completed_at=ended.get("completed"),
        failed_at=ended.get("failed"),
        expired_at=ended.get("expired"),
        cancelling_at=_seconds(batch.cancelling_ms),
        cancelled_at=ended.get("cancelled"),
        request_counts=BatchRequestCounts(
            total=batch.counts.total, completed=batch.counts.completed, failed=batch.counts.failed
        ),
        usage=_usage(batch),
        metadata=batch.metadata,
        processed_by=batch.way,
    )


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // _SECOND_MS


def _usage(batch: Batch) -> dict[str, Any] | None:
    tokens = batch.tokens
    if tokens is None:
        return None
    cost = batch.cost_nanos
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
        "cost": None if cost is None else Raw(format_usd(cost).encode()),
    }


def encode_batch(batch: Batch) -> bytes:
    """Write a batch."""
    return msgspec.json.encode(batch_object(batch))


def encode_batches(batches: Sequence[Batch], *, has_more: bool) -> bytes:
    """Write a page of batches."""
    first, last = (batches[0].id, batches[-1].id) if batches else (None, None)
    page = BatchList(
        data=[batch_object(batch) for batch in batches], first_id=first, last_id=last, has_more=has_more
    )
    return msgspec.json.encode(page)


def encode_answered_line(line_id: str, custom_id: str, request_id: str, *, status: int, body: bytes) -> bytes:
    """Write the line of a call that was answered, be it with an error."""
    # Some vendors spread an answer over many lines.
    plain = msgspec.json.format(body, indent=-1) if b"\n" in body else body
    response = {"status_code": status, "request_id": request_id, "body": Raw(plain)}
    return _line(line_id, custom_id, response, None)


def encode_lost_line(line_id: str, custom_id: str, *, code: str, message: str) -> bytes:
    """Write the line of a call that was not made, or whose answer is not there."""
    return _line(line_id, custom_id, None, {"code": code, "message": message})


def _line(
    line_id: str, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> bytes:
    return msgspec.json.encode({"id": line_id, "custom_id": custom_id, "response": response, "error": error})


def _refused(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name)
