"""Subscriptions: who holds which plan since when, how one follows another, and the history of it."""

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Protocol

from msgspec import Struct, structs

from llm_gate.domain.access import DEFAULT_TENANT
from llm_gate.domain.administration import Act, Change, Renewal, RenewalKind
from llm_gate.domain.errors import InvalidRequest, NotFound
from llm_gate.domain.plan_tables import TIERS
from llm_gate.domain.plans import Cycle, Plan, Subscription
from llm_gate.domain.reports import Selection, Totals
from llm_gate.domain.stores import Administration, Directives
from llm_gate.domain.windows import add_months, instant, milliseconds, window_of
from llm_gate.engine.keys import OPERATOR, Authority

_LONGEST_USER_CHARS = 256


class UsageTotals(Protocol):
    """Where it is known what was used."""

    async def totals(self, selection: Selection) -> Totals:
        """Sum a selection of calls up."""


class SubscriptionStatus(Struct, frozen=True, kw_only=True):
    """A user's plan now. Without a subscription `plan` is the one for whoever has none; None if that is gone."""

    tenant: str
    user: str
    subscription: Subscription | None
    plan: Plan | None
    has_lapsed: bool = False
    period_start_ms: int | None = None
    period_end_ms: int | None = None


class Subscriptions:
    """The use-cases of subscriptions. `new_id` gives ids that grow with time; `zone` is where periods begin."""

    def __init__(
        self,
        *,
        directives: Directives,
        administration: Administration,
        usage: UsageTotals,
        default_plan: str,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        zone: tzinfo = UTC,
    ) -> None:
        self._directives = directives
        self._administration = administration
        self._usage = usage
        self._default_plan = default_plan
        self._now_ms = now_ms
        self._new_id = new_id
        self._zone = zone

    async def subscribe(
        self,
        user: str,
        plan_name: str,
        *,
        tenant: str = DEFAULT_TENANT,
        cycle: Cycle = "monthly",
        auto_renew: bool = True,
        authority: Authority = OPERATOR,
    ) -> Change:
        """Give a user a plan from now on; the one held until now ends, and a new period begins.

        Raises:
            NotFound: there is no such plan.
            InvalidRequest: the user's id cannot be one.
            NotAllowed: the tenant is another one than the authority's.
            StoreUnavailable: the store cannot be reached.
        """
        authority.check_tenant(tenant)
        _check_user(user)
        plans = {plan.name: plan for plan in await self._directives.plans()}
        plan = plans.get(plan_name)
        if plan is None:
            known = ", ".join(plans)
            raise NotFound(f"there is no plan {plan_name!r}; there are {known}", param="plan")
        now_ms = self._now_ms()
        new = Subscription(
            id=f"sub_{self._new_id()}",
            tenant=tenant,
            user=user,
            plan=plan.name,
            cycle=cycle,
            start_ms=now_ms,
            term_end_ms=self._term_end(now_ms, cycle),
            auto_renew=auto_renew,
            created_at_ms=now_ms,
        )
        used = await self._used(tenant, user, now_ms)

        def change(held: Subscription | None, last: Renewal | None) -> Change:
            before = None if held is None else plans.get(held.plan)
            line = _renewal(new, plan, held, before, last)
            return Change(
                subscription=new,
                renewal=structs.replace(line, usage_before=None if held is None else used),
            )

        act = Act(actor=authority.actor, action="subscription.set", at_ms=now_ms)
        return await self._administration.change_subscription(tenant, user, change, act)

    async def set_renewal(
        self,
        user: str,
        *,
        auto_renew: bool,
        tenant: str = DEFAULT_TENANT,
        authority: Authority = OPERATOR,
    ) -> Subscription:
        """Say whether a subscription goes on after its present term; one that does not is cancelled to its end.

        Raises:
            NotFound: the user has none.
            NotAllowed: the tenant is another one than the authority's.
            StoreUnavailable: the store cannot be reached.
        """
        authority.check_tenant(tenant)
        now_ms = self._now_ms()

        def change(held: Subscription | None, _last: Renewal | None) -> Change:
            if held is None:
                raise NotFound(f"user {user!r} has no subscription", param="user")
            ends_ms = held.term_end_ms if held.has_lapsed(now_ms) else held.term_at(now_ms, self._zone)[1]
            return Change(subscription=structs.replace(held, auto_renew=auto_renew, term_end_ms=ends_ms))

        act = Act(actor=authority.actor, action="subscription.renewal", at_ms=now_ms)
        return (await self._administration.change_subscription(tenant, user, change, act)).subscription

    async def status(self, user: str, *, tenant: str = DEFAULT_TENANT) -> SubscriptionStatus:
        """Return what plan a user has now.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        now_ms = self._now_ms()
        held = await self._directives.subscription(tenant, user)
        plan = await self._directives.plan(self._default_plan if held is None else held.plan)
        if held is None:
            return SubscriptionStatus(tenant=tenant, user=user, subscription=None, plan=plan)
        window = window_of("period", now_ms, anchor_ms=held.start_ms, zone=self._zone)
        return SubscriptionStatus(
            tenant=tenant,
            user=user,
            subscription=held,
            plan=plan,
            has_lapsed=held.has_lapsed(now_ms),
            period_start_ms=window.start_ms,
            period_end_ms=window.end_ms,
        )

    def _term_end(self, start_ms: int, cycle: Cycle) -> int:
        anchor = instant(start_ms).astimezone(self._zone)
        return milliseconds(add_months(anchor, 1 if cycle == "monthly" else 12))

    async def _used(self, tenant: str, user: str, now_ms: int) -> dict[str, int] | None:
        """Return the sums of the billing period that is under way; None where none is."""
        held = await self._directives.subscription(tenant, user)
        if held is None:
            return None
        window = window_of("period", now_ms, anchor_ms=held.start_ms, zone=self._zone)
        totals = await self._usage.totals(
            Selection(tenant=tenant, user=user, since_ms=window.start_ms, until_ms=now_ms + 1)
        )
        return {name: getattr(totals, name) for name in Totals.__struct_fields__}


def renewal_kind(held: Plan | None, wanted: Plan) -> RenewalKind:
    """Return what following one plan with another is called: by the order of the tiers, else by price."""
    if held is None or held.name == wanted.name:
        return "renewal"
    if held.tier in TIERS and wanted.tier in TIERS:
        step = TIERS.index(wanted.tier) - TIERS.index(held.tier)
    else:
        step = wanted.price_monthly_nanos - held.price_monthly_nanos
    return "upgrade" if step > 0 else "downgrade" if step < 0 else "renewal"


def _renewal(
    new: Subscription, plan: Plan, held: Subscription | None, before: Plan | None, last: Renewal | None
) -> Renewal:
    return Renewal(
        id=new.id,
        tenant=new.tenant,
        user=new.user,
        kind="new" if last is None and held is None else renewal_kind(before, plan),
        number=0 if last is None else last.number + 1,
        subscription=new.id,
        plan=plan.name,
        plan_label=plan.label,
        plan_tier=plan.tier,
        previous_plan=None if held is None else held.plan,
        previous_plan_label=None if before is None else before.label,
        previous_plan_tier=None if before is None else before.tier,
        previous_start_ms=None if held is None else held.start_ms,
        previous_end_ms=None if held is None else min(held.term_end_ms, new.start_ms),
        start_ms=new.start_ms,
        end_ms=new.term_end_ms,
        cycle=new.cycle,
        payment_nanos=plan.price_yearly_nanos if new.cycle == "yearly" else plan.price_monthly_nanos,
        created_at_ms=new.created_at_ms,
    )


def _check_user(user: str) -> None:
    if not user.strip() or len(user) > _LONGEST_USER_CHARS or not user.isprintable():
        raise InvalidRequest(f"a user's id has 1 to {_LONGEST_USER_CHARS} printable characters", param="user")
