"""How the places that calls go to are doing: what is known of them, what is told of them, and what was tried."""

from collections.abc import Mapping
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.errors import ProviderError

Cause = Literal["vendor_key", "vendor_credit", "all_failed", "cooldown"]
"""Why an operator is told: a refused key, an empty account, nobody could answer, a place is left alone."""


NOTICE_EVERY_MS = 3_600_000
"""How often the operator is told the same."""


class Cooling(Struct, frozen=True, kw_only=True):
    """Why a place is left alone, and for how many seconds more. `code`, `message`, `status` are the last error's."""

    for_s: float
    code: str
    message: str
    status: int | None = None


class Tried(Struct, frozen=True, kw_only=True):
    """One attempt that failed, or a target that was left out: where, and why."""

    provider: str
    model: str
    deployment: str
    error: str
    code: str
    was_called: bool = True


class LastError(Struct, frozen=True, kw_only=True):
    """An error as the status shows it; `at_ms` is when it came, in ms since 1970."""

    at_ms: int
    code: str
    message: str
    status: int | None = None


class Vitals(Struct, frozen=True, kw_only=True):
    """What a place did lately. Latencies are of whole answers, or of a stream's first event, in milliseconds.

    `requests` and `failures` count since the start of the process; the rest is of the last few hundred attempts.
    """

    requests: int = 0
    failures: int = 0
    success_rate: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    under_way: int = 0
    waiting: int = 0
    last_errors: tuple[LastError, ...] = ()


class PlaceStatus(Struct, frozen=True, kw_only=True):
    """One model at one deployment, as the status shows it; `key` is the deployment's."""

    key: str
    provider: str
    deployment: str
    model: str
    vitals: Vitals
    cooling: Cooling | None = None


class Notice(Struct, frozen=True, kw_only=True):
    """Something the operator should know. Of one cause and subject, one notice an hour is delivered."""

    cause: Cause
    subject: str
    message: str


class NoticeLine(Struct, frozen=True, kw_only=True):
    """A notice as it is stored. Instants are in ms since 1970."""

    id: str
    cause: str
    subject: str
    message: str
    created_ms: int
    tries: int = 0


class Notices(Protocol):
    """Tells the operator."""

    def tell(self, notice: Notice) -> None:
        """Tell in the log and by the webhook, unless it was told within the hour; never waits and never fails."""


class AttemptWatch(Protocol):
    """Follows the attempts of one call, for whoever wants to say what happens."""

    def trying(self, provider: str) -> None:
        """Take notice that a provider is asked, at its first attempt."""

    def failed(self, provider: str, error: ProviderError, next_provider: str | None) -> None:
        """Take notice that a provider will not be asked again; `next_provider` is who is asked then."""


class SharedConditions(Protocol):
    """What the processes of one installation tell each other. Nothing of it is ever waited for long, or raises."""

    async def tell(self, key: str, cooling: Cooling) -> None:
        """Tell the others that a place is left alone."""

    async def heard(self) -> Mapping[str, Cooling] | None:
        """Return what is left alone now, by key; None where nothing can be heard."""

    async def take(self, key: str, *, rpm: int | None, tpm: int | None, tokens: int) -> float | None:
        """Count a request and its tokens within the last 60 seconds of everybody.

        Returns 0 where it was counted, else after how many seconds there is room; None where nobody can tell.
        """

    async def close(self) -> None:
        """Close what is open."""


class Meters(Protocol):
    """Counts for the operator's metrics. Called on every call, so that it must cost next to nothing."""

    def attempt(self, provider: str, model: str, operation: str, outcome: str, seconds: float) -> None:
        """Count an attempt. `outcome` is "ok", "left", or the error's code."""

    def retried(self, provider: str) -> None:
        """Count another try at the same target."""

    def fell_back(self, provider: str, reason: str) -> None:
        """Count that a target was given up for the next; `reason` is an error's code."""

    def cooled(self, provider: str, reason: str) -> None:
        """Count the beginning of a cooldown."""

    def hedged(self, provider: str, *, won: bool) -> None:
        """Count a target that was asked beside a slow one."""

    def shed(self, reason: str) -> None:
        """Count a call that was turned away for want of room."""

    def cached(self, operation: str, word: str, saved_nanos: int | None) -> None:
        """Count what became of a call at the cache, and what a kept answer saved."""


class NoMeters:
    """Counts nothing."""

    def attempt(self, provider: str, model: str, operation: str, outcome: str, seconds: float) -> None:
        """Count nothing."""

    def retried(self, provider: str) -> None:
        """Count nothing."""

    def fell_back(self, provider: str, reason: str) -> None:
        """Count nothing."""

    def cooled(self, provider: str, reason: str) -> None:
        """Count nothing."""

    def hedged(self, provider: str, *, won: bool) -> None:
        """Count nothing."""

    def shed(self, reason: str) -> None:
        """Count nothing."""

    def cached(self, operation: str, word: str, saved_nanos: int | None) -> None:
        """Count nothing."""
