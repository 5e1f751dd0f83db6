"""The admin API, `/llm-gate/admin/v1`: keys, plans, tenants, applications, subscriptions, usage, audit, the ledger.

It always needs a key with scope admin, also where nothing else needs one. Lists come in pages with a cursor, errors
as in RFC 9457.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, Struct

from llm_gate.dialects import admin as written
from llm_gate.dialects import admin_shapes as shapes
from llm_gate.dialects.bodies import read_record
from llm_gate.domain.access import DEFAULT_TENANT, VirtualKey
from llm_gate.domain.errors import InvalidRequest, NotFound
from llm_gate.domain.plan_tables import check_limit
from llm_gate.domain.plans import Subscription
from llm_gate.domain.reports import GROUPINGS, Group, Grouping, Selection, read_moment
from llm_gate.domain.windows import FOREVER_MS, milliseconds
from llm_gate.engine.admin import Admin
from llm_gate.engine.gate import Gate
from llm_gate.engine.keys import OVERLAP_S, Authority, IssuedKey, KeyRequest
from llm_gate.http.authority import authority_of
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.failures import Failure
from llm_gate.http.query import Query
from llm_gate.http.routes import Endpoint, Parameter, Route

PROBLEM = "application/problem+json"
_TAG = "Administration"
_FEW, _MOST = 100, 1000
_MAX_ID_CHARS = 256


class AdminSurface:
    """Writes errors as problem details."""

    id_header: str | None = None
    content_type = PROBLEM

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""
        wrong = [shapes.Wrong(detail=each.message, pointer=_pointer(each.path)) for each in failure.faults]
        return msgspec.json.encode(
            shapes.Problem(
                type="about:blank",
                title=HTTPStatus(failure.status).phrase,
                status=failure.status,
                detail=failure.message,
                code=failure.code,
                request_id=failure.request_id,
                errors=tuple(each for each in wrong if each.pointer),
            )
        )

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error where an answer has begun; nothing here streams."""
        return self.error(failure)


def _pointer(path: str) -> str:
    """Write a path such as `a.b[0]` as a JSON pointer in a fragment."""
    return "".join(f"/{part}" for part in path.replace("[", ".").replace("]", "").split(".") if part)


