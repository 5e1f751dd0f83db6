"""The subscription API, `/api/subscription`: plans and prices, usage, calls, alerts, history, who subscribed to what.

Answers are about one user. A caller is a user by the key it presents, or by X-User-Id, and sees that user alone; a
key with scope admin sees every user of its tenant.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from llm_gate.dialects import subscription as written
from llm_gate.dialects import subscription_shapes as shapes
from llm_gate.dialects.bodies import read_record
from llm_gate.dialects.subscription_faults import SubscriptionFault
from llm_gate.dialects.subscription_names import WIRE_BUCKETS, WIRE_PROVIDERS
from llm_gate.domain.access import Caller
from llm_gate.domain.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound
from llm_gate.domain.ledger import RecordStatus
from llm_gate.domain.plans import UNLIMITED, Plan
from llm_gate.domain.reports import AlertFilter, AlertLine, Alerts, CallFilter, PeriodUsage, Selection
from llm_gate.domain.stores import Administration, Directives
from llm_gate.domain.windows import Window, add_months, instant, window_of
from llm_gate.engine.gate import Gate
from llm_gate.engine.reports import UserReports, period_beginning_in
from llm_gate.engine.subscriptions import Subscriptions
from llm_gate.http.authority import authority_of
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.failures import STATUS
from llm_gate.http.query import Query
from llm_gate.http.routes import Endpoint, Parameter, Route
from llm_gate.http.subscription_errors import SubscriptionSurface

PREFIX = "/api/subscription"
_TAG = "Subscription"
_BRIEF_ALERTS, _DASHBOARD_ALERTS, _DASHBOARD_MONTHS = 10, 5, 6
_MAX_OFFSET = 100_000_000
_MAX_ID_CHARS = 256
_BAD_GATEWAY = 502
_PAGE = 100

_STATUSES: Mapping[int, RecordStatus] = {200: "ok", 499: "cut"}
_STATUS_OF_CODE: Mapping[str, int] = {
    **{kind.code: status for kind, status in STATUS.items()},
    "unconfirmed": 500,
}

USER = Parameter(name="user_id", place="path", description="The user")
CALLER = Parameter(
    name="X-User-Id",
    place="header",
    required=False,
    description="Who calls, where the key is bound to nobody",
)
_LIMIT = Parameter(name="limit", place="query", required=False, description="How many at most")
_PAGED = (
    _LIMIT,
    Parameter(name="offset", place="query", required=False, description="How many to leave out first"),
)
MONTH = Parameter(
    name="billing_period",
    place="query",
    required=False,
    description="The month in which the billing period begins, as YYYY-MM; the present one if absent",
)


class SubscriptionRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints that read."""

    gate: Gate
    users: UserReports
    alerts: Alerts
    directives: Directives
    administration: Administration
    subscriptions: Subscriptions
    now_ms: Callable[[], int]

    async def plans(self, exchange: Exchange) -> None:
        """List the plans that can be had."""
        plans = [written.plan_shape(plan) for plan in await self.directives.plans() if _is_offered(plan)]
        await _send(exchange, shapes.PlansReply(data=shapes.Plans(plans=plans, total=len(plans))))

    async def pricing(self, exchange: Exchange) -> None:
        """List what every model costs now."""
        wanted = Query(exchange).text("provider")
        catalog = self.gate.directory.catalog
        only = None if wanted is None else catalog.provider_aliases.get(wanted.lower(), wanted.lower())
        if only is not None and only not in catalog.providers:
            raise InvalidRequest(f"provider: there is none called {wanted!r}", param="provider")
        today = exchange.received_at.date()
        rows = [
            written.pricing_row(model, today)
            for offer in self.gate.directory.offers()
            if only in {None, offer.entry.name}
            for model in offer.models
            if model.prices
        ]
        await _send(exchange, shapes.PricingReply(data=shapes.Pricing(pricing=rows, total=len(rows))))

    async def usage(self, exchange: Exchange) -> None:
        """Report a billing period."""
        caller = about(exchange)
        period = await self.users.period(caller, Query(exchange).text("billing_period"))
        unread = await self._unread(caller, period.window, _BRIEF_ALERTS)
        await _send(exchange, shapes.UsageReply(data=self._usage(period, unread)))

    async def trends(self, exchange: Exchange) -> None:
        """Report the last months."""
        caller = about(exchange)
        months = Query(exchange).whole("months", 6, least=1, most=24)
        await _send(
            exchange, shapes.TrendsReply(data=written.trends(await self.users.trends(caller, months)))
        )

    async def dashboard(self, exchange: Exchange) -> None:
        """Report what an overview shows."""
        caller = about(exchange)
        period = await self.users.period(caller, Query(exchange).text("billing_period"))
        months = written.trends(await self.users.trends(caller, _DASHBOARD_MONTHS))
        unread = AlertFilter(tenant=caller.tenant, user=caller.user, unread_only=True)
        data = written.dashboard(
            self._usage(period, await self._unread(caller, period.window, _DASHBOARD_ALERTS)),
            months,
            period,
            projected_nanos=self.users.projected_nanos(period),
            unread=await self.alerts.count_alerts(unread),
        )
        await _send(exchange, shapes.DashboardReply(data=data))

    def _usage(self, period: PeriodUsage, unread: tuple[AlertLine, ...]) -> shapes.UsageObject:
        return written.usage_object(period, unread, instant(self.now_ms()))

    async def _unread(self, caller: Caller, window: Window, limit: int) -> tuple[AlertLine, ...]:
        wanted = AlertFilter(
            tenant=caller.tenant,
            user=caller.user,
            unread_only=True,
            since_ms=window.start_ms,
            until_ms=window.end_ms,
        )
        return await self.alerts.list_alerts(wanted, limit=limit)

    async def logs(self, exchange: Exchange) -> None:
        """List calls, the newest first."""
        caller, query = caller_of(exchange), Query(exchange)
        standing = await self.users.standing(caller)
        limit = query.whole("limit", 50, least=1, most=5000)
        offset = query.whole("offset", 0, least=0, most=_MAX_OFFSET)
        selection = Selection(tenant=caller.tenant, user=caller.user)
        if (month := query.text("billing_period")) is not None:
            window = period_beginning_in(month, standing.anchor_ms, standing.zone)
            selection = Selection(
                tenant=caller.tenant, user=caller.user, since_ms=window.start_ms, until_ms=window.end_ms
            )
        wanted = _call_filter(query)
        count = await self.users.reports.count_calls(selection, wanted)
        lines = await self.users.reports.calls(selection, wanted, offset=offset, limit=limit)

        def month_of(made_ms: int) -> str:
            window = window_of("period", made_ms, anchor_ms=standing.anchor_ms, zone=standing.zone)
            return instant(window.start_ms).astimezone(standing.zone).strftime("%Y-%m")

        logs = [
            written.log_line(line, _status_code(line.status, line.error_code), month_of(line.made_ms))
            for line in lines
        ]
        has_more = offset + len(logs) < count
        await _send(
            exchange,
            shapes.LogsReply(logs=logs, total_count=count, limit=limit, offset=offset, has_more=has_more),
        )

    async def list_alerts(self, exchange: Exchange) -> None:
        """List alerts, the newest first."""
        caller, query = about(exchange), Query(exchange)
        unread_only, limit = query.flag("unread_only"), query.whole("limit", 50, least=1, most=100)
        everything = AlertFilter(tenant=caller.tenant, user=caller.user)
        unread = AlertFilter(tenant=caller.tenant, user=caller.user, unread_only=True)
        wanted = unread if unread_only else everything
        page = shapes.AlertsPage(
            alerts=[written.alert_shape(line) for line in await self.alerts.list_alerts(wanted, limit=limit)],
            total=await self.alerts.count_alerts(wanted),
            unread_count=await self.alerts.count_alerts(unread),
        )
        await _send(exchange, shapes.AlertsReply(data=page))

    async def mark_read(self, exchange: Exchange) -> None:
        """Note that an alert was read."""
        is_admin = "admin" in exchange.identity.scopes
        tenant = exchange.identity.tenant
        caller = None if is_admin else caller_of(exchange)
        line = await self.alerts.alert(tenant, plain(exchange.path_value, "alert"))
        if line is None or (caller is not None and line.scope != "user"):
            raise NotFound("there is no such alert", param="alert_id")
        if caller is not None and line.user != caller.user:
            raise NotAllowed("the alert is about another user", code="not_the_owner")
        await self.alerts.mark_read(tenant, line.id, self.now_ms())
        await _send(exchange, shapes.DoneReply(message="the alert is marked as read"))

    async def user_subscription(self, exchange: Exchange) -> None:
        """Tell what a user subscribed to."""
        caller = about(exchange)
        standing = await self.users.standing(caller)
        held = await self.directives.subscription(caller.tenant, caller.user)
        data = written.user_subscription(standing, held, self.now_ms())
        await _send(exchange, shapes.UserSubscriptionReply(data=data))

    async def status(self, exchange: Exchange) -> None:
        """Tell whether a user may call."""
        standing = await self.users.standing(about(exchange))
        await _send(exchange, shapes.StatusReply(data=written.status(standing)))

    async def subscribe(self, exchange: Exchange) -> None:
        """Give a user a plan from now on: an act of the administrator."""
        authority, user = authority_of(exchange), plain(exchange.path_value, "user")
        asked = read_record(await exchange.body(), shapes.SubscribeBody)
        tenant = exchange.identity.tenant
        made = await self.subscriptions.subscribe(
            user, asked.plan_id, tenant=tenant, cycle=asked.billing_cycle, authority=authority
        )
        plan = await self.directives.plan(made.subscription.plan)
        data = written.subscribed(made.subscription, plan)
        await _send(exchange, shapes.SubscribedReply(message=f"{user} is on {data.plan_name} now", data=data))

    async def renewals(self, exchange: Exchange) -> None:
        """List a user's subscriptions over time."""
        caller, query = about(exchange), Query(exchange)
        limit = query.whole("limit", 50, least=1, most=100)
        offset = query.whole("offset", 0, least=0, most=_MAX_OFFSET)
        lines, count = await self.administration.renewals(
            caller.tenant, caller.user, limit=limit, offset=offset
        )
        page = shapes.Renewals(
            renewals=[written.renewal_shape(line) for line in lines],
            total_count=count,
            limit=limit,
            offset=offset,
            has_more=offset + len(lines) < count,
        )
        await _send(exchange, shapes.RenewalsReply(data=page))

    async def retention(self, exchange: Exchange) -> None:
        """Count a user's history by age."""
        caller = about(exchange)
        now = instant(self.now_ms())
        ends = [add_months(now, -months) for months in (12, 24, 84)]
        counts, offset, total = [0, 0, 0, 0], 0, 1
        while offset < total:
            lines, total = await self.administration.renewals(
                caller.tenant, caller.user, limit=_PAGE, offset=offset
            )
            offset += _PAGE
            for line in lines:
                counts[sum(instant(line.created_at_ms) <= end for end in ends)] += 1
        data = shapes.Retention(
            total_records=sum(counts),
            records_0_12_months=counts[0],
            records_12_24_months=counts[1],
            records_24_84_months=counts[2],
            records_84_plus_months=counts[3],
        )
        await _send(exchange, shapes.RetentionReply(data=data))

    def routes(self) -> list[Route]:
        """Return the rows."""
        return [*self._usage_routes(), *self._alert_routes(), *self._plan_routes()]

    def _usage_routes(self) -> list[Route]:
        logs = (
            *_PAGED,
            _field("provider", "Only those of this provider or bucket"),
            _field("status_code", "Only those with this status"),
            MONTH,
        )
        return [
            _row("/usage/{user_id}", self.usage, "Report a billing period", shapes.UsageReply, USER, MONTH),
            _row(
                "/usage/{user_id}/trends",
                self.trends,
                "Report calendar months",
                shapes.TrendsReply,
                USER,
                _field("months", "How many, 6 if absent"),
            ),
            _row(
                "/dashboard/{user_id}",
                self.dashboard,
                "Report an overview",
                shapes.DashboardReply,
                USER,
                MONTH,
            ),
            _row("/usage-logs", self.logs, "List calls, the newest first", shapes.LogsReply, *logs),
        ]

    def _alert_routes(self) -> list[Route]:
        alerts = (_field("unread_only", "Whether to leave out what was read"), _LIMIT)
        return [
            _row(
                "/alerts/{user_id}",
                self.list_alerts,
                "List a user's alerts",
                shapes.AlertsReply,
                USER,
                *alerts,
            ),
            _row(
                "/alerts/{alert_id}/mark-read",
                self.mark_read,
                "Mark an alert as read",
                shapes.DoneReply,
                Parameter(name="alert_id", place="path", description="The alert"),
                method="POST",
            ),
        ]

    def _plan_routes(self) -> list[Route]:
        return [
            _row("/plans", self.plans, "List the plans that can be had", shapes.PlansReply, needs=None),
            _row(
                "/pricing",
                self.pricing,
                "List what every model costs",
                shapes.PricingReply,
                _field("provider", "Only the models of this provider"),
                needs=None,
            ),
            _row(
                "/user/{user_id}/subscription",
                self.user_subscription,
                "Tell what a user subscribed to",
                shapes.UserSubscriptionReply,
                USER,
            ),
            _row("/status/{user_id}", self.status, "Tell whether a user may call", shapes.StatusReply, USER),
            _row(
                "/subscribe/{user_id}",
                self.subscribe,
                "Give a user a plan from now on",
                shapes.SubscribedReply,
                USER,
                method="POST",
                needs="admin",
                request_type=shapes.SubscribeBody,
                example={"plan_id": "pro", "billing_cycle": "monthly"},
            ),
            _row(
                "/renewal-history/{user_id}",
                self.renewals,
                "List a user's subscriptions over time",
                shapes.RenewalsReply,
                USER,
                *_PAGED,
            ),
            _row(
                "/renewal-history/{user_id}/retention-stats",
                self.retention,
                "Count a user's history by age",
                shapes.RetentionReply,
                USER,
            ),
        ]


