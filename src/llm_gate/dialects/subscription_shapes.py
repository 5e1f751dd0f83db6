"""What the subscription API answers, field by field. Money is in US dollars, times are in UTC.

Fields are spelt as in the documents of the API; what they mean here stands in docs/subscription-api.md.
"""

from datetime import date, datetime
from typing import Any, Literal

from msgspec import Struct

from llm_gate.dialects.native_wire import Number


class _Shape(Struct, frozen=True, kw_only=True):
    """A part of an answer."""


class LimitsObject(_Shape, frozen=True, kw_only=True):
    """A plan's limits: `limits` maps each to its number, null for none; `_zero_means` in it says what each one is."""

    plan_name: str
    tier: str
    limits: dict[str, Any]
    features: tuple[str, ...]


class GroupUsage(_Shape, frozen=True, kw_only=True):
    """The usage of one provider or bucket."""

    calls: int = 0
    tokens: int = 0
    cost: Number


class AlertBrief(_Shape, frozen=True, kw_only=True):
    """An alert in a few fields."""

    id: str
    type: str
    title: str
    message: str
    severity: str
    created_at: datetime


class UsageObject(_Shape, frozen=True, kw_only=True):
    """A billing period. `avg_response_time` is in seconds, `error_rate` and `usage_percentages` in percent."""

    billing_period: str
    period_start: datetime
    period_end: datetime
    usage_status: str
    total_calls: int
    total_tokens: int
    total_cost: Number
    avg_response_time: Number
    error_rate: Number
    limits: LimitsObject
    provider_breakdown: dict[str, GroupUsage]
    alerts: list[AlertBrief]
    usage_percentages: dict[str, Number]
    last_updated: datetime


class UsageReply(_Shape, frozen=True, kw_only=True):
    """A user's usage."""

    success: bool = True
    data: UsageObject


class GroupTrend(_Shape, frozen=True, kw_only=True):
    """One group, month by month."""

    calls: list[int]
    cost: list[Number]
    tokens: list[int]


class Trends(_Shape, frozen=True, kw_only=True):
    """Calendar months, the oldest first; every list has one number for each."""

    periods: list[str]
    total_calls: list[int]
    total_cost: list[Number]
    total_tokens: list[int]
    provider_trends: dict[str, GroupTrend]


class TrendsReply(_Shape, frozen=True, kw_only=True):
    """A user's usage over months."""

    success: bool = True
    data: Trends


class PlanShape(_Shape, frozen=True, kw_only=True):
    """A plan that can be had."""

    id: str
    name: str
    tier: str
    price_monthly: Number
    price_yearly: Number
    description: str
    features: tuple[str, ...]
    limits: dict[str, Any]


class Plans(_Shape, frozen=True, kw_only=True):
    """All plans that can be had, the cheapest first."""

    plans: list[PlanShape]
    total: int


class PlansReply(_Shape, frozen=True, kw_only=True):
    """All plans that can be had."""

    success: bool = True
    data: Plans


class PricingRow(_Shape, frozen=True, kw_only=True):
    """What a model costs now, for one of each; null where there is no such price.

    `prices` lists every price with its id, also those that hold under a condition alone.
    """

    provider: str
    model_name: str
    cost_per_input_token: Number | None
    cost_per_output_token: Number | None
    cost_per_request: Number | None
    cost_per_search: Number | None
    cost_per_image: Number | None
    cost_per_page: Number | None
    description: str
    effective_date: date | None
    prices: list[dict[str, Any]]


class Pricing(_Shape, frozen=True, kw_only=True):
    """All prices."""

    pricing: list[PricingRow]
    total: int


class PricingReply(_Shape, frozen=True, kw_only=True):
    """All prices."""

    success: bool = True
    data: Pricing


class SubscriptionShape(_Shape, frozen=True, kw_only=True):
    """A subscription; the current period is the month or year that was agreed."""

    id: str
    billing_cycle: str
    current_period_start: datetime
    current_period_end: datetime
    status: str
    auto_renew: bool
    created_at: datetime


class PlanBrief(_Shape, frozen=True, kw_only=True):
    """The plan somebody is on."""

    id: str
    name: str
    tier: str
    price_monthly: Number
    price_yearly: Number
    description: str
    is_free: bool


class UserSubscription(_Shape, frozen=True, kw_only=True, omit_defaults=True):
    """What a user subscribed to; `status` is there only where that is nothing."""

    subscription: SubscriptionShape | None
    plan: PlanBrief
    status: str | None = None
    limits: dict[str, Any]


class UserSubscriptionReply(_Shape, frozen=True, kw_only=True):
    """A user's subscription."""

    success: bool = True
    data: UserSubscription


