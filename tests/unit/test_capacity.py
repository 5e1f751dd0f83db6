"""A deployment's room: any 60 seconds stay within its limits, slots go in the order of coming, and none is lost."""

import asyncio
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.domain.policy import CapacityLimits
from llm_gate.engine.capacity import WINDOW_S, Capacity, Full
from support.figures import full, property_of, proved

ROUNDING_S = 1e-6


def capacity(**limits):
    return Capacity(CapacityLimits(**limits))


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


def most_within_window(taken):
    """Return the largest sum within any 60 seconds of (time, amount) in order of time."""
    most, total, first = 0, 0, 0
    for now_s, amount in taken:
        total += amount
        while now_s - taken[first][0] >= WINDOW_S - ROUNDING_S:
            total -= taken[first][1]
            first += 1
        most = max(most, total)
    return most


def test_without_limits_everything_fits():
    """An unlimited deployment never makes anybody wait, and remembers nothing of its requests."""
    room = capacity()
    for n in range(1000):
        assert room.rate_wait_s(n / 1000, 10**9) == 0.0
        room.count(n / 1000, 10**9)
    assert room.has_slot
    assert room.expected_wait_s(0.0) == 0.0


def test_requests_slide_one_by_one():
    """Three a minute: the fourth comes a minute after the first, the fifth a minute after the second."""
    room = capacity(rpm=3)
    for now_s in (0.0, 10.0, 20.0):
        assert room.rate_wait_s(now_s, 1) == 0.0
        room.count(now_s, 1)
    assert room.rate_wait_s(20.0, 1) == 40.0
    assert room.rate_wait_s(59.0, 1) == 1.0
    assert room.rate_wait_s(60.0, 1) == 0.0
    room.count(60.0, 1)
    assert room.rate_wait_s(60.0, 1) == 10.0


def test_tokens_wait_for_as_many_as_they_need():
    """A small request waits for the first one's end, a large one for more; one that never fits is told so."""
    room = capacity(tpm=100)
    for now_s, tokens in ((0.0, 30), (10.0, 30), (20.0, 30)):
        assert room.rate_wait_s(now_s, tokens) == 0.0
        room.count(now_s, tokens)
    assert room.rate_wait_s(20.0, 10) == 0.0
    assert room.rate_wait_s(20.0, 11) == 40.0
    assert room.rate_wait_s(20.0, 41) == 50.0
    assert room.rate_wait_s(20.0, 100) == 60.0
    assert room.rate_wait_s(20.0, 101) == math.inf
    assert room.rate_wait_s(80.0, 100) == 0.0


def test_nothing_fits_where_nothing_is_allowed():
    """A limit of 0 requests is none for ever."""
    assert capacity(rpm=0).rate_wait_s(0.0, 0) == math.inf
    assert capacity(tpm=0).rate_wait_s(0.0, 0) == 0.0
    assert capacity(tpm=0).rate_wait_s(0.0, 1) == math.inf


def test_the_log_of_tokens_is_bounded():
    """A hundred thousand requests in two minutes leave no more than 601 entries."""
    room = capacity(tpm=10**12)
    for n in range(100_000):
        room.count(n * 0.0012, 7)
    assert len(room._slices) <= 601
    assert len(room._by_number) == len(room._slices)
    assert room._tokens == sum(each.tokens for each in room._slices)


def test_an_estimate_gives_way_to_what_was_used():
    """What was not used is free at once; what was used beyond the estimate counts."""
    room = capacity(tpm=1000)
    room.count(0.0, 900)
    assert room.rate_wait_s(1.0, 200) == 59.0
    room.correct(1.0, 900, 100, began_s=0.001)
    assert room.rate_wait_s(1.0, 900) == 0.0
    room.count(2.0, 100)
    room.correct(3.0, 100, 900, began_s=2.0)
    assert room.rate_wait_s(3.0, 1) == 57.0
    room.correct(200.0, 100, 5000, began_s=2.0)
    assert room.rate_wait_s(200.0, 1000) == 0.0


