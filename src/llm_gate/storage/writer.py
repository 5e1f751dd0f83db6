"""The thread that writes the ledger: takes the steps that wait, commits them together, never loses one.

Theory of operation: whoever hands in a step puts it into a queue and goes on. The thread takes what is there, up to a
few hundred steps, applies it in one transaction and hands the results out. Where the store fails, the same batch is
tried again, before anything newer, until it is written; steps that nobody waits for any more and that must not be done
late (reservations) are dropped from it. Between batches the thread renews the process's lease and ends what belongs
to processes that are gone.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat, zip_longest
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from llm_gate.domain.errors import GateFault
from llm_gate.domain.ledger import Advance, Ended, Expire, Release, Reserve, Result, Settle, Step
from llm_gate.storage.database import Database, reason_of
from llm_gate.storage.ledger_batch import Session
from llm_gate.storage.ledger_postgresql import PostgresqlSession
from llm_gate.storage.ledger_sqlite import SqliteSession
from llm_gate.storage.owners import OwnerFiles
from llm_gate.storage.statements import PostgresqlStatements, SqliteStatements, Statements

MOST_STEPS = 256
"""How many steps are committed together at most."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
_SILENCE_S = 3.0
_TRIES_TOGETHER = 3
_MS = 1000
_logger = logging.getLogger("llm_gate.ledger")


class Entry:
    """A step on its way. `is_given_up`: nobody waits for it any more; `was_tried`: it may be in the store already."""

    __slots__ = ("first_result", "is_given_up", "step", "ticket", "was_tried")

    def __init__(self, step: Step, ticket: Any = None) -> None:
        self.step = step
        self.ticket = ticket
        self.is_given_up = False
        self.was_tried = False
        self.first_result: Result | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """How long a process counts as alive without a word, how often it gives one, how often it looks for the dead."""

    length_s: float = 60.0
    renew_s: float = 10.0
    sweep_s: float = 5.0


USUAL_LEASE = Lease()
"""Short enough to free what the dead hold within about a minute, long enough for a slow store."""


