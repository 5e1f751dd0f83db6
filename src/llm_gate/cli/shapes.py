"""What the commands about keys, plans and subscriptions print as JSON, and the texts that people write for them."""

import re
from collections.abc import Collection, Iterable
from typing import Any

import click

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.limits import limit_named, read_limit
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.plan_tables import check_limit
from llm_gate.domain.plans import Limits, Plan, Subscription
from llm_gate.domain.windows import instant

_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """A span of time such as 90s, 30m, 24h or 7d, in seconds; a plain number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail("expected a time such as 90s, 30m, 24h or 7d", param, ctx)
        return int(match[1]) * _UNIT_S[match[2]]


def pairs(values: Iterable[str], option: str) -> list[tuple[str, str]]:
    """Read options of the form name=value.

    Raises:
        click.BadParameter: one has another form.
    """
    found: list[tuple[str, str]] = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE", param_hint=option)
        found.append((name.strip(), text))
    return found


def names(text: str | None) -> tuple[str, ...]:
    """Read names separated by commas."""
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def read_limits(values: Iterable[str], providers: Collection[str]) -> dict[str, int | None]:
    """Read limits of the form name=value.

    Raises:
        InvalidRequest: a name or a value is wrong.
    """
    found: dict[str, int | None] = {}
    for name, text in pairs(values, "--limit"):
        check_limit(name, providers)
        found[name] = read_limit(name, text)
    return found


def time_text(at_ms: int | None) -> str | None:
    """Write an instant as ISO 8601 in UTC."""
    return None if at_ms is None else instant(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day_text(at_ms: int | None) -> str:
    """Write an instant for a table."""
    return "-" if at_ms is None else instant(at_ms).strftime("%Y-%m-%d %H:%M")


def limits_document(limits: Limits) -> dict[str, Any]:
    """Return limits by name: numbers, US dollars for money, null for unlimited."""
    return {name: _value(name, value) for name, value in sorted(limits.values.items())}


def limit_text(name: str, value: int | None) -> str:
    """Write a limit for people."""
    if value is None:
        return "unlimited"
    return f"{format_usd(value)} USD" if limit_named(name).is_money else f"{value:,}"


def key_document(key: VirtualKey, now_ms: int) -> dict[str, Any]:
    """Return what is told of a key; neither the key nor its digest is part of it."""
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant,
        "client": key.application,
        "user": key.user,
        "scopes": sorted(key.scopes),
        "allowed_models": list(key.allowed_models),
        "limits": limits_document(key.limits),
        "state": key_state(key, now_ms),
        "created_at": time_text(key.created_at_ms),
        "expires_at": time_text(key.expires_at_ms),
        "retires_at": time_text(key.retires_at_ms),
        "revoked_at": time_text(key.revoked_at_ms),
        "replaced_by": key.replaced_by,
    }


def key_state(key: VirtualKey, now_ms: int) -> str:
    """Say in a word whether a key works."""
    if key.revoked_at_ms is not None:
        return "revoked"
    if not key.is_valid(now_ms):
        return "expired" if key.replaced_by is None else "replaced"
    return "active" if key.replaced_by is None else "retiring"


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan; prices and money in US dollars."""
    return {
        "name": plan.name,
        "label": plan.label,
        "tier": plan.tier,
        "description": plan.description,
        "price_monthly_usd": usd_decimal(plan.price_monthly_nanos),
        "price_yearly_usd": usd_decimal(plan.price_yearly_nanos),
        "features": list(plan.features),
        "mode": plan.mode,
        "limits": limits_document(plan.limits),
        "allowed_models": list(plan.allowed_models),
        "max_output_tokens": plan.max_output_tokens,
        "origin": plan.origin,
        "is_active": plan.is_active,
        "updated_at": time_text(plan.updated_at_ms),
    }


def subscription_document(subscription: Subscription) -> dict[str, Any]:
    """Return a subscription."""
    return {
        "id": subscription.id,
        "plan": subscription.plan,
        "cycle": subscription.cycle,
        "start": time_text(subscription.start_ms),
        "term_end": time_text(subscription.term_end_ms),
        "auto_renew": subscription.auto_renew,
        "created_at": time_text(subscription.created_at_ms),
    }


def _value(name: str, value: int | None) -> Any:
    if value is None:
        return None
    return usd_decimal(value) if limit_named(name).is_money else value
