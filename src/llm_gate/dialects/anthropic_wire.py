"""What Anthropic's answers and streams share: usage, stop reasons and failures."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._failures import VendorFailure
from llm_gate.dialects._json import is_given
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage, believed

DIALECT = "anthropic"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a stranger's JSON may raise."""

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# https://docs.claude.com/en/api/errors; inside a stream the type stands in for the HTTP status.
_STATUS_BY_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_UNKNOWN_TYPE_STATUS = 500
_REJECTED = 400

# These all come as a plain invalid_request_error: how the message begins is the only signal there is.
_CODE_BY_MESSAGE: tuple[tuple[str, str], ...] = (
    ("prompt is too long", "context_length_exceeded"),
    ("input length and `max_tokens` exceed context limit", "context_length_exceeded"),
    ("your credit balance is too low", "billing_error"),
    ("you have reached your specified", "billing_error"),
    ("output blocked by content filtering policy", "content_filter"),
)

Count = Annotated[int, Meta(ge=0)]


def is_own(request: ChatRequest) -> bool:
    """Tell whether a request came in this dialect, so that it may leave as it came."""
    return request.wire is not None and request.wire.dialect == DIALECT


class _OutputDetails(Struct, frozen=True):
    thinking_tokens: Count | None = None


class _Counts(Struct, frozen=True):
    input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None


_counts_decoder = msgspec.json.Decoder(_Counts)


def finish_reason(stop_reason: str) -> FinishReason:
    """Translate a stop reason; one that is not known yet is a stop."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def read_usage(*reports: Raw) -> Usage | None:
    """Read usage reports, oldest first; each replaces the counts it names, as in a stream.

    Returns None where a count is missing, negative or no integer. Anthropic's input_tokens leave out what was
    read from or written to the cache; the neutral ones include it.
    """
    known: dict[str, Any] = {}
    for report in reports:
        if not is_given(report):
            continue
        try:
            counts = _counts_decoder.decode(report)
        except UNREADABLE:
            return None
        known |= {name: value for name, value in msgspec.structs.asdict(counts).items() if value is not None}
    if "input_tokens" not in known or "output_tokens" not in known:
        return None
    cached = known.get("cache_read_input_tokens", 0)
    written = known.get("cache_creation_input_tokens", 0)
    details = known.get("output_tokens_details", _OutputDetails())
    return believed(
        Usage(
            input_tokens=known["input_tokens"] + cached + written,
            cached_input_tokens=cached,
            cache_write_tokens=written,
            output_tokens=known["output_tokens"],
            reasoning_tokens=details.thinking_tokens or 0,
        )
    )


def read_failure(body: bytes, *, status: int | None = None) -> VendorFailure | None:
    """Read an error body; None when it is something else. Without `status`, the error's type decides."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return None
    error = document.get("error")
    if isinstance(error, str):
        error = {"message": error}
    elif error is None and document.get("type") in _STATUS_BY_TYPE:
        error = document
    if not isinstance(error, dict):
        return None
    kind, message = _text(error.get("type")), _text(error.get("message"))
    if status is None:
        status = _STATUS_BY_TYPE.get(kind, _UNKNOWN_TYPE_STATUS)
    return VendorFailure(status=status, message=message, codes=_codes(kind, message, status))


def _codes(kind: str, message: str, status: int) -> tuple[str, ...]:
    codes = [kind] if kind else []
    if status == _REJECTED:
        start = message.lower()
        codes += [code for prefix, code in _CODE_BY_MESSAGE if start.startswith(prefix)]
    return tuple(codes)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
