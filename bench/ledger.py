"""`python -m bench.ledger`: what an exact, durable ledger costs: CPU and rate of reserve + settle pairs.

Each caller is a user with three quotas (calls, money, requests per minute) who reserves, settles, and begins again.
"CPU" is that of the whole process where the loop is idle otherwise, and that of the writer's thread alone where the
loop is kept busy by work of its own. `--rows N` fills the records first, `--kind` chooses the store.
"""

import argparse
import asyncio
import itertools
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
import uvloop
from sqlalchemy import text

from llm_gate.domain.ledger import Call, Granted, Hold, Intent, Outcome, Reserve, Settle
from llm_gate.domain.plans import Limits, Quota, quotas_of
from llm_gate.domain.secret import Secret
from llm_gate.storage.database import Database, Kind, open_postgresql, open_sqlite
from llm_gate.storage.ledger import StoredLedger
from llm_gate.storage.schema import metadata, usage_record

POSTGRESQL = os.environ.get("LLM_GATE_TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
CALLERS = (1, 32, 256)
LIMITS = Limits(values={"monthly_cost_usd": 10**15, "text_calls": 10**12, "requests_per_minute": 10**9})
AMOUNTS = {"cost": 50_000, "calls": 1, "requests": 1}
WARM_S = 0.5
SPIN_S = 0.0003
ROWS_A_STEP = 20_000


class Ids:
    """Ids that grow with time."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._process = uuid.uuid4().hex[:8]

    def new(self) -> str:
        """Return the next one."""
        return f"{time.time_ns() // 1000:016x}{self._process}{next(self._count) & 0xFFFFF:05x}"


class Load:
    """Callers who reserve and settle."""

    def __init__(self, ledger: StoredLedger, ids: Ids) -> None:
        self.pairs = 0
        self._ledger = ledger
        self._ids = ids

    async def call(self, user: str, until_s: float) -> None:
        """Reserve and settle again and again."""
        quotas = quotas_of("user", "default", user, LIMITS, 0)
        while time.monotonic() < until_s:
            now_ms = time.time_ns() // 1_000_000
            holds = _holds(quotas, now_ms)
            id_ = self._ids.new()
            result = await self._ledger.submit(_reserve(id_, user, holds, now_ms))
            assert isinstance(result, Granted), result  # noqa: S101 - anything else would measure something else
            await self._ledger.submit(_settle(id_, now_ms))
            self.pairs += 1


def _holds(quotas: tuple[Quota, ...], now_ms: int) -> tuple[Hold, ...]:
    minute_ms = now_ms - now_ms % 60_000
    return tuple(
        Hold(
            account=quota.account,
            name=quota.limit.name,
            scope=quota.scope,
            subject=quota.subject,
            meter=quota.limit.meter,
            provider=None,
            start_ms=minute_ms if quota.limit.window == "minute" else 1_790_000_000_000,
            end_ms=minute_ms + 60_000 if quota.limit.window == "minute" else 1_900_000_000_000,
            since_ms=0,
            cap=quota.value,
            amount=AMOUNTS[quota.limit.meter],
        )
        for quota in quotas
    )


def _reserve(id_: str, user: str, holds: tuple[Hold, ...], now_ms: int) -> Reserve:
    call = Call(
        id=id_,
        tenant="default",
        application="bench",
        user=user,
        key_id="key-1",
        request_id=id_,
        operation="chat",
        bucket="text",
        endpoint="/v1/chat/completions",
        made_ms=now_ms,
        owner="bench",
        plan="pro",
    )
    intent = Intent(
        number=1,
        provider="sandbox",
        model="small",
        started_ms=now_ms,
        bound_tokens=900,
        bound_cost_nanos=50_000,
    )
    return Reserve(call=call, holds=holds, intent=intent)


def _settle(id_: str, now_ms: int) -> Settle:
    outcome = Outcome(
        number=1,
        provider="sandbox",
        model="small",
        started_ms=now_ms,
        ended_ms=now_ms + 20,
        status="ok",
        units={"input_tokens": 310, "output_tokens": 42},
        tokens=352,
        cost_nanos=31_337,
        prices=("sandbox/small/input", "sandbox/small/output"),
    )
    return Settle(id=id_, outcome=outcome, status="ok", ended_ms=now_ms + 20)


async def _spin(until_s: float) -> None:
    """Keep the loop busy, in pieces as long as a request's work."""
    while time.monotonic() < until_s:
        end_s = time.perf_counter() + SPIN_S
        while time.perf_counter() < end_s:
            pass
        await asyncio.sleep(0)


async def measure(database: Database, folder: Path, callers: int, *, is_busy: bool, seconds: float) -> str:
    """Run a load and return a row of the table."""
    ids = Ids()
    ledger = StoredLedger(database, owner="bench", new_id=ids.new, owners_folder=folder / "owners")
    await ledger.start()
    load = Load(ledger, ids)
    end_s = time.monotonic() + WARM_S + seconds
    tasks = [asyncio.create_task(load.call(f"user-{n}", end_s)) for n in range(callers)]
    if is_busy:
        tasks.append(asyncio.create_task(_spin(end_s)))
    await asyncio.sleep(WARM_S)
    (writer,) = (thread for thread in threading.enumerate() if thread.name == "ledger")
    clock = time.pthread_getcpuclockid(writer.ident or 0) if is_busy else time.CLOCK_PROCESS_CPUTIME_ID
    before = (load.pairs, ledger.stats, time.clock_gettime(clock), time.monotonic())
    await asyncio.sleep(max(0.0, end_s - time.monotonic() - 0.05))
    after = (load.pairs, ledger.stats, time.clock_gettime(clock), time.monotonic())
    await asyncio.gather(*tasks)
    await ledger.close()
    pairs, passed_s = after[0] - before[0], after[3] - before[3]
    batches = max(1, after[1].batches - before[1].batches)
    cpu_us = (after[2] - before[2]) * 1e6 / max(1, pairs)
    return (
        f"| {database.kind} | {'busy' if is_busy else 'idle'} | {callers} | {pairs / passed_s:,.0f} | {cpu_us:.1f} "
        f"| {(after[1].steps - before[1].steps) / batches:.1f} | {passed_s * callers / max(1, pairs) * 1000:.2f} |"
    )


def fill(database: Database, rows: int) -> None:
    """Put records of 20,000 users into the store, as if they had been written long ago."""
    charges = '[["user:default/user-1|monthly_cost_usd|0",1793491200000,31337]]'
    with database.engine.begin() as connection:
        for start in range(0, rows, ROWS_A_STEP):
            connection.execute(
                usage_record.insert(), [_old_row(n, charges) for n in range(start, start + ROWS_A_STEP)]
            )
        if database.kind == "postgresql":
            connection.execute(text("ANALYZE"))


def _old_row(number: int, charges: str) -> dict[str, Any]:
    made_ms = 1_780_000_000_000 + number
    return {
        "id": f"{made_ms * 1000:016x}00000000{number & 0xFFFFF:05x}",
        "tenant": "default",
        "application": "bench",
        "user_id": f"user-{number % 20_000}",
        "key_id": "key-1",
        "request_id": str(number),
        "operation": "chat",
        "bucket": "text",
        "endpoint": "/v1/chat/completions",
        "plan": "pro",
        "provider": "sandbox",
        "model": "small",
        "status": "ok",
        "quality": "measured",
        "error_code": None,
        "made_ms": made_ms,
        "ended_ms": made_ms + 20,
        "attempts": 1,
        "count": 1,
        "input_tokens": 310,
        "output_tokens": 42,
        "tokens": 352,
        "cost_nanos": 31_337,
        "synthetic": False,
        "charges": charges,
    }


@contextmanager
def opened(kind: Kind, folder: Path) -> Iterator[Database]:
    """Open an empty database for the run, and remove it afterwards."""
    if kind == "sqlite":
        database = open_sqlite(folder)
        metadata.create_all(database.engine)
        yield database
        database.close()
        return
    name = f"llm_gate_bench_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            url = sqlalchemy.make_url(POSTGRESQL).set(database=name)
            database = open_postgresql(Secret(url.render_as_string(hide_password=False)))
            metadata.create_all(database.engine)
            yield database
            database.close()
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--kind", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--callers", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--idle-only", action="store_true")
    chosen = parser.parse_args()
    print(
        "| store | loop | callers | pairs/s | CPU µs/pair | steps a batch | ms/pair |\n|---|---|---|---|---|---|---|"
    )
    for kind in chosen.kind or ["sqlite", "postgresql"]:
        with tempfile.TemporaryDirectory() as name, opened(kind, Path(name)) as database:
            if chosen.rows:
                fill(database, chosen.rows)
            for is_busy in (False,) if chosen.idle_only else (False, True):
                for callers in chosen.callers or CALLERS:
                    row = measure(database, Path(name), callers, is_busy=is_busy, seconds=chosen.seconds)
                    print(uvloop.run(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
