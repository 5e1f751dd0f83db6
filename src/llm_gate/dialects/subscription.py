"""Writes what the subscription API answers from the gateway's own values."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects import subscription_shapes as shapes
from llm_gate.dialects.native_wire import Number
from llm_gate.dialects.subscription_names import (
    CROSS_CUTS,
    LISTED_GROUPS,
    LISTED_LIMITS,
    WIRE_LIMITS,
    wire_group,
    wire_limit,
)
from llm_gate.domain.administration import Renewal
from llm_gate.domain.catalog import Model
from llm_gate.domain.limits import COST_LIMIT, limit_named
from llm_gate.domain.money import NANOS_PER_USD, format_usd
from llm_gate.domain.plans import Plan, Standing, Subscription
from llm_gate.domain.pricing import Price, Unit, price_for
from llm_gate.domain.reports import AlertLine, CallLine, MonthUsage, PeriodUsage, Share, Totals, total_of
from llm_gate.domain.usage import Usage
from llm_gate.domain.windows import instant

_MS = 1000
_PERCENT = 100
_REACHED = 100
_SEVERITY = {80: "info", 90: "warning", 100: "error"}
_COST_PERCENTAGE = "cost"
_encoder = msgspec.json.Encoder()


def encode_reply(reply: Struct) -> bytes:
    """Write an answer's body."""
    return _encoder.encode(reply)


def usd(nanos: int) -> Number:
    """Write nano-dollars as dollars, exactly."""
    return Raw(format_usd(nanos).encode())


def limits_map(plan: Plan) -> dict[str, Any]:
    """Write a plan's limits: those the documents list, and whatever else it limits."""
    values = {wire_limit(name): _limit_value(name, value) for name, value in plan.limits.values.items()}
    found = {name: values.pop(name, None) for name in LISTED_LIMITS} | dict(sorted(values.items()))
    own = plan.limits.values
    meanings = {name: _zero_meaning(own.get(WIRE_LIMITS.get(name, name))) for name in found}
    return {**found, "_zero_means": meanings}


def _limit_value(name: str, value: int | None) -> Any:
    return value if value is None or not limit_named(name).is_money else usd(value)


def _zero_meaning(value: int | None) -> str:
    """Say what a limit is. A number of 0 is "disabled" here: the plan does not include the thing."""
    if value is None:
        return "unlimited"
    return "limited" if value else "disabled"


def limits_object(plan: Plan) -> shapes.LimitsObject:
    """Write a plan's limits with its name and features."""
    return shapes.LimitsObject(
        plan_name=plan.label, tier=plan.tier, limits=limits_map(plan), features=plan.features
    )


def plan_shape(plan: Plan) -> shapes.PlanShape:
    """Write a plan that can be had."""
    return shapes.PlanShape(
        id=plan.name,
        name=plan.label,
        tier=plan.tier,
        price_monthly=usd(plan.price_monthly_nanos),
        price_yearly=usd(plan.price_yearly_nanos),
        description=plan.description,
        features=plan.features,
        limits=limits_map(plan),
    )


def usage_object(
    period: PeriodUsage, alerts: Sequence[AlertLine], updated_at: datetime
) -> shapes.UsageObject:
    """Write a billing period."""
    totals = period.totals
    return shapes.UsageObject(
        billing_period=period.month,
        period_start=instant(period.window.start_ms),
        period_end=instant(period.window.end_ms),
        usage_status=period.health,
        total_calls=totals.requests,
        total_tokens=totals.tokens,
        total_cost=usd(totals.cost_nanos),
        avg_response_time=_ratio(totals.duration_ms, totals.attempts * _MS, 3),
        error_rate=_ratio(totals.failures * _PERCENT, totals.attempts, 2),
        limits=limits_object(period.standing.plan),
        provider_breakdown={
            name: shapes.GroupUsage(calls=total.requests, tokens=total.tokens, cost=usd(total.cost_nanos))
            for name, total in _grouped(period.shares).items()
        },
        alerts=[alert_brief(line) for line in alerts],
        usage_percentages=_percentages(period),
        last_updated=updated_at,
    )


