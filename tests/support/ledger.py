"""Calls, quotas and steps for tests of the ledger, and ledgers on one database as several processes have them."""

import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from llm_gate.domain.ledger import (
    Advance,
    Call,
    Hold,
    Intent,
    Outcome,
    Reserve,
    Settle,
    hold_on,
)
from llm_gate.domain.plans import Limits, Quota, Scope, quotas_of
from llm_gate.storage.checks import LedgerCheck, ledger_check
from llm_gate.storage.database import Database
from llm_gate.storage.ledger import StoredLedger
from llm_gate.storage.writer import Lease

NOW_MS = 1_795_000_000_000
"""An instant in the middle of a month and of a minute."""

_count = itertools.count(1)


def new_id() -> str:
    """Return an id that is greater than every one before."""
    return f"{time.time_ns():020d}-{next(_count):08d}-{uuid.uuid4().hex[:6]}"


def quotas(
    user: str = "u1",
    *,
    scope: Scope = "user",
    tenant: str = "default",
    since_ms: int = 0,
    **values: int,
) -> tuple[Quota, ...]:
    """Return the quotas of a subject, by the names of their limits."""
    limits = Limits(values=values, since_ms=dict.fromkeys(values, since_ms))
    return quotas_of(scope, tenant, user, limits, 0)


def holds(found: Iterable[Quota], amounts: Mapping[str, int], at_ms: int = NOW_MS) -> tuple[Hold, ...]:
    """Return holds on quotas; the amounts are by meter."""
    return tuple(hold_on(quota, quota.window(at_ms), amounts[quota.limit.meter]) for quota in found)


def a_call(owner: str, **changes: object) -> Call:
    """Return a call of user u1."""
    id_ = new_id()
    known = {
        "id": id_,
        "tenant": "default",
        "application": "shop",
        "user": "u1",
        "key_id": None,
        "request_id": id_,
        "operation": "chat",
        "bucket": "text",
        "endpoint": "/v1/chat/completions",
        "made_ms": NOW_MS,
        "owner": owner,
        "plan": "pro",
    }
    return Call(**(known | changes))


def an_intent(number: int = 1, *, cost: int | None = 100, tokens: int = 10, provider: str = "acme") -> Intent:
    return Intent(
        number=number,
        provider=provider,
        model="small",
        started_ms=NOW_MS,
        bound_tokens=tokens,
        bound_cost_nanos=cost,
    )


def an_outcome(number: int = 1, *, cost: int | None = 100, tokens: int = 10, **changes: object) -> Outcome:
    known = {
        "number": number,
        "provider": "acme",
        "model": "small",
        "started_ms": NOW_MS,
        "ended_ms": NOW_MS + 7,
        "status": "ok",
        "units": {"input_tokens": tokens - 1, "output_tokens": 1} if tokens else {},
        "tokens": tokens,
        "cost_nanos": cost,
    }
    return Outcome(**(known | changes))


def reserve(call: Call, held: Iterable[Hold], **changes: object) -> Reserve:
    """Return a reservation with the intent of a first attempt."""
    return Reserve(**({"call": call, "holds": tuple(held), "intent": an_intent()} | changes))


def settle(id_: str, *outcome: Outcome | None, **changes: object) -> Settle:
    """Return a settlement that went well, with an outcome of its own, with none, or with the usual one."""
    known = {"outcome": outcome[0] if outcome else an_outcome(), "status": "ok", "ended_ms": NOW_MS + 9}
    return Settle(**({"id": id_} | known | changes))


def advance(id_: str, outcome: Outcome, intent: Intent, held: Iterable[Hold]) -> Advance:
    return Advance(id=id_, outcome=outcome, intent=intent, holds=tuple(held))


class Place:
    """A database of tests, and the ledgers on it."""

    def __init__(self, folder: Path, again: Callable[[], Database]) -> None:
        self.folder = folder
        self.open = again
        self.database = again()

    @asynccontextmanager
    async def ledger(self, owner: str = "p1", *, shares_folder: bool = True, **lease: float):
        """Run a ledger as a process of its own would."""
        ledger = self.make(owner, shares_folder=shares_folder, **lease)
        await ledger.start()
        try:
            yield ledger
        finally:
            await ledger.close()

    def make(self, owner: str = "p1", *, shares_folder: bool = True, **lease: float) -> StoredLedger:
        """Make a ledger, not started yet."""
        return StoredLedger(
            self.open(),
            owner=owner,
            new_id=new_id,
            owners_folder=self.folder / "owners" if shares_folder else None,
            lease=Lease(**lease),
        )

    def check(self) -> LedgerCheck:
        """Recompute every balance."""
        return self.database.ask(ledger_check)

    def rows(self, table) -> list[dict]:
        """Return what stands in a table."""
        question = table.select().order_by(*table.primary_key)
        return self.database.ask(lambda link: [dict(row._mapping) for row in link.execute(question)])


@asynccontextmanager
async def many(place: Place, owners: Iterable[str]):
    """Run several ledgers on one database."""
    ledgers = [place.make(owner) for owner in owners]
    for ledger in ledgers:
        await ledger.start()
    try:
        yield ledgers
    finally:
        for ledger in ledgers:
            await ledger.close()
