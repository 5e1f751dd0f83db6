"""How one place did lately: how many attempts succeeded, how fast, and what the last errors were."""

from collections import deque

from llm_gate.domain.conditions import LastError, Vitals
from llm_gate.domain.errors import ProviderError, ProviderRejected, excerpt

REMEMBERED = 256
"""Of so many attempts the rates and latencies are."""

REMEMBERED_ERRORS = 5

_NEWEST_SHARE = 0.2
_MS_PER_S = 1000.0


class VitalSigns:
    """What is remembered of one place's attempts; sums are made when somebody asks."""

    __slots__ = ("_errors", "_failures", "_recent_ms", "_requests", "latency_ms")

    def __init__(self) -> None:
        self._recent_ms: deque[float | None] = deque(maxlen=REMEMBERED)  # None is a failure
        self._errors: deque[LastError] = deque(maxlen=REMEMBERED_ERRORS)
        self._requests = 0
        self._failures = 0
        self.latency_ms: float | None = None
        """A mean in which the newest answers weigh most; None before the first."""

    def answered(self, seconds: float) -> None:
        """Remember an answer, and how long it took."""
        latency_ms = seconds * _MS_PER_S
        self._requests += 1
        self._recent_ms.append(latency_ms)
        mean_ms = self.latency_ms
        self.latency_ms = latency_ms if mean_ms is None else mean_ms + _NEWEST_SHARE * (latency_ms - mean_ms)

    def failed(self, error: ProviderError, at_ms: int, *, was_answered: bool = False) -> None:
        """Remember an error; `at_ms` is in ms since 1970. A request that was refused is no failure of the place.

        With `was_answered`, it is a stream that had begun, and was counted, as an answer.
        """
        self._requests += not was_answered
        if not isinstance(error, ProviderRejected):
            self._failures += 1
            self._recent_ms.append(None)
        said = LastError(at_ms=at_ms, code=error.code, message=excerpt(error.message), status=error.status)
        self._errors.append(said)

    @property
    def expected_s(self) -> float | None:
        """How long an answer takes in the mean; None before the first."""
        known = self._latencies_ms()
        return sum(known) / len(known) / _MS_PER_S if known else None

    def vitals(self, under_way: int, waiting: int) -> Vitals:
        """Sum up; the newest error comes first."""
        known = sorted(self._latencies_ms())
        seen = len(self._recent_ms)
        return Vitals(
            requests=self._requests,
            failures=self._failures,
            success_rate=len(known) / seen if seen else None,
            p50_ms=_percentile(known, 50),
            p95_ms=_percentile(known, 95),
            under_way=under_way,
            waiting=waiting,
            last_errors=tuple(reversed(self._errors)),
        )

    def _latencies_ms(self) -> list[float]:
        return [latency_ms for latency_ms in self._recent_ms if latency_ms is not None]


def _percentile(ordered: list[float], percent: int) -> float | None:
    """Return the least value that so many percent do not exceed."""
    if not ordered:
        return None
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]
