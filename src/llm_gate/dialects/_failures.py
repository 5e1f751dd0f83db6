"""One classification of vendor failures for all dialects: status and code first, text only where there is nothing else.

Each dialect reads its vendor's error body into a VendorFailure; the rules that follow are shared.
"""

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

from msgspec import Struct

from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    ContextTooLong,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    excerpt,
)
from llm_gate.domain.events import ChatEvent
from llm_gate.domain.provider import HttpReply, Target

# Vendor codes whose meaning does not follow from the status alone.
_BY_CODE: Mapping[str, type[ProviderError]] = {
    "insufficient_quota": ProviderQuotaExhausted,
    "billing_hard_limit_reached": ProviderQuotaExhausted,
    "billing_not_active": ProviderQuotaExhausted,
    "billing_error": ProviderQuotaExhausted,
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "responsibleaipolicyviolation": ContentFiltered,
    "invalid_api_key": ProviderAuthFailed,
    "authentication_error": ProviderAuthFailed,
    "permission_error": ProviderAuthFailed,
    "api_key_invalid": ProviderAuthFailed,
    "model_not_found": ProviderModelGone,
    "model_not_supported": ProviderModelGone,
    "model_decommissioned": ProviderModelGone,
    "invalid_model": ProviderModelGone,
    "deploymentnotfound": ProviderModelGone,
    "not_found_error": ProviderModelGone,
    "rate_limit_exceeded": ProviderRateLimited,
    "rate_limit_error": ProviderRateLimited,
    "ratelimitreached": ProviderRateLimited,
    "resource_exhausted": ProviderRateLimited,
    "overloaded_error": ProviderUnavailable,
    "server_error": ProviderUnavailable,
    "api_error": ProviderUnavailable,
    "unavailable": ProviderUnavailable,
    "timeout_error": ProviderTimeout,
    "deadline_exceeded": ProviderTimeout,
}
_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: ProviderAuthFailed,
    402: ProviderQuotaExhausted,
    403: ProviderAuthFailed,
    404: ProviderModelGone,
    408: ProviderTimeout,
    409: ProviderUnavailable,
    429: ProviderRateLimited,
    432: ProviderQuotaExhausted,
    433: ProviderQuotaExhausted,
    498: ProviderAuthFailed,
    504: ProviderTimeout,
}
_LIMIT_MARKS = ("quota", "rate limit", "resource exhausted", "too many requests", "insufficient balance")
_FIRST_CALLER_STATUS, _FIRST_SERVER_STATUS = 400, 500
_ABSURD_WAIT = 10**7
_READ_CHARS = 10_000


class VendorFailure(Struct, frozen=True, kw_only=True):
    """A vendor's error in one shape. `codes` are tried in order, any letter case."""

    status: int
    message: str = ""
    codes: tuple[str, ...] = ()
    param: str | None = None
    retry_after_s: float | None = None


def typed_error(failure: VendorFailure, target: Target) -> ProviderError:
    """Turn a vendor's failure into the error class that says what can be done."""
    kind = _classify(failure)
    vendor_code = failure.codes[0] if failure.codes else None
    detail = "" if kind is ProviderAuthFailed else excerpt(_redacted(failure.message, target))
    # A field's name that holds what looks like a credential is none.
    param = failure.param
    if param is not None and excerpt(_redacted(param, target)) != param:
        param = None
    return kind(
        _sentence(kind, failure.status, detail, target),
        provider=target.provider,
        model=target.wire_model,
        status=failure.status,
        detail=detail,
        retry_after_s=failure.retry_after_s,
        param=param,
        vendor_code=vendor_code,
    )


def _redacted(text: str, target: Target) -> str:
    """Take out the credential; of a text that is far too long only the beginning is looked at."""
    secret, text = target.deployment.auth.secret, text[:_READ_CHARS]
    return text if secret is None else secret.redact(text)


def bad_response(
    target: Target, what: str, *, status: int | None = None, preceding: Sequence[ChatEvent] = ()
) -> BadProviderResponse:
    """Make the error for an answer that breaks its contract; `what` completes "the answer …".

    `preceding` are the events of a stream that were complete before.
    """
    error = BadProviderResponse(
        f"the answer of provider {target.provider!r} {what}",
        provider=target.provider,
        model=target.wire_model,
        status=status,
    )
    error.preceding = tuple(preceding)
    return error


def _classify(failure: VendorFailure) -> type[ProviderError]:
    for code in failure.codes:
        kind = _BY_CODE.get(code.lower())
        if kind is ProviderUnavailable and failure.status in _BY_STATUS:
            # "Something failed" says less than the status does.
            kind = _BY_STATUS[failure.status]
        # A code never turns a server's failure into the caller's mistake.
        if kind is not None and (failure.status < _FIRST_SERVER_STATUS or kind.moves_on):
            return kind
    if failure.status in _BY_STATUS:
        return _BY_STATUS[failure.status]
    if failure.status >= _FIRST_SERVER_STATUS:
        # The last resort: a server's failure without a code says by its text alone that a limit is behind it.
        text = failure.message[:_READ_CHARS].lower() if not failure.codes else ""
        return ProviderRateLimited if any(mark in text for mark in _LIMIT_MARKS) else ProviderUnavailable
    if failure.status >= _FIRST_CALLER_STATUS:
        return ProviderRejected
    return BadProviderResponse


def _sentence(kind: type[ProviderError], status: int, detail: str, target: Target) -> str:
    name = repr(target.provider)
    if kind is ProviderAuthFailed:
        return f"provider {name} refused the gateway's credential (upstream status {status})"
    if kind is ProviderModelGone:
        text = f"provider {name} does not know the model or deployment {target.wire_model!r}"
    elif kind is ProviderRateLimited:
        text = f"provider {name} limits the rate of requests"
    elif kind is ProviderQuotaExhausted:
        text = f"the gateway's account at provider {name} is exhausted"
    elif issubclass(kind, ProviderRejected):
        text = f"provider {name} refused the request"
    else:
        text = f"provider {name} failed (upstream status {status})"
    return f"{text}: {detail}" if detail else text


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read a vendor's wish for patience, in seconds: milliseconds, seconds or a date, never negative."""
    in_ms = _number(headers.get("retry-after-ms"))
    text = headers.get("retry-after")
    in_s = _number(text)
    if in_s is None and text is not None and "date" in headers:
        try:
            gap = parsedate_to_datetime(text) - parsedate_to_datetime(headers["date"])
            in_s = _bounded(max(0.0, gap.total_seconds()))
        except (TypeError, ValueError, OverflowError):
            in_s = None
    waits = [wait for wait in (None if in_ms is None else in_ms / 1000, in_s) if wait is not None]
    return max(waits) if waits else None


def _number(text: str | None) -> float | None:
    try:
        return _bounded(float(text)) if text is not None else None
    except ValueError:
        return None


def _bounded(value: float) -> float | None:
    return value if 0 <= value < _ABSURD_WAIT else None


def plain_text(reply: HttpReply) -> str:
    """Return a reply's body as text for an error message; nothing for HTML, which says nothing."""
    text = reply.body[:4096].decode(errors="replace").strip()
    return "" if text.startswith("<") else text