def _grouped(shares: Iterable[Share]) -> dict[str, Totals]:
    found: dict[str, list[Totals]] = {name: [] for name in LISTED_GROUPS}
    for share in shares:
        name = wire_group(share.bucket, share.provider)
        found.setdefault(name, []).append(share.totals)
        if share.provider in CROSS_CUTS and name != share.provider:
            found[share.provider].append(share.totals)
    return {name: total_of(totals) for name, totals in found.items()}


def _percentages(period: PeriodUsage) -> dict[str, Number]:
    """Say of every limit how much of it is used; where there is none, 0."""
    found = {name: _hundredths(0) for name in LISTED_LIMITS}
    text_calls = {share.provider: share.totals.requests for share in period.shares if share.bucket == "text"}
    for use in period.quotas:
        limit = use.quota.limit
        hundredths = use.hundredths
        if not hundredths and limit.meter == "calls" and limit.provider in text_calls and use.quota.value:
            # Text calls to one provider bind nobody, but are shown as if they did.
            hundredths = text_calls[limit.provider] * _PERCENT * _PERCENT // use.quota.value
        found[wire_limit(limit.name)] = _hundredths(hundredths)
    found[_COST_PERCENTAGE] = found.pop(wire_limit(COST_LIMIT))
    return found


def trends(months: Sequence[MonthUsage]) -> shapes.Trends:
    """Write months."""
    grouped = [_grouped(month.shares) for month in months]
    totals = [total_of(share.totals for share in month.shares) for month in months]
    names = list(dict.fromkeys(name for groups in grouped for name in groups))
    found: dict[str, shapes.GroupTrend] = {}
    for name in names:
        line = [groups.get(name, Totals()) for groups in grouped]
        found[name] = shapes.GroupTrend(
            calls=[each.requests for each in line],
            cost=[usd(each.cost_nanos) for each in line],
            tokens=[each.tokens for each in line],
        )
    return shapes.Trends(
        periods=[month.month for month in months],
        total_calls=[each.requests for each in totals],
        total_cost=[usd(each.cost_nanos) for each in totals],
        total_tokens=[each.tokens for each in totals],
        provider_trends=found,
    )


