"""Plans as people write them: as a table of a file, or as single changes; and what becomes of a plan by them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, get_args

from msgspec import Meta, Struct, structs

from llm_gate.domain.errors import Conflict, Fault, InvalidRequest
from llm_gate.domain.limits import BUCKETS, COST_LIMIT, JOBS_LIMIT, MOST, limit_named, read_limit
from llm_gate.domain.money import parse_usd
from llm_gate.domain.plans import UNLIMITED, Limits, Mode, Origin, Plan

_Text = Annotated[str, Meta(min_length=1)]

TIERS = ("free", "basic", "pro", "enterprise")
"""The tiers whose order is known, the smallest first."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RATES = tuple(
    f"{meter}_per_{window}"
    for meter in ("requests", "tokens", "cost_usd")
    for window in ("minute", "hour", "day", "month")
)


class PlanTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan. Amounts of money are texts like "0.05" or whole numbers of dollars; a limit not named is none."""

    label: str = ""
    description: str = ""
    tier: _Text = "custom"
    price_monthly_usd: str | int = "0"
    price_yearly_usd: str | int = "0"
    features: tuple[str, ...] = ()
    mode: Mode = "balanced"
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    allowed_models: tuple[_Text, ...] = ()
    limits: Mapping[str, int | str] = {}


class PlanPatch(Struct, frozen=True, kw_only=True):
    """Changes of a plan: fields by their names, and limits; what is not named stays."""

    fields: Mapping[str, Any] = {}
    limits: Mapping[str, int | None] = {}


def table_faults(name: str, table: PlanTable) -> list[Fault]:
    """Return what is wrong with a table beyond its types; paths begin below the plan's name."""
    found: list[Fault] = []
    if _NAME.fullmatch(name) is None:
        found.append(Fault("", "expected a name of lower-case letters, digits, `_` and `-`"))
    if name == UNLIMITED:
        found.append(Fault("", f"the plan `{UNLIMITED}` is the gateway's own: choose another name"))
    for key in ("price_monthly_usd", "price_yearly_usd"):
        try:
            _nanos(str(getattr(table, key)))
        except ValueError:
            found.append(Fault(key, 'expected an amount in US dollars, like "29" or "0.05"'))
    for limit, value in table.limits.items():
        try:
            read_limit(limit, str(value))
        except InvalidRequest as error:
            found.append(Fault(f"limits.{limit}", error.message))
    return found


def table_providers(table: PlanTable) -> dict[str, str]:
    """Return the providers that limits of a sound table name, each with the limit's name."""
    named = {limit: limit_named(limit).provider for limit in table.limits}
    return {limit: provider for limit, provider in named.items() if provider is not None}


def plan_from(name: str, table: PlanTable, before: Plan | None, *, origin: Origin, at_ms: int) -> Plan:
    """Return the plan that a sound table stands for; `before` is what it was until now."""
    wanted = {limit: read_limit(limit, str(value)) for limit, value in table.limits.items()}
    old = Limits() if before is None else before.limits
    gone = dict.fromkeys(set(old.values) - set(wanted))
    changed = old.changed({**gone, **wanted}, at_ms)
    limits = Limits(
        values=wanted,
        since_ms={limit: since for limit, since in changed.since_ms.items() if limit in wanted},
    )
    return _stamped(
        before,
        Plan(
            name=name,
            label=table.label or _label(name),
            tier=table.tier,
            description=table.description,
            price_monthly_nanos=_nanos(str(table.price_monthly_usd)),
            price_yearly_nanos=_nanos(str(table.price_yearly_usd)),
            features=table.features,
            mode=table.mode,
            limits=limits,
            allowed_models=table.allowed_models,
            max_output_tokens=table.max_output_tokens,
            origin=origin,
        ),
        at_ms,
    )


def read_patch(changes: Iterable[tuple[str, str]], providers: Collection[str]) -> PlanPatch:
    """Read changes as a command has them, name and text; `providers` are those whose limits may be named.

    Raises:
        InvalidRequest: a name or a value is wrong; the message lists what is known.
    """
    fields: dict[str, Any] = {}
    limits: dict[str, int | None] = {}
    for name, text in changes:
        if name in _FIELDS:
            field, read = _FIELDS[name]
            try:
                fields[field] = read(text.strip())
            except ValueError as error:
                raise InvalidRequest(f"{name}: {error}", param=name) from None
        else:
            check_limit(name, providers)
            limits[name] = read_limit(name, text)
    return PlanPatch(fields=fields, limits=limits)


