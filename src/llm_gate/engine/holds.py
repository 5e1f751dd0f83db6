"""From a caller's quotas to the amounts a call holds on them, and from a refusal to words that help.

Admission, preflight and quotes all count by this module, so that what one of them promises the other grants.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct, structs

from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import NotAllowed, PriceUnknown, QuotaExceeded, QuotaFacts
from llm_gate.domain.ledger import Hold, Refused, Shortage, hold_on
from llm_gate.domain.limits import Bucket, Limit
from llm_gate.domain.money import format_usd
from llm_gate.domain.plans import UNLIMITED, Plan, Standing
from llm_gate.domain.windows import FOREVER_MS, Window, instant

JOB_BUCKETS: frozenset[Bucket] = frozenset({"video", "fine_tune"})
"""What outlives its request, and so counts as a job while it is under way."""

_SUBSCRIPTION = "subscription"


class _Prepared(Struct, frozen=True, kw_only=True):
    """The holds of one kind of call, without their amounts, for as long as no window of theirs ends."""

    start_ms: int
    end_ms: int
    holds: tuple[Hold, ...]


class Holds:
    """Turns calls into holds for one standing, and remembers its windows; kept as long as the standing is."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self._prepared: dict[tuple[Bucket, str], _Prepared] = {}

    def of(
        self, *, bucket: Bucket, provider: str, count: int, tokens: int, cost_nanos: int | None, at_ms: int
    ) -> tuple[Hold, ...]:
        """Return a hold for each quota that counts a call, in the window of an instant.

        `count` is how many calls of its bucket it is (0 for a second try beside the first), `tokens` and `cost_nanos`
        are what it may come to. Nothing is held where it comes to nothing.

        Raises:
            PriceUnknown: the cost is not known, and money is limited.
        """
        prepared = self._prepared.get((bucket, provider))
        if prepared is None or not prepared.start_ms <= at_ms < prepared.end_ms:
            prepared = self._prepare(bucket, provider, at_ms)
            self._prepared[bucket, provider] = prepared
        amounts = {"requests": min(count, 1), "calls": count, "tokens": tokens, "cost": cost_nanos, "jobs": 1}
        found: list[Hold] = []
        for hold in prepared.holds:
            amount = amounts[hold.meter]
            if amount is None:
                raise PriceUnknown(
                    f"what this call to {provider!r} may cost is not known, and {hold.name} limits cost: "
                    "choose a model that has a price"
                )
            if amount:
                found.append(structs.replace(hold, amount=amount))
        return tuple(found)

    def _prepare(self, bucket: Bucket, provider: str, at_ms: int) -> _Prepared:
        windows: dict[tuple[str, int], Window] = {}
        holds: dict[str, Hold] = {}
        for quota in self.standing.quotas:
            is_job_limit = quota.limit.meter == "jobs"
            if not quota.counts(bucket, provider) or (is_job_limit and bucket not in JOB_BUCKETS):
                continue
            key = (quota.limit.window, quota.anchor_ms)
            if key not in windows:
                windows[key] = quota.window(at_ms, self.standing.zone)
            known = holds.get(quota.account)
            # Two limits of one name on one subject count the same thing: the lower one binds.
            if known is None or quota.value < known.cap:
                holds[quota.account] = hold_on(quota, windows[key], 0)
        return _Prepared(
            start_ms=max((window.start_ms for window in windows.values()), default=0),
            end_ms=min((window.end_ms for window in windows.values()), default=FOREVER_MS),
            holds=tuple(holds.values()),
        )


def check_included(
    standing: Standing,
    *,
    bucket: Bucket,
    provider: str,
    operation: Operation,
    at_ms: int,
    plans: Iterable[Plan] = (),
) -> None:
    """Refuse what needs no counting: a subscription that has run out, and what the plan does not include.

    Raises:
        QuotaExceeded: it is refused, and waiting will not help.
    """
    if standing.lapsed_at_ms is not None and at_ms >= standing.lapsed_at_ms:
        ended_at = instant(standing.lapsed_at_ms)
        raise QuotaExceeded(
            f"the subscription to plan {standing.plan.name!r} ended at {_time(ended_at)}: renew it to go on",
            QuotaFacts(
                limit_name=_SUBSCRIPTION,
                plan=standing.plan.name,
                provider=provider,
                operation=operation,
                expired_at=ended_at,
                heals=False,
            ),
        )
    if bucket in standing.closed or provider in standing.excluded:
        raise _not_included(standing, bucket, provider, operation, plans)


def check_model(standing: Standing, names: Iterable[str]) -> None:
    """Refuse a model that plan, key or application do not allow; `names` are all that it goes by.

    Raises:
        NotAllowed: one of them does not name it.
    """
    known = tuple(names)
    for allowed in standing.allowed_models:
        if not any(_names(pattern, name) for pattern in allowed for name in known):
            raise NotAllowed(f"model {known[0]!r} is not among those allowed here: {', '.join(allowed)}")