class AdminRoutes(Struct, frozen=True, kw_only=True):
    """The endpoints."""

    admin: Admin
    gate: Gate
    api_path: str
    now_ms: Callable[[], int]

    async def list_keys(self, exchange: Exchange) -> None:
        """List keys, the oldest first."""
        authority, query = authority_of(exchange), _query(exchange, "tenant")
        tenant = _tenant(query, authority) if query.text("tenant") or authority.tenant else None
        limit, after = _limit(query), _after(query)
        rows = await self.admin.keys.list(authority, tenant=tenant, after=after, limit=limit + 1)
        await _send(exchange, written.page(rows, limit, self._key, lambda key: (key.id,)))

    def _key(self, key: VirtualKey) -> shapes.KeyShape:
        return written.key_shape(key, self.now_ms())

    async def key(self, exchange: Exchange) -> None:
        """Show a key."""
        authority, key_id = authority_of(exchange), _plain(exchange.path_value, "key")
        key = await self.admin.administration.key(authority.tenant, key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id!r}", param="key")
        await _send(exchange, self._key(key))

    async def issue_key(self, exchange: Exchange) -> None:
        """Make a key."""
        authority = authority_of(exchange)
        asked = read_record(await exchange.body(), shapes.NewKey)
        request = KeyRequest(
            application=asked.client_id,
            tenant=_own_tenant(authority) if asked.tenant is UNSET else asked.tenant,
            user=asked.user,
            name=asked.name,
            scopes=frozenset(asked.scopes),
            allowed_models=asked.allowed_models,
            limits=written.read_limits(asked.limits, self._check_limit),
            expires_at_ms=None if asked.expires_at is None else _ms("expires_at", asked.expires_at),
        )
        await self._send_issued(exchange, await self.admin.keys.issue(request, authority))

    async def rotate_key(self, exchange: Exchange) -> None:
        """Make a key that takes another's place."""
        authority = authority_of(exchange)
        asked = read_record(await exchange.body() or b"{}", shapes.Rotation)
        overlap_s = OVERLAP_S if asked.overlap_s is UNSET else asked.overlap_s
        key_id = _plain(exchange.path_value, "key")
        await self._send_issued(
            exchange, await self.admin.keys.rotate(key_id, authority, overlap_s=overlap_s)
        )

    async def _send_issued(self, exchange: Exchange, issued: IssuedKey) -> None:
        answer = shapes.IssuedKeyShape(key=issued.text.reveal(), entry=self._key(issued.key))
        await _send(exchange, answer)

    async def revoke_key(self, exchange: Exchange) -> None:
        """End a key at once."""
        key_id = _plain(exchange.path_value, "key")
        await _send(exchange, self._key(await self.admin.keys.revoke(key_id, authority_of(exchange))))

    async def list_plans(self, exchange: Exchange) -> None:
        """List all plans, the cheapest first."""
        authority_of(exchange)
        _query(exchange)
        plans = await self.admin.directives.plans()
        await _send(exchange, written.page(plans, len(plans), written.plan_shape, lambda plan: (plan.name,)))

    async def plan(self, exchange: Exchange) -> None:
        """Show a plan."""
        authority_of(exchange)
        await _send(
            exchange, written.plan_shape(await self.admin.plan(_plain(exchange.path_value, "plan", "name")))
        )

    async def change_plan(self, exchange: Exchange) -> None:
        """Change a plan, or make one."""
        authority = authority_of(exchange)
        change = read_record(await exchange.body(), shapes.PlanChange)
        patch = written.plan_patch(change, self._check_limit)
        await _send(
            exchange,
            written.plan_shape(await self.admin.change_plan(exchange.path_value, patch, authority)),
        )

    async def list_tenants(self, exchange: Exchange) -> None:
        """List tenants."""
        authority, query = authority_of(exchange), _query(exchange)
        limit = _limit(query)
        rows = await self.admin.tenants(authority, after=_after(query), limit=limit + 1)
        await _send(exchange, written.page(rows, limit, written.tenant_shape, lambda entry: (entry.id,)))

    async def tenant(self, exchange: Exchange) -> None:
        """Show a tenant."""
        name = _plain(exchange.path_value, "tenant")
        await _send(exchange, written.tenant_shape(await self.admin.tenant(name, authority_of(exchange))))

    async def change_tenant(self, exchange: Exchange) -> None:
        """Change a tenant, or make one."""
        authority, name = authority_of(exchange), _plain(exchange.path_value, "tenant")
        change = read_record(await exchange.body(), shapes.TenantChange)
        limits = written.read_limits(change.limits, self._check_limit)
        entry = await self.admin.change_tenant(name, written.given(change, "limits"), limits, authority)
        await _send(exchange, written.tenant_shape(entry))

    async def list_applications(self, exchange: Exchange) -> None:
        """List the applications about which something was said."""
        query = _query(exchange, "tenant")
        tenant, limit = _tenant(query, authority_of(exchange)), _limit(query)
        rows = await self.admin.administration.applications(tenant, after=_after(query), limit=limit + 1)
        await _send(exchange, written.page(rows, limit, written.application_shape, lambda entry: (entry.id,)))

    async def application(self, exchange: Exchange) -> None:
        """Show an application."""
        tenant = _tenant(_query(exchange, "tenant"), authority_of(exchange))
        name = _plain(exchange.path_value, "application", "client_id")
        await _send(exchange, written.application_shape(await self.admin.application(tenant, name)))

    async def change_application(self, exchange: Exchange) -> None:
        """Change what holds for an application."""
        authority = authority_of(exchange)
        tenant = _tenant(_query(exchange, "tenant"), authority)
        name = _plain(exchange.path_value, "application", "client_id")
        change = read_record(await exchange.body(), shapes.ApplicationChange)
        limits = written.read_limits(change.limits, self._check_limit)
        fields = written.given(change, "limits")
        entry = await self.admin.change_application(tenant, name, fields, limits, authority)
        await _send(exchange, written.application_shape(entry))

    async def list_subscriptions(self, exchange: Exchange) -> None:
        """List the subscriptions that are held."""
        query = _query(exchange, "tenant")
        tenant, limit = _tenant(query, authority_of(exchange)), _limit(query)
        rows = await self.admin.administration.subscriptions(tenant, after=_after(query), limit=limit + 1)
        await _send(exchange, written.page(rows, limit, self._subscription, lambda held: (held.id,)))

    def _subscription(self, held: Subscription) -> shapes.AdminSubscription:
        return written.subscription_shape(held, self.now_ms())

    async def subscription(self, exchange: Exchange) -> None:
        """Show what a user subscribed to."""
        tenant = _tenant(_query(exchange, "tenant"), authority_of(exchange))
        user = _plain(exchange.path_value, "user")
        await _send(exchange, self._subscription(await self.admin.subscription(tenant, user)))

    async def change_subscription(self, exchange: Exchange) -> None:
        """Give a user a plan, or say whether the one held goes on."""
        authority = authority_of(exchange)
        tenant = _tenant(_query(exchange, "tenant"), authority)
        change = read_record(await exchange.body(), shapes.SubscriptionChange)
        user = _plain(exchange.path_value, "user")
        held = await self.admin.change_subscription(tenant, user, written.given(change), authority)
        await _send(exchange, self._subscription(held))

    async def usage(self, exchange: Exchange) -> None:
        """Sum usage up."""
        query = _query(exchange, "tenant", "user", "client_id", "since", "until", "by")
        tenant, limit = _tenant(query, authority_of(exchange)), _limit(query)
        by = _groupings(query.text("by"))
        selection = _selection(query, tenant)
        after = written.read_cursor(query.text("cursor"), tuple[str, ...])
        if after is not None and len(after) != len(by):
            raise InvalidRequest("cursor: it belongs to another grouping", param="cursor")
        if by:
            rows = await self.admin.reports.groups(selection, by, after=after, limit=limit + 1)
        else:
            rows = (Group(key=(), totals=await self.admin.reports.totals(selection)),)

        def shape(group: Group) -> shapes.UsageRow:
            return written.usage_row(group, by)

        await _send(exchange, written.page(rows, limit, shape, lambda group: group.key))

    async def calls(self, exchange: Exchange) -> None:
        """List a user's calls, the newest first."""
        query = _query(exchange, "tenant", "user", "client_id", "since", "until")
        tenant, limit = _tenant(query, authority_of(exchange)), _limit(query)
        if query.text("user") is None:
            raise InvalidRequest("user: name the user whose calls are meant", param="user")
        before = written.read_cursor(query.text("cursor"), tuple[int, str])
        rows = await self.admin.reports.calls(_selection(query, tenant), before=before, limit=limit + 1)
        await _send(exchange, written.page(rows, limit, written.call_shape, lambda line: line.place))

    async def call(self, exchange: Exchange) -> None:
        """Show a call with its attempts."""
        tenant = _tenant(_query(exchange, "tenant"), authority_of(exchange))
        call_id = _plain(exchange.path_value, "call")
        line = await self.admin.reports.call(tenant, call_id)
        if line is None:
            raise NotFound(f"there is no call {call_id!r}", param="id")
        attempts = await self.admin.reports.attempts(tenant, call_id)
        await _send(
            exchange,
            shapes.CallDetail(
                call=written.call_shape(line), attempts=[written.attempt_shape(each) for each in attempts]
            ),
        )

    async def audit(self, exchange: Exchange) -> None:
        """List changes, the newest first."""
        authority, query = authority_of(exchange), _query(exchange)
        limit, place = _limit(query), written.read_cursor(query.text("cursor"), tuple[int])
        before = None if place is None else place[0]
        rows = await self.admin.audit(authority, before=before, limit=limit + 1)
        await _send(exchange, written.page(rows, limit, written.audit_shape, lambda entry: (entry.number,)))

    async def check_ledger(self, exchange: Exchange) -> None:
        """Compute every balance anew and compare."""
        await _send(exchange, await self.admin.ledger(authority_of(exchange)))

    def _check_limit(self, name: str) -> None:
        check_limit(name, self.gate.directory.catalog.providers.keys())

    def routes(self) -> list[Route]:
        """Return the rows."""
        row = self._row
        return [
            row("/keys", self.list_keys, "List keys", shapes.Page[shapes.KeyShape], _PAGE, _TENANT),
            row("/keys", self.issue_key, "Make a key", shapes.IssuedKeyShape, takes=shapes.NewKey),
            row("/keys/{id}", self.key, "Show a key", shapes.KeyShape),
            row(
                "/keys/{id}/rotate",
                self.rotate_key,
                "Make a key that takes another's place",
                shapes.IssuedKeyShape,
                takes=shapes.Rotation,
            ),
            row("/keys/{id}/revoke", self.revoke_key, "End a key at once", shapes.KeyShape, method="POST"),
            row("/plans", self.list_plans, "List all plans", shapes.Page[shapes.AdminPlan]),
            row("/plans/{name}", self.plan, "Show a plan", shapes.AdminPlan),
            row(
                "/plans/{name}",
                self.change_plan,
                "Change a plan, or make one",
                shapes.AdminPlan,
                takes=shapes.PlanChange,
            ),
            row("/tenants", self.list_tenants, "List tenants", shapes.Page[shapes.TenantShape], _PAGE),
            row("/tenants/{id}", self.tenant, "Show a tenant", shapes.TenantShape),
            row(
                "/tenants/{id}",
                self.change_tenant,
                "Change a tenant, or make one",
                shapes.TenantShape,
                takes=shapes.TenantChange,
            ),
            row(
                "/applications",
                self.list_applications,
                "List applications",
                shapes.Page[shapes.ApplicationShape],
                _PAGE,
                _TENANT,
            ),
            row(
                "/applications/{client_id}",
                self.application,
                "Show an application",
                shapes.ApplicationShape,
                _TENANT,
            ),
            row(
                "/applications/{client_id}",
                self.change_application,
                "Change what holds for an application",
                shapes.ApplicationShape,
                _TENANT,
                takes=shapes.ApplicationChange,
            ),
            *self._reports(),
        ]

    def _reports(self) -> list[Route]:
        row = self._row
        span = (_TENANT, ("user", "client_id", "since", "until"))
        return [
            row(
                "/subscriptions",
                self.list_subscriptions,
                "List subscriptions",
                shapes.Page[shapes.AdminSubscription],
                _PAGE,
                _TENANT,
            ),
            row(
                "/subscriptions/{user}",
                self.subscription,
                "Show what a user subscribed to",
                shapes.AdminSubscription,
                _TENANT,
            ),
            row(
                "/subscriptions/{user}",
                self.change_subscription,
                "Give a user a plan, or say whether it renews itself",
                shapes.AdminSubscription,
                _TENANT,
                takes=shapes.SubscriptionChange,
            ),
            row("/usage", self.usage, "Sum usage up", shapes.Page[shapes.UsageRow], _PAGE, *span, ("by",)),
            row("/calls", self.calls, "List a user's calls", shapes.Page[shapes.CallShape], _PAGE, *span),
            row("/calls/{id}", self.call, "Show a call with its attempts", shapes.CallDetail, _TENANT),
            row("/audit", self.audit, "List changes", shapes.Page[shapes.AuditShape], _PAGE),
            row("/ledger/check", self.check_ledger, "Check the ledger", shapes.LedgerShape),
        ]

    def _row(
        self,
        path: str,
        endpoint: Endpoint,
        summary: str,
        answer: Any,
        *fields: Sequence[str],
        takes: Any = None,
        method: Literal["GET", "POST"] = "GET",
    ) -> Route:
        _, brace, rest = path.partition("{")
        named = (
            [Parameter(name=rest.partition("}")[0], place="path", description=_WORDS["id"])] if brace else []
        )
        asked = [
            Parameter(name=name, place="query", description=_WORDS[name], required=False)
            for each in fields
            for name in each
        ]
        return Route(
            method=method if takes is None else "POST",
            path=f"{self.api_path}/admin/v1{path}",
            endpoint=endpoint,
            surface=AdminSurface(),
            summary=summary,
            tag=_TAG,
            needs="admin",
            request_type=takes,
            response_type=answer,
            error_type=shapes.Problem,
            parameters=(*named, *asked),
            example=_EXAMPLES.get(takes),
        )