def check_limit(name: str, providers: Collection[str]) -> None:
    """Check that a limit can be called that, and that the provider it names exists.

    Raises:
        InvalidRequest: it cannot; the message lists what is known.
    """
    try:
        provider = limit_named(name).provider
    except InvalidRequest:
        raise _unknown(name, providers) from None
    if provider is not None and provider not in providers:
        raise _unknown(name, providers)


def patched(before: Plan | None, name: str, patch: PlanPatch, at_ms: int) -> Plan:
    """Return what a plan becomes by changes; one that did not exist has no limits but those named.

    Raises:
        InvalidRequest: no plan can be called that.
        Conflict: the plan is not to be changed this way.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{name!r} is no name for a plan: lower-case letters, digits, `_` and `-`", param="name"
        )
    if name == UNLIMITED:
        raise Conflict(f"the plan `{UNLIMITED}` stays without limits: make another one")
    if before is not None and before.origin == "file":
        raise Conflict(f"the plan {name!r} is written in llm-gate.toml: change it there")
    plan = before or Plan(name=name, label=_label(name), created_at_ms=at_ms)
    known = {limit: value for limit, value in patch.limits.items() if not _is(plan.limits, limit, value)}
    limits = plan.limits.changed(known, at_ms)
    return _stamped(before, structs.replace(plan, **patch.fields, limits=limits, origin="operator"), at_ms)


def _is(limits: Limits, name: str, value: int | None) -> bool:
    return name in limits.values and limits.values[name] == value


def _stamped(before: Plan | None, plan: Plan, at_ms: int) -> Plan:
    """Return a plan with its times; the one there was where nothing else differs."""
    created_ms = at_ms if before is None else before.created_at_ms
    stamped = structs.replace(plan, created_at_ms=created_ms, updated_at_ms=at_ms)
    if before is not None and structs.replace(stamped, updated_at_ms=before.updated_at_ms) == before:
        return before
    return stamped


def _label(name: str) -> str:
    return re.sub(r"[_-]+", " ", name).capitalize()


def _unknown(name: str, providers: Collection[str]) -> InvalidRequest:
    calls = ", ".join(f"{bucket}_calls" for bucket in BUCKETS)
    return InvalidRequest(
        f"{name!r} is neither a limit nor a property of plans. Limits: {calls}, PROVIDER_calls, PROVIDER_tokens "
        f"(PROVIDER is one of {', '.join(sorted(providers))}), {COST_LIMIT}, {', '.join(_RATES)}, {JOBS_LIMIT}. "
        f"Properties: {', '.join(_FIELDS)}",
        param=name,
        code="unknown_limit",
    )


def _nanos(text: str) -> int:
    try:
        amount: Fraction = parse_usd(text)
    except ValueError:
        raise ValueError("expected an amount in US dollars") from None
    if amount.denominator != 1 or amount > MOST:
        raise ValueError("expected an amount in US dollars")
    return amount.numerator


def _mode(text: str) -> str:
    if text not in get_args(Mode):
        raise ValueError(f"expected one of {', '.join(get_args(Mode))}")
    return text


def _tokens(text: str) -> int | None:
    if text.lower() in {"unlimited", "null", "none"}:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST)) or int(text) == 0:
        raise ValueError("expected a whole number above 0, or `unlimited`")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("expected true or false")
    return text.lower() == "true"


def _word(text: str) -> str:
    if not text:
        raise ValueError("expected a text")
    return text


_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "mode": ("mode", _mode),
    "max_output_tokens": ("max_output_tokens", _tokens),
    "allowed_models": ("allowed_models", _names),
    "price_monthly_usd": ("price_monthly_nanos", _nanos),
    "price_yearly_usd": ("price_yearly_nanos", _nanos),
    "label": ("label", _word),
    "description": ("description", str),
    "tier": ("tier", _word),
    "features": ("features", _names),
    "is_active": ("is_active", _switch),
}
