"""Stores that keep their connections and say nothing, or take no changes for a while."""

import asyncio
import threading
import time

import pytest
import sqlalchemy

from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.ledger import Granted
from llm_gate.domain.secret import Secret
from llm_gate.storage.database import open_postgresql
from support.faultproxy import fault_proxy
from support.ledger import Place, a_call, holds, quotas, reserve
from support.stores import KINDS, any_database, openings

PATIENCE_S = 30
READ_ONLY = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET default_transaction_read_only = on"}
COST = {"cost": 100}


@pytest.fixture
def proxied(tmp_path):
    """A place whose database is behind a relay."""
    with openings("postgresql", tmp_path) as again:
        direct = again()
        url = direct.engine.url
        with fault_proxy(url.host, url.port) as proxy:
            address = url.set(drivername="postgresql", port=proxy.port).render_as_string(hide_password=False)
            opened = []

            def behind():
                opened.append(open_postgresql(Secret(address)))
                return opened[-1]

            yield Place(tmp_path, behind), proxy
            for database in opened:
                database.close()


async def until(holds_true):
    end_s = time.monotonic() + PATIENCE_S
    while not holds_true():
        assert time.monotonic() < end_s, "it never came to be"
        await asyncio.sleep(0.02)


def test_a_store_that_fell_silent_between_two_calls_is_noticed_gone_and_back(proxied, monkeypatch):
    """Nobody has called yet when it falls silent; nobody has to settle anything for it to be noticed again."""
    monkeypatch.setattr("llm_gate.storage.desk._ENTRY_PATIENCE_S", 0.5)
    monkeypatch.setattr("llm_gate.storage.writer._SILENCE_S", 0.5)
    place, proxy = proxied
    bound = quotas(monthly_cost_usd=1000)

    async def scenario():
        async with place.ledger(renew_s=0.2, sweep_s=0.2) as ledger:
            assert not ledger.is_away
            proxy.pause()
            await until(lambda: ledger.is_away)
            with pytest.raises(StoreUnavailable):
                await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))
            with pytest.raises(StoreUnavailable):
                await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))
            proxy.resume()
            await until(lambda: not ledger.is_away)
            return await ledger.submit(reserve(a_call("p1"), holds(bound, COST)))

    assert asyncio.run(scenario()) == Granted()


def test_nobody_waits_for_ever_for_a_silent_store(proxied, monkeypatch):
    """Questions are given up, more of them than there are threads; afterwards the store is asked as before."""
    monkeypatch.setattr("llm_gate.storage.database._READ_S", 0.5)
    place, proxy = proxied

    async def scenario():
        database = place.database
        assert await database.read(one) == 1
        proxy.pause()
        try:
            async with asyncio.timeout(PATIENCE_S):
                ends = await asyncio.gather(*(database.read(one) for _ in range(20)), return_exceptions=True)
        finally:
            proxy.resume()
        assert {type(end) for end in ends} == {StoreUnavailable}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await database.read(one)
                except StoreUnavailable:
                    await asyncio.sleep(0.05)

    assert asyncio.run(scenario()) == 1


def test_a_silent_store_does_not_keep_a_process_from_ending(proxied, monkeypatch):
    """Threads that wait for it are cut off."""
    monkeypatch.setattr("llm_gate.storage.database._READ_S", 0.3)
    monkeypatch.setattr("llm_gate.storage.database._CLOSE_S", 0.3)
    place, proxy = proxied

    async def ask():
        await place.database.read(one)
        proxy.pause()
        with pytest.raises(StoreUnavailable):
            await place.database.read(one)

    asyncio.run(ask())
    closing = threading.Thread(target=place.database.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    has_ended = not closing.is_alive()
    proxy.resume()
    assert has_ended


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_was_given_up_is_not_made_later(kind, tmp_path, monkeypatch):
    """Whoever is told that nothing has changed can rely on it."""
    monkeypatch.setattr("llm_gate.storage.database._WRITE_S", 0.3)
    goes_on, is_over = threading.Event(), threading.Event()

    def change(connection):
        connection.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('late', '1')")
        goes_on.wait(PATIENCE_S)
        is_over.set()

    with any_database(kind, tmp_path) as database:
        with pytest.raises(StoreUnavailable):
            asyncio.run(database.write(change))
        goes_on.set()
        assert is_over.wait(PATIENCE_S)
        monkeypatch.undo()
        database._threads.shutdown(wait=True)
        late = database.ask(lambda link: link.exec_driver_sql("SELECT * FROM meta WHERE name = 'late'").all())
    assert late == []


@pytest.mark.parametrize("kind", KINDS)
def test_connections_that_can_only_read_are_not_kept(kind, tmp_path):
    """A store that took no changes for a while does so again, over new connections."""
    with any_database(kind, tmp_path) as database:
        database.ask(lambda link: link.exec_driver_sql(READ_ONLY[kind]))
        with pytest.raises(StoreUnavailable, match="cannot be written to"):
            database.change(note)
        database.change(note)
        kept = database.ask(lambda link: link.exec_driver_sql("SELECT * FROM meta WHERE name = 'note'").all())
    assert len(kept) == 1


def one(connection):
    return connection.execute(sqlalchemy.select(1)).scalar()


def note(connection):
    connection.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('note', '1')")
