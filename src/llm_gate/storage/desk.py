"""An event loop's side of the ledger: who waits for which step, and for how long at most.

Theory of operation: a timer of the loop watches those who have waited longest. Who has waited too long is told that
the store is away. A reservation given up that way and granted all the same is released again.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from llm_gate.domain.errors import GateFault, StoreUnavailable
from llm_gate.domain.ledger import Advance, Granted, Reserve, Result, Step
from llm_gate.storage.writer import Entry

AWAY = "the ledger cannot be reached now"
_ENTRY_PATIENCE_S, _END_PATIENCE_S = 3, 10


class Keeper(Protocol):
    """The ledger that a desk belongs to."""

    def note_away(self) -> None:
        """Note that somebody waited in vain."""

    def undo(self, step: Reserve) -> None:
        """Release what was granted when nobody waited for it any more."""


class _Ticket:
    """Whoever waits for a step."""

    __slots__ = ("desk", "due_s", "future")

    def __init__(self, desk: "Desk", future: "asyncio.Future[Result]", due_s: float) -> None:
        self.desk = desk
        self.future = future
        self.due_s = due_s


class Desk:
    """One event loop's side: who waits, in the order in which they become impatient."""

    def __init__(self, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        self._keeper = keeper
        self._loop = loop
        self._entries: dict[Entry, None] = {}
        self._ends: dict[Entry, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, step: Step, future: "asyncio.Future[Result]") -> Entry:
        """Note that somebody waits for a step."""
        is_entry = isinstance(step, Reserve | Advance)
        due_s = self._loop.time() + (_ENTRY_PATIENCE_S if is_entry else _END_PATIENCE_S)
        entry = Entry(step, _Ticket(self, future, due_s))
        (self._entries if is_entry else self._ends)[entry] = None
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._look)
        elif self._timer.when() > due_s:
            self._timer.cancel()
            self._timer = self._loop.call_at(due_s, self._look)
        return entry

    def hand_over(self, pairs: Sequence[tuple[Entry, Result | GateFault]]) -> None:
        """Take results, in the writer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._hand_out, pairs)
        except RuntimeError:
            # The loop is closed: nobody will ever settle what was granted.
            for entry, result in pairs:
                self._undo(entry, result)

    def _hand_out(self, pairs: Sequence[tuple[Entry, Result | GateFault]]) -> None:
        for entry, result in pairs:
            self._entries.pop(entry, None)
            self._ends.pop(entry, None)
            if entry.is_given_up:
                self._undo(entry, result)
                continue
            future = entry.ticket.future
            if future.done():
                continue
            if isinstance(result, GateFault):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _undo(self, entry: Entry, result: Result | GateFault) -> None:
        if isinstance(entry.step, Reserve) and isinstance(result, Granted):
            self._keeper.undo(entry.step)

    def _look(self) -> None:
        """Tell those who have waited too long, and set the timer for the next."""
        self._timer = None
        now_s = self._loop.time()
        for waiting in (self._entries, self._ends):
            while waiting:
                entry = next(iter(waiting))
                if entry.ticket.due_s > now_s:
                    break
                del waiting[entry]
                entry.is_given_up = True
                self._keeper.note_away()
                fail(entry.ticket.future)
        due = [next(iter(waiting)).ticket.due_s for waiting in (self._entries, self._ends) if waiting]
        if due:
            self._timer = self._loop.call_at(min(due), self._look)

    def close(self) -> None:
        """Tell all who still wait."""
        if self._timer is not None:
            self._timer.cancel()
        for entry in [*self._entries, *self._ends]:
            fail(entry.ticket.future)


def fail(future: "asyncio.Future[Result]") -> None:
    """Tell whoever waits that the store is away."""
    if not future.done():
        future.set_exception(StoreUnavailable(AWAY))
        # Whoever does not wait for the result must not be told of it by the collector.
        future.exception()
