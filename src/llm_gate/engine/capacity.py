"""How much one deployment may be given: requests and tokens in any 60 seconds, and calls at the same time.

Theory of operation: starts are kept one by one, as many as may be within the window, so that the oldest tells when the
next may come. Tokens are kept in slices of a tenth of a second, each of which counts until its last entry is out of the
window; so the limit holds in any window, and there are never more than some hundred slices. Who finds no slot waits in
a queue; a call that ends gives its slot to the first in it. Times are monotonic seconds and given by the caller.
"""

import asyncio
from collections import deque
from contextlib import suppress
from math import inf

from llm_gate.domain.policy import CapacityLimits

WINDOW_S = 60.0

_SLICES_PER_S = 10
_NEWEST_SHARE = 0.1
"""How much the newest call weighs in the mean time of service."""


class Full(Exception):
    """There is no slot in time; `wait_s` is when there may be one, 0 where nothing is known."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("no slot in time")
        self.wait_s = wait_s


class _Slice:
    """The tokens that were taken within a tenth of a second."""

    __slots__ = ("last_s", "number", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.last_s = -inf
        self.tokens = 0


class Capacity:
    """The room of one deployment."""

    __slots__ = (
        "_by_number",
        "_limits",
        "_mean_s",
        "_queue",
        "_slices",
        "_starts",
        "_tokens",
        "under_way",
    )

    def __init__(self, limits: CapacityLimits) -> None:
        self._limits = limits
        self._starts: deque[float] = deque(maxlen=max(limits.rpm or 0, 0))
        self._slices: deque[_Slice] = deque()
        self._by_number: dict[int, _Slice] = {}
        self._tokens = 0
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._mean_s: float | None = None
        self.under_way = 0

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._queue)

    @property
    def has_slot(self) -> bool:
        """Whether a call could begin without waiting for another one's end."""
        limit = self._limits.max_concurrent
        return limit is None or self.under_way < limit  # there is none while anybody waits

    def rate_wait_s(self, now_s: float, tokens: int) -> float:
        """Return after how many seconds a request with so many tokens fits; 0 is now, infinite is never."""
        limits = self._limits
        wait_s = 0.0
        if limits.rpm is not None:
            if limits.rpm <= 0:
                return inf
            if len(self._starts) == limits.rpm:
                wait_s = self._starts[0] + WINDOW_S - now_s
        if limits.tpm is not None:
            wait_s = max(wait_s, self._tokens_wait_s(now_s, tokens, limits.tpm))
        return max(wait_s, 0.0)

    def _tokens_wait_s(self, now_s: float, tokens: int, tpm: int) -> float:
        if tokens > tpm:
            return inf
        self._drop_old(now_s)
        over = self._tokens + tokens - tpm
        if over <= 0:
            return 0.0
        for each in self._slices:
            over -= each.tokens
            if over <= 0:
                return each.last_s + WINDOW_S - now_s
        return WINDOW_S

    def count(self, now_s: float, tokens: int) -> None:
        """Take the room of one request with so many tokens."""
        if self._limits.rpm is not None:
            self._starts.append(now_s)
        if self._limits.tpm is None:
            return
        self._drop_old(now_s)
        number = int(now_s * _SLICES_PER_S)
        current = self._by_number.get(number)
        if current is None:
            current = self._by_number[number] = _Slice(number)
            self._slices.append(current)
        current.last_s = now_s
        current.tokens += tokens
        self._tokens += tokens

    def correct(
        self, now_s: float, taken_tokens: int, real_tokens: int, *, began_s: float | None = None
    ) -> None:
        """Put the real tokens of a request in the place of those that were taken for it.

        `began_s` is when it was counted, or soon after. Without it the oldest give way first, so that never too little
        is counted.
        """
        if self._limits.tpm is None:
            return
        self._drop_old(now_s)
        more = real_tokens - taken_tokens
        if began_s is not None:
            self._add(self._slice_at(began_s), more)
            return
        for each in self._slices:
            more -= self._add(each, more)
            if not more:
                return

    def _slice_at(self, began_s: float) -> _Slice | None:
        """Return the slice in which a request was counted that began then; None where it is out of the window."""
        number = int(began_s * _SLICES_PER_S)
        # It may have begun just after the end of the slice in which it was counted.
        return self._by_number.get(number) or self._by_number.get(number - 1)

    def _add(self, where: _Slice | None, more: int) -> int:
        """Add tokens to a slice, or take off what it has; return how many."""
        if where is None:
            return 0
        more = max(more, -where.tokens)
        where.tokens += more
        self._tokens += more
        return more

    def _drop_old(self, now_s: float) -> None:
        slices = self._slices
        while slices and slices[0].last_s + WINDOW_S <= now_s:
            old = slices.popleft()
            del self._by_number[old.number]
            self._tokens -= old.tokens

    def expected_wait_s(self, _now_s: float = 0.0) -> float:
        """Return for how long a call that came now would wait for a slot, as far as that can be known."""
        limit = self._limits.max_concurrent
        if limit is None or self._mean_s is None or self.has_slot:
            return 0.0
        return (len(self._queue) + 1) * self._mean_s / max(limit, 1)

    async def enter(self, patience_s: float) -> None:
        """Take a slot, in the order of coming; each is to be given back by `leave`.

        Raises:
            Full: there is none within `patience_s`, or that is not to be expected.
        """
        if self.has_slot:
            self.under_way += 1
            return
        expected_s = self.expected_wait_s()
        if patience_s <= 0 or len(self._queue) >= self._limits.max_waiting or expected_s > patience_s:
            raise Full(expected_s)
        await self._wait(patience_s)

    async def _wait(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_later(patience_s, _give_up, turn)
        try:
            is_given = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.done() and turn.result():
                self._pass_on()  # it was given the slot, and cannot use it any more
            raise
        finally:
            timer.cancel()
            with suppress(ValueError):
                self._queue.remove(turn)
        if not is_given:
            raise Full(self.expected_wait_s())

    def leave(self, service_s: float) -> None:
        """Give a slot back after a call that took so long; 0 where none was made."""
        if service_s > 0:
            mean_s = self._mean_s
            self._mean_s = service_s if mean_s is None else mean_s + _NEWEST_SHARE * (service_s - mean_s)
        self._pass_on()

    def _pass_on(self) -> None:
        queue = self._queue
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self.under_way = max(self.under_way - 1, 0)


def _give_up(turn: "asyncio.Future[bool]") -> None:
    if not turn.done():
        turn.set_result(False)
