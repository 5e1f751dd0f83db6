"""Nothing is lost: the gateway is killed at random instants under load, and the books still agree."""

import asyncio
import random

import pytest

from support.figures import PROVES, full, proved
from support.oracle import running_oracle
from support.spending import Callers, callers_session, differences, place_to_spend
from support.stores import KINDS

KILLS = full(3, 200)
CALLERS = 24
CALLS = 4000
UNLIMITED_NANOS = 10**12
LEASE_S = 90.0


@proved
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_loses_and_doubles_nothing(kind, tmp_path):
    """Each attempt the provider saw is in one record; what callers saw whole is right to the nano-dollar."""
    chance = random.Random(kind)  # noqa: S311 - to be the same again
    seen = {}
    with running_oracle(tmp_path) as oracle, place_to_spend(kind, tmp_path / "data", oracle.url) as place:
        place.set_cap(UNLIMITED_NANOS)
        for number in range(KILLS):
            with place.serving() as gateway:
                asyncio.run(_load_and_kill(gateway, f"k{number}", chance, seen))
        if not PROVES:
            place.end_leases()
        with place.serving():
            asyncio.run(place.settled(LEASE_S))
        book = oracle.ended_attempts()
        found = differences(place, book, seen)
        unconfirmed = [record for record in place.records() if record.status == "unconfirmed"]
        assert found == []
        checked = place.command("ledger", "check")

    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)
    # The kills hit something: some calls were answered whole, and some were under way.
    assert list(seen.values()).count("answered") > KILLS
    assert unconfirmed


async def _load_and_kill(gateway, name, chance, seen):
    async with callers_session() as session:
        callers = Callers(session, gateway.url)
        names = [f"{name}-{n}" for n in range(CALLS)]
        load = asyncio.create_task(callers.many("spender", names, chance=chance, most_at_once=CALLERS))
        await asyncio.sleep(0.3 + chance.random())
        gateway.process.kill()
        gateway.process.wait()
        load.cancel()
        await asyncio.wait({load})
        seen.update(callers.seen)
