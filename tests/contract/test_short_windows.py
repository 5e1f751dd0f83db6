"""Counters of minutes and hours in a real Redis: exact while it lives, out of the way while it does not."""

import asyncio
import logging
import time
import uuid
from urllib.parse import urlsplit

import pytest
import redis

from llm_gate.domain.secret import Secret
from llm_gate.storage.redis import FIRST_PAUSE_S, LONGEST_PAUSE_S, OPERATION_S, RedisLink, RedisWindows
from support.faultproxy import fault_proxy
from support.servers import private_redis, redis_url

SLACK_S = 2.0  # the machine may be busy: what hangs, hangs far longer
PATIENT_S = 20.0  # where it is not about time, nobody is to give up because the machine is busy


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def run(work, *, url=None, clock=None, operation_s=PATIENT_S):
    """Run a coroutine function over counters of its own."""

    async def whole():
        prefix = f"test:{uuid.uuid4().hex}:"
        link = RedisLink(Secret(url or redis_url()), clock=clock or Clock(), operation_s=operation_s)
        windows = RedisWindows(link, prefix=prefix)
        try:
            return await work(windows, prefix)
        finally:
            await windows.close()

    return asyncio.run(whole())


def soon():
    """Return the end of a window that is open."""
    return int(time.time() * 1000) + 50_000


def keys(prefix, url=None):
    """Return the counters that are in Redis, with their values."""
    with redis.Redis.from_url(url or redis_url()) as client:
        return {key.decode().removeprefix(prefix): int(client.get(key)) for key in client.keys(f"{prefix}*")}


async def timed(work):
    """Return the result of an awaitable, and how long it took."""
    start = time.monotonic()
    return await work, time.monotonic() - start


def test_amounts_are_taken_up_to_the_cap():
    """What fits is added; what does not names its counter and adds nothing anywhere."""

    async def work(windows, prefix):
        end = soon()
        assert await windows.take({"a": (2, 5, end), "b": (1, 2, end)}) is None
        assert await windows.take({"a": (3, 5, end), "b": (1, 2, end)}) is None
        assert await windows.take({"a": (0, 5, end), "b": (1, 2, end)}) == "b"
        assert await windows.take({"c": (1, 9, end), "a": (1, 5, end)}) == "a"
        return prefix

    prefix = run(work)
    assert keys(prefix) == {"a": 5, "b": 2}


def test_nothing_wanted_asks_nobody():
    """Without short windows Redis is not needed."""

    async def work(windows, _):
        assert await windows.take({}) is None
        await windows.give_back({})

    run(work, url="redis://127.0.0.1:1/0")


def test_counters_end_with_their_window():
    """Every counter expires some time after its window's end, also one that was given back to."""

    async def work(windows, prefix):
        now_ms = int(time.time() * 1000)
        await windows.take({"a": (2, 5, now_ms + 5_000)})
        await windows.give_back({"a": 1})
        return prefix

    prefix = run(work)
    with redis.Redis.from_url(redis_url()) as client:
        left_ms = client.pttl(f"{prefix}a")
    assert 5_000 < left_ms <= 5_000 + 60_000


def test_what_is_given_back_can_be_taken_again():
    """Amounts come off again, never below zero, and never make a counter that is gone."""

    async def work(windows, prefix):
        end = soon()
        await windows.take({"a": (5, 5, end)})
        await windows.give_back({"a": 2, "gone": 3})
        assert await windows.take({"a": (3, 5, end)}) == "a"
        assert await windows.take({"a": (2, 5, end)}) is None
        await windows.give_back({"a": 99})
        return prefix

    assert keys(run(work)) == {"a": 0}


def test_large_amounts_stay_exact():
    """Nano-dollars of an hour are counted to the last one."""
    cap = 9_000_000_000_000_000

    async def work(windows, prefix):
        assert await windows.take({"a": (cap - 1, cap, soon())}) is None
        assert await windows.take({"a": (2, cap, soon())}) == "a"
        assert await windows.take({"a": (1, cap, soon())}) is None
        return prefix

    assert keys(run(work)) == {"a": cap}


