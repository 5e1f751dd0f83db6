"""What changes by an operator leave behind: who made them, the history of subscriptions, the audit."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from llm_gate.domain.plans import Cycle, Subscription

COMMAND_LINE = "cli"
"""The actor of whoever may run commands on the gateway's machine."""

CONFIGURATION = "configuration"
"""The actor of what llm-gate.toml says."""

RenewalKind = Literal["new", "renewal", "upgrade", "downgrade"]


class Act(Struct, frozen=True, kw_only=True):
    """A change being made: by whom ("cli", "configuration" or the id of a key), what it is called, and when."""

    actor: str
    action: str
    at_ms: int


class Renewal(Struct, frozen=True, kw_only=True):
    """One line of a user's history: what a subscription followed, and what had been used until then.

    `number` is 0 for the first subscription and counts the ones after it. `usage_before` are the sums of the
    period that was under way. `payment_nanos` is the plan's price for the cycle.
    """

    id: str
    tenant: str
    user: str
    kind: RenewalKind
    number: int
    subscription: str
    plan: str
    plan_label: str
    plan_tier: str
    previous_plan: str | None = None
    previous_plan_label: str | None = None
    previous_plan_tier: str | None = None
    previous_start_ms: int | None = None
    previous_end_ms: int | None = None
    start_ms: int
    end_ms: int
    cycle: Cycle
    usage_before: Mapping[str, int] | None = None
    payment_nanos: int = 0
    created_at_ms: int = 0


class Change(Struct, frozen=True, kw_only=True):
    """A new subscription and the line it makes in the history; without a line, the one held is only altered."""

    subscription: Subscription
    renewal: Renewal | None = None


class CredentialEntry(Struct, frozen=True, kw_only=True):
    """That a vendor's credential is stored; what it is, nobody is told."""

    tenant: str
    provider: str
    created_at_ms: int


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One change of the audit. `change` has what differs: name → value before and after.

    `chain` is the SHA-256 over the entry before it and this one, so that none can be altered or left out unnoticed.
    """

    number: int
    at_ms: int
    actor: str
    action: str
    tenant: str
    target: str
    change: Mapping[str, tuple[Any, Any]]
    chain: str
