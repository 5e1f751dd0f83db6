"""What is asked about the past, and what comes back: sums of usage, single calls, alerts. The ports are here too.

Every question names one tenant; nothing of another can come back. Answers are pages: whoever wants all of them asks
again with the last key of the page before.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol, get_args

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.ledger import Quality, RecordStatus
from llm_gate.domain.limits import Bucket
from llm_gate.domain.plans import Quota, Scope, Standing
from llm_gate.domain.windows import FOREVER_MS, Window, instant, milliseconds

Grouping = Literal["provider", "model", "user", "application", "bucket", "day", "month"]
"""By what usage is summed up. Models are written `provider/model`, days and months as in ISO 8601, in UTC."""

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

Health = Literal["active", "warning", "limit_reached"]
"""How near the nearest limit is: below 80 percent, below 100, or reached."""

_WARNING, _REACHED = 80, 100
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_FIRST_YEAR, _LAST_YEAR = 1970, 9000


class Selection(Struct, frozen=True, kw_only=True):
    """Whose calls, and made when: from `since_ms` on, up to but without `until_ms`. None is any."""

    tenant: str
    user: str | None = None
    application: str | None = None
    since_ms: int = 0
    until_ms: int = FOREVER_MS


class Totals(Struct, frozen=True, kw_only=True):
    """Sums over calls. `requests` are calls of which at least one attempt was sent, `failures` attempts that failed.

    `unpriced` counts attempts whose cost is unknown, and which `cost_nanos` therefore lacks.
    """

    requests: int = 0
    attempts: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    unpriced: int = 0
    duration_ms: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class Group(Struct, frozen=True, kw_only=True):
    """The sums of one group; `key` has a value for each grouping that was asked for, in that order."""

    key: tuple[str, ...]
    totals: Totals


class CallFilter(Struct, frozen=True, kw_only=True):
    """Which calls of a selection are wanted. None is any; `error_codes` narrow failed calls alone."""

    provider: str | None = None
    bucket: Bucket | None = None
    statuses: tuple[RecordStatus, ...] | None = None
    error_codes: tuple[str, ...] | None = None


EVERY_CALL = CallFilter()


class CallLine(Struct, frozen=True, kw_only=True):
    """One call as it was recorded; provider and model are those of its last attempt."""

    id: str
    request_id: str
    tenant: str
    application: str
    user: str
    key_id: str | None
    operation: Operation
    bucket: Bucket
    endpoint: str
    plan: str
    provider: str | None
    model: str | None
    status: RecordStatus
    quality: Quality
    error_code: str | None
    made_ms: int
    ended_ms: int
    attempts: int
    count: int
    input_tokens: int
    output_tokens: int
    tokens: int
    cost_nanos: int | None
    synthetic: bool

    @property
    def place(self) -> tuple[int, str]:
        """Where the line stands among all lines: by time, then by id."""
        return (self.made_ms, self.id)


class AttemptLine(Struct, frozen=True, kw_only=True):
    """One attempt of a call. `units` are its counts by name, `prices` the ids of the prices used.

    `saved_nanos` is what a kept answer had cost, which stood in for the attempt.
    """

    number: int
    provider: str
    model: str
    status: str
    quality: Quality
    started_ms: int
    ended_ms: int
    units: Mapping[str, int]
    tokens: int
    cost_nanos: int | None
    vendor_cost_nanos: int | None
    prices: tuple[str, ...]
    error_code: str | None
    upstream_status: int | None
    saved_nanos: int | None = None


class AlertLine(Struct, frozen=True, kw_only=True):
    """A quota of which so many percent were used for the first time in its window."""

    id: str
    tenant: str
    user: str
    scope: Scope
    subject: str
    limit_name: str
    start_ms: int
    end_ms: int
    threshold: int
    plan: str
    used: int
    cap: int
    created_ms: int
    read_ms: int | None = None
    sent_ms: int | None = None
    tries: int = 0


class Share(Struct, frozen=True, kw_only=True):
    """The usage of one bucket at one provider."""

    bucket: Bucket
    provider: str
    totals: Totals


class QuotaUse(Struct, frozen=True, kw_only=True):
    """How far a quota is used in a window; `held` is what calls under way may still use."""

    quota: Quota
    window: Window
    used: int
    held: int

    @property
    def hundredths(self) -> int:
        """The used part in hundredths of a percent; of a quota that allows nothing, any use is all of it."""
        cap = self.quota.value
        return self.used * 100 * _REACHED // cap if cap else 100 * _REACHED * (self.used > 0)


class PeriodUsage(Struct, frozen=True, kw_only=True):
    """A user's billing period: its sums, their shares, and the quotas of the plan that are counted over it."""

    window: Window
    standing: Standing
    totals: Totals
    shares: tuple[Share, ...]
    quotas: tuple[QuotaUse, ...]

    @property
    def month(self) -> str:
        """The month the period begins in, as YYYY-MM: its name."""
        return instant(self.window.start_ms).astimezone(self.standing.zone).strftime("%Y-%m")

    @property
    def health(self) -> Health:
        """How near the nearest limit is."""
        worst = max((use.hundredths for use in self.quotas), default=0)
        if worst >= 100 * _REACHED:
            return "limit_reached"
        return "warning" if worst >= 100 * _WARNING else "active"


