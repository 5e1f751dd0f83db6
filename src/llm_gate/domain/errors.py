"""Every error the gateway raises, sorted by what the caller can do about it; never an HTTP number.

GateError                       code, message, details
├── CallerError                 the caller must change something
│   ├── InvalidRequest (KeyReused, GuardRefused)  NotAuthenticated  NotAllowed (PriceUnknown)  NotFound
│   ├── Conflict (AlreadyOver, AnswerLost)  QuotaExceeded
│   └── MethodNotAllowed  TooLarge  RequestTimedOut  UnsupportedMedia  LoopDetected  NotKept
├── ProviderError               provider, model, upstream status, safe excerpt
│   ├── ProviderUnavailable  ProviderTimeout            another try may work
│   ├── ProviderRateLimited  ProviderQuotaExhausted     time or another provider helps
│   ├── ProviderAuthFailed  ProviderModelGone           our side is wrong: another provider helps
│   ├── BadProviderResponse (AnswerNotInForm)           the answer cannot be trusted
│   └── ProviderRejected (ContextTooLong, ContentFiltered, FineTuningEnded)   the request itself is refused: stop
├── AllAttemptsFailed           every ProviderError in order
└── GateFault (StoreUnavailable, Unsettled, Overloaded, ShuttingDown, GuardFailed)   ours: storage, configuration, room
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

EXCERPT_CHARS = 500

# Credential shapes that vendors are known to quote back in their messages, also half masked.
_CREDENTIAL = re.compile(
    r"(?i)(?:\b(?:sk|pk|rk|gsk|hf|xai|AIza|AQ|key)[-_.][A-Za-z0-9_\-*.]{4,}|\bAIza[A-Za-z0-9_\-*]{4,}"
    r"|\bbearer\s+[^\s\"',;]+|\b[A-Za-z0-9_\-]{2,}\*{3,}[A-Za-z0-9_\-]*)"
)


def excerpt(text: str) -> str:
    """Shorten vendor text for an error message and mask whatever looks like a credential."""
    clean = _CREDENTIAL.sub("[redacted]", " ".join(text.split()))
    return clean if len(clean) <= EXCERPT_CHARS else clean[: EXCERPT_CHARS - 1] + "…"


class Fault:
    """One thing that is wrong in a request or a file: where, and what."""

    __slots__ = ("message", "path")

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message

    def __repr__(self) -> str:
        return f"Fault({self.path!r}, {self.message!r})"


class GateError(Exception):
    """Root of all errors the gateway raises on purpose."""

    code = "gate_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallerError(GateError):
    """The caller must change something."""

    code = "invalid_request"


class InvalidRequest(CallerError):
    """The request is malformed, contradictory or asks for what the target cannot do.

    `param` is the wire name of the offending field, where there is one; `faults` lists every
    fault found where the surface reports more than the first.
    """

    code = "invalid_request"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, faults: Sequence[Fault] = ()
    ) -> None:
        super().__init__(message)
        self.param = param
        self.faults = tuple(faults) or (Fault(param or "", message),)
        if code is not None:
            self.code = code


class GuardRefused(InvalidRequest):
    """A guard of the operator's refuses what is asked, or what was answered; an answer was paid all the same."""

    code = "guard_refused"


class KeyReused(InvalidRequest):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"


class NotAuthenticated(CallerError):
    """No key, or one that is not accepted."""

    code = "invalid_api_key"


class TooManyFailures(NotAuthenticated):
    """Too many keys from one place were not accepted: it has to wait."""

    code = "too_many_failed_authentications"
    retry_after_s = 60.0


class NotAllowed(CallerError):
    """The caller is known (or need not be) and still may not do this."""

    code = "not_allowed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class PriceUnknown(NotAllowed):
    """What a call may cost is not known, and the caller's money is limited: it would be free, or without end."""

    code = "price_unknown"


class NotFound(CallerError):
    """A named thing does not exist: model, provider, route, job."""

    code = "not_found"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class MethodNotAllowed(CallerError):
    """The route exists, under another method."""

    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class QuotaFacts(Struct, frozen=True, kw_only=True):
    """What stands behind a refusal: the limit, and how far it is used.

    `used`, `held` (by calls under way), `cap` and `wanted` are in the limit's unit, nano-dollars where `is_money`.
    `resets_at` is when its window ends. `heals` tells whether waiting helps at all: it does not where the plan does
    not include the thing, or the subscription has run out (`expired_at`). `upgrade_to` is a plan that has room.
    """

    limit_name: str
    plan: str
    scope: str = "user"
    provider: str | None = None
    operation: str | None = None
    used: int = 0
    held: int = 0
    cap: int | None = None
    wanted: int = 0
    is_money: bool = False
    resets_at: datetime | None = None
    expired_at: datetime | None = None
    heals: bool = True
    upgrade_to: str | None = None


