"""Errors as the subscription API writes them: one flat body that says what ran out, and what would help."""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llm_gate.dialects.subscription_names import wire_limit
from llm_gate.dialects.usage_info import EXPIRED, UsageInfo
from llm_gate.dialects.usage_info import usage_info as in_words
from llm_gate.domain.errors import QuotaFacts


class SubscriptionFault(Struct, frozen=True, kw_only=True):
    """An error. `error` and `message` hold the same text; `code` is for programs.

    Of a refusal, `limit_type` names the limit, `retry_after` the seconds until it is worth trying again (null where
    waiting does not help) and `upgrade_to` a plan that has room.
    """

    error: str
    message: str
    provider: str | None = None
    usage_info: UsageInfo | None = None
    code: str = ""
    request_id: str | UnsetType = UNSET
    param: str | UnsetType = UNSET
    limit_type: str | UnsetType = UNSET
    retry_after: int | UnsetType | None = UNSET
    upgrade_to: str | UnsetType | None = UNSET


def encode_fault(fault: SubscriptionFault) -> bytes:
    """Write an error's body."""
    return msgspec.json.encode(fault)


def usage_info(facts: QuotaFacts) -> UsageInfo:
    """Write what stands behind a refusal, in the words of this API."""
    return in_words(facts, wire_limit)


def limit_type(facts: QuotaFacts) -> str:
    """Return the limit that a refusal is about, as the wire spells it."""
    return EXPIRED if facts.expired_at is not None else wire_limit(facts.limit_name)
