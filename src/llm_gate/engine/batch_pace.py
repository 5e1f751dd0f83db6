"""How fast the lines of batches are worked through: beside the calls that somebody waits for, never in their way.

A batch has a few calls under way at a time, fewer while vendors or limits ask for patience. All batches of a process
share one rate, so that a vendor which answers at once does not turn them into a flood.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

LINES_AT_ONCE = 8
"""How many calls of one batch are under way at most."""

ALL_AT_ONCE = 16
"""How many calls of all batches of one process are."""

LINES_A_SECOND = 40.0
"""How many calls of all batches of one process begin within a second at most."""

_LONGEST_PAUSE_S = 60.0
_LOOK_S = 0.05
_MORE_AFTER_SUCCESS = 0.25


class SharedPace:
    """What the batches of one process share: room for calls, and the instants at which they may begin."""

    def __init__(self, *, at_once: int = ALL_AT_ONCE, a_second: float = LINES_A_SECOND) -> None:
        self.room = asyncio.Semaphore(at_once)
        self._gap_s = 1 / a_second
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for the instant at which one more call may begin."""
        now_s = monotonic()
        begins_s = max(self._next_s, now_s)
        self._next_s = begins_s + self._gap_s
        if begins_s > now_s:
            await asyncio.sleep(begins_s - now_s)


class Pace:
    """The pace of one batch: how many of its calls may be under way, and until when none may begin."""

    def __init__(self, shared: SharedPace, *, at_once: int = LINES_AT_ONCE) -> None:
        self._shared = shared
        self._most = at_once
        self._allowed = float(at_once)
        self._under_way = 0
        self._rests_until_s = 0.0
        self._failures = 0

    async def enter(self, has_stopped: Callable[[], bool]) -> bool:
        """Wait until one more call may begin, which must `leave`; False where it has all stopped meanwhile."""
        while not has_stopped():
            rest_s = self._rests_until_s - monotonic()
            if rest_s <= 0 and self._under_way < max(1, int(self._allowed)):
                await self._begin()
                return True
            await asyncio.sleep(min(max(rest_s, _LOOK_S), 1.0))
        return False

    async def _begin(self) -> None:
        self._under_way += 1
        has_room = has_begun = False
        try:
            has_room = await self._shared.room.acquire()
            await self._shared.turn()
            has_begun = True
        finally:
            if has_room and not has_begun:
                self._shared.room.release()
            if not has_begun:
                self._under_way -= 1

    def leave(self) -> None:
        """Give the room of a call back."""
        self._under_way -= 1
        self._shared.room.release()

    def went_well(self) -> None:
        """Note that a call was answered: more of them may be under way again."""
        self._failures = 0
        self._allowed = min(self._most, self._allowed + _MORE_AFTER_SUCCESS)

    def rest(self, wait_s: float | None) -> None:
        """Note that somebody asks for patience: for so long, or longer each time where nobody says how long."""
        now_s = monotonic()
        if self._rests_until_s > now_s and wait_s is None:
            # The others that were under way met the same.
            return
        self._failures += 1
        self._allowed = max(1.0, self._allowed / 2)
        pause_s = min(2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE_S) if wait_s is None else wait_s
        self._rests_until_s = max(self._rests_until_s, now_s + pause_s)