class QuotaExceeded(CallerError):
    """A limit of the caller's plan, key, application or tenant leaves no room; nothing was spent."""

    code = "quota_exceeded"

    def __init__(self, message: str, facts: QuotaFacts, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.facts = facts
        self.retry_after_s = retry_after_s


class Conflict(CallerError):
    """The request contradicts the present state of the thing it names."""

    code = "conflict"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class AlreadyOver(Conflict):
    """What is to be changed has ended: asking again never helps."""


class AnswerLost(Conflict):
    """A request that was made before is not made again, and its answer is not there to be shown."""

    code = "idempotency_outcome_unknown"


class TooLarge(CallerError):
    """The body is larger than the gateway takes."""

    code = "request_too_large"


class RequestTimedOut(CallerError):
    """The caller did not send the whole request in time."""

    code = "request_timeout"


class UnsupportedMedia(CallerError):
    """The content type of the body is not the one this route reads."""

    code = "unsupported_media_type"


class NotKept(CallerError):
    """The caller wants a kept answer and no other, and there is none; nobody was asked."""

    code = "not_cached"


class LoopDetected(CallerError):
    """The request has passed through this gateway before."""

    code = "loop_detected"


class ProviderError(GateError):
    """A provider failed; subclasses say whether another try or another provider may help.

    `status` is the upstream's HTTP status (None when there was none), `retry_after_s` its own hint
    in seconds, `detail` a shortened vendor text in which credentials are masked. `was_sent` is False where the
    request certainly never reached the provider, so that nothing can have been billed; `is_unbilled` is True where the
    provider itself says that its work failed, `was_accepted` where it had taken the request for work that it bills.
    `may_repeat` is False where another try at the same place could be paid twice. `preceding` holds the events of a
    stream that were complete when it broke, so that they are not lost with it.
    """

    code = "provider_error"
    moves_on = True
    """Whether the next target may be tried after this error."""

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str | None = None,
        status: int | None = None,
        detail: str = "",
        retry_after_s: float | None = None,
        param: str | None = None,
        vendor_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.param = param
        self.vendor_code = vendor_code
        self.was_sent = True
        self.is_unbilled = False
        self.was_accepted = False
        self.may_repeat = True
        self.preceding: tuple[Any, ...] = ()


class ProviderUnavailable(ProviderError):
    """The provider could not be reached, or answered with a server error."""

    code = "provider_unavailable"


class ProviderTimeout(ProviderError):
    """The provider did not answer, or stopped answering, within a deadline."""

    code = "provider_timeout"


class ProviderRateLimited(ProviderError):
    """The provider asks for patience."""

    code = "rate_limit_exceeded"


class ProviderQuotaExhausted(ProviderError):
    """The operator's account at the provider has no credit or quota left."""

    code = "insufficient_quota"


class ProviderAuthFailed(ProviderError):
    """The provider refused the operator's credential."""

    code = "provider_auth_failed"


class ProviderModelGone(ProviderError):
    """The provider does not know the model or deployment."""

    code = "provider_model_not_found"


class BadProviderResponse(ProviderError):
    """The provider's answer is not what its contract says: HTML, nothing, a cut stream, a bad shape."""

    code = "bad_provider_response"


class AnswerNotInForm(BadProviderResponse):
    """The answer does not fit the JSON Schema it was asked for, also after it was asked for again."""

    code = "structured_output_invalid"


class ProviderRejected(ProviderError):
    """The provider refuses this very request; no other try will help."""

    code = "provider_rejected"
    moves_on = False


class ContextTooLong(ProviderRejected):
    """The input does not fit the model's context window."""

    code = "context_length_exceeded"


class FineTuningEnded(ProviderRejected):
    """The provider trains no more models, for anybody or for the gateway's account; those that are there go on."""

    code = "fine_tuning_ended"


class ContentFiltered(ProviderRejected):
    """The provider's content policy blocked the request."""

    code = "content_filter"


class AllAttemptsFailed(GateError):
    """Every target was tried; `errors` holds what each said, in order."""

    code = "all_attempts_failed"

    def __init__(self, errors: Sequence[ProviderError]) -> None:
        super().__init__("; ".join(f"{e.provider}: {e.message}" for e in errors))
        self.errors = tuple(errors)


class GateFault(GateError):
    """The gateway itself is broken or misconfigured."""

    code = "internal_error"


class StoreUnavailable(GateFault):
    """The store that keeps the ledger cannot be reached now. Nothing was sent to a provider without it."""

    code = "store_unavailable"
    retry_after_s = 2.0


class Unsettled(StoreUnavailable):
    """A provider has answered, but the store cannot be reached to record it now; that is done when it can."""

    code = "settlement_pending"


class GuardFailed(GateFault):
    """A guard of the operator's broke down or took too long, so that nothing gets past it."""

    code = "guard_failed"


class Overloaded(GateFault):
    """There is no room for the call now: as many are under way as the operator allows. Nothing was spent."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(GateFault):
    """The gateway is being stopped: no new call begins, and those that last too long are ended."""

    code = "shutting_down"
    retry_after_s = 1.0
