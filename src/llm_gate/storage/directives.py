"""Reads what the operator decided: the port `Directives` over a database. Changes are made in administration.py."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, select

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.plans import Plan, Subscription
from llm_gate.domain.stores import ApplicationEntry, TenantEntry
from llm_gate.storage import schema
from llm_gate.storage.changes import stored_revision
from llm_gate.storage.database import Database
from llm_gate.storage.directive_rows import application_of, key_of, plan_of, subscription_of, tenant_of

T = TypeVar("T")


class StoredDirectives:
    """The port `Directives`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> int:
        """Return a number that grows with every change."""
        return await self._database.read(stored_revision)

    async def has_keys(self) -> bool:
        """Tell whether a key was ever issued."""
        return await self._database.read(any_key)

    async def key_of(self, digest: bytes) -> VirtualKey | None:
        """Return the key with a digest, valid or not."""
        return await self._one(
            select(schema.virtual_key).where(schema.virtual_key.c.digest == digest), key_of
        )

    async def plan(self, name: str) -> Plan | None:
        """Return a plan by its name."""
        return await self._one(select(schema.plan).where(schema.plan.c.name == name), plan_of)

    async def plans(self) -> tuple[Plan, ...]:
        """Return all plans, the cheapest first."""
        return await self._database.read(stored_plans)

    async def subscription(self, tenant: str, user: str) -> Subscription | None:
        """Return the subscription a user holds now."""
        return await self._one(held_subscription(tenant, user), subscription_of)

    async def tenant(self, tenant: str) -> TenantEntry | None:
        """Return a tenant."""
        return await self._one(select(schema.tenant).where(schema.tenant.c.id == tenant), tenant_of)

    async def application(self, tenant: str, application: str) -> ApplicationEntry | None:
        """Return an application."""
        table = schema.application
        query = select(table).where(table.c.tenant == tenant, table.c.id == application)
        return await self._one(query, application_of)

    async def _one(self, query: Select[Any], read: Callable[[Row[Any]], T]) -> T | None:
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else read(row)


def any_key(connection: Connection) -> bool:
    """Tell whether a key was ever issued."""
    return connection.execute(select(schema.virtual_key.c.id).limit(1)).first() is not None


def stored_plans(connection: Connection) -> tuple[Plan, ...]:
    """Return all plans, the cheapest first."""
    plans = [plan_of(row) for row in connection.execute(select(schema.plan))]
    return tuple(sorted(plans, key=lambda plan: (plan.price_monthly_nanos, plan.name)))


def held_subscription(tenant: str, user: str) -> Select[Any]:
    """Return the question which subscription a user holds now."""
    table = schema.subscription
    return select(table).where(table.c.tenant == tenant, table.c.user_id == user, table.c.ended_ms.is_(None))
