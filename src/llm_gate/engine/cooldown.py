"""When one model at one deployment is left alone, for how long, and how it is found out that it works again.

Theory of operation: failures open the breaker for a time, in which nobody is let in. After that one call is let in as
a probe; the others wait for its verdict, or for another probe's when the first takes long. A probe that succeeds closes
the breaker, one that fails opens it for twice as long. Calls that were under way when it opened change nothing, unless
the vendor asks for more patience, or something worse is the matter. Times are monotonic seconds and given by the
caller; a call is known by the time at which it was let in.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from math import inf

from msgspec import structs

from llm_gate.domain.conditions import Cooling
from llm_gate.domain.errors import (
    AnswerNotInForm,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
)
from llm_gate.domain.policy import JITTER, CooldownRules

RATE_LONGEST_S = 6.0
"""Where the vendor does not say when a limited rate is over, one call in so many seconds finds out."""

_PROBED_S = 1.0
"""What the callers are told while a probe is under way: its end is not known."""

_ECHO_S = 0.25
"""What comes back from other processes may be late by so much, and is not news then."""

_MOST_DOUBLINGS = 40


class _Grade(IntEnum):
    """How bad it is."""

    PASSING = 0
    LIMITED = 1
    BROKEN = 2


_GRADES: Mapping[str, _Grade] = {
    ProviderRateLimited.code: _Grade.LIMITED,
    ProviderQuotaExhausted.code: _Grade.BROKEN,
    ProviderAuthFailed.code: _Grade.BROKEN,
    ProviderModelGone.code: _Grade.BROKEN,
}


class Breaker:
    """Lets calls in to one place, or not. `chance` gives numbers from 0 to 1.

    Where a call's `began_s` (the time it was let in at) is not given, its verdict is taken for the probe's while there
    is one.
    """

    __slots__ = (
        "_cause",
        "_chance",
        "_closed_s",
        "_failing",
        "_grade",
        "_is_open",
        "_probe_s",
        "_recent",
        "_row",
        "_rules",
        "_step",
        "_until_s",
    )

    def __init__(self, rules: CooldownRules, chance: Callable[[], float]) -> None:
        self._rules = rules
        self._chance = chance
        self._is_open = False
        self._until_s = -inf
        self._closed_s = -inf
        self._probe_s: float | None = None
        self._cause: Cooling | None = None
        self._grade = _Grade.PASSING
        self._step = 0
        self._row = 0
        self._recent: deque[bool] = deque(maxlen=rules.window)
        self._failing = 0

    @property
    def is_probing(self) -> bool:
        """Whether a call was let in to find out, and has no verdict yet."""
        return self._probe_s is not None

    def cooling(self, now_s: float) -> Cooling | None:
        """Say why nobody is let in now, and for how long; None where a call would be. Changes nothing."""
        if not self._is_open or self._cause is None:
            return None
        left_s = self._until_s - now_s
        if left_s <= 0:
            if not self._is_probed(now_s):
                return None
            left_s = _PROBED_S
        return structs.replace(self._cause, for_s=left_s)

    def enter(self, now_s: float) -> bool:
        """Tell whether a call is let in; one that is let in after a cooldown is the probe."""
        if not self._is_open:
            return True
        if now_s < self._until_s or self._is_probed(now_s):
            return False
        if self._rules.failures:
            self._probe_s = now_s
        else:
            self._close(now_s)
        return True

    def answered(self, now_s: float, began_s: float | None = None) -> None:
        """Note that a call succeeded."""
        if not self._is_open:
            self._row = 0
            self._note(is_failure=False)
        elif self._was_probe(began_s):
            self._close(now_s)

    def left(self, _now_s: float, began_s: float | None = None) -> None:
        """Note that a call ended without a verdict: if it was the probe, another may be."""
        if began_s is None or began_s == self._probe_s:
            self._probe_s = None

    def failed(self, error: ProviderError, now_s: float, began_s: float | None = None) -> Cooling | None:
        """Note that a call failed; return the cooldown that begins or grows by it."""
        if isinstance(error, ProviderRejected | AnswerNotInForm):
            # It says nothing against the place, which did answer.
            if self._is_open and self._was_probe(began_s):
                self._close(now_s)
            return None
        grade, wish_s = _grade_of(error), _wish_s_of(error, self._rules.longest_wish_s)
        if not self._is_open:
            is_due = self._is_due(grade, began_s)
            step = 0
        elif self._was_probe(began_s):
            is_due = True
            step = self._step + 1 if grade == self._grade else 0
            self._probe_s = None
        else:
            is_due = grade > self._grade
            step = 0 if is_due else self._step
            grade = max(grade, self._grade)
        if not self._rules.failures or (wish_s and isinstance(error, ProviderRateLimited)):
            is_due = False
        for_s = max(wish_s, self._own_s(grade, step) if is_due else 0.0) * (1 + JITTER * self._chance())
        if for_s <= 0 or now_s + for_s <= self._until_s:
            return None
        cause = Cooling(for_s=for_s, code=error.code, message=error.message, status=error.status)
        self._open(cause, grade, step, now_s + for_s)
        return cause

    def hear(self, cooling: Cooling, now_s: float) -> None:
        """Leave the place alone as another process says, where that is for longer than is known here."""
        longest_s = max(self._rules.longest_wish_s, self._rules.broken_longest_s, RATE_LONGEST_S)
        until_s = now_s + min(cooling.for_s, longest_s * (1 + JITTER))
        if cooling.for_s <= 0 or until_s <= self._until_s + _ECHO_S:
            return
        grade = _GRADES.get(cooling.code, _Grade.PASSING)
        is_same = self._is_open and grade == self._grade
        self._open(cooling, grade, self._step if is_same else 0, until_s)

    def _is_probed(self, now_s: float) -> bool:
        """Tell whether a probe is under way whose verdict is still worth waiting for."""
        return self._probe_s is not None and now_s - self._probe_s < max(self._rules.longest_s, _PROBED_S)

    def _was_probe(self, began_s: float | None) -> bool:
        """Tell whether a call was let in after the cooldown."""
        return self._probe_s is not None if began_s is None else began_s >= self._until_s

    def _is_due(self, grade: _Grade, began_s: float | None) -> bool:
        """Count a failure while the breaker is closed; tell whether it opens it."""
        if began_s is not None and began_s < self._closed_s:
            return False  # it comes from before the last cooldown, and was made good since
        if grade != _Grade.PASSING:
            return True
        self._row += 1
        self._note(is_failure=True)
        window = self._rules.window
        is_half = len(self._recent) == window > 0 and 2 * self._failing >= window
        return self._row >= self._rules.failures or is_half

    def _note(self, *, is_failure: bool) -> None:
        recent = self._recent
        if recent and len(recent) == recent.maxlen:
            self._failing -= recent[0]
        recent.append(is_failure)
        self._failing += is_failure

    def _own_s(self, grade: _Grade, step: int) -> float:
        rules = self._rules
        first_s, longest_s = {
            _Grade.PASSING: (rules.first_s, rules.longest_s),
            _Grade.LIMITED: (rules.first_s, RATE_LONGEST_S),
            _Grade.BROKEN: (rules.broken_first_s, rules.broken_longest_s),
        }[grade]
        return float(min(first_s * 2.0 ** min(step, _MOST_DOUBLINGS), longest_s))

    def _open(self, cause: Cooling, grade: _Grade, step: int, until_s: float) -> None:
        self._is_open = True
        self._until_s = until_s
        self._probe_s = None
        self._cause, self._grade, self._step = cause, grade, step

    def _close(self, now_s: float) -> None:
        # The end of the cooldown is kept: what others tell of it is not news.
        self._is_open = False
        self._closed_s = now_s
        self._probe_s = self._cause = None
        self._step = self._row = self._failing = 0
        self._recent.clear()


def _grade_of(error: ProviderError) -> _Grade:
    if isinstance(error, ProviderRateLimited):
        return _Grade.LIMITED
    if isinstance(error, ProviderQuotaExhausted | ProviderAuthFailed | ProviderModelGone):
        return _Grade.BROKEN
    return _Grade.PASSING


def _wish_s_of(error: ProviderError, longest_s: float) -> float:
    """Return for how long the vendor asks to be left alone; 0 where it does not, or says nonsense."""
    wish_s = error.retry_after_s
    return min(wish_s, longest_s) if wish_s is not None and wish_s > 0 else 0.0
