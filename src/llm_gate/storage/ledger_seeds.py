"""What was used before a quota came to be, from the records: where a balance begins that is touched for the first time.

A plan that gets a limit in the middle of a window must count what was used in that window already. Calls that were
let in before the limit was made carry no charge for it, so that nothing is counted twice.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, or_, select

from llm_gate.domain.ledger import Hold
from llm_gate.domain.limits import limit_named
from llm_gate.domain.plans import Quota, Scope
from llm_gate.storage.schema import attempt, usage_record


def needs_seed(hold: Hold) -> bool:
    """Tell whether there may be use from before the quota: it came to be in the middle of the window."""
    return hold.since_ms > hold.start_ms and hold.meter != "jobs"


def seed_question(hold: Hold) -> Select[Any]:
    """Return the question for what the records say was used of a quota in a window: one whole number, or NULL."""
    record, each = usage_record.c, attempt.c
    bucket = limit_named(hold.name).bucket
    whose = [
        *_whose(
            hold.scope,
            tenant_of(hold.account, hold.scope, hold.subject, hold.name, hold.since_ms),
            hold.subject,
        ),
        record.made_ms >= hold.start_ms,
        record.made_ms < hold.end_ms,
    ]
    if bucket is not None:
        whose.append(record.bucket == bucket)
    if hold.meter == "requests":
        return select(func.count()).select_from(usage_record).where(*whose)
    mine = [each.record_id == record.id]
    if hold.provider is not None:
        mine.append(each.provider == hold.provider)
    if hold.meter == "calls":
        if hold.provider is not None:
            # As Quota.counts has it: the limit of the whole bucket governs calls of text.
            whose.append(record.bucket != "text")
        came_to = or_(each.status == "ok", each.cost_nanos != 0, each.tokens > 0)
        return select(func.sum(record.count)).where(*whose, exists().where(*mine, came_to))
    amount = each.tokens if hold.meter == "tokens" else each.cost_nanos
    return select(func.sum(amount)).select_from(usage_record).join(attempt, mine[0]).where(*whose, *mine[1:])


def tenant_of(account: str, scope: Scope, subject: str, name: str, since_ms: int) -> str:
    """Return the tenant in an account's name, which `quotas_of` puts together."""
    found = account.removeprefix(f"{scope}:").removesuffix(f"/{subject}|{name}|{since_ms}")
    return found.replace("%2F", "/").replace("%25", "%")


def hold_of(quota: Quota, start_ms: int) -> Hold:
    """Return a hold of nothing on a quota, in its window that begins at an instant."""
    return Hold(
        account=quota.account,
        name=quota.limit.name,
        scope=quota.scope,
        subject=quota.subject,
        meter=quota.limit.meter,
        provider=quota.limit.provider,
        start_ms=start_ms,
        end_ms=quota.window(start_ms).end_ms,
        since_ms=quota.since_ms,
        cap=quota.value,
        amount=0,
    )


def _whose(scope: Scope, tenant: str, subject: str) -> list[ColumnElement[bool]]:
    record = usage_record.c
    found: list[ColumnElement[bool]] = [record.tenant == tenant]
    if scope != "tenant":
        column = {"user": record.user_id, "application": record.application, "key": record.key_id}[scope]
        found.append(column == subject)
    return found