def caller_of(exchange: Exchange) -> Caller:
    """Return the user who calls.

    Raises:
        NotAuthenticated: it is not said who that is.
        NotAllowed: another user or application is named than the key is for.
    """
    if exchange.identity.user is None and not exchange.headers.get("x-user-id"):
        raise NotAuthenticated("no user: use a key that is bound to one, or name one in X-User-Id")
    return exchange.caller()


def about(exchange: Exchange) -> Caller:
    """Return the user whom the path names, whom the caller may ask about.

    Raises:
        NotAuthenticated: it is not said who calls.
        NotAllowed: the caller is another user.
    """
    user = plain(exchange.path_value, "user")
    if "admin" in exchange.identity.scopes and "x-user-id" not in exchange.headers:
        return Caller(tenant=exchange.identity.tenant, user=user)
    caller = caller_of(exchange)
    if caller.user == user:
        return caller
    if "admin" in exchange.identity.scopes:
        return Caller(tenant=exchange.identity.tenant, user=user)
    raise NotAllowed("this is about another user", code="not_the_owner")


def plain(name: str, what: str) -> str:
    """Return an id from a path.

    Raises:
        NotFound: nothing can be called that.
    """
    if len(name) > _MAX_ID_CHARS or not name.isprintable():
        raise NotFound(f"there is no such {what}")
    return name