def test_a_correction_without_a_time_counts_never_too_little():
    """The oldest entries give way first, so that a later one is not freed before its time."""
    room = capacity(tpm=1000)
    room.count(0.0, 400)
    room.count(30.0, 400)
    room.correct(31.0, 400, 100)
    assert room.rate_wait_s(31.0, 500) == 0.0
    assert room.rate_wait_s(31.0, 600) == 29.0
    assert room.rate_wait_s(60.0, 601) == 30.0


def test_a_correction_finds_its_request():
    """It may have begun in the next tenth of a second; and no slice has less than nothing."""
    room = capacity(tpm=1000)
    room.count(0.0999, 1000)
    room.correct(1.0, 1000, 100, began_s=0.1001)
    assert room.rate_wait_s(1.0, 900) == 0.0
    room.correct(1.0, 5000, 0, began_s=0.1001)
    assert room.rate_wait_s(1.0, 1000) == 0.0
    room.count(1.0, 1000)
    assert room.rate_wait_s(1.0, 1) == 60.0


ARRIVALS = st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, 400)), min_size=1, max_size=80)


@property_of()
@given(ARRIVALS, st.one_of(st.none(), st.integers(1, 9)), st.one_of(st.none(), st.integers(100, 1000)))
def test_any_minute_stays_within_the_limits(arrivals, rpm, tpm):
    """Whenever requests come, and wait as they are told: no 60 seconds hold more than allowed, and all get in."""
    room = capacity(rpm=rpm, tpm=tpm)
    now_s, taken = 100.0, []
    for later_s, tokens in arrivals:
        now_s += later_s
        for _ in range(5):
            wait_s = room.rate_wait_s(now_s, tokens)
            if not 0 < wait_s < math.inf:
                break
            assert wait_s <= WINDOW_S + ROUNDING_S
            now_s += max(wait_s, ROUNDING_S)
        if wait_s == math.inf:
            assert tpm is not None
            assert tokens > tpm
            continue
        assert wait_s == 0.0
        room.count(now_s, tokens)
        taken.append((now_s, tokens))
    if rpm is not None:
        assert most_within_window([(at_s, 1) for at_s, _ in taken]) <= rpm
    if tpm is not None:
        assert most_within_window(taken) <= tpm


@property_of()
@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 50), st.integers(0, 400)), max_size=80))
def test_corrected_tokens_stay_within_the_limit(arrivals):
    """With estimates that are corrected downwards at once, the real tokens of any minute are never too many."""
    room = capacity(tpm=500)
    now_s, taken = 0.0, []
    for later_s, real, more in arrivals:
        now_s += later_s
        if room.rate_wait_s(now_s, real + more) > 0:
            continue
        room.count(now_s, real + more)
        room.correct(now_s, real + more, real, began_s=now_s)
        taken.append((now_s, real))
    assert most_within_window(taken) <= 500
    assert room._tokens == sum(each.tokens for each in room._slices)


def test_slots_go_in_the_order_of_coming():
    """Who waits first is served first."""

    async def work():
        room = capacity(max_concurrent=1)
        await room.enter(5)
        order = []

        async def call(n):
            await room.enter(5)
            order.append(n)
            await asyncio.sleep(0)
            room.leave(0.001)

        tasks = [asyncio.create_task(call(n)) for n in range(20)]
        await asyncio.sleep(0)
        assert (room.under_way, room.waiting) == (1, 20)
        assert not room.has_slot
        room.leave(0.001)
        await asyncio.gather(*tasks)
        assert order == list(range(20))
        assert (room.under_way, room.waiting) == (0, 0)

    run(work())


