"""Quotes as the stores keep them: read while they are open, and nothing else is taken for one."""

import asyncio
import itertools

import pytest
from msgspec import structs

from llm_gate.domain.ledger import Call, Granted, Intent, Release, Reserve, hold_on
from llm_gate.domain.plans import Limits, quotas_of
from llm_gate.storage.ledger import StoredLedger
from llm_gate.storage.memory import MemoryLedger
from llm_gate.storage.quotes import StoredQuotes
from support.stores import KINDS, any_database

NOW_MS = 1_795_000_000_000
FAR_MS = 2**50  # quotes are ended by the store's own clock
QUOTA = quotas_of("user", "default", "u1", Limits(values={"text_calls": 5}), 0)[0]


def call(id_):
    return Call(
        id=id_,
        tenant="default",
        application="a",
        user="u1",
        key_id=None,
        request_id="r",
        operation="chat",
        bucket="text",
        endpoint="/",
        made_ms=NOW_MS,
        owner="tests",
        plan="p",
    )


def quote(id_, amount):
    hold = hold_on(QUOTA, QUOTA.window(NOW_MS), amount)
    return Reserve(call=call(id_), holds=(hold,), intent=None, expires_ms=FAR_MS)


async def look(ledger, quotes):
    """Make a quote, spend from it, take a call for one, end it."""
    await ledger.start()
    try:
        held = quote("q1", 3)
        assert await ledger.submit(held) == Granted()
        found = await quotes.quote("q1")
        assert (found.call, found.holds, found.expires_ms) == (held.call, held.holds, held.expires_ms)

        intent = Intent(number=1, provider="p", model="m", started_ms=0, bound_tokens=0, bound_cost_nanos=0)
        hold = hold_on(QUOTA, QUOTA.window(NOW_MS), 1)
        spender = structs.replace(call("c1"), quote_id="q1")
        assert await ledger.submit(Reserve(call=spender, holds=(hold,), intent=intent)) == Granted()
        assert [each.amount for each in (await quotes.quote("q1")).holds] == [2]

        assert await quotes.quote("c1") is None
        assert await quotes.quote("no-such-id") is None
        await ledger.submit(Release(id="q1"))
        assert await quotes.quote("q1") is None
    finally:
        await ledger.close()


@pytest.mark.parametrize("kind", KINDS)
def test_open_quotes_can_be_read(kind, tmp_path):
    """On both databases."""
    serial = itertools.count()
    with any_database(kind, tmp_path) as database:
        ledger = StoredLedger(database, owner="tests", new_id=lambda: f"i{next(serial)}")
        asyncio.run(look(ledger, StoredQuotes(database)))


def test_open_quotes_can_be_read_in_memory():
    """And without any."""
    ledger = MemoryLedger()
    asyncio.run(look(ledger, ledger))
