"""Changes what the operator decided: the port `Administration` over a database."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, func, select, update

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.administration import Act, AuditEntry, Change, Renewal
from llm_gate.domain.errors import NotFound
from llm_gate.domain.plans import Plan, Subscription
from llm_gate.domain.stores import ApplicationEntry, TenantEntry
from llm_gate.storage import schema
from llm_gate.storage.changes import EVERYWHERE, Changes, Kind, change_store
from llm_gate.storage.database import Database
from llm_gate.storage.directive_rows import (
    application_of,
    application_values,
    audit_of,
    key_of,
    key_values,
    plan_of,
    plan_values,
    renewal_of,
    renewal_values,
    subscription_of,
    subscription_values,
    tenant_of,
    tenant_values,
)
from llm_gate.storage.directives import held_subscription

T = TypeVar("T")

_TENANTS = Kind(table=schema.tenant, read=tenant_of, values=tenant_values)
_APPLICATIONS = Kind(table=schema.application, read=application_of, values=application_values)
_PLANS = Kind(table=schema.plan, read=plan_of, values=plan_values)


class StoredAdministration:
    """The port `Administration`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_key(self, key: VirtualKey, act: Act) -> None:
        """Store a new key."""

        def work(changes: Changes) -> None:
            changes.put(schema.virtual_key, key_values(key))
            changes.note(tenant=key.tenant, target=key.id, before=None, after=key)

        await change_store(self._database, act, work)

    async def change_key(
        self,
        tenant: str | None,
        key_id: str,
        change: Callable[[VirtualKey], Sequence[VirtualKey]],
        act: Act,
    ) -> tuple[VirtualKey, ...]:
        """Store what a key becomes, and the keys that come of it."""

        def work(changes: Changes) -> tuple[VirtualKey, ...]:
            row = changes.connection.execute(_key_query(tenant, key_id)).first()
            if row is None:
                raise NotFound(f"there is no key {key_id!r}", param="key")
            before = key_of(row)
            kept = {before.id: before}
            after = tuple(change(before))
            for key in after:
                if key != kept.get(key.id):
                    changes.put(schema.virtual_key, key_values(key))
                    changes.note(tenant=key.tenant, target=key.id, before=kept.get(key.id), after=key)
            return after

        return await change_store(self._database, act, work)

    async def key(self, tenant: str | None, key_id: str) -> VirtualKey | None:
        """Return a key by its id."""
        row = await self._database.read(
            lambda connection: connection.execute(_key_query(tenant, key_id)).first()
        )
        return None if row is None else key_of(row)

    async def keys(self, tenant: str | None, *, after: str = "", limit: int = 100) -> tuple[VirtualKey, ...]:
        """Return keys, the oldest first."""
        table = schema.virtual_key
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        return await self._all(query, key_of)

    async def change_plan(self, name: str, change: Callable[[Plan | None], Plan], act: Act) -> Plan:
        """Store what a plan becomes."""
        return await change_store(self._database, act, lambda changes: change_plan(changes, name, change))

    async def change_tenant(
        self, tenant: str, change: Callable[[TenantEntry | None], TenantEntry], act: Act
    ) -> TenantEntry:
        """Store what a tenant becomes."""

        def work(changes: Changes) -> TenantEntry:
            return changes.replace(_TENANTS, {"id": tenant}, change, tenant=tenant)

        return await change_store(self._database, act, work)

    async def tenants(self, *, after: str = "", limit: int = 100) -> tuple[TenantEntry, ...]:
        """Return the tenants that were made."""
        table = schema.tenant
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        return await self._all(query, tenant_of)

    async def change_application(
        self,
        tenant: str,
        application: str,
        change: Callable[[ApplicationEntry | None], ApplicationEntry],
        act: Act,
    ) -> ApplicationEntry:
        """Store what an application becomes."""
        key = {"tenant": tenant, "id": application}

        def work(changes: Changes) -> ApplicationEntry:
            return changes.replace(_APPLICATIONS, key, change, tenant=tenant)

        return await change_store(self._database, act, work)

    async def applications(
        self, tenant: str, *, after: str = "", limit: int = 100
    ) -> tuple[ApplicationEntry, ...]:
        """Return the applications about which something was said."""
        table = schema.application
        query = select(table).where(table.c.tenant == tenant, table.c.id > after)
        return await self._all(query.order_by(table.c.id).limit(limit), application_of)

    async def change_subscription(
        self,
        tenant: str,
        user: str,
        change: Callable[[Subscription | None, Renewal | None], Change],
        act: Act,
    ) -> Change:
        """Store what a user's subscription becomes; one with another id ends the one held."""

        def work(changes: Changes) -> Change:
            connection = changes.connection
            row = connection.execute(held_subscription(tenant, user)).first()
            held = None if row is None else subscription_of(row)
            last = connection.execute(_renewal_query(tenant, user).limit(1)).first()
            changed = change(held, None if last is None else renewal_of(last))
            if changed.subscription == held:
                return changed
            if held is not None and held.id != changed.subscription.id:
                table = schema.subscription
                connection.execute(update(table).where(table.c.id == held.id).values(ended_ms=act.at_ms))
            changes.put(schema.subscription, subscription_values(changed.subscription))
            if changed.renewal is not None:
                changes.put(schema.renewal, renewal_values(changed.renewal))
            changes.note(tenant=tenant, target=user, before=held, after=changed.subscription)
            return changed

        return await change_store(self._database, act, work)

    async def subscriptions(
        self, tenant: str, *, after: str = "", limit: int = 100
    ) -> tuple[Subscription, ...]:
        """Return the subscriptions that are held."""
        table = schema.subscription
        query = select(table).where(table.c.tenant == tenant, table.c.ended_ms.is_(None), table.c.id > after)
        return await self._all(query.order_by(table.c.id).limit(limit), subscription_of)

    async def renewals(
        self, tenant: str, user: str, *, limit: int = 50, offset: int = 0
    ) -> tuple[tuple[Renewal, ...], int]:
        """Return a user's history, the newest first, and how many lines it has in all."""
        page = _renewal_query(tenant, user).limit(limit).offset(offset)
        table = schema.renewal
        counted = select(func.count()).where(table.c.tenant == tenant, table.c.user_id == user)

        def question(connection: Connection) -> tuple[tuple[Renewal, ...], int]:
            rows = connection.execute(page).all()
            return tuple(map(renewal_of, rows)), connection.execute(counted).scalar_one()

        return await self._database.read(question)

    async def audit(
        self, tenant: str | None, *, before: int | None = None, limit: int = 100
    ) -> tuple[AuditEntry, ...]:
        """Return the audit, the newest first, from before a number."""
        table = schema.audit
        query = select(table).order_by(table.c.number.desc()).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if before is not None:
            query = query.where(table.c.number < before)
        return await self._all(query, audit_of)

    async def _all(self, query: Select[Any], read: Callable[[Any], T]) -> tuple[T, ...]:
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return tuple(map(read, rows))


def change_plan(changes: Changes, name: str, change: Callable[[Plan | None], Plan]) -> Plan:
    """Store what a plan becomes, within a change."""
    return changes.replace(_PLANS, {"name": name}, change, tenant=EVERYWHERE)


def _key_query(tenant: str | None, key_id: str) -> Select[Any]:
    table = schema.virtual_key
    query = select(table).where(table.c.id == key_id)
    return query if tenant is None else query.where(table.c.tenant == tenant)


def _renewal_query(tenant: str, user: str) -> Select[Any]:
    table = schema.renewal
    query = select(table).where(table.c.tenant == tenant, table.c.user_id == user)
    return query.order_by(table.c.created_ms.desc(), table.c.id.desc())
