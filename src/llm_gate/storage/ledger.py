"""The ledger over a database: the port's face to the event loop; the work is done by the writer's thread.

Theory of operation: `submit` puts a step into the writer's queue and gives the caller a future. The writer hands out
the results of a whole batch by one call into the loop, whose desk gives them to those who wait.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from sqlalchemy import Connection, select, text, tuple_

from llm_gate.domain.errors import GateFault, StoreUnavailable
from llm_gate.domain.ledger import Advance, Release, Reserve, Result, Step
from llm_gate.domain.plans import Quota
from llm_gate.domain.stores import BalanceNow
from llm_gate.storage.database import Database
from llm_gate.storage.desk import AWAY, Desk, fail
from llm_gate.storage.ledger_seeds import hold_of, needs_seed, seed_question
from llm_gate.storage.owners import OwnerFiles
from llm_gate.storage.schema import balance
from llm_gate.storage.writer import USUAL_LEASE, Entry, Lease, Writer

START_PATIENCE_S = 10
CLOSE_PATIENCE_S = 10
MOST_WAITING = 50_000
"""So many steps may wait before reservations are refused at once."""


class LedgerStats(Struct, frozen=True, kw_only=True):
    """What the ledger of this process has done: `second_ends` are settlements of calls that were over already."""

    steps: int
    batches: int
    retries: int
    second_ends: int
    failed: int
    waiting: int
    is_away: bool


class StoredLedger:
    """The port `Ledger` over a database. `owner` is this process; `owners_folder` is where others of its kind look.

    `new_id` gives ids that grow with time.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        new_id: Callable[[], str],
        owners_folder: Path | None = None,
        lease: Lease = USUAL_LEASE,
    ) -> None:
        self.owner = owner
        self._database = database
        self._desks: dict[asyncio.AbstractEventLoop, Desk] = {}
        self._is_closed = False
        self._is_away = False
        self._writer = Writer(
            database,
            owner=owner,
            files=OwnerFiles(owners_folder, owner),
            lease=lease,
            receiver=self,
            new_id=new_id,
        )

    @property
    def is_away(self) -> bool:
        """Whether the store fails or is silent now, whoever has noticed it."""
        return self._is_away or self._writer.is_away

    @property
    def stats(self) -> LedgerStats:
        """Counters since the start, and what waits now."""
        counts = self._writer.counts
        return LedgerStats(
            steps=counts.steps,
            batches=counts.batches,
            retries=counts.retries,
            second_ends=counts.second_ends,
            failed=counts.failed,
            waiting=self._writer.queue.qsize(),
            is_away=self.is_away,
        )

    def submit(self, step: Step) -> "asyncio.Future[Result]":
        """Hand a step in; the result is on disk when it is there.

        Raises:
            StoreUnavailable: when awaited, the store could not be reached in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if self._is_closed or (isinstance(step, Reserve | Advance) and self._is_overdue()):
            fail(future)
            return future
        desk = self._desks.get(loop)
        if desk is None:
            self._desks = {other: kept for other, kept in self._desks.items() if not other.is_closed()}
            desk = self._desks[loop] = Desk(self, loop)
        self._writer.queue.put(desk.admit(step, future))
        return future

    def _is_overdue(self) -> bool:
        return self._is_away or self._writer.queue.qsize() > MOST_WAITING

    async def balances(self, quotas: Iterable[tuple[Quota, int]]) -> Mapping[tuple[str, int], BalanceNow]:
        """Read the balances of quotas, each in the window that begins at an instant (ms), all at one moment.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        wanted = {(quota.account, start_ms): quota for quota, start_ms in quotas}
        if not wanted:
            return {}
        return await self._database.read(lambda connection: _read(self._database, connection, wanted))

    async def start(self) -> None:
        """Start the writer, take the lease, and end what processes that are gone have left.

        Raises:
            StoreUnavailable: the store does not answer; the writer goes on trying.
        """
        self._writer.start()
        is_ready = self._writer.is_ready.wait
        if not await asyncio.get_running_loop().run_in_executor(None, is_ready, START_PATIENCE_S):
            raise StoreUnavailable(f"{AWAY}: {self._writer.trouble}")

    async def close(self) -> None:
        """Write what is queued, give the lease back and stop; waits a while for a store that is away."""
        self._is_closed = True
        await self._stop()
        # What was handed out last is on its way through the loop.
        await asyncio.sleep(0)
        for desk in list(self._desks.values()):
            desk.close()
        self._desks.clear()

    async def _stop(self) -> None:
        """Stop the writer, in a thread of its own: at the end of a process, pools of threads take nothing more."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            self._writer.stop(CLOSE_PATIENCE_S)
            loop.call_soon_threadsafe(stopped.set)

        threading.Thread(target=stop, name="ledger end", daemon=True).start()
        await stopped.wait()

    def hand_out(self, entries: Sequence[Entry], results: Sequence[Result | GateFault]) -> None:
        """Take results, in the writer's thread, and pass them on to the loops of those who wait."""
        self._is_away = False
        by_desk: dict[Desk, list[tuple[Entry, Result | GateFault]]] = {}
        for entry, result in zip(entries, results, strict=True):
            if entry.ticket is not None:
                by_desk.setdefault(entry.ticket.desk, []).append((entry, result))
        for desk, pairs in by_desk.items():
            desk.hand_over(pairs)

    def is_back(self) -> None:
        """Note, in the writer's thread, that the store answers."""
        self._is_away = False

    def note_away(self) -> None:
        """Note that somebody waited in vain: until the store answers, nobody else need wait that long."""
        self._is_away = True

    def undo(self, step: Reserve) -> None:
        """Release what was granted when nobody waited for it any more."""
        self._writer.queue.put(Entry(Release(id=step.call.id)))


def _read(
    database: Database, connection: Connection, wanted: Mapping[tuple[str, int], Quota]
) -> dict[tuple[str, int], BalanceNow]:
    if database.kind == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    columns = balance.c
    question = select(columns.account, columns.start_ms, columns.used, columns.held).where(
        tuple_(columns.account, columns.start_ms).in_(list(wanted))
    )
    found = {
        (row.account, row.start_ms): BalanceNow(used=row.used, held=row.held)
        for row in connection.execute(question)
    }
    for place in wanted.keys() - found.keys():
        hold = hold_of(wanted[place], place[1])
        seed = connection.execute(seed_question(hold)).scalar() if needs_seed(hold) else 0
        found[place] = BalanceNow(used=int(seed or 0))
    return found
