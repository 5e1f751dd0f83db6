"""SIGTERM under load on every surface: what is under way comes to its end, or to an honest one, and all is settled."""

import asyncio
import signal
import sqlite3
import time
from contextlib import closing

import aiohttp
import pytest

from support.faulty import running_faulty
from support.figures import full, proved
from support.gateway import running_gateway
from support.traffic import STREAMS, WHOLE, say, traffic

CALLS = full(24, 100)
LASTS_S = full(2.0, 20.0)
SHORT_S = 0.5
READY_S = 1.0
"""The goal is a tenth of it; the rest is for busy machines."""

EXIT_S = 2.0
SLACK_S = 2.0
SURFACES = (*STREAMS, *WHOLE)
PIECES = 40


async def _run(faulty, gateway, *, probes):
    """Begin the calls, stop the gateway, and return what was told, what new callers and probes saw, and the times."""
    async with traffic(gateway.url) as load:
        calls = [
            asyncio.ensure_future(
                load.call(f"drain-{n}", SURFACES[n % len(SURFACES)], model="first/m", **_lasting(n))
            )
            for n in range(CALLS)
        ]
        while await asyncio.to_thread(faulty.asked, "first") < CALLS:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        gateway.process.send_signal(signal.SIGTERM)
        told_s = time.monotonic()
        unready_s = await _until_unready(load) if probes else 0.0
        late = [
            await load.call(f"late-{n}", SURFACES[n], model="first/m") for n in range(len(SURFACES) * probes)
        ]
        await asyncio.to_thread(gateway.process.wait, 60)
        exit_s = time.monotonic() - told_s
        return await asyncio.gather(*calls), late, unready_s, exit_s


def _lasting(number):
    """Return orders for an answer that takes LASTS_S, whole or in pieces."""
    if number % len(SURFACES) >= len(STREAMS):
        return {"delay_s": LASTS_S}
    return {"pause_s": LASTS_S / PIECES, "words": PIECES}


async def _until_unready(load):
    """Return how long it takes until probes are told."""
    begun_s = time.monotonic()
    while True:
        async with load.session.get(f"{load.url}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
            if answer.status == 503:
                return time.monotonic() - begun_s
        assert time.monotonic() < begun_s + READY_S
        await asyncio.sleep(0.005)


def _records(gateway):
    """Return how each call was recorded, by its request id, and how many are open."""
    with closing(sqlite3.connect(gateway.folder / "data" / "llm-gate.db")) as link:
        (still_open,) = link.execute("SELECT count(*) FROM reservation").fetchone()
        return dict(link.execute("SELECT request_id, status FROM usage_record")), still_open


def _drained(*, drain_s, workers, probes):
    with running_faulty("first") as faulty:
        toml = f"[server]\ndrain_s = {drain_s}\nworkers = {workers}\n" + faulty.table("first")
        with running_gateway(toml=toml, installed=True) as gateway:
            found = asyncio.run(_run(faulty, gateway, probes=probes))
            records, still_open = _records(gateway)
            faults = [line for line in gateway.log if "gateway fault" in line or "Traceback" in line]
    told, late, unready_s, exit_s = found
    say(
        "SIGTERM",
        calls=len(told),
        drain_s=drain_s,
        workers=workers,
        answered=sum(each.outcome == "answered" for each in told),
        unready_s=unready_s,
        exit_s=exit_s,
    )
    # Once the last call has ended, nobody listens any more.
    assert {(each.outcome, each.status, each.retry_after) for each in late} <= {("refused", 503, "1")}
    assert (still_open, faults) == (0, [])
    assert {each.name for each in told} <= set(records)
    return told, records, exit_s


@proved
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_under_way_comes_to_its_end(workers):
    """Within the deadline nothing is cut, and the gateway is gone as soon as the last call is."""
    told, records, exit_s = _drained(drain_s=60, workers=workers, probes=workers == 1)

    assert {each.outcome for each in told} == {"answered"}
    assert {records[each.name] for each in told} == {"ok"}
    assert exit_s <= LASTS_S + EXIT_S + SLACK_S


@proved
@pytest.mark.parametrize("workers", [1, 2])
def test_what_lasts_too_long_is_told_and_settled(workers):
    """Beyond the deadline every stream ends with an error inside it, every other call with 503."""
    told, _, exit_s = _drained(drain_s=SHORT_S, workers=workers, probes=False)

    for each in told:
        is_stream = each.surface in STREAMS
        assert (each.outcome, each.status) == (("told", 200) if is_stream else ("refused", 503)), each
        assert not each.has_finish
    assert exit_s <= SHORT_S + EXIT_S + SLACK_S