class Counts:
    """What the thread has done so far."""

    __slots__ = ("batches", "failed", "retries", "second_ends", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.batches = 0
        self.retries = 0
        self.second_ends = 0
        self.failed = 0


class Receiver(Protocol):
    """Who gets the results; called in the thread."""

    def hand_out(self, entries: Sequence[Entry], results: Sequence[Result | GateFault]) -> None:
        """Take the results of entries that are written."""

    def is_back(self) -> None:
        """Note that the store answers again."""


class Writer:
    """The thread, its connection, and what waits for it. `trouble` says why the store failed when it last did."""

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        files: OwnerFiles,
        lease: Lease,
        receiver: Receiver,
        new_id: Callable[[], str],
    ) -> None:
        self.counts = Counts()
        self.queue: SimpleQueue[Entry | None] = SimpleQueue()
        self.is_ready = threading.Event()
        self._statements: Statements
        self._open: Callable[[], Session]
        if database.kind == "sqlite":
            sqlite = self._statements = SqliteStatements()
            self._open = lambda: SqliteSession(database.connect(), sqlite)
        else:
            postgresql = self._statements = PostgresqlStatements()
            self._open = lambda: PostgresqlSession(database.connect(), postgresql, database.engine.dialect)
        self._owner = owner
        self._files = files
        self._lease = lease
        self._receiver = receiver
        self._new_id = new_id
        self._session: Session | None = None
        self._connected_at_s = 0.0
        self._renew_at_s = 0.0
        self._sweep_at_s = 0.0
        driver: Any = database.engine.dialect.loaded_dbapi
        self._driver_errors: tuple[type[Exception], ...] = (driver.Error, OSError)
        self._batch_errors: tuple[type[Exception], ...] = (
            driver.IntegrityError,
            driver.DataError,
            driver.ProgrammingError,
            driver.NotSupportedError,
        )
        self.trouble = "no answer"
        self._is_away = False
        self._asked_at_s: float | None = None
        self._is_closing = False
        self._must_end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @property
    def is_away(self) -> bool:
        """Whether the store failed when it was last asked, or has not said a word for a while."""
        asked_at_s = self._asked_at_s
        return self._is_away or (asked_at_s is not None and time.monotonic() - asked_at_s > _SILENCE_S)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, patience_s: float) -> bool:
        """Write what is queued, for so long at most, and end the thread. Tells whether all was written."""
        if not self._thread.is_alive():
            return self.queue.empty()
        self.queue.put(None)
        self._thread.join(patience_s)
        self._must_end.set()
        self._thread.join(_LONGEST_WAIT_S)
        return not self._thread.is_alive() and self.queue.empty()

    def _run(self) -> None:
        while not self._is_closing and not self._must_end.is_set():
            self._do_chores()
            entries = self._take()
            if entries:
                self._write(entries)
        self._leave()

    def _take(self) -> list[Entry]:
        """Wait for steps until the next chore is due, and take all there are."""
        due_s = min(self._renew_at_s, self._sweep_at_s) - time.monotonic()
        entries: list[Entry] = []
        try:
            entry = self.queue.get(timeout=max(due_s, 0.0))
            while entry is not None:
                entries.append(entry)
                if len(entries) == MOST_STEPS:
                    return entries
                entry = self.queue.get_nowait()
        except Empty:
            return entries
        self._is_closing = True
        return entries

    def _write(self, entries: Sequence[Entry]) -> None:
        """Apply a batch, however long that takes; steps that cannot be applied fail alone."""
        wait_s = _FIRST_WAIT_S
        refusals = 0
        while not self._must_end.is_set():
            entries = [wanted for entry in entries if (wanted := _as_wanted(entry)) is not None]
            if not entries:
                return
            try:
                with self._asking():
                    results = self._apply(entries)
            except Exception as error:  # noqa: BLE001 - the thread must go on, whatever a step does
                self.counts.retries += 1
                self._note_tries(entries)
                self._lose_session()
                if self._is_passing(error):
                    self._note_away(error)
                    self._must_end.wait(wait_s)
                    wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
                    continue
                refusals += 1
                if refusals == _TRIES_TOGETHER:
                    self._write_singly(entries, error)
                    return
            else:
                self._receiver.hand_out(entries, results)
                return

    def _write_singly(self, entries: Sequence[Entry], error: Exception) -> None:
        if len(entries) > 1:
            for entry in entries:
                self._write([entry])
            return
        _logger.error("a step of the ledger cannot be applied", exc_info=error)
        self.counts.failed += 1
        self._receiver.hand_out(entries, [GateFault("the ledger could not apply a step")])

    def _apply(self, entries: Sequence[Entry]) -> list[Result]:
        session = self._session or self._connect()
        applied = session.apply([entry.step for entry in entries], self._new_id)
        results = list(map(_as_first_tried, entries, applied.results, repeat(applied.finished)))
        self.counts.batches += 1
        self.counts.steps += len(entries)
        self.counts.second_ends += sum(map(_is_second_end, entries, results))
        return results

    def _note_tries(self, entries: Sequence[Entry]) -> None:
        """Remember that steps may be in the store already, and what came of them there."""
        results = self._session.last.results if self._session is not None else ()
        for entry, result in zip_longest(entries, results):
            entry.was_tried = True
            entry.first_result = result or entry.first_result

    def _connect(self) -> Session:
        session = self._session = self._open()
        self._renew(session)
        self._connected_at_s = time.monotonic()
        if self._is_away:
            self._is_away = False
            _logger.info("the ledger's store answers again")
        self._receiver.is_back()
        return session

    def _note_away(self, error: Exception) -> None:
        self.trouble = reason_of(error)
        if not self._is_away:
            self._is_away = True
            words = {"error": f"{type(error).__name__}: {self.trouble}"}
            _logger.warning("the ledger's store does not answer", extra=words)

    def _lose_session(self) -> None:
        session, self._session = self._session, None
        # The next one takes up the lease at once.
        self._renew_at_s = 0.0
        if session is not None:
            with suppress(*self._driver_errors):
                session.close()

    def _is_passing(self, error: Exception) -> bool:
        """Tell whether an error says something about the store, not about the batch."""
        return isinstance(error, self._driver_errors) and not isinstance(error, self._batch_errors)

    def _do_chores(self) -> None:
        now_s = time.monotonic()
        if now_s < min(self._renew_at_s, self._sweep_at_s):
            return
        try:
            with self._asking():
                self._files.take()
                session = self._session or self._connect()
                if now_s >= self._renew_at_s:
                    self._renew(session)
                if now_s >= self._sweep_at_s:
                    self._sweep_at_s = now_s + self._lease.sweep_s
                    self._sweep(session)
            self.is_ready.set()
            # It may have been silent only, and somebody may have waited in vain meanwhile.
            self._receiver.is_back()
        except Exception as error:  # noqa: BLE001 - the thread must go on; the next round tries again
            self._lose_session()
            self._note_away(error)
            soon_s = time.monotonic() + _LONGEST_WAIT_S
            self._renew_at_s, self._sweep_at_s = soon_s, max(soon_s, self._sweep_at_s)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Note since when an answer of the store is waited for."""
        self._asked_at_s = time.monotonic()
        try:
            yield
        finally:
            self._asked_at_s = None

    def _renew(self, session: Session) -> None:
        now_ms = self._now_ms(session)
        until_ms = now_ms + round(self._lease.length_s * _MS)
        session.tell(self._statements.renew, {"owner": self._owner, "now_ms": now_ms, "until_ms": until_ms})
        self._renew_at_s = time.monotonic() + self._lease.renew_s

    def _now_ms(self, session: Session) -> int:
        """Read the store's clock, which is the same for all."""
        (now_ms,) = session.ask(self._statements.now_ms)
        return int(now_ms)

    def _sweep(self, session: Session) -> None:
        """End the reservations of processes that are gone, and quotes past their end."""
        seen = self._files.look()
        now_ms = self._now_ms(session)
        # After an outage nobody could renew: those that live get the time to do so first.
        is_settled = time.monotonic() - self._connected_at_s >= self._lease.renew_s + self._lease.sweep_s
        parameters = {
            "owner": self._owner,
            "now_ms": now_ms,
            "lapsed_ms": now_ms if is_settled else 0,
            "dead": _listed(seen.dead),
            "alive": _listed(seen.alive),
            "most": MOST_STEPS,
        }
        before: list[str] = []
        while not self._must_end.is_set():
            (found,) = session.ask(self._statements.overdue, parameters)
            ids = msgspec.json.decode(found, type=list[str]) if found else []
            if not ids or ids == before:
                break
            before = ids
            self._write([Entry(Expire(id=id_, at_ms=now_ms)) for id_ in ids])
            session = self._session or self._connect()
        if seen.dead:
            session.tell(self._statements.leave, {"owners": _listed(seen.dead)})
            self._files.forget(seen.dead)

    def _leave(self) -> None:
        with suppress(*self._driver_errors):
            if self._session is not None:
                self._session.tell(self._statements.leave, {"owners": _listed({self._owner})})
            self._files.give_back()
        self._lose_session()


def _as_wanted(entry: Entry) -> Entry | None:
    """Return what to do for an entry: a reservation that nobody waits for any more is dropped, or undone."""
    if not entry.is_given_up or not isinstance(entry.step, Reserve | Advance):
        return entry
    if isinstance(entry.step, Reserve) and entry.was_tried:
        return Entry(Release(id=entry.step.call.id))
    return None


def _as_first_tried(entry: Entry, result: Result, finished: frozenset[str]) -> Result:
    """Return what a step did when it was first tried, where that try was committed although it seemed to fail."""
    if entry.first_result is None or not isinstance(result, Ended) or result.was_open:
        return result
    is_recorded = isinstance(entry.step, Settle | Expire) and entry.step.id in finished
    return entry.first_result if is_recorded or isinstance(entry.step, Release) else result


def _is_second_end(entry: Entry, result: Result) -> bool:
    return isinstance(entry.step, Settle) and isinstance(result, Ended) and not result.was_open


def _listed(owners: frozenset[str] | set[str]) -> str:
    return msgspec.json.encode(sorted(owners)).decode()
