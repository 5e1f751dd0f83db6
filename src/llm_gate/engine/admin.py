"""What an administrator may look up and change over the network, each within the reach of the key that asks.

Whoever administers a tenant sees that tenant alone: what belongs to another is not there. Plans, tenants and the
ledger as a whole are the operator's.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct, structs

from llm_gate.domain.administration import Act, AuditEntry
from llm_gate.domain.errors import InvalidRequest, NotAllowed, NotFound
from llm_gate.domain.plan_tables import PlanPatch, patched
from llm_gate.domain.plans import Plan, Subscription
from llm_gate.domain.reports import Reports
from llm_gate.domain.stores import Administration, ApplicationEntry, Directives, TenantEntry
from llm_gate.engine.keys import Authority, Keys
from llm_gate.engine.subscriptions import Subscriptions


class Admin(Struct, frozen=True, kw_only=True):
    """The use-cases of the admin API."""

    keys: Keys
    subscriptions: Subscriptions
    administration: Administration
    directives: Directives
    reports: Reports
    check_ledger: Callable[[], Awaitable[Struct]]
    now_ms: Callable[[], int]

    async def plan(self, name: str) -> Plan:
        """Return a plan.

        Raises:
            NotFound: there is none of that name.
        """
        plan = await self.directives.plan(name)
        if plan is None:
            raise NotFound(f"there is no plan {name!r}", param="name")
        return plan

    async def change_plan(self, name: str, patch: PlanPatch, authority: Authority) -> Plan:
        """Change a plan, or make one.

        Raises:
            NotAllowed: the authority is no operator.
            InvalidRequest: no plan can be called that.
            Conflict: the plan is not to be changed this way.
        """
        require_operator(authority)
        act = self._act(authority, "plan.set")
        return await self.administration.change_plan(
            name, lambda before: patched(before, name, patch, act.at_ms), act
        )

    async def tenants(self, authority: Authority, *, after: str, limit: int) -> tuple[TenantEntry, ...]:
        """Return tenants by their ids, from behind one; of an administrator's tenant, that one."""
        if authority.tenant is None:
            return await self.administration.tenants(after=after, limit=limit)
        return () if after else (await self.tenant(authority.tenant, authority),)

    async def tenant(self, tenant: str, authority: Authority) -> TenantEntry:
        """Return a tenant.

        Raises:
            NotFound: there is none, or it is another one than the authority's.
        """
        is_own = authority.tenant == tenant
        entry = await self.directives.tenant(tenant) if is_own or authority.tenant is None else None
        if entry is None and not is_own:
            raise NotFound(f"there is no tenant {tenant!r}", param="tenant")
        return entry or TenantEntry(id=tenant)

    async def change_tenant(
        self, tenant: str, fields: dict[str, Any], limits: dict[str, int | None], authority: Authority
    ) -> TenantEntry:
        """Change a tenant, or make one.

        Raises:
            NotAllowed: the authority is no operator.
            NotFound: there is no such plan.
        """
        require_operator(authority)
        if fields.get("plan") is not None:
            await self.plan(fields["plan"])
        act = self._act(authority, "tenant.set")

        def change(before: TenantEntry | None) -> TenantEntry:
            entry = before or TenantEntry(id=tenant, anchor_ms=act.at_ms, created_at_ms=act.at_ms)
            return structs.replace(entry, **fields, limits=entry.limits.changed(limits, act.at_ms))

        return await self.administration.change_tenant(tenant, change, act)

    async def application(self, tenant: str, application: str) -> ApplicationEntry:
        """Return an application.

        Raises:
            NotFound: nothing was said about it.
        """
        entry = await self.directives.application(tenant, application)
        if entry is None:
            raise NotFound(f"there is no application {application!r}", param="client_id")
        return entry

    async def change_application(
        self,
        tenant: str,
        application: str,
        fields: dict[str, Any],
        limits: dict[str, int | None],
        authority: Authority,
    ) -> ApplicationEntry:
        """Change an application, or say something about one for the first time.

        Raises:
            NotAllowed: the tenant is another one than the authority's.
        """
        authority.check_tenant(tenant)
        act = self._act(authority, "application.set")

        def change(before: ApplicationEntry | None) -> ApplicationEntry:
            entry = before or ApplicationEntry(
                tenant=tenant, id=application, anchor_ms=act.at_ms, created_at_ms=act.at_ms
            )
            return structs.replace(entry, **fields, limits=entry.limits.changed(limits, act.at_ms))

        return await self.administration.change_application(tenant, application, change, act)

    async def subscription(self, tenant: str, user: str) -> Subscription:
        """Return what a user subscribed to.

        Raises:
            NotFound: that is nothing.
        """
        held = await self.directives.subscription(tenant, user)
        if held is None:
            raise NotFound(f"user {user!r} has no subscription", param="user")
        return held

    async def change_subscription(
        self, tenant: str, user: str, fields: dict[str, Any], authority: Authority
    ) -> Subscription:
        """Begin a new subscription where a plan is named, else change whether the one held renews itself.

        Raises:
            InvalidRequest: nothing is to be changed, or a cycle without a plan.
            NotFound: there is no such plan, or nothing to be changed.
            NotAllowed: the tenant is another one than the authority's.
        """
        if "plan" in fields:
            named = {"plan_name" if name == "plan" else name: value for name, value in fields.items()}
            made = await self.subscriptions.subscribe(user, tenant=tenant, authority=authority, **named)
            return made.subscription
        if "cycle" in fields or "auto_renew" not in fields:
            raise InvalidRequest("plan: name the plan that begins now", param="plan")
        return await self.subscriptions.set_renewal(
            user, auto_renew=fields["auto_renew"], tenant=tenant, authority=authority
        )

    async def audit(self, authority: Authority, *, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Return the changes that the authority may see, the newest first."""
        return await self.administration.audit(authority.tenant, before=before, limit=limit)

    async def ledger(self, authority: Authority) -> Struct:
        """Check every balance of every tenant.

        Raises:
            NotAllowed: the authority is no operator.
        """
        require_operator(authority)
        return await self.check_ledger()

    def _act(self, authority: Authority, action: str) -> Act:
        return Act(actor=authority.actor, action=action, at_ms=self.now_ms())


def require_operator(authority: Authority) -> None:
    """Check that an authority reaches beyond one tenant.

    Raises:
        NotAllowed: it does not.
    """
    if authority.tenant is not None:
        raise NotAllowed("this is for the operator: it needs a key with scope operator", code="scope_missing")