def refusal(
    found: Refused | Shortage,
    standing: Standing,
    *,
    provider: str | None,
    operation: Operation | None,
    at_ms: int,
    plans: Iterable[Plan] = (),
    planned: int = 0,
) -> QuotaExceeded:
    """Say what a refusal of the ledger means, and what would help; `plans` are those that can be had.

    `planned` is what operations that come before this one will take, where it is only asked whether it may be done.
    """
    shortages: Sequence[Shortage] = (found,) if isinstance(found, Shortage) else found.shortages
    # Of several, the one that matters is that which no waiting heals, then that which takes longest.
    shortage = next((each for each in shortages if each.wanted > each.hold.cap), shortages[0])
    hold = shortage.hold
    heals = shortage.wanted <= hold.cap
    resets_at = instant(hold.end_ms) if hold.end_ms < FOREVER_MS else None
    needed = shortage.used + shortage.held + planned + shortage.wanted
    upgrade_to = _upgrade(standing, hold.name, needed, plans) if hold.scope == "user" else None
    facts = QuotaFacts(
        limit_name=hold.name,
        plan=standing.plan.name,
        scope=hold.scope,
        provider=provider,
        operation=operation,
        used=shortage.used,
        held=shortage.held + planned,
        cap=hold.cap,
        wanted=shortage.wanted,
        is_money=hold.meter == "cost",
        resets_at=resets_at,
        heals=heals,
        upgrade_to=upgrade_to,
    )
    waits = heals and resets_at is not None
    return QuotaExceeded(
        _words(facts, planned),
        facts,
        retry_after_s=max(0, hold.end_ms - at_ms) / 1000 if waits else None,
    )


def _not_included(
    standing: Standing, bucket: Bucket, provider: str, operation: Operation, plans: Iterable[Plan]
) -> QuotaExceeded:
    quota = next(
        quota
        for quota in standing.quotas
        if quota.value == 0 and quota.limit.meter == "calls" and _shuts(quota.limit, bucket, provider)
    )
    upgrade_to = _upgrade(standing, quota.limit.name, 1, plans) if quota.scope == "user" else None
    facts = QuotaFacts(
        limit_name=quota.limit.name,
        plan=standing.plan.name,
        scope=quota.scope,
        provider=provider,
        operation=operation,
        cap=0,
        wanted=1,
        heals=False,
        upgrade_to=upgrade_to,
    )
    what = f"provider {provider!r}" if quota.limit.provider is not None else f"{bucket} calls"
    return QuotaExceeded(
        f"{_holder(facts)} does not include {what} ({facts.limit_name} is 0){_upgrade_words(facts)}", facts
    )


def _shuts(limit: Limit, bucket: Bucket, provider: str) -> bool:
    return limit.bucket == bucket if limit.provider is None else limit.provider == provider


def _upgrade(standing: Standing, limit_name: str, needed: int, plans: Iterable[Plan]) -> str | None:
    """Return the cheapest plan with room for what is needed; one that costs less is no way up."""
    price = standing.plan.price_monthly_nanos
    fitting = [
        plan
        for plan in plans
        if plan.is_active
        and plan.name not in {UNLIMITED, standing.plan.name}
        and plan.price_monthly_nanos >= price
        and _has_room(plan.limits.values.get(limit_name), needed)
    ]
    return min(fitting, key=lambda plan: plan.price_monthly_nanos).name if fitting else None


def _has_room(value: int | None, needed: int) -> bool:
    return value is None or value >= needed


def _words(facts: QuotaFacts, planned: int) -> str:
    cap = facts.cap or 0
    counted = f"{_amount(facts, facts.used)} of {_amount(facts, cap)} used"
    if facts.held > planned:
        counted += f", {_amount(facts, facts.held - planned)} held by calls under way"
    if planned:
        counted += f", {_amount(facts, planned)} planned before it"
    counted += f", {_amount(facts, facts.wanted)} needed"
    if not facts.heals:
        when = "; this call alone is more than the limit, so ask for less"
    elif facts.resets_at is not None:
        when = f"; it resets at {_time(facts.resets_at)}"
    else:
        when = "; there is room again when a job ends"
    return f"{facts.limit_name} of {_holder(facts)} leaves no room: {counted}{when}{_upgrade_words(facts)}"


def _holder(facts: QuotaFacts) -> str:
    match facts.scope:
        case "user":
            return f"plan {facts.plan!r}"
        case "key":
            return "the key"
        case scope:
            return f"the {scope}"


def _upgrade_words(facts: QuotaFacts) -> str:
    if facts.upgrade_to is not None:
        return f", or move to plan {facts.upgrade_to!r}"
    return "" if facts.scope == "user" else ", or ask the operator for more"


def _amount(facts: QuotaFacts, amount: int) -> str:
    return f"{format_usd(amount)} USD" if facts.is_money else str(amount)


def _names(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
