"""Plans as data, who holds them since when, and what follows for one caller: the quotas that bind a call."""

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Literal

from msgspec import Struct, field

from llm_gate.domain.limits import Bucket, Limit, limit_named
from llm_gate.domain.windows import Window, add_months, instant, milliseconds, window_of

Mode = Literal["strict", "balanced"]
"""How the bound of a call is taken: so that it cannot be exceeded, or as it is likely to be."""

Scope = Literal["tenant", "application", "user", "key"]
Cycle = Literal["monthly", "yearly"]
Origin = Literal["shipped", "file", "operator"]
"""Who made a plan what it is: the gateway as it comes, the configuration file, or the operator by a command."""

UNLIMITED = "unlimited"
"""The plan of whoever has none, unless the operator says otherwise: no limits, everything recorded."""


class Limits(Struct, frozen=True, kw_only=True):
    """Limits by name, in counts or nano-dollars; None is unlimited, 0 not included.

    `since_ms` says of each limit when it last came to be after there was none: what was used before, in the same
    window, is then taken from the records.
    """

    values: Mapping[str, int | None] = {}
    since_ms: Mapping[str, int] = {}

    def changed(self, changes: Mapping[str, int | None], at_ms: int) -> "Limits":
        """Return the limits with some of them set anew at an instant."""
        values = {**self.values, **changes}
        since = dict(self.since_ms)
        for name, value in changes.items():
            if value is not None and self.values.get(name) is None:
                since[name] = at_ms
        return Limits(values=values, since_ms=since)


class Plan(Struct, frozen=True, kw_only=True):
    """A named bundle of limits. `name` is its id, in lower case; prices are per billing cycle, in nano-dollars.

    `allowed_models` are names as callers write them, with `*` at the end for any; empty means all.
    `max_output_tokens` is what a call of this plan may ask for, and gets where it asks for nothing.
    """

    name: str
    label: str
    tier: str = "custom"
    description: str = ""
    price_monthly_nanos: int = 0
    price_yearly_nanos: int = 0
    features: tuple[str, ...] = ()
    mode: Mode = "balanced"
    limits: Limits = Limits()
    allowed_models: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    origin: Origin = "operator"
    is_active: bool = True
    created_at_ms: int = 0
    updated_at_ms: int = 0


class Subscription(Struct, frozen=True, kw_only=True):
    """A user's plan from `start_ms` on. `start_ms` anchors the monthly windows; `term_end_ms` ends what was agreed.

    A subscription that renews itself goes on after that, window by window; one that does not has lapsed.
    """

    id: str
    tenant: str
    user: str
    plan: str
    cycle: Cycle = "monthly"
    start_ms: int
    term_end_ms: int
    auto_renew: bool = True
    created_at_ms: int = 0

    def has_lapsed(self, at_ms: int) -> bool:
        """Tell whether the term is over and nothing follows."""
        return not self.auto_renew and at_ms >= self.term_end_ms

    def term_at(self, at_ms: int, zone: tzinfo = UTC) -> tuple[int, int]:
        """Return start and end of the paid term an instant lies in (a month or a year), in ms since 1970."""
        months = 1 if self.cycle == "monthly" else 12
        anchor = instant(self.start_ms).astimezone(zone)
        index = 0
        while milliseconds(add_months(anchor, months * (index + 1))) <= at_ms and self.auto_renew:
            index += 1
        return (
            milliseconds(add_months(anchor, months * index)),
            milliseconds(add_months(anchor, months * (index + 1))),
        )


class Quota(Struct, frozen=True, kw_only=True):
    """One limit that binds one subject. `account` names what is counted for it, over all windows."""

    account: str
    scope: Scope
    subject: str
    limit: Limit
    value: int
    anchor_ms: int
    since_ms: int

    def window(self, at_ms: int, zone: tzinfo = UTC) -> Window:
        """Return the window of the quota that holds an instant."""
        return window_of(self.limit.window, at_ms, anchor_ms=self.anchor_ms, zone=zone)

    def counts(self, bucket: Bucket, provider: str) -> bool:
        """Tell whether a call of a bucket to a provider counts.

        Calls of text to one provider do not: the limit of the whole bucket governs them (0 shuts the provider out
        all the same, which is looked at apart).
        """
        limit = self.limit
        if limit.bucket is not None and limit.bucket != bucket:
            return False
        if limit.provider is None:
            return True
        return limit.provider == provider and (limit.meter != "calls" or bucket != "text")


class Standing(Struct, frozen=True, kw_only=True):
    """What binds a caller now: the plan's mode, every quota of every scope, what may be called.

    `excluded` are the providers, `closed` the buckets that the plan does not include. `lapsed_at_ms` is set when the
    subscription has run out. `anchor_ms` begins the user's billing periods.
    """

    plan: Plan
    quotas: tuple[Quota, ...] = ()
    excluded: frozenset[str] = frozenset()
    closed: frozenset[Bucket] = frozenset()
    allowed_models: tuple[tuple[str, ...], ...] = ()
    anchor_ms: int = 0
    lapsed_at_ms: int | None = None
    zone: tzinfo = field(default_factory=lambda: UTC)

    @property
    def is_capped(self) -> bool:
        """Whether anything at all is limited."""
        return bool(self.quotas)

    @property
    def is_strict(self) -> bool:
        """Whether bounds must hold whatever the provider counts."""
        return self.plan.mode == "strict"


def tenant_in_account(tenant: str) -> str:
    """Return a tenant's id as accounts have it: without the slash, which ends it there."""
    return tenant.replace("%", "%25").replace("/", "%2F")


def quotas_of(scope: Scope, tenant: str, subject: str, limits: Limits, anchor_ms: int) -> tuple[Quota, ...]:
    """Return the quotas that limits make for a subject."""
    quotas: list[Quota] = []
    for name, value in sorted(limits.values.items()):
        if value is None:
            continue
        since_ms = limits.since_ms.get(name, 0)
        quotas.append(
            Quota(
                account=f"{scope}:{tenant_in_account(tenant)}/{subject}|{name}|{since_ms}",
                scope=scope,
                subject=subject,
                limit=limit_named(name),
                value=value,
                anchor_ms=anchor_ms,
                since_ms=since_ms,
            )
        )
    return tuple(quotas)


def standing_of(
    plan: Plan,
    quotas: tuple[Quota, ...],
    *,
    anchor_ms: int,
    allowed_models: tuple[tuple[str, ...], ...] = (),
    lapsed_at_ms: int | None = None,
    zone: tzinfo = UTC,
) -> Standing:
    """Put together what binds a caller; what is not included at all needs no counting."""
    nothing = [quota.limit for quota in quotas if quota.value == 0 and quota.limit.meter == "calls"]
    return Standing(
        plan=plan,
        quotas=quotas,
        excluded=frozenset(limit.provider for limit in nothing if limit.provider is not None),
        closed=frozenset(limit.bucket for limit in nothing if limit.bucket is not None),
        allowed_models=tuple(names for names in (plan.allowed_models, *allowed_models) if names),
        anchor_ms=anchor_ms,
        lapsed_at_ms=lapsed_at_ms,
        zone=zone,
    )
