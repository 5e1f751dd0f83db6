"""What stands behind a refusal, as every surface writes it: which limit, how far it is used, when it resets."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType, structs

from llm_gate.dialects.native_wire import Number, UsageInfoReply
from llm_gate.domain.errors import QuotaFacts
from llm_gate.domain.limits import Meter, limit_named
from llm_gate.domain.money import format_usd

EXPIRED = "subscription_expired"
"""The type of a refusal that no limit is behind: the subscription has run out."""

_PERCENT = 100
_WORDS: dict[Meter, str] = {
    "calls": "calls",
    "requests": "calls",
    "tokens": "tokens",
    "cost": "cost",
    "jobs": "jobs",
}


class UsageInfo(Struct, frozen=True, kw_only=True):
    """How far a limit is used; the field `current_…` is named after what is counted, money is in US dollars.

    What calls under way hold is counted as used; `held` tells how much that is.
    """

    type: str
    limit: Number | int | None
    provider: str | None = None
    operation_type: str | None = None
    operation_index: int | UnsetType = UNSET
    current_calls: int | UnsetType = UNSET
    current_tokens: int | UnsetType = UNSET
    current_jobs: int | UnsetType = UNSET
    current_cost: Number | UnsetType = UNSET
    requested: Number | int | UnsetType = UNSET
    requested_tokens: int | UnsetType = UNSET
    held: Number | int | UnsetType = UNSET
    remaining: Number | int | UnsetType = UNSET
    usage_percentage: Number | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    resets_at: datetime | UnsetType | None = UNSET
    expired: bool | UnsetType = UNSET
    period_end: datetime | UnsetType = UNSET
    upgrade_to: str | UnsetType | None = UNSET


def usage_info(facts: QuotaFacts, spell: Callable[[str], str] = str) -> UsageInfo:
    """Write what stands behind a refusal; `spell` gives a surface's own word for a limit."""
    if facts.expired_at is not None:
        return UsageInfo(
            type=EXPIRED,
            limit=None,
            provider=facts.provider,
            operation_type=facts.operation,
            plan=facts.plan,
            expired=True,
            period_end=facts.expired_at,
        )
    meter = limit_named(facts.limit_name).meter
    current = facts.used + facts.held
    amounts: dict[str, Any] = {f"current_{_WORDS[meter]}": _number(facts, current)}
    if meter == "tokens":
        amounts["requested_tokens"] = facts.wanted
    return UsageInfo(
        type=spell(facts.limit_name),
        limit=None if facts.cap is None else _number(facts, facts.cap),
        provider=facts.provider,
        operation_type=facts.operation,
        requested=_number(facts, facts.wanted),
        held=_number(facts, facts.held),
        remaining=UNSET if facts.cap is None else _number(facts, max(0, facts.cap - current)),
        usage_percentage=_percentage(current, facts.cap),
        scope=facts.scope,
        plan=facts.plan,
        resets_at=facts.resets_at,
        upgrade_to=facts.upgrade_to,
        **amounts,
    )


def native_usage_info(facts: QuotaFacts) -> UsageInfoReply:
    """Write it with the names of the native surface."""
    fields = structs.asdict(usage_info(facts))
    return UsageInfoReply(**{name: fields[name] for name in UsageInfoReply.__struct_fields__})


def _number(facts: QuotaFacts, amount: int) -> Number | int:
    return Raw(format_usd(amount).encode()) if facts.is_money else amount


def _percentage(current: int, cap: int | None) -> Number | UnsetType:
    """Write a share of a limit in percent with two decimals; a limit of 0 is used up."""
    if cap is None:
        return UNSET
    hundredths = _PERCENT * _PERCENT if cap == 0 else current * _PERCENT * _PERCENT // cap
    return Raw(f"{hundredths // _PERCENT}.{hundredths % _PERCENT:02d}".encode())