_PAGE, _TENANT = ("limit", "cursor"), ("tenant",)
_WORDS: Mapping[str, str] = {
    "id": "What is meant",
    "limit": f"How many at most, {_FEW} if absent",
    "cursor": "Where the page begins: `next_cursor` of the one before",
    "tenant": "The tenant that is meant; only an operator's key may name another than its own",
    "user": "Only this user",
    "client_id": "Only this application",
    "since": "Only calls from this time on, as in ISO 8601",
    "until": "Only calls before this time",
    "by": "By what to sum up, divided by commas: " + ", ".join(GROUPINGS),
}
_EXAMPLES: Mapping[Any, Any] = {
    shapes.NewKey: {"client_id": "shop", "user": "ann"},
    shapes.Rotation: {"overlap_s": 3600},
    shapes.PlanChange: {"limits": {"monthly_cost_usd": "0.50", "requests_per_minute": 60}},
    shapes.TenantChange: {"label": "The shop"},
    shapes.ApplicationChange: {"limits": {"requests_per_minute": 600}},
    shapes.SubscriptionChange: {"plan": "free"},
}


def _own_tenant(authority: Authority) -> str:
    return DEFAULT_TENANT if authority.key is None else authority.key.tenant


def _tenant(query: Query, authority: Authority) -> str:
    """Return the tenant that is meant: the key's own, unless an operator names another.

    Raises:
        NotFound: for anybody else, no other tenant exists.
    """
    own = _own_tenant(authority)
    named = query.text("tenant") or own
    if authority.tenant is not None and named != own:
        raise NotFound(f"there is no tenant {named!r}", param="tenant")
    return _plain(named, "tenant")


