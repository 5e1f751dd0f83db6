"""A gateway that was killed is back at once, however much has been recorded."""

import asyncio
import time
from contextlib import suppress

import aiohttp
import pytest
from sqlalchemy import Integer, String, cast, func, insert, literal, select

from llm_gate.storage.schema import attempt, usage_record
from support.figures import PROVES, full, proved
from support.oracle import marked, running_oracle
from support.spending import Callers, callers_session, place_to_spend
from support.stores import KINDS

ROWS = full(20_000, 1_000_000)
READY_S, ANSWERED_S = full(15, 3), full(20, 4)
"""The goals are 3 and 4 seconds; the rest is for busy machines."""

CALLS = 24
LEASE_S = 90.0
NOTICE_S = 30.0


@proved
@pytest.mark.parametrize("kind", KINDS if PROVES else KINDS[:1])
def test_a_killed_gateway_is_back_at_once(kind, tmp_path):
    """With a million records in the store: ready within 3 seconds, the first call settled within 4."""
    with running_oracle(tmp_path) as oracle, place_to_spend(kind, tmp_path / "data", oracle.url) as place:
        place.set_cap(10**12)
        with place.serving() as gateway:
            assert asyncio.run(_call(gateway.url, "first")) == "answered"
            place.database.change(_multiply)
            asyncio.run(_kill_under_load(place, gateway))
        assert place.open_reservations() == CALLS
        if not PROVES:
            place.end_leases()
        began_s = time.monotonic()
        with place.serving(installed=True) as gateway:
            assert asyncio.run(_call(gateway.url, "last")) == "answered"
            answered_s = time.monotonic() - began_s
            asyncio.run(place.settled(LEASE_S))

    assert gateway.ready_after_s < READY_S
    assert answered_s < ANSWERED_S


async def _call(url, name):
    async with callers_session() as session:
        return await Callers(session, url).call("spender", name, "whole")


async def _kill_under_load(place, gateway):
    """Kill it when a number of calls wait for an answer that never comes."""
    async with callers_session() as session:

        async def wait(name):
            text = marked(name, fault="hang")
            body = {"model": "both", "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
            with suppress(aiohttp.ClientError):
                await session.post(f"{gateway.url}/v1/chat/completions", json=body)

        calls = [asyncio.create_task(wait(f"k{n}")) for n in range(CALLS)]
        async with asyncio.timeout(NOTICE_S):
            while place.open_reservations() < CALLS:
                await asyncio.sleep(0.05)
        gateway.process.kill()
        gateway.process.wait()
        await asyncio.wait(calls)


def _multiply(connection):
    """Write the one record that is there, and its attempt, many times over: other ids, and other users."""
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < ROWS))
    number = cast(numbers.c.n, String)
    # So that each is in its place among ids that grow with time.
    id_ = func.substr("00000000000", 1, 11 - func.length(number)).concat(number)
    user = literal("user-").concat(cast(cast(numbers.c.n % 20_000, Integer), String))
    for table, made in (
        (usage_record, {"id": id_, "user_id": user}),
        (attempt, {"record_id": id_}),
    ):
        columns = list(table.c)
        rows = select(*(made.get(column.name, column) for column in columns)).select_from(table)
        rows = rows.join(numbers, literal(value=True))
        connection.execute(insert(table).from_select(columns, rows))
