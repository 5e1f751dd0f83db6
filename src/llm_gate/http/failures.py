"""The one table from error classes to HTTP: statuses, retry hints, and words for each surface."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from llm_gate.domain.errors import (
    AllAttemptsFailed,
    AlreadyOver,
    AnswerLost,
    BadProviderResponse,
    CallerError,
    Conflict,
    ContentFiltered,
    ContextTooLong,
    Fault,
    FineTuningEnded,
    GateError,
    GateFault,
    InvalidRequest,
    KeyReused,
    LoopDetected,
    MethodNotAllowed,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotKept,
    Overloaded,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    QuotaFacts,
    RequestTimedOut,
    ShuttingDown,
    StoreUnavailable,
    TooLarge,
    TooManyFailures,
    UnsupportedMedia,
)

STATUS: Mapping[type[GateError], int] = {
    InvalidRequest: 400,
    KeyReused: 422,
    TooManyFailures: 429,
    NotAuthenticated: 401,
    NotAllowed: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimedOut: 408,
    Conflict: 409,
    QuotaExceeded: 429,
    TooLarge: 413,
    UnsupportedMedia: 415,
    LoopDetected: 508,
    NotKept: 504,
    CallerError: 400,
    ProviderUnavailable: 503,
    ProviderTimeout: 504,
    ProviderRateLimited: 429,
    ProviderQuotaExhausted: 429,
    ProviderAuthFailed: 502,
    ProviderModelGone: 502,
    BadProviderResponse: 502,
    ProviderRejected: 400,
    ContextTooLong: 400,
    ContentFiltered: 400,
    FineTuningEnded: 403,
    ProviderError: 502,
    AllAttemptsFailed: 502,
    StoreUnavailable: 503,
    Overloaded: 503,
    ShuttingDown: 503,
    GateFault: 500,
    GateError: 500,
}
"""A class without a row of its own takes its parent's."""

_TIME_HEALS = (ProviderRateLimited, ProviderQuotaExhausted)
# No waiting changes these: a client that retries by itself should not.
_NO_RETRY = (AlreadyOver, AnswerLost, NotKept, ProviderAuthFailed, ProviderModelGone, ProviderQuotaExhausted)
_WITH_WAIT = (ProviderError, QuotaExceeded, StoreUnavailable, Overloaded, ShuttingDown, TooManyFailures)
_MAX_RETRY_AFTER_S = 86_400
_NOT_INCLUDED = 403
# A client that retries by itself does well to wait this long, and no longer.
_SOON_S = 60


class Failure(Struct, frozen=True, kw_only=True):
    """An error as every surface needs it, before it is written in that surface's form.

    `request_id` is for surfaces that repeat it in the body, `quota` and `provider` for those that say what stands
    behind a refusal, and `heals_soon` tells of it whether a short wait may help; `retry_after_s` is what the header
    says, unrounded.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = {}
    request_id: str = ""
    provider: str | None = None
    quota: QuotaFacts | None = None
    heals_soon: bool = True
    retry_after_s: float | None = None


def status_of(error: GateError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, AllAttemptsFailed):
        return _status_of_all(error)
    if isinstance(error, QuotaExceeded) and error.facts.cap == 0:
        # What a plan does not include is forbidden, not used up.
        return _NOT_INCLUDED
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _status_of_all(error: AllAttemptsFailed) -> int:
    if all(isinstance(each, _TIME_HEALS) for each in error.errors):
        return 429
    if all(isinstance(each, ProviderTimeout) for each in error.errors):
        return 504
    if any(
        isinstance(each, ProviderUnavailable | ProviderTimeout | ProviderRateLimited) for each in error.errors
    ):
        return 503
    return 502


def failure_of(error: GateError, *, request_id: str = "") -> Failure:
    """Describe an error for the edge."""
    headers: dict[str, str] = {}
    wait_s = _retry_after_s(error)
    if wait_s is not None:
        # A vendor's own hint is bounded; when a limit resets is known.
        most_s = math.inf if isinstance(error, QuotaExceeded) else _MAX_RETRY_AFTER_S
        headers["retry-after"] = str(math.ceil(min(wait_s, most_s)))
    heals_soon = not isinstance(error, QuotaExceeded) or _heals_soon(error)
    if all(isinstance(each, _NO_RETRY) for each in _parts(error)) or not heals_soon:
        headers["x-should-retry"] = "false"
    if isinstance(error, NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    return Failure(
        status=status_of(error),
        code=_code_of(error),
        message=error.message,
        param=getattr(error, "param", None),
        faults=error.faults if isinstance(error, InvalidRequest) else (),
        headers=headers,
        request_id=request_id,
        provider=_provider_of(error),
        quota=error.facts if isinstance(error, QuotaExceeded) else None,
        heals_soon=heals_soon,
        retry_after_s=wait_s,
    )


def _heals_soon(error: QuotaExceeded) -> bool:
    wait_s = error.retry_after_s
    return error.facts.heals and (wait_s is None or wait_s <= _SOON_S)


def _provider_of(error: GateError) -> str | None:
    if isinstance(error, QuotaExceeded):
        return error.facts.provider
    return error.provider if isinstance(error, ProviderError) else None


def _parts(error: GateError) -> Sequence[GateError]:
    return error.errors if isinstance(error, AllAttemptsFailed) else (error,)


def _code_of(error: GateError) -> str:
    """Return the code; attempts that all failed alike have that in common."""
    codes = {each.code for each in _parts(error)}
    return codes.pop() if len(codes) == 1 else error.code


def _retry_after_s(error: GateError) -> float | None:
    if isinstance(error, AllAttemptsFailed):
        waits = [each.retry_after_s for each in error.errors if each.retry_after_s is not None]
        return min(waits) if waits else None
    return error.retry_after_s if isinstance(error, _WITH_WAIT) else None
