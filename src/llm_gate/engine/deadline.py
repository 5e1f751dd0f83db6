"""A bound on how long a task may take, as `asyncio.timeout` is one, at a fraction of its cost on every request."""

import asyncio
from types import TracebackType


class Deadline:
    """Cancels the task inside the `with` block when the time has passed; the block then ends with TimeoutError."""

    __slots__ = ("_after_s", "_cancels_before", "_has_passed", "_task", "_timer")

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._has_passed = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = asyncio.current_task(loop)
        self._cancels_before = 0 if self._task is None else self._task.cancelling()
        self._timer = loop.call_later(self._after_s, self._pass)

    def _pass(self) -> None:
        self._has_passed = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if not self._has_passed or self._task is None:
            return
        # Whoever else cancelled the task meanwhile must still get through.
        was_alone = self._task.uncancel() <= self._cancels_before
        if was_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