class Status(_Shape, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a user may call; `reason` says why not, `limits` what binds otherwise."""

    active: bool
    plan: str
    tier: str
    can_use_api: bool
    limits: dict[str, Any] | None = None
    reason: str | None = None


class StatusReply(_Shape, frozen=True, kw_only=True):
    """Whether a user may call."""

    success: bool = True
    data: Status


class SubscribeBody(Struct, frozen=True, kw_only=True):
    """Which plan a user gets."""

    plan_id: str
    billing_cycle: Literal["monthly", "yearly"] = "monthly"


class Subscribed(_Shape, frozen=True, kw_only=True):
    """The subscription that was made."""

    subscription_id: str
    plan_name: str
    billing_cycle: str
    current_period_start: datetime
    current_period_end: datetime
    status: str
    limits: dict[str, Any]


class SubscribedReply(_Shape, frozen=True, kw_only=True):
    """The subscription that was made."""

    success: bool = True
    message: str
    data: Subscribed


class RenewalShape(_Shape, frozen=True, kw_only=True):
    """One line of a user's history. `payment_status` says what the plan asks for, not what anybody checked."""

    id: str
    user_id: str
    plan_id: str
    plan_name: str
    plan_tier: str
    previous_period_start: datetime | None
    previous_period_end: datetime | None
    new_period_start: datetime
    new_period_end: datetime
    billing_cycle: str
    renewal_type: str
    renewal_count: int
    previous_plan_name: str | None
    previous_plan_tier: str | None
    usage_before_renewal: dict[str, Any] | None
    payment_amount: Number
    payment_status: str
    payment_date: datetime | None
    created_at: datetime


class Renewals(_Shape, frozen=True, kw_only=True):
    """A page of a user's history."""

    renewals: list[RenewalShape]
    total_count: int
    limit: int
    offset: int
    has_more: bool


class RenewalsReply(_Shape, frozen=True, kw_only=True):
    """A page of a user's history."""

    success: bool = True
    data: Renewals


class Retention(_Shape, frozen=True, kw_only=True):
    """How old the lines of a history are, in months; all of them are kept whole."""

    total_records: int
    records_0_12_months: int
    records_12_24_months: int
    records_24_84_months: int
    records_84_plus_months: int


class RetentionReply(_Shape, frozen=True, kw_only=True):
    """How old the lines of a history are."""

    success: bool = True
    data: Retention


class AlertShape(_Shape, frozen=True, kw_only=True):
    """A limit of which so many percent are used."""

    id: str
    type: str
    threshold_percentage: int
    provider: str | None
    title: str
    message: str
    severity: str
    is_sent: bool
    sent_at: datetime | None
    is_read: bool
    read_at: datetime | None
    billing_period: str
    created_at: datetime


class AlertsPage(_Shape, frozen=True, kw_only=True):
    """The newest alerts."""

    alerts: list[AlertShape]
    total: int
    unread_count: int


class AlertsReply(_Shape, frozen=True, kw_only=True):
    """The newest alerts."""

    success: bool = True
    data: AlertsPage


class DoneReply(_Shape, frozen=True, kw_only=True):
    """It is done."""

    success: bool = True
    message: str


class Projections(_Shape, frozen=True, kw_only=True):
    """What thirty days would cost, going by the period so far; null where cost is not limited."""

    projected_monthly_cost: Number
    cost_limit: Number | None
    projected_usage_percentage: Number | None


class Summary(_Shape, frozen=True, kw_only=True):
    """The period in four numbers."""

    total_api_calls_this_month: int
    total_cost_this_month: Number
    usage_status: str
    unread_alerts: int


class Dashboard(_Shape, frozen=True, kw_only=True):
    """Everything a user's overview shows."""

    current_usage: UsageObject
    trends: Trends
    limits: LimitsObject
    alerts: list[AlertBrief]
    projections: Projections
    summary: Summary


class DashboardReply(_Shape, frozen=True, kw_only=True):
    """Everything a user's overview shows."""

    success: bool = True
    data: Dashboard


class LogLine(_Shape, frozen=True, kw_only=True):
    """One call with all its attempts. `response_time` is in seconds; cost is not divided into input and output."""

    id: str
    timestamp: datetime
    provider: str
    actual_provider_name: str
    model_used: str | None
    endpoint: str
    method: str
    tokens_input: int
    tokens_output: int
    tokens_total: int
    cost_input: Number | None
    cost_output: Number | None
    cost_total: Number | None
    response_time: Number
    status_code: int
    status: str
    error_message: str | None
    billing_period: str
    retry_count: int
    is_aggregated: bool = False


class LogsReply(_Shape, frozen=True, kw_only=True):
    """A page of calls, the newest first."""

    logs: list[LogLine]
    total_count: int
    limit: int
    offset: int
    has_more: bool
