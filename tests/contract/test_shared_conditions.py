"""What gateways tell each other, over a real Redis: cooldowns, and rates that hold over all of them."""

import asyncio
import time
import uuid

import pytest
import redis

from llm_gate.domain.conditions import Cooling
from llm_gate.domain.secret import Secret
from llm_gate.storage.redis import RedisLink, RedisWindows
from llm_gate.storage.redis_conditions import RedisConditions
from support.servers import private_redis, redis_url

PATIENT_S = 2.0


def run(work, *, url=None, window_ms=60_000, operation_s=PATIENT_S):
    """Run a coroutine function over the conditions of two gateways."""

    async def whole():
        prefix = f"test:{uuid.uuid4().hex}:"
        links = [RedisLink(Secret(url or redis_url()), operation_s=operation_s) for _ in range(2)]
        one, other = (RedisConditions(link, prefix=prefix, window_ms=window_ms) for link in links)
        try:
            return await work(one, other)
        finally:
            await one.close()
            await other.close()

    return asyncio.run(whole())


def test_a_cooldown_is_heard_by_others_until_it_ends():
    async def work(one, other):
        await one.tell(
            "abc|m", Cooling(for_s=0.4, code="rate_limit_exceeded", message="slow down", status=429)
        )
        heard = (await other.heard())["abc|m"]
        await asyncio.sleep(0.5)
        return heard, await other.heard()

    heard, later = run(work)
    assert (heard.code, heard.message, heard.status) == ("rate_limit_exceeded", "slow down", 429)
    assert 0 < heard.for_s <= 0.4
    assert later == {}


def test_the_longer_one_counts():
    async def work(one, other):
        await one.tell("abc|m", Cooling(for_s=20, code="a", message="long"))
        await other.tell("abc|m", Cooling(for_s=2, code="b", message="short"))
        await other.tell("xyz|m", Cooling(for_s=3, code="c", message="another"))
        return await one.heard()

    heard = run(work)
    assert heard["abc|m"].message == "long"
    assert set(heard) == {"abc|m", "xyz|m"}


def test_requests_of_all_never_pass_the_rate_in_any_window():
    rpm, window_s = 10, 0.5

    async def work(one, other):
        starts: list[float] = []

        async def hammer(conditions):
            ends = time.monotonic() + 1.6
            while time.monotonic() < ends:
                before = time.monotonic()
                wait_s = await conditions.take("k", rpm=rpm, tpm=None, tokens=1)
                if wait_s == 0:
                    starts.append(before)
                else:
                    await asyncio.sleep(min(wait_s, 0.05))

        await asyncio.gather(*(hammer(each) for each in (one, other) * 3))
        return sorted(starts)

    starts = run(work, window_ms=500)
    assert len(starts) >= 2 * rpm
    # The instants are those before the question: what lies further apart than the window by Redis' own clock may seem
    # nearer here by the time that the question took.
    for first, after in zip(starts, starts[rpm:], strict=False):
        assert after - first >= window_s - 0.1


def test_tokens_are_counted_beside_requests():
    async def work(one, other):
        assert await one.take("k", rpm=None, tpm=100, tokens=60) == 0
        assert await other.take("k", rpm=None, tpm=100, tokens=40) == 0
        return await one.take("k", rpm=None, tpm=100, tokens=1), await one.take(
            "k", rpm=5, tpm=100, tokens=101
        )

    wait_s, never_s = run(work)
    assert 50 < wait_s <= 60.2
    assert never_s == float("inf")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1"])
def test_without_redis_nobody_can_tell(url):
    async def work(one, _other):
        started = time.monotonic()
        await one.tell("abc|m", Cooling(for_s=1, code="a", message="b"))
        found = await one.heard(), await one.take("k", rpm=1, tpm=1, tokens=1)
        return found, time.monotonic() - started

    (heard, wait_s), took_s = run(work, url=url, operation_s=0.1)
    assert (heard, wait_s) == (None, None)
    assert took_s < 1.0


def test_one_failure_keeps_windows_and_conditions_away_alike():
    """They share a link, so that a Redis that is away is asked by one of them at most."""

    async def work():
        link = RedisLink(Secret("redis://127.0.0.1:1"), clock=lambda: 1000.0)
        windows, conditions = RedisWindows(link), RedisConditions(link)
        assert await conditions.heard() is None
        started = time.monotonic()
        for _ in range(1000):
            await windows.take({"a": (1, 1, 1)})
            assert await conditions.take("k", rpm=1, tpm=None, tokens=1) is None
        await windows.close()
        return time.monotonic() - started

    assert asyncio.run(work()) < 2.0


@pytest.mark.parametrize("fault", ["killed", "flushed"])
def test_a_redis_that_forgets_begins_anew(fault):
    async def work(one, other):
        assert await one.take("k", rpm=1, tpm=None, tokens=1) == 0
        await one.tell("abc|m", Cooling(for_s=30, code="a", message="b"))
        assert await other.take("k", rpm=1, tpm=None, tokens=1) > 0
        if fault == "killed":
            server.kill()
            assert (await one.heard(), await one.take("k", rpm=1, tpm=None, tokens=1)) == (None, None)
            server.restart()
            one._link._skip_until_s = 0.0
        else:
            with redis.Redis.from_url(server.url) as client:
                client.flushall()
                client.script_flush()
        assert await one.heard() == {}
        assert await one.take("k", rpm=1, tpm=None, tokens=1) == 0
        assert await other.take("k", rpm=1, tpm=None, tokens=1) > 0

    with private_redis() as server:
        run(work, url=server.url)


def test_what_cannot_be_read_is_left_out():
    """What another version wrote, or an endless time, raises nothing and hides nothing else."""

    async def work(one, other):
        await one.tell("good|m", Cooling(for_s=float("inf"), code="a", message="b" * 9000))
        await one.tell("never|m", Cooling(for_s=float("nan"), code="a", message="b"))
        with redis.Redis.from_url(redis_url()) as client:
            client.hset(one._cooling, "odd|m", f"{int(time.time() * 1000) + 60_000} {{}}")
            client.hset(one._cooling, "worse|m", "garbage")
        await one.tell("worse|m", Cooling(for_s=5, code="a", message="b"))
        return await other.heard()

    heard = run(work)
    assert set(heard) == {"good|m", "worse|m"}
    assert heard["good|m"].for_s <= 86_400
    assert len(heard["good|m"].message) < 1000


def test_a_clock_that_was_set_back_blocks_nobody_for_long():
    async def work(one, other):
        future_ms = int(time.time() * 1000) + 3_600_000
        with redis.Redis.from_url(redis_url()) as client:
            client.zadd(f"{one._prefix}requests:k", {"x": future_ms})
            client.hset(f"{one._prefix}tokens:k", str(future_ms // 100), "99")
        return await one.take("k", rpm=1, tpm=100, tokens=50), await other.take(
            "k", rpm=0, tpm=None, tokens=1
        )

    assert run(work) == (0, float("inf"))