def _is_offered(plan: Plan) -> bool:
    """Tell whether a plan is one to choose; that of whoever has none is not."""
    return plan.is_active and plan.name != UNLIMITED


def _call_filter(query: Query) -> CallFilter:
    named, status = query.text("provider"), query.whole("status_code", 0, least=0, most=599)
    word = None if named is None else named.lower()
    bucket = WIRE_BUCKETS[word][0] if word is not None and word in WIRE_BUCKETS else None
    provider = None if bucket is not None or word is None else WIRE_PROVIDERS.get(word, word)
    if not status:
        return CallFilter(provider=provider, bucket=bucket)
    if status in _STATUSES:
        return CallFilter(provider=provider, bucket=bucket, statuses=(_STATUSES[status],))
    codes = tuple(code for code, found in _STATUS_OF_CODE.items() if found == status)
    return CallFilter(provider=provider, bucket=bucket, statuses=("failed", "unconfirmed"), error_codes=codes)


def _status_code(status: RecordStatus, error_code: str | None) -> int:
    """Return the HTTP status that goes with how a call ended."""
    if status in _STATUSES.values():
        return next(code for code, found in _STATUSES.items() if found == status)
    return _STATUS_OF_CODE.get(error_code or "", _BAD_GATEWAY)


async def _send(exchange: Exchange, reply: Struct) -> None:
    headers = {"cache-control": "no-store"}
    await exchange.reply(Reply(body=written.encode_reply(reply), headers=headers))


def _field(name: str, description: str) -> Parameter:
    return Parameter(name=name, place="query", description=description, required=False)


def _row(
    path: str, endpoint: Endpoint, summary: str, answer: Any, *parameters: Parameter, **more: Any
) -> Route:
    return Route(
        **{"method": "GET", "needs": "usage:read"} | more,
        path=f"{PREFIX}{path}",
        endpoint=endpoint,
        surface=SubscriptionSurface(),
        summary=summary,
        tag=_TAG,
        response_type=answer,
        error_type=SubscriptionFault,
        parameters=parameters if more.get("needs", "usage:read") != "usage:read" else (CALLER, *parameters),
    )
