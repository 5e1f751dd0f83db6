"""The ledger's values: what is asked of it before, during and after a call, and what it answers.

Theory of operation: a call is admitted by one Reserve, which holds its bound against every quota that binds it, or
against none. The reservation is a row with an owner. Before another attempt, Advance records how the last one ended
and holds the bound of the next. The reservation ends exactly once: settled at what was used, released when nothing
was sent, or expired (at its bound) when its owner is gone. What ended becomes an immutable record.

Every step carries the id of its reservation and may be handed in again: the second time changes nothing. So a store
that lost its connection in the middle of a commit simply tries again.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.limits import Bucket, Meter
from llm_gate.domain.plans import Quota, Scope
from llm_gate.domain.windows import Window

Quality = Literal["measured", "estimated", "upper_bound"]
"""How the figures came about: the provider's own count, our count of what was delivered, or the bound that was held."""

AttemptStatus = Literal["ok", "failed", "cut", "unknown"]
"""How an attempt ended. "cut": the caller left; "unknown": nobody saw its end."""

RecordStatus = Literal["ok", "failed", "cut", "unconfirmed"]
"""How a call ended. "unconfirmed": its process died, so that it is charged at its bound."""


JOBS_OWNER = "jobs"
"""Whose reservations outlive the process that made them: each belongs to the job of the same id."""


class Hold(Struct, frozen=True, kw_only=True, array_like=True):
    """An amount held against one quota in one window; `cap` is the quota's value at that time.

    `since_ms` is when the quota came to be: where it is later than the window's start, what was used before is
    taken from the records when the window is first touched.
    """

    account: str
    name: str
    scope: Scope
    subject: str
    meter: Meter
    provider: str | None
    start_ms: int
    end_ms: int
    since_ms: int
    cap: int
    amount: int

    @property
    def place(self) -> tuple[str, int]:
        """The balance it is held on."""
        return (self.account, self.start_ms)


def hold_on(quota: Quota, window: Window, amount: int) -> Hold:
    """Return a hold of an amount on a quota in a window."""
    return Hold(
        account=quota.account,
        name=quota.limit.name,
        scope=quota.scope,
        subject=quota.subject,
        meter=quota.limit.meter,
        provider=quota.limit.provider,
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        since_ms=quota.since_ms,
        cap=quota.value,
        amount=amount,
    )


class Call(Struct, frozen=True, kw_only=True):
    """What is to be done, for whom. `id` names call, reservation and record; `made_ms` decides the windows.

    `count` is how many calls of its bucket it counts as (pictures, for instance). `owner` is the process that
    answers for it.
    """

    id: str
    tenant: str
    application: str
    user: str
    key_id: str | None
    request_id: str
    operation: Operation
    bucket: Bucket
    endpoint: str
    made_ms: int
    owner: str
    plan: str
    count: int = 1
    quote_id: str | None = None


class Intent(Struct, frozen=True, kw_only=True):
    """An attempt that is about to be sent, committed before it is. `bound_cost_nanos` is None without a price."""

    number: int
    provider: str
    model: str
    started_ms: int
    bound_tokens: int
    bound_cost_nanos: int | None


class Outcome(Struct, frozen=True, kw_only=True):
    """How one attempt ended, and what it cost. `units` are the counts by their names, `prices` the ids used.

    `cost_nanos` is None where a price or the usage is unknown; that is only let in where no money is limited.
    `saved_nanos` is what an answer out of the cache would have cost; such an attempt reached no vendor.
    """

    number: int
    provider: str
    model: str
    started_ms: int
    ended_ms: int
    status: AttemptStatus
    quality: Quality = "measured"
    units: Mapping[str, int] = {}
    tokens: int = 0
    cost_nanos: int | None = 0
    prices: tuple[str, ...] = ()
    vendor_cost_nanos: int | None = None
    error_code: str | None = None
    upstream_status: int | None = None
    synthetic: bool = False
    saved_nanos: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it came to something: an answer, or at least a cost."""
        return self.status == "ok" or bool(self.cost_nanos) or self.tokens > 0


class Reservation(Struct, frozen=True, kw_only=True):
    """An open reservation as it is stored. A quote has no intent, and an end of its own."""

    call: Call
    holds: tuple[Hold, ...]
    intent: Intent | None = None
    outcomes: tuple[Outcome, ...] = ()
    expires_ms: int | None = None


class Record(Struct, frozen=True, kw_only=True):
    """The immutable record of a call that ended. `charges` is what each hold came to."""

    call: Call
    status: RecordStatus
    ended_ms: int
    outcomes: tuple[Outcome, ...]
    charges: tuple[tuple[Hold, int], ...]
    error_code: str | None = None

    @property
    def cost_nanos(self) -> int | None:
        """What all attempts cost together; None where one of them is unknown."""
        return total(outcome.cost_nanos for outcome in self.outcomes)

    @property
    def quality(self) -> Quality:
        """The least certain of the attempts' qualities."""
        found = {outcome.quality for outcome in self.outcomes}
        ranked: tuple[Quality, ...] = ("upper_bound", "estimated")
        return next((quality for quality in ranked if quality in found), "measured")


class Reserve(Struct, frozen=True, kw_only=True):
    """Hold the bound of a call, all of it or nothing. With a `call.quote_id`, what the quote holds is spent first.

    Without an intent it is a quote, which ends by itself at `expires_ms`.
    """

    call: Call
    holds: tuple[Hold, ...]
    intent: Intent | None
    expires_ms: int | None = None


class Advance(Struct, frozen=True, kw_only=True):
    """Record how the attempt under way ended, and hold the bound of the next one.

    `holds` are the quotas that bind the next attempt, with its bound alone; what earlier attempts used is added here.
    """

    id: str
    outcome: Outcome
    intent: Intent
    holds: tuple[Hold, ...]


class Settle(Struct, frozen=True, kw_only=True):
    """End a call at what it used. `outcome` is that of the attempt under way, None when there is none."""

    id: str
    outcome: Outcome | None
    status: RecordStatus
    ended_ms: int
    error_code: str | None = None


class Release(Struct, frozen=True, kw_only=True):
    """End a reservation of which nothing was sent (or, of a quote, what is left), without a trace."""

    id: str


class Expire(Struct, frozen=True, kw_only=True):
    """End a reservation whose owner is gone: at its bound if an attempt may be under way."""

    id: str
    at_ms: int


Step = Reserve | Advance | Settle | Release | Expire


class Granted(Struct, frozen=True, kw_only=True):
    """The amounts are held."""


class Shortage(Struct, frozen=True, kw_only=True):
    """A quota without enough room: `used` by calls that ended, `held` by those under way, `wanted` by this one."""

    hold: Hold
    used: int
    held: int

    @property
    def wanted(self) -> int:
        """What would be needed."""
        return self.hold.amount


class Refused(Struct, frozen=True, kw_only=True):
    """Nothing is held, and nothing has changed: these quotas have no room, the one that resets last first."""

    shortages: tuple[Shortage, ...]


class Ended(Struct, frozen=True, kw_only=True):
    """The reservation is over; `was_open` tells whether by this step. `record` is what became of it then."""

    was_open: bool
    record: Record | None = None


class Missing(Struct, frozen=True, kw_only=True):
    """The reservation or quote that was named does not exist, or is over."""

    id: str


Result = Granted | Refused | Ended | Missing


def total(costs: Iterable[int | None]) -> int | None:
    """Add costs up; unknown when any of them is."""
    added = 0
    for cost in costs:
        if cost is None:
            return None
        added += cost
    return added
