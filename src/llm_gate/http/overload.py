"""The model calls under way: how many there may be at a time, and an end for them when the gateway is stopped."""

import asyncio
from collections.abc import Callable

from llm_gate.domain.errors import Overloaded, ShuttingDown

RETRY_AFTER_S = 1.0
"""When a caller who was turned away does well to come back."""


class Traffic:
    """Counts model calls in and out. One of it serves one event loop.

    Theory of operation: a call is counted in before its body is read, in the task that serves it, and counted out when
    its endpoint is left. Once the way in is shut, nothing is counted in any more; `end_all` cancels the tasks of what
    is still under way, and who counted them in tells by `was_ended` that it was not the caller who left. `note_shed`
    is told the code of whatever is turned away.
    """

    def __init__(self, note_shed: Callable[[str], None] | None = None) -> None:
        self._calls: set[asyncio.Task[None]] = set()
        self._ended: set[asyncio.Task[None]] = set()
        self._note_shed = note_shed
        self._is_shut = False
        self._quiet = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many model calls are under way."""
        return len(self._calls)

    @property
    def is_shut(self) -> bool:
        """Whether no call is let in any more, since the gateway is about to end."""
        return self._is_shut

    def enter(self, most: int | None) -> asyncio.Task[None]:
        """Count the call of the running task in, where `most` may be under way; return the task, for `leave`.

        Raises:
            Overloaded: as many are under way already.
            ShuttingDown: the way in is shut.
        """
        if self._is_shut:
            self._shed(ShuttingDown.code)
            raise ShuttingDown("the gateway is being stopped: it takes no new calls")
        if most is not None and len(self._calls) >= most:
            self._shed(Overloaded.code)
            raise Overloaded(
                f"the gateway is busy: as many calls are under way as it takes at a time ({most})",
                retry_after_s=RETRY_AFTER_S,
            )
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server runs every request in a task of its own
        self._calls.add(task)
        return task

    def leave(self, task: asyncio.Task[None]) -> None:
        """Count a call out."""
        self._calls.discard(task)
        self._ended.discard(task)
        if self._is_shut and not self._calls:
            self._quiet.set()

    def was_ended(self, task: asyncio.Task[None]) -> bool:
        """Tell whether a cancelled call was ended by `end_all`, and by nobody else; ask once, when it is cancelled."""
        return task in self._ended and task.uncancel() == 0

    def shut(self) -> None:
        """Let no more calls in."""
        self._is_shut = True
        if not self._calls:
            self._quiet.set()

    def end_all(self) -> None:
        """End what is under way: each call stops where it waits."""
        for task in self._calls - self._ended:
            self._ended.add(task)
            task.cancel()

    async def until_quiet(self) -> None:
        """Return when the way in is shut and the last call has left."""
        await self._quiet.wait()

    def _shed(self, code: str) -> None:
        if self._note_shed is not None:
            self._note_shed(code)
