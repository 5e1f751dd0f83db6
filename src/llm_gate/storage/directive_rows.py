"""Between the rows of keys, plans, subscriptions, tenants and applications, and the values they stand for."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Row

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.administration import AuditEntry, Renewal
from llm_gate.domain.plans import Limits, Plan, Subscription
from llm_gate.domain.stores import ApplicationEntry, TenantEntry

Values = dict[str, Any]


def json_text(value: Any) -> str:
    """Write a value as it is stored: compact, names and sets in a fixed order."""
    return msgspec.json.encode(value, order="deterministic").decode()


def key_values(key: VirtualKey) -> Values:
    """Return the row of a key."""
    return {
        "id": key.id,
        "digest": key.digest,
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant,
        "application": key.application,
        "user_id": key.user,
        "scopes": json_text(key.scopes),
        "allowed_models": json_text(key.allowed_models),
        "limits": json_text(key.limits),
        "created_ms": key.created_at_ms,
        "expires_ms": key.expires_at_ms,
        "retires_ms": key.retires_at_ms,
        "revoked_ms": key.revoked_at_ms,
        "replaced_by": key.replaced_by,
    }


def key_of(row: Row[Any]) -> VirtualKey:
    """Return the key of a row."""
    return VirtualKey(
        id=row.id,
        digest=row.digest,
        prefix=row.prefix,
        name=row.name,
        tenant=row.tenant,
        application=row.application,
        user=row.user_id,
        scopes=msgspec.json.decode(row.scopes, type=frozenset),
        allowed_models=msgspec.json.decode(row.allowed_models, type=tuple[str, ...]),
        limits=msgspec.json.decode(row.limits, type=Limits),
        created_at_ms=row.created_ms,
        expires_at_ms=row.expires_ms,
        retires_at_ms=row.retires_ms,
        revoked_at_ms=row.revoked_ms,
        replaced_by=row.replaced_by,
    )


def plan_values(plan: Plan) -> Values:
    """Return the row of a plan."""
    return {"name": plan.name, "body": json_text(plan), "updated_ms": plan.updated_at_ms}


def plan_of(row: Row[Any]) -> Plan:
    """Return the plan of a row."""
    return msgspec.json.decode(row.body, type=Plan)


def subscription_values(subscription: Subscription) -> Values:
    """Return the row of a subscription that is held."""
    return {
        "id": subscription.id,
        "tenant": subscription.tenant,
        "user_id": subscription.user,
        "plan": subscription.plan,
        "cycle": subscription.cycle,
        "start_ms": subscription.start_ms,
        "term_end_ms": subscription.term_end_ms,
        "auto_renew": subscription.auto_renew,
        "created_ms": subscription.created_at_ms,
        "ended_ms": None,
    }


def subscription_of(row: Row[Any]) -> Subscription:
    """Return the subscription of a row."""
    return Subscription(
        id=row.id,
        tenant=row.tenant,
        user=row.user_id,
        plan=row.plan,
        cycle=row.cycle,
        start_ms=row.start_ms,
        term_end_ms=row.term_end_ms,
        auto_renew=row.auto_renew,
        created_at_ms=row.created_ms,
    )


def renewal_values(renewal: Renewal) -> Values:
    """Return the row of a line of a user's history."""
    return {
        "id": renewal.id,
        "tenant": renewal.tenant,
        "user_id": renewal.user,
        "body": json_text(renewal),
        "created_ms": renewal.created_at_ms,
    }


def renewal_of(row: Row[Any]) -> Renewal:
    """Return the line of a row."""
    return msgspec.json.decode(row.body, type=Renewal)


def tenant_values(tenant: TenantEntry) -> Values:
    """Return the row of a tenant."""
    return {
        "id": tenant.id,
        "label": tenant.label,
        "plan": tenant.plan,
        "limits": json_text(tenant.limits),
        "anchor_ms": tenant.anchor_ms,
        "is_active": tenant.is_active,
        "created_ms": tenant.created_at_ms,
    }


def tenant_of(row: Row[Any]) -> TenantEntry:
    """Return the tenant of a row."""
    return TenantEntry(
        id=row.id,
        label=row.label,
        plan=row.plan,
        limits=msgspec.json.decode(row.limits, type=Limits),
        anchor_ms=row.anchor_ms,
        is_active=row.is_active,
        created_at_ms=row.created_ms,
    )


def application_values(application: ApplicationEntry) -> Values:
    """Return the row of an application."""
    return {
        "tenant": application.tenant,
        "id": application.id,
        "label": application.label,
        "limits": json_text(application.limits),
        "allowed_models": json_text(application.allowed_models),
        "anchor_ms": application.anchor_ms,
        "is_active": application.is_active,
        "created_ms": application.created_at_ms,
    }


def application_of(row: Row[Any]) -> ApplicationEntry:
    """Return the application of a row."""
    return ApplicationEntry(
        tenant=row.tenant,
        id=row.id,
        label=row.label,
        limits=msgspec.json.decode(row.limits, type=Limits),
        allowed_models=msgspec.json.decode(row.allowed_models, type=tuple[str, ...]),
        anchor_ms=row.anchor_ms,
        is_active=row.is_active,
        created_at_ms=row.created_ms,
    )


def audit_of(row: Row[Any]) -> AuditEntry:
    """Return the audit's entry of a row."""
    change: Mapping[str, tuple[Any, Any]] = msgspec.json.decode(row.change, type=dict[str, tuple[Any, Any]])
    return AuditEntry(
        number=row.number,
        at_ms=row.at_ms,
        actor=row.actor,
        action=row.action,
        tenant=row.tenant,
        target=row.target,
        change=change,
        chain=row.chain,
    )