def test_a_full_queue_turns_away_at_once():
    """Beyond so many waiting calls nobody waits; nor does anybody without patience."""

    async def work():
        room = capacity(max_concurrent=1, max_waiting=2)
        await room.enter(5)
        with pytest.raises(Full):
            await room.enter(0)
        waiting = [asyncio.create_task(room.enter(5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await room.enter(5)
        room.leave(0.1)
        room.leave(0.1)
        await asyncio.gather(*waiting)
        room.leave(0.1)
        assert (room.under_way, room.waiting, room.has_slot) == (0, 0, True)

    run(work())


def test_a_wait_that_would_be_too_long_is_not_begun():
    """With calls of 10 s, one behind a full deployment of two is told 5 s, and turned away if it has only 4."""

    async def work():
        room = capacity(max_concurrent=2)
        for _ in range(3):
            await room.enter(5)
            room.leave(10.0)
        await room.enter(0)
        room.leave(0.0)
        await room.enter(0)
        assert room.expected_wait_s(0.0) == 0.0
        await room.enter(0)
        assert room.expected_wait_s(0.0) == 5.0
        with pytest.raises(Full) as told:
            await room.enter(4)
        assert told.value.wait_s == 5.0
        waiter = asyncio.create_task(room.enter(6))
        await asyncio.sleep(0)
        assert room.expected_wait_s(0.0) == 10.0
        room.leave(0.0)
        await waiter

    run(work())


def test_patience_runs_out():
    """Who waited in vain is told so, and leaves no trace."""

    async def work():
        room = capacity(max_concurrent=1)
        await room.enter(1)
        with pytest.raises(Full):
            await room.enter(0.02)
        assert (room.under_way, room.waiting) == (1, 0)
        room.leave(0.1)
        assert room.has_slot

    run(work())


def test_who_is_cancelled_when_given_the_slot_passes_it_on():
    """A waiter that is cancelled after it was given the slot, and before it knows, does not take it along."""

    async def work():
        room = capacity(max_concurrent=1)
        await room.enter(5)
        first = asyncio.create_task(room.enter(5))
        second = asyncio.create_task(room.enter(5))
        await asyncio.sleep(0)
        room.leave(0.1)
        first.cancel()
        await second
        assert first.cancelled()
        assert (room.under_way, room.waiting) == (1, 0)
        last = asyncio.create_task(room.enter(5))
        await asyncio.sleep(0)
        room.leave(0.1)
        last.cancel()
        await asyncio.wait({last})
        assert (room.under_way, room.waiting, room.has_slot) == (0, 0, True)

    run(work())


@proved
@pytest.mark.parametrize("seed", range(3))
def test_no_slot_is_lost_by_cancelling(seed):
    """Calls cancelled at any moment, while they wait, are given a slot or work, leave every slot free in the end."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    total = full(10_000, 100_000)

    async def work():
        room = capacity(max_concurrent=4, max_waiting=40)
        at_work, most, refused = 0, 0, 0

        async def call(patience_s, turns):
            nonlocal at_work, most, refused
            try:
                await room.enter(patience_s)
            except Full:
                refused += 1
                return
            at_work += 1
            most = max(most, at_work)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                at_work -= 1
                room.leave(0.0001)

        tasks = []
        begun = 0
        while begun < total:
            for _ in range(chance.randrange(12)):
                patience_s = chance.choice([0, 0.0005, 5, 5, 5])
                tasks.append(asyncio.create_task(call(patience_s, chance.randrange(4))))
                begun += 1
            await asyncio.sleep(0)
            for task in chance.sample(tasks, min(len(tasks), chance.randrange(8))):
                task.cancel()
            tasks = [task for task in tasks if not task.done()]
        await asyncio.wait(tasks or {asyncio.create_task(asyncio.sleep(0))})
        assert most == 4
        assert at_work == 0
        assert (room.under_way, room.waiting, room.has_slot) == (0, 0, True)

    run(work())


def test_the_starts_are_no_nearer_than_the_window():
    """With one request a minute, starts are a minute apart."""
    room = capacity(rpm=1)
    now_s, starts = 5.0, []
    for _ in range(100):
        now_s += room.rate_wait_s(now_s, 0)
        assert room.rate_wait_s(now_s, 0) <= ROUNDING_S
        room.count(now_s, 0)
        starts.append(now_s)
    assert all(later - earlier >= WINDOW_S - ROUNDING_S for earlier, later in pairwise(starts))
