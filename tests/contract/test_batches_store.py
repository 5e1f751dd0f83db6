"""Batches in the store, on SQLite and PostgreSQL: leases, lines that are stored once, and nothing to be read in."""

import asyncio

import pytest
from sqlalchemy import select, text

from llm_gate.domain.batches import Batch, BatchTokens, LineResult
from llm_gate.domain.errors import GateFault
from llm_gate.storage.batches import StoredBatches
from llm_gate.storage.schema import batch_line
from support.stores import KINDS, postgresql_database, sqlite_database

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """Return an empty store."""
    opened = sqlite_database(tmp_path) if request.param == "sqlite" else postgresql_database()
    with opened as made:
        yield made


def batch_of(number, tenant="one", **fields):
    """Return a batch."""
    return Batch(
        id=f"batch_{number:04}",
        tenant=tenant,
        application="a",
        user="u",
        request_id="r",
        endpoint="/v1/embeddings",
        input_file="file-1",
        made_ms=1,
        expires_ms=2,
        **fields,
    )


def line(number, words, *, is_error=False):
    """Return what came of a line."""
    return LineResult(
        number=number, is_error=is_error, text=words.encode(), tokens=BatchTokens(input=3), cost_nanos=number
    )


def test_leases(database):
    """A batch is its owner's until the lease is over; then another takes it, once, and the first can write no more."""
    store = StoredBatches(database, key=KEY)

    async def work():
        await store.add(batch_of(1), owner="a", until_ms=100)
        assert await store.claim("b", now_ms=50, until_ms=200, limit=9) == ()
        assert [each.id for each in await store.claim("b", now_ms=150, until_ms=200, limit=9)] == [
            "batch_0001"
        ]
        assert await store.claim("c", now_ms=150, until_ms=200, limit=9) == ()
        assert not await store.save(batch_of(1, version=1), owner="a", until_ms=300)
        assert await store.save(batch_of(1, version=1, status="in_progress"), owner="b", until_ms=300)
        assert (await store.find("batch_0001")).status == "in_progress"
        assert await store.cancel("batch_0001")
        assert await store.wishes("b") == {"batch_0001"}
        assert (await store.find("batch_0001")).is_cancelled
        assert await store.save(batch_of(1, version=2, phase="over"), owner="b", until_ms=300)
        assert not await store.cancel("batch_0001")
        await store.leave("b")
        assert await store.claim("c", now_ms=900, until_ms=1000, limit=9) == ()

    asyncio.run(work())


def test_lists_are_a_tenants_own(database):
    """The newest first, page by page, never another tenant's."""
    store = StoredBatches(database, key=KEY)

    async def work():
        for number in range(6):
            await store.add(batch_of(number, "one" if number % 2 else "two"), owner="a", until_ms=1)
        page = await store.listed("one", None, limit=2)
        assert [each.id for each in page] == ["batch_0005", "batch_0003"]
        rest = await store.listed("one", None, limit=2, before="batch_0003")
        assert [each.id for each in rest] == ["batch_0001"]

    asyncio.run(work())


def test_lines_are_stored_once_and_sealed(database):
    """What was stored first stays; the rows show nothing; they come back in order, of their own batch only, and go."""
    store = StoredBatches(database, key=KEY)

    async def work():
        await store.append("batch_1", [line(2, "second"), line(10, "tenth", is_error=True)])
        await store.append("batch_1", [line(2, "again"), line(1, "first")])
        await store.append("batch_2", [line(1, "other")])
        await store.append("batch_2", [])
        assert await store.done("batch_1") == {1: False, 2: False, 10: True}
        found = await store.results("batch_1")
        assert [(each.number, each.text) for each in found] == [(1, b"first"), (2, b"second"), (10, b"tenth")]
        assert (found[1].tokens, found[1].cost_nanos, found[2].is_error) == (BatchTokens(input=3), 2, True)
        await store.forget("batch_1")
        assert (await store.results("batch_1"), len(await store.results("batch_2"))) == ((), 1)

    asyncio.run(work())
    rows = database.ask(lambda c: c.execute(select(batch_line.c.sealed)).scalars().all())
    assert rows
    assert not any(b"other" in row for row in rows)


def test_lines_of_another_key_or_place(database):
    """A line that was sealed with another key, or moved to another place, is not believed."""
    store = StoredBatches(database, key=KEY)
    asyncio.run(store.append("batch_1", [line(1, "first")]))
    with pytest.raises(GateFault, match="line 1"):
        asyncio.run(StoredBatches(database, key=OTHER_KEY).results("batch_1"))
    database.change(lambda c: c.execute(text("UPDATE batch_line SET number = 2")))
    with pytest.raises(GateFault, match="line 2"):
        asyncio.run(store.results("batch_1"))
