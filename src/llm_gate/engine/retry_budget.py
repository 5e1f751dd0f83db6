"""How many repeats an upstream gets: a share of its calls, so that an outage is not made worse by those who repeat.

Theory of operation: every call earns a part of a repeat, and a repeat costs a whole one. What is earned is kept up to a
limit, so that a short outage is passed by well; over any time there are never more repeats than the share of the calls
since the start, and the floor. The floor lets a few through where there are too few calls to earn any. Times are
monotonic seconds and given by the caller.
"""

_KEPT_CALLS = 100
"""What so many calls earn is kept at most."""

_WHOLE = 1 - 1e-9
"""Ten tenths are a whole, also in floating point."""


class RetryBudget:
    """Decides on repeats at one upstream.

    A call earns `share` of one. Besides there are up to `floor`, refilled at `floor_per_s`; with a floor of 0 there are
    none besides.
    """

    __slots__ = ("_earned", "_floor", "_floor_per_s", "_left", "_most", "_refilled_s", "_share")

    def __init__(self, share: float = 0.1, floor_per_s: float = 0.2, floor: float = 3) -> None:
        self._share = share
        self._most = max(share * _KEPT_CALLS, 1.0)
        self._earned = 0.0
        self._floor = float(floor)
        self._floor_per_s = floor_per_s
        self._left = self._floor
        self._refilled_s: float | None = None

    def called(self, _now_s: float) -> None:
        """Count a call that is not a repeat."""
        self._earned = min(self._earned + self._share, self._most)

    def take(self, now_s: float) -> bool:
        """Tell whether one more may be repeated, and take it off if so."""
        if self._earned >= _WHOLE:
            self._earned -= 1
            return True
        if self._refilled_s is not None:
            gained = (now_s - self._refilled_s) * self._floor_per_s
            self._left = min(self._left + gained, self._floor)
        self._refilled_s = now_s
        if self._left >= _WHOLE:
            self._left -= 1
            return True
        return False
