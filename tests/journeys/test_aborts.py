"""Callers who leave, at every phase and on every surface: the vendor is let go at once, and the ledger has the call."""

import asyncio
import sqlite3
import time
from contextlib import closing

from support.faulty import running_faulty
from support.figures import full, proved
from support.gateway import running_gateway
from support.traffic import STREAMS, SURFACES, WHOLE, leave, quantile, say

CALLS = full(150, 5_000)
AT_ONCE = 20
CLOSED_S, SETTLED_S = 0.5, 1.0

PHASES = (
    ("before the body is complete", WHOLE + STREAMS, {"sent_part": 0.6, "after_s": 0.02}, {}),
    ("before the head", WHOLE + STREAMS, {"after_s": 0.15}, {"delay_s": 3}),
    ("before the first event", STREAMS, {"after_s": 0.15}, {"pause_s": 3, "words": 3}),
    ("in the middle of a stream", STREAMS, {"after_s": 0.05, "after_bytes": 200}, {"pause_s": 0.1, "words": 60}),
    ("rudely", STREAMS, {"after_s": 0.05, "after_bytes": 200, "is_rude": True}, {"pause_s": 0.1, "words": 60}),
    ("rudely, before the head", WHOLE, {"after_s": 0.15, "is_rude": True}, {"delay_s": 3}),
)  # fmt: skip


@proved
def test_who_leaves_lets_the_vendor_go_and_is_in_the_ledger():
    """Of every call that reached the vendor: closed p99 within 500 ms, a record of each, within 1 s."""
    with running_faulty("first") as faulty:
        with running_gateway(toml=faulty.table("first")) as gateway:
            left = asyncio.run(_leave_all(gateway.url))
            attempts = _ended(faulty)
            records, open_count = _records(gateway.folder / "data" / "llm-gate.db")
        reached = {each.call: each for each in attempts}
        closed = [reached[name].ended_s - at for name, (at, _) in left.items() if name in reached]
        settled = [
            records[name] - at for name, (_, at) in left.items() if name in reached and name in records
        ]

        say(
            "aborts",
            calls=len(left),
            reached=len(reached),
            closed_p99_ms=round(quantile(closed, 0.99) * 1000),
            settled_p99_ms=round(quantile(settled, 0.99) * 1000),
        )
        assert len(left) >= CALLS * 0.95
        assert len(reached) >= len(left) * 0.6
        assert [name for name in reached if name in left and name not in records] == []
        assert open_count == 0
        assert {each.ended for name, each in reached.items() if name in left} <= {"gone"}
        assert quantile(closed, 0.99) <= CLOSED_S, quantile(closed, 0.99)
        assert quantile(settled, 0.99) <= SETTLED_S, quantile(settled, 0.99)


async def _leave_all(url):
    """Return when each call was left, by the monotonic clock and by the wall's."""
    left = {}
    numbers = iter(range(CALLS))

    async def caller():
        for number in numbers:
            phase, surfaces, how, orders = PHASES[number % len(PHASES)]
            surface = surfaces[number // len(PHASES) % len(surfaces)]
            assert surface in SURFACES, phase
            name = f"abort-{number}"
            at = await leave(url, name, surface, model="first/m", **how, **orders)
            if at is not None:
                left[name] = (at, time.time() - (time.monotonic() - at))

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return left


def _ended(faulty):
    """Return the attempts when all of them have ended."""
    deadline = time.monotonic() + 20
    while True:
        attempts = faulty.attempts()
        if all(each.ended for each in attempts):
            return attempts
        assert time.monotonic() < deadline, [each for each in attempts if not each.ended][:5]
        time.sleep(0.1)


def _records(file):
    """Return when each record's call ended, by its request id, in seconds since 1970; and what is still open."""
    deadline = time.monotonic() + 20
    with closing(sqlite3.connect(file)) as connection:
        while True:
            (open_count,) = connection.execute("select count(*) from reservation").fetchone()
            if not open_count or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        rows = connection.execute("select request_id, ended_ms from usage_record").fetchall()
    return {name: ended_ms / 1000 for name, ended_ms in rows}, open_count
