"""What the admin API takes and answers. Fields that are not listed here cannot be written, nor do they leave.

Limits map the gateway's own names to numbers; null is unlimited. Money is in US dollars; it may be written as a
number or as decimal text, and is answered as a number. Fields left out of a change stay as they are.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from llm_gate.dialects.native_wire import Number
from llm_gate.domain.access import KeyScope
from llm_gate.domain.plans import Cycle, Mode

T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Words = Annotated[str, Meta(max_length=1000)]
Amount = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]})
]
"""A number, the same as text, or null; which of these it is, is looked at when it is read."""


class _Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller sends."""


class _Shape(Struct, frozen=True, kw_only=True):
    """What is answered."""


class Page(_Shape, Generic[T], frozen=True, kw_only=True):
    """A part of a list; `next_cursor` leads to the next, null where this is the last."""

    data: list[T]
    next_cursor: str | None


class NewKey(_Change, frozen=True, kw_only=True):
    """A key to be made. `user` binds it to one user; `limits` are quotas of its own."""

    client_id: Name
    tenant: Name | UnsetType = UNSET
    user: Name | None = None
    name: Annotated[str, Meta(max_length=200)] = ""
    scopes: Annotated[tuple[KeyScope, ...], Meta(min_length=1)] = ("inference", "usage:read")
    allowed_models: tuple[Name, ...] = ()
    limits: Mapping[str, Amount] = {}
    expires_at: datetime | None = None


class Rotation(_Change, frozen=True, kw_only=True):
    """How long the old key goes on working, in seconds."""

    overlap_s: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class PlanChange(_Change, frozen=True, kw_only=True):
    """What becomes of a plan; one that does not exist is made, without limits but those named."""

    label: Name | UnsetType = UNSET
    description: Words | UnsetType = UNSET
    tier: Name | UnsetType = UNSET
    price_monthly_usd: Amount | UnsetType = UNSET
    price_yearly_usd: Amount | UnsetType = UNSET
    features: tuple[Name, ...] | UnsetType = UNSET
    mode: Mode | UnsetType = UNSET
    limits: Mapping[str, Amount] = {}
    allowed_models: tuple[Name, ...] | UnsetType = UNSET
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31)] | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET


class TenantChange(_Change, frozen=True, kw_only=True):
    """What becomes of a tenant; `plan` binds everything that happens in it."""

    label: Words | UnsetType = UNSET
    plan: Name | UnsetType | None = UNSET
    limits: Mapping[str, Amount] = {}
    is_active: bool | UnsetType = UNSET


class ApplicationChange(_Change, frozen=True, kw_only=True):
    """What becomes of an application."""

    label: Words | UnsetType = UNSET
    limits: Mapping[str, Amount] = {}
    allowed_models: tuple[Name, ...] | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class SubscriptionChange(_Change, frozen=True, kw_only=True):
    """What becomes of a user's subscription: with `plan` a new one begins now, else the one held is altered."""

    plan: Name | UnsetType = UNSET
    cycle: Cycle | UnsetType = UNSET
    auto_renew: bool | UnsetType = UNSET


class KeyShape(_Shape, frozen=True, kw_only=True):
    """A key; the key itself is kept nowhere. `prefix` is how it begins."""

    id: str
    prefix: str
    status: Literal["active", "retiring", "ended"]
    name: str
    tenant: str
    client_id: str
    user: str | None
    scopes: list[str]
    allowed_models: tuple[str, ...]
    limits: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None
    retires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None


class IssuedKeyShape(_Shape, frozen=True, kw_only=True):
    """A new key. `key` is shown this once."""

    key: str
    entry: KeyShape


class AdminPlan(_Shape, frozen=True, kw_only=True):
    """A plan. `origin` tells who made it what it is."""

    name: str
    label: str
    description: str
    tier: str
    price_monthly_usd: Number
    price_yearly_usd: Number
    features: tuple[str, ...]
    mode: str
    limits: dict[str, Any]
    allowed_models: tuple[str, ...]
    max_output_tokens: int | None
    is_active: bool
    origin: str
    created_at: datetime
    updated_at: datetime


class TenantShape(_Shape, frozen=True, kw_only=True):
    """A tenant."""

    id: str
    label: str
    plan: str | None
    limits: dict[str, Any]
    is_active: bool
    created_at: datetime


class ApplicationShape(_Shape, frozen=True, kw_only=True):
    """An application."""

    tenant: str
    client_id: str
    label: str
    limits: dict[str, Any]
    allowed_models: tuple[str, ...]
    is_active: bool
    created_at: datetime


class AdminSubscription(_Shape, frozen=True, kw_only=True):
    """What a user subscribed to."""

    id: str
    tenant: str
    user: str
    plan: str
    cycle: str
    auto_renew: bool
    status: Literal["active", "lapsed"]
    started_at: datetime
    term_start: datetime
    term_end: datetime
    created_at: datetime


class UsageRow(_Shape, frozen=True, kw_only=True):
    """Sums over calls; `group` has the value of each grouping that was asked for."""

    group: dict[str, str]
    requests: int
    attempts: int
    failures: int
    input_tokens: int
    output_tokens: int
    cost_usd: Number
    cost_nanos: int
    unpriced_attempts: int


class CallShape(_Shape, frozen=True, kw_only=True):
    """One call as it was recorded."""

    id: str
    request_id: str
    tenant: str
    client_id: str
    user: str
    key_id: str | None
    operation: str
    bucket: str
    endpoint: str
    plan: str
    provider: str | None
    model: str | None
    status: str
    quality: str
    error_code: str | None
    made_at: datetime
    ended_at: datetime
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd: Number | None
    cost_nanos: int | None
    synthetic: bool


class AttemptShape(_Shape, frozen=True, kw_only=True):
    """One attempt of a call. `saved_nanos` is there where a kept answer stood in for it: what that had cost."""

    number: int
    provider: str
    model: str
    status: str
    quality: str
    started_at: datetime
    ended_at: datetime
    units: dict[str, int]
    cost_usd: Number | None
    cost_nanos: int | None
    vendor_cost_nanos: int | None
    prices: tuple[str, ...]
    error_code: str | None
    upstream_status: int | None
    saved_nanos: int | None


class CallDetail(_Shape, frozen=True, kw_only=True):
    """One call with its attempts."""

    call: CallShape
    attempts: list[AttemptShape]


class AuditShape(_Shape, frozen=True, kw_only=True):
    """One change. `change` has each field that differs, before and after; `chain` is chained to the line before."""

    number: int
    at: datetime
    actor: str
    action: str
    tenant: str
    target: str
    change: dict[str, Any]
    chain: str


class LedgerShape(_Shape, frozen=True, kw_only=True):
    """Whether every balance agrees with its records; `drifts` lists those that do not."""

    drift_nanos: int
    drifts: list[dict[str, Any]]
    open_reservations: int
    records: int
    balances: int


class Wrong(_Shape, frozen=True, kw_only=True):
    """One thing that is wrong with a request."""

    detail: str
    pointer: str


class Problem(_Shape, frozen=True, kw_only=True, omit_defaults=True):
    """An error, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[Wrong, ...] = ()