def _query(exchange: Exchange, *names: str) -> Query:
    query = Query(exchange)
    query.only(*names, "limit", "cursor")
    return query


def _limit(query: Query) -> int:
    return query.whole("limit", _FEW, least=1, most=_MOST)


def _after(query: Query) -> str:
    place = written.read_cursor(query.text("cursor"), tuple[str])
    return "" if place is None else place[0]


def _selection(query: Query, tenant: str) -> Selection:
    return Selection(
        tenant=tenant,
        user=query.text("user"),
        application=query.text("client_id"),
        since_ms=_moment(query, "since", 0),
        until_ms=_moment(query, "until", FOREVER_MS),
    )


def _moment(query: Query, name: str, default: int) -> int:
    text = query.text(name)
    try:
        return default if text is None else read_moment(text)
    except ValueError:
        raise InvalidRequest(f"{name}: expected a time such as 2026-11-21T08:30:00Z", param=name) from None


def _groupings(text: str | None) -> tuple[Grouping, ...]:
    words = tuple(filter(None, (text or "").split(",")))
    if not set(words) <= set(GROUPINGS) or len(set(words)) < len(words):
        raise InvalidRequest(f"by: expected some of {', '.join(GROUPINGS)}, each once", param="by")
    return cast("tuple[Grouping, ...]", words)


def _plain(name: str, what: str, param: str | None = None) -> str:
    """Return an id; nothing is called what cannot be one.

    Raises:
        NotFound: it cannot.
    """
    if len(name) > _MAX_ID_CHARS or not name.isprintable():
        raise NotFound(f"there is no {what} {name!r}", param=param or what)
    return name


def _ms(name: str, at: datetime) -> int:
    if at.tzinfo is None:
        raise InvalidRequest(f"{name}: the time must say its zone, as in 2026-11-21T08:30:00Z", param=name)
    return milliseconds(at)


async def _send(exchange: Exchange, answer: Struct) -> None:
    headers = {"cache-control": "no-store"}
    await exchange.reply(Reply(body=msgspec.json.encode(answer), headers=headers))
