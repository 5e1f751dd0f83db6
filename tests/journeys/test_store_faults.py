"""Stores that fail under load: callers are told to come back, nothing is lost, and it goes on by itself."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg

from support.figures import full, proved
from support.oracle import running_oracle
from support.servers import private_postgresql
from support.spending import differences, place_at
from support.storeload import RETURN_S, SETTLE_S, away, check_told, steady_load

ROOM_NANOS = 10**12
MOST_CONNECTIONS = 40
RESTARTS = full(1, 20)


@contextmanager
def stopped(server):
    server.stop("immediate")
    yield
    server.start()


@contextmanager
def frozen(server):
    server.freeze()
    yield
    server.thaw()


@contextmanager
def read_only(server):
    """It takes no changes, as one that has become the copy of another."""
    with psycopg.connect(server.url, autocommit=True) as owner:
        owner.execute("SET default_transaction_read_only = off")
        owner.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        owner.execute("SELECT pg_reload_conf()")
        yield
        owner.execute("ALTER SYSTEM RESET default_transaction_read_only")
        owner.execute("SELECT pg_reload_conf()")


@contextmanager
def exhausted(server):
    """Others take every connection there is, those of the gateway too."""
    taken = []
    with psycopg.connect(server.url, autocommit=True, application_name="taker") as first:
        for _ in range(3):
            with suppress(psycopg.OperationalError):
                while True:
                    taken.append(psycopg.connect(server.url, application_name="taker", connect_timeout=5))
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name <> 'taker'"
            )
        yield
    for each in taken:
        each.close()


FAULTS = {
    stopped: (full(1, 5), full(0, 10)),
    frozen: (full(1, 5), full(0, 30)),
    exhausted: (full(1, 5), full(0, 10)),
    read_only: (full(0, 5), full(0, 10)),
}
"""How often, and for how many seconds after callers were told."""


@proved
def test_postgresql_fails_under_load(tmp_path):
    """Crashed, frozen and full up: 503 and nothing else, no call lost, and back without a restart."""
    with (
        private_postgresql(MOST_CONNECTIONS) as server,
        running_oracle(tmp_path) as oracle,
        place_at(server.url, tmp_path / "data", oracle.url) as place,
    ):
        place.set_cap(ROOM_NANOS)
        with ThreadPoolExecutor() as threads:
            keys = list(
                threads.map(lambda _: place.command("keys", "create", "--client", "load")["key"], FAULTS)
            )
        with place.serving() as gateway:
            load = asyncio.run(_fail_postgresql(server, gateway, keys))
            asyncio.run(place.settled(SETTLE_S))
            found = differences(place, oracle.ended_attempts(), load.seen)
            checked = place.command("ledger", "check")

    check_told(load)
    assert found == []
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


async def _fail_postgresql(server, gateway, keys):
    async with steady_load(gateway.url, keys[:1]) as load:
        await load.answered(RETURN_S)
        for _ in range(RESTARTS):
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.to_thread(server.start)
            await load.answered(RETURN_S)
        for (fault, (times, seconds)), key in zip(FAULTS.items(), keys, strict=True):
            # A key that is seen for the first time while the store is away must not be taken for a wrong one.
            load.keys.append(key)
            for _ in range(times):
                await away(load, fault(server), seconds)
    return load
