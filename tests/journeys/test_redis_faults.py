"""Redis that dies, hangs or forgets during a capped run: nobody gets more, nobody is sent away, nothing stays slow."""

import asyncio
import statistics
import time
from contextlib import contextmanager

import redis

from support.figures import full, proved
from support.oracle import running_oracle
from support.servers import private_redis
from support.spending import Callers, callers_session, differences, place_to_spend

CAP = full(15, 60)
CALLS = 3 * CAP
ROUNDS = full(1, 10)
IN_TURN = 15
MOST_ADDED_S = 0.08
"""Redis has 0.1 seconds for an answer: whoever still waited for one that is away would add more than this."""

_HOUR_S = 3600


@contextmanager
def healthy(server):
    yield


@contextmanager
def killed(server):
    server.kill()
    yield
    server.restart()


@contextmanager
def frozen(server):
    server.freeze()
    yield
    server.thaw()


@contextmanager
def flushed(server):
    with redis.Redis.from_url(server.url) as client:
        yield client.flushall


@proved
def test_redis_opens_and_stops_nothing(tmp_path):
    """Two gateways share Redis; whatever becomes of it, the cap holds, is used up, and calls are as fast as before."""
    with (
        private_redis() as server,
        running_oracle(tmp_path) as oracle,
        place_to_spend("sqlite", tmp_path / "data", oracle.url) as place,
    ):
        place.environment["LLM_GATE_REDIS_URL"] = server.url
        place.command("plans", "set", "capped", "--set", f"requests_per_hour={CAP}")
        with place.serving() as one, place.serving() as other:
            seen = asyncio.run(_use_up(server, [one.url, other.url]))
            found = differences(place, oracle.ended_attempts(), seen)
            checked = place.command("ledger", "check")

    assert found == []
    assert (checked["drift_nanos"], checked["open_reservations"]) == (0, 0)


async def _use_up(server, urls):
    async with callers_session() as session:
        callers = [Callers(session, url) for url in urls]
        usual_s = await _in_turn(callers, "warm")
        for number in range(ROUNDS):
            # After each fault it is healthy again: what was begun before must not linger.
            for fault in (healthy, killed, healthy, frozen, healthy, flushed):
                user = f"{fault.__name__}-{number}-{time.monotonic_ns()}"
                with fault(server) as flush:
                    answered, hours = await _all_at_once(callers, user, flush)
                    took_s = await _in_turn(callers, f"{user}-turn")
                # Each hour has a cap of its own; never did a run last longer than one.
                assert CAP <= answered <= CAP * hours, (user, answered)
                assert took_s < usual_s + MOST_ADDED_S, (user, took_s, usual_s)
        return callers[0].seen | callers[1].seen


async def _all_at_once(callers, user, flush):
    """Call far more often than allowed, over both gateways; returns how many were answered, in how many hours."""
    began_s = time.time()
    flushing = asyncio.create_task(_keep_flushing(flush)) if flush else None
    calls = [callers[n % 2].call(user, f"{user}-{n}", "whole") for n in range(CALLS)]
    ends = await asyncio.gather(*calls)
    if flushing is not None:
        flushing.cancel()
    assert set(ends) <= {"answered", "refused"}, user
    return ends.count("answered"), 1 + time.time() // _HOUR_S - began_s // _HOUR_S


async def _keep_flushing(flush):
    while True:
        await asyncio.to_thread(flush)
        await asyncio.sleep(0.002)


async def _in_turn(callers, user):
    """Call one by one; returns the median of how long a call took."""
    took_s = []
    for number in range(IN_TURN):
        began_s = time.monotonic()
        assert await callers[number % 2].call(user, f"{user}-{number}", "whole") == "answered", user
        took_s.append(time.monotonic() - began_s)
    return statistics.median(took_s)