def test_many_at_once_never_pass_the_cap():
    """Of many that come together exactly as many are let in as there is room for."""

    async def work(windows, prefix):
        link = RedisLink(Secret(redis_url()), clock=Clock(), operation_s=PATIENT_S)
        other = RedisWindows(link, prefix=prefix)
        end = soon()
        found = await asyncio.gather(*(each.take({"a": (1, 70, end)}) for each in (windows, other) * 80))
        await other.close()
        return found

    found = run(work)
    assert (found.count(None), found.count("a")) == (70, 90)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_server_that_is_away_is_in_nobodys_way(fault, caplog):
    """Nobody waits longer than a moment, nothing is raised, it is said once; and it is asked again later."""
    clock = Clock()

    async def work(windows, prefix):
        end = soon()
        assert await windows.take({"a": (1, 1, end)}) is None
        assert await windows.take({"a": (1, 1, end)}) == "a"
        server.kill() if fault == "killed" else server.freeze()
        windows._link._operation_s = OPERATION_S
        found, took_s = await timed(windows.take({"a": (1, 1, end)}))
        assert found is None
        assert took_s < OPERATION_S + SLACK_S
        for _ in range(1000):  # these do not even ask: each would take a tenth of a second
            assert await windows.take({"a": (1, 1, end)}) is None
            await windows.give_back({"a": 1})
        server.restart() if fault == "killed" else server.thaw()
        windows._link._operation_s = PATIENT_S
        assert await windows.take({"b": (1, 1, end)}) is None
        clock.now_s += FIRST_PAUSE_S
        assert await windows.take({"c": (1, 1, end)}) is None
        assert await windows.take({"c": (1, 1, end)}) == "c"
        return prefix

    with private_redis() as server, caplog.at_level(logging.INFO, "llm_gate.redis"):
        prefix = run(work, url=server.url, clock=clock)
        assert "b" not in keys(prefix, server.url)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Redis does not answer",
        "Redis answers again",
    ]


def test_the_pause_doubles_up_to_its_most():
    """While it stays away it is asked ever more seldom, by one caller at a time."""
    clock = Clock()

    async def work(windows, _):
        pauses = []
        for _ in range(6):
            start = clock.now_s
            await asyncio.gather(*(windows.take({"a": (1, 1, soon())}) for _ in range(20)))
            while windows._link._skip_until_s > clock.now_s:
                clock.now_s += 0.5
            pauses.append(clock.now_s - start)
        return pauses

    assert run(work, url="redis://127.0.0.1:1/0", clock=clock) == [
        FIRST_PAUSE_S,
        2 * FIRST_PAUSE_S,
        4 * FIRST_PAUSE_S,
        8 * FIRST_PAUSE_S,
        LONGEST_PAUSE_S,
        LONGEST_PAUSE_S,
    ]


def test_an_emptied_server_counts_anew():
    """After FLUSHALL (and the script with it) the counters begin again."""

    async def work(windows, _):
        end = soon()
        assert await windows.take({"a": (1, 1, end)}) is None
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
            client.script_flush()
        assert await windows.take({"a": (1, 1, end)}) is None
        assert await windows.take({"a": (1, 1, end)}) == "a"

    with private_redis() as server:
        run(work, url=server.url)


def test_connections_that_are_torn_down_are_made_again():
    """A connection that Redis closed costs nobody a pause."""

    async def work(windows, _):
        end = soon()
        assert await windows.take({"a": (1, 1, end)}) is None
        with redis.Redis.from_url(server.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert await windows.take({"a": (1, 1, end)}) == "a"

    with private_redis() as server:
        run(work, url=server.url)


def test_a_late_answer_is_never_taken_for_another():
    """After an operation was given up on, its answer does not reach the next one."""
    clock = Clock()

    async def work(windows, _):
        end = soon()
        assert await windows.take({"a": (1, 1, end)}) is None
        proxy.latency_s = 0.15
        windows._link._operation_s = OPERATION_S
        assert await windows.take({"a": (1, 1, end)}) is None  # the answer would have been that it is full
        proxy.latency_s = 0.0
        windows._link._operation_s = PATIENT_S
        await asyncio.sleep(0.4)
        clock.now_s += FIRST_PAUSE_S
        assert await windows.take({"b": (1, 9, end)}) is None
        assert await windows.take({"a": (1, 1, end)}) == "a"

    parts = urlsplit(redis_url())
    with fault_proxy(parts.hostname, parts.port) as proxy:
        run(work, url=f"redis://127.0.0.1:{proxy.port}{parts.path}", clock=clock)


@pytest.mark.parametrize("fault", ["blackhole", "reset", "cut"])
def test_a_broken_line_is_in_nobodys_way(fault):
    """Whatever happens to the connection, the answer comes in time and is that nothing is known."""

    async def work(windows, _):
        end = soon()
        assert await windows.take({"a": (1, 1, end)}) is None
        windows._link._operation_s = OPERATION_S
        if fault == "blackhole":
            proxy.is_blackhole = True
        elif fault == "cut":
            proxy.cut_after_bytes = 1
        else:
            proxy.reset()
            proxy.refuse()
        found, took_s = await timed(windows.take({"a": (1, 1, end)}))
        assert found is None
        assert took_s < OPERATION_S + SLACK_S

    parts = urlsplit(redis_url())
    with fault_proxy(parts.hostname, parts.port) as proxy:
        run(work, url=f"redis://127.0.0.1:{proxy.port}{parts.path}")


def test_a_server_that_refuses_is_as_one_that_is_away():
    """A wrong password or a full memory is no caller's trouble."""

    async def work(windows, _):
        assert await windows.take({"a": (1, 1, soon())}) is None
        assert await windows.take({"a": (1, 1, soon())}) is None

    with private_redis() as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "secret-of-the-test")
        run(work, url=server.url)
