"""Between the admin API's words and the gateway's values."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from llm_gate.dialects import admin_shapes as shapes
from llm_gate.domain.access import VirtualKey
from llm_gate.domain.administration import AuditEntry
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.limits import COST_LIMIT, limit_named, read_limit
from llm_gate.domain.money import format_usd
from llm_gate.domain.plan_tables import PlanPatch
from llm_gate.domain.plans import Plan, Subscription
from llm_gate.domain.reports import AttemptLine, CallLine, Group, Grouping
from llm_gate.domain.stores import ApplicationEntry, TenantEntry
from llm_gate.domain.windows import instant

T = TypeVar("T")
S = TypeVar("S")


def page(
    rows: Sequence[T], limit: int, shape: Callable[[T], S], place: Callable[[T], Sequence[str | int]]
) -> shapes.Page[S]:
    """Write a page of at most `limit` rows, of which one more may be given to show that there are more."""
    shown = rows[:limit]
    cursor = _cursor(place(shown[-1])) if len(rows) > limit else None
    return shapes.Page(data=[shape(row) for row in shown], next_cursor=cursor)


def _cursor(place: Sequence[str | int]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(list(place))).decode().rstrip("=")


def read_cursor(text: str | None, form: type[T]) -> T | None:
    """Return the place that a cursor leads to.

    Raises:
        InvalidRequest: it is none of ours, or of another list.
    """
    if text is None:
        return None
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(plain, type=form)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidRequest("cursor: it must be one of this list's own", param="cursor") from None


def read_limits(amounts: Mapping[str, shapes.Amount], check: Callable[[str], None]) -> dict[str, int | None]:
    """Read limits; `check` refuses names.

    Raises:
        InvalidRequest: a name or a value is wrong.
    """
    found: dict[str, int | None] = {}
    for name, amount in amounts.items():
        check(name)
        found[name] = None if amount is None else read_limit(name, _text(name, amount))
    return found


def _text(name: str, amount: Any) -> str:
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal | str):
        raise InvalidRequest(f"{name}: expected a number, a text or null", param=name)
    return f"{amount:f}" if isinstance(amount, Decimal) else str(amount)


def plan_patch(change: shapes.PlanChange, check: Callable[[str], None]) -> PlanPatch:
    """Read what becomes of a plan.

    Raises:
        InvalidRequest: a limit or a price is wrong.
    """
    fields = given(change, "limits", "price_monthly_usd", "price_yearly_usd")
    for period in ("monthly", "yearly"):
        name = f"price_{period}_usd"
        price = getattr(change, name)
        if price is not UNSET:
            nanos = None if price is None else read_limit(COST_LIMIT, _text(name, price))
            fields[f"price_{period}_nanos"] = nanos or 0
    return PlanPatch(fields=fields, limits=read_limits(change.limits, check))


def given(change: msgspec.Struct, *apart: str) -> dict[str, Any]:
    """Return the fields that a change names, without some."""
    found = {name: getattr(change, name) for name in change.__struct_fields__ if name not in apart}
    return {name: value for name, value in found.items() if value is not UNSET}


def limits_shape(values: Mapping[str, int | None]) -> dict[str, Any]:
    """Write limits; money in dollars."""
    return {
        name: value if value is None or not limit_named(name).is_money else _usd(value)
        for name, value in sorted(values.items())
    }


def key_shape(key: VirtualKey, at_ms: int) -> shapes.KeyShape:
    """Write a key."""
    if not key.is_valid(at_ms):
        status: Any = "ended"
    else:
        status = "active" if key.retires_at_ms is None else "retiring"
    return shapes.KeyShape(
        id=key.id,
        prefix=key.prefix,
        status=status,
        name=key.name,
        tenant=key.tenant,
        client_id=key.application,
        user=key.user,
        scopes=sorted(key.scopes),
        allowed_models=key.allowed_models,
        limits=limits_shape(key.limits.values),
        created_at=instant(key.created_at_ms),
        expires_at=_instant(key.expires_at_ms),
        retires_at=_instant(key.retires_at_ms),
        revoked_at=_instant(key.revoked_at_ms),
        replaced_by=key.replaced_by,
    )


def plan_shape(plan: Plan) -> shapes.AdminPlan:
    """Write a plan."""
    return shapes.AdminPlan(
        name=plan.name,
        label=plan.label,
        description=plan.description,
        tier=plan.tier,
        price_monthly_usd=_usd(plan.price_monthly_nanos),
        price_yearly_usd=_usd(plan.price_yearly_nanos),
        features=plan.features,
        mode=plan.mode,
        limits=limits_shape(plan.limits.values),
        allowed_models=plan.allowed_models,
        max_output_tokens=plan.max_output_tokens,
        is_active=plan.is_active,
        origin=plan.origin,
        created_at=instant(plan.created_at_ms),
        updated_at=instant(plan.updated_at_ms),
    )


def tenant_shape(entry: TenantEntry) -> shapes.TenantShape:
    """Write a tenant."""
    return shapes.TenantShape(
        id=entry.id,
        label=entry.label,
        plan=entry.plan,
        limits=limits_shape(entry.limits.values),
        is_active=entry.is_active,
        created_at=instant(entry.created_at_ms),
    )


def application_shape(entry: ApplicationEntry) -> shapes.ApplicationShape:
    """Write an application."""
    return shapes.ApplicationShape(
        tenant=entry.tenant,
        client_id=entry.id,
        label=entry.label,
        limits=limits_shape(entry.limits.values),
        allowed_models=entry.allowed_models,
        is_active=entry.is_active,
        created_at=instant(entry.created_at_ms),
    )


def subscription_shape(held: Subscription, at_ms: int) -> shapes.AdminSubscription:
    """Write what a user subscribed to."""
    start_ms, end_ms = held.term_at(at_ms)
    return shapes.AdminSubscription(
        id=held.id,
        tenant=held.tenant,
        user=held.user,
        plan=held.plan,
        cycle=held.cycle,
        auto_renew=held.auto_renew,
        status="lapsed" if held.has_lapsed(at_ms) else "active",
        started_at=instant(held.start_ms),
        term_start=instant(start_ms),
        term_end=instant(end_ms),
        created_at=instant(held.created_at_ms),
    )


def usage_row(group: Group, by: Sequence[Grouping]) -> shapes.UsageRow:
    """Write the sums of one group."""
    totals = group.totals
    return shapes.UsageRow(
        group=dict(zip(by, group.key, strict=True)),
        requests=totals.requests,
        attempts=totals.attempts,
        failures=totals.failures,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cost_usd=_usd(totals.cost_nanos),
        cost_nanos=totals.cost_nanos,
        unpriced_attempts=totals.unpriced,
    )


def call_shape(line: CallLine) -> shapes.CallShape:
    """Write one call."""
    return shapes.CallShape(
        id=line.id,
        request_id=line.request_id,
        tenant=line.tenant,
        client_id=line.application,
        user=line.user,
        key_id=line.key_id,
        operation=line.operation,
        bucket=line.bucket,
        endpoint=line.endpoint,
        plan=line.plan,
        provider=line.provider,
        model=line.model,
        status=line.status,
        quality=line.quality,
        error_code=line.error_code,
        made_at=instant(line.made_ms),
        ended_at=instant(line.ended_ms),
        attempts=line.attempts,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        cost_usd=None if line.cost_nanos is None else _usd(line.cost_nanos),
        cost_nanos=line.cost_nanos,
        synthetic=line.synthetic,
    )


def attempt_shape(line: AttemptLine) -> shapes.AttemptShape:
    """Write one attempt."""
    return shapes.AttemptShape(
        number=line.number,
        provider=line.provider,
        model=line.model,
        status=line.status,
        quality=line.quality,
        started_at=instant(line.started_ms),
        ended_at=instant(line.ended_ms),
        units=dict(line.units),
        cost_usd=None if line.cost_nanos is None else _usd(line.cost_nanos),
        cost_nanos=line.cost_nanos,
        vendor_cost_nanos=line.vendor_cost_nanos,
        prices=line.prices,
        error_code=line.error_code,
        upstream_status=line.upstream_status,
        saved_nanos=line.saved_nanos,
    )


def audit_shape(entry: AuditEntry) -> shapes.AuditShape:
    """Write one change."""
    return shapes.AuditShape(
        number=entry.number,
        at=instant(entry.at_ms),
        actor=entry.actor,
        action=entry.action,
        tenant=entry.tenant,
        target=entry.target,
        change={name: list(values) for name, values in entry.change.items()},
        chain=entry.chain,
    )


def _usd(nanos: int) -> Raw:
    return Raw(format_usd(nanos).encode())


def _instant(at_ms: int | None) -> Any:
    return None if at_ms is None else instant(at_ms)
