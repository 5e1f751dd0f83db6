"""How late the event loop is: a timer that says by how much it was missed."""

import asyncio
from collections import deque
from collections.abc import Mapping
from time import monotonic

EVERY_S = 0.05
"""How often is looked: so often that a thousandth of a minute's looks is more than one."""

_REMEMBERED = round(60 / EVERY_S)


class LoopLag:
    """Samples the lag of the event loop in which it is started, over the last minute."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._wait(asyncio.get_running_loop())

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def quantiles(self) -> Mapping[str, float]:
        """Return the lag, in seconds, that 99.9 % of the looks did not exceed, and the longest."""
        late_s = sorted(self._late_s)
        if not late_s:
            return {}
        return {"0.999": late_s[-(-len(late_s) * 999 // 1000) - 1], "1": late_s[-1]}

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = monotonic() + EVERY_S
        self._timer = loop.call_later(EVERY_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._late_s.append(max(0.0, monotonic() - self._due_s))
        self._wait(loop)