def dashboard(
    usage: shapes.UsageObject,
    months: shapes.Trends,
    period: PeriodUsage,
    *,
    projected_nanos: int,
    unread: int,
) -> shapes.Dashboard:
    """Write a user's overview; the usage carries the alerts to show."""
    cap = period.standing.plan.limits.values.get(COST_LIMIT)
    cents = -(-projected_nanos * _PERCENT // NANOS_PER_USD) * (NANOS_PER_USD // _PERCENT)
    return shapes.Dashboard(
        current_usage=usage,
        trends=months,
        limits=usage.limits,
        alerts=usage.alerts,
        projections=shapes.Projections(
            projected_monthly_cost=usd(cents),
            cost_limit=None if cap is None else usd(cap),
            projected_usage_percentage=None if not cap else _ratio(projected_nanos * _PERCENT, cap, 2),
        ),
        summary=shapes.Summary(
            total_api_calls_this_month=usage.total_calls,
            total_cost_this_month=usage.total_cost,
            usage_status=usage.usage_status,
            unread_alerts=unread,
        ),
    )


def user_subscription(
    standing: Standing, subscription: Subscription | None, at_ms: int
) -> shapes.UserSubscription:
    """Write what a user subscribed to, and the plan that holds without."""
    plan = standing.plan
    return shapes.UserSubscription(
        subscription=None if subscription is None else subscription_shape(subscription, standing, at_ms),
        plan=shapes.PlanBrief(
            id=plan.name,
            name=plan.label,
            tier=plan.tier,
            price_monthly=usd(plan.price_monthly_nanos),
            price_yearly=usd(plan.price_yearly_nanos),
            description=plan.description,
            is_free=not plan.price_monthly_nanos and not plan.price_yearly_nanos,
        ),
        status="free" if subscription is None else None,
        limits=limits_map(plan),
    )


def subscription_shape(
    subscription: Subscription, standing: Standing, at_ms: int
) -> shapes.SubscriptionShape:
    """Write a subscription."""
    start_ms, end_ms = subscription.term_at(at_ms, standing.zone)
    return shapes.SubscriptionShape(
        id=subscription.id,
        billing_cycle=subscription.cycle,
        current_period_start=instant(start_ms),
        current_period_end=instant(end_ms),
        status="cancelled" if subscription.has_lapsed(at_ms) else "active",
        auto_renew=subscription.auto_renew,
        created_at=instant(subscription.created_at_ms),
    )


def subscribed(made: Subscription, plan: Plan | None) -> shapes.Subscribed:
    """Write a subscription that was just made."""
    return shapes.Subscribed(
        subscription_id=made.id,
        plan_name=made.plan if plan is None else plan.label,
        billing_cycle=made.cycle,
        current_period_start=instant(made.start_ms),
        current_period_end=instant(made.term_end_ms),
        status="active",
        limits={} if plan is None else limits_map(plan),
    )


def status(standing: Standing) -> shapes.Status:
    """Say whether a user may call."""
    plan = standing.plan
    if standing.lapsed_at_ms is None:
        return shapes.Status(
            active=True, plan=plan.name, tier=plan.tier, can_use_api=True, limits=limits_map(plan)
        )
    ended = instant(standing.lapsed_at_ms).date().isoformat()
    reason = f"the subscription ended on {ended} and does not renew itself"
    return shapes.Status(active=False, plan=plan.name, tier=plan.tier, can_use_api=False, reason=reason)


def renewal_shape(line: Renewal) -> shapes.RenewalShape:
    """Write one line of a user's history."""
    created_at = instant(line.created_at_ms)
    return shapes.RenewalShape(
        id=line.id,
        user_id=line.user,
        plan_id=line.plan,
        plan_name=line.plan_label,
        plan_tier=line.plan_tier,
        previous_period_start=_instant(line.previous_start_ms),
        previous_period_end=_instant(line.previous_end_ms),
        new_period_start=instant(line.start_ms),
        new_period_end=instant(line.end_ms),
        billing_cycle=line.cycle,
        renewal_type=line.kind,
        renewal_count=line.number,
        previous_plan_name=line.previous_plan_label,
        previous_plan_tier=line.previous_plan_tier,
        usage_before_renewal=None if line.usage_before is None else _usage_before(line.usage_before),
        payment_amount=usd(line.payment_nanos),
        # Nobody checks payments here: a paid plan's line waits for whoever does.
        payment_status="pending" if line.payment_nanos else "paid",
        payment_date=None,
        created_at=created_at,
    )


def _usage_before(sums: Mapping[str, int]) -> dict[str, Any]:
    """Write sums; nano-dollars as dollars."""
    return {
        name.replace("_nanos", "_usd"): usd(value) if name.endswith("_nanos") else value
        for name, value in sums.items()
    }


def alert_shape(line: AlertLine) -> shapes.AlertShape:
    """Write an alert."""
    return shapes.AlertShape(
        id=line.id,
        type=_alert_type(line),
        threshold_percentage=line.threshold,
        provider=limit_named(line.limit_name).provider,
        title=_title(line),
        message=_message(line),
        severity=_SEVERITY.get(line.threshold, "info"),
        is_sent=line.sent_ms is not None,
        sent_at=_instant(line.sent_ms),
        is_read=line.read_ms is not None,
        read_at=_instant(line.read_ms),
        billing_period=instant(line.start_ms).strftime("%Y-%m"),
        created_at=instant(line.created_ms),
    )


def alert_brief(line: AlertLine) -> shapes.AlertBrief:
    """Write an alert in a few fields."""
    return shapes.AlertBrief(
        id=line.id,
        type=_alert_type(line),
        title=_title(line),
        message=_message(line),
        severity=_SEVERITY.get(line.threshold, "info"),
        created_at=instant(line.created_ms),
    )


def _alert_type(line: AlertLine) -> str:
    if line.threshold >= _REACHED:
        return "limit_reached"
    return "cost_warning" if limit_named(line.limit_name).is_money else "usage_warning"


def _title(line: AlertLine) -> str:
    return f"{line.threshold}% of {wire_limit(line.limit_name)} used"


def _message(line: AlertLine) -> str:
    money = limit_named(line.limit_name).is_money
    used, cap = (f"{format_usd(n)} USD" if money else str(n) for n in (line.used, line.cap))
    until = instant(line.end_ms).strftime("%Y-%m-%d %H:%M UTC")
    return f"{used} of {cap} of {wire_limit(line.limit_name)} are used; it begins anew at {until}."


def log_line(line: CallLine, status_code: int, billing_period: str) -> shapes.LogLine:
    """Write one call."""
    provider = line.provider or ""
    return shapes.LogLine(
        id=line.id,
        timestamp=instant(line.made_ms),
        provider=wire_group(line.bucket, provider),
        actual_provider_name=provider,
        model_used=line.model,
        endpoint=line.endpoint,
        method="POST",
        tokens_input=line.input_tokens,
        tokens_output=line.output_tokens,
        tokens_total=line.tokens,
        cost_input=None,
        cost_output=None,
        cost_total=None if line.cost_nanos is None else usd(line.cost_nanos),
        response_time=_ratio(line.ended_ms - line.made_ms, _MS, 3),
        status_code=status_code,
        status="success" if line.status == "ok" else "failed",
        error_message=line.error_code,
        billing_period=billing_period,
        retry_count=max(0, line.attempts - 1),
    )


def pricing_row(model: Model, on: date) -> shapes.PricingRow:
    """Write what a model costs on a day."""

    def one(unit: Unit) -> Number | None:
        price = price_for(model.prices, unit, Usage(), on)
        return None if price is None else _per_one(price)

    request, is_search = one("requests"), "search" in model.operations
    since = [price.since for price in model.prices if price.since is not None and price.since <= on]
    return shapes.PricingRow(
        provider=model.provider,
        model_name=model.name,
        cost_per_input_token=one("input_tokens"),
        cost_per_output_token=one("output_tokens"),
        cost_per_request=None if is_search else request,
        cost_per_search=request if is_search else None,
        cost_per_image=one("images"),
        cost_per_page=one("pages"),
        description=model.description,
        effective_date=max(since, default=None),
        prices=[_price(price) for price in model.prices],
    )


def _price(price: Price) -> dict[str, Any]:
    found: dict[str, Any] = {"id": price.id, "unit": price.unit, "usd": _per_one(price)}
    if price.minimum_nanos is not None:
        found["minimum_usd"] = _decimal(price.minimum_nanos / NANOS_PER_USD)
    if price.condition is not None:
        given = msgspec.to_builtins(price.condition)
        found["condition"] = {name: value for name, value in given.items() if value is not None}
    if price.since is not None:
        found["since"] = price.since
    return found


def _per_one(price: Price) -> Number:
    return _decimal(price.nanos / (price.per * NANOS_PER_USD))


def _decimal(amount: Fraction) -> Number:
    """Write an exact amount as a plain decimal number, to 28 digits."""
    number = (Decimal(amount.numerator) / Decimal(amount.denominator)).normalize()
    return Raw(f"{number:f}".encode())


def _hundredths(hundredths: int) -> Number:
    return _ratio(hundredths, _PERCENT, 2)


def _ratio(above: int, below: int, digits: int) -> Number:
    """Write a quotient with so many decimals, rounded down; 0 where nothing divides."""
    scaled = above * 10**digits // below if below else 0
    whole, rest = divmod(scaled, 10**digits)
    text = f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".")
    return Raw(text.encode())


def _instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else instant(at_ms)