class MonthUsage(Struct, frozen=True, kw_only=True):
    """A calendar month (YYYY-MM, UTC) and its shares."""

    month: str
    shares: tuple[Share, ...]


def read_moment(text: str) -> int:
    """Read a day, a month or a moment as in ISO 8601, in UTC unless it says otherwise; in ms since 1970.

    Raises:
        ValueError: it is none, or lies before 1970 or beyond any use.
    """
    at = datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ValueError(f"isoformat: the year of {text!r} is of no use here")
    return max(0, milliseconds(at))


def total_of(totals: Iterable[Totals]) -> Totals:
    """Add sums up."""
    sums = dict.fromkeys(Totals.__struct_fields__, 0)
    for each in totals:
        for name in sums:
            sums[name] += getattr(each, name)
    return Totals(**sums)


class Reports(Protocol):
    """What was used and what it cost. Every method may raise StoreUnavailable."""

    async def totals(self, selection: Selection) -> Totals:
        """Sum a selection up."""

    async def groups(
        self,
        selection: Selection,
        by: tuple[Grouping, ...],
        *,
        after: tuple[str, ...] | None = None,
        limit: int = 1000,
    ) -> tuple[Group, ...]:
        """Sum a selection up by groups, in the order of their keys, those behind the key `after` alone."""

    async def calls(
        self,
        selection: Selection,
        wanted: CallFilter = EVERY_CALL,
        *,
        before: tuple[int, str] | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[CallLine, ...]:
        """Return calls, the newest first: those before a place, without the first `offset` of them."""

    async def count_calls(self, selection: Selection, wanted: CallFilter = EVERY_CALL) -> int:
        """Count calls of which at least one attempt was sent."""

    async def call(self, tenant: str, call_id: str) -> CallLine | None:
        """Return one call of a tenant."""

    async def attempts(self, tenant: str, call_id: str) -> tuple[AttemptLine, ...]:
        """Return the attempts of one call of a tenant, in their order."""


class AlertFilter(Struct, frozen=True, kw_only=True):
    """Which alerts of a tenant are wanted: of windows that begin from `since_ms` on, and before `until_ms`.

    `user` means those about the user's own quotas.
    """

    tenant: str
    user: str | None = None
    unread_only: bool = False
    since_ms: int = 0
    until_ms: int = FOREVER_MS


class Alerts(Protocol):
    """The alerts that the ledger writes. Every method may raise StoreUnavailable."""

    async def list_alerts(
        self, wanted: AlertFilter, *, before: tuple[int, str] | None = None, limit: int = 50
    ) -> tuple[AlertLine, ...]:
        """Return alerts, the newest first: those before a place (time in ms, id)."""

    async def count_alerts(self, wanted: AlertFilter) -> int:
        """Count alerts."""

    async def alert(self, tenant: str, alert_id: str) -> AlertLine | None:
        """Return one alert of a tenant."""

    async def mark_read(self, tenant: str, alert_id: str, at_ms: int) -> None:
        """Note that an alert was read; the first time counts."""

    async def claim(self, now_ms: int, *, lease_ms: int, oldest_ms: int, limit: int) -> tuple[AlertLine, ...]:
        """Take alerts that wait to be sent, and keep every other process from them for the lease.

        Those made before `oldest_ms` are left alone.
        """

    async def note_sent(self, alert_id: str, at_ms: int) -> None:
        """Note that an alert was delivered, so that nobody sends it again."""

    async def note_failed(self, alert_id: str, next_try_ms: int) -> None:
        """Note when an alert that was not accepted may be sent again."""
