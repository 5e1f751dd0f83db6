"""Counters of what the gateway does. Counting is a look into a dict; the forms that collectors read are made at scrape.

No label says who called: none holds a tenant, a user or a key. Model names are those of the catalog, anything else is
"unlisted", and a family that has grown too large counts the rest under "other".
"""

import asyncio
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from itertools import count
from pathlib import Path
from secrets import token_hex

import msgspec

from llm_gate.telemetry.exposition import Exposed, written
from llm_gate.telemetry.loop_lag import LoopLag
from llm_gate.telemetry.metric_files import HAS_LOCKS, Gauge, Labels, MetricFiles, Numbers, added
from llm_gate.telemetry.metric_names import BUCKETS_S

MAX_SERIES = 2_000
"""How many combinations of labels a family has at most."""

OTHER, UNLISTED, NONE = "other", "unlisted", "none"
PUBLISH_EVERY_S = 1.0

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
_OK = "ok"
_logger = logging.getLogger("llm_gate.metrics")

Family = dict[Labels, list[float]]
_Call = tuple[list[float], list[float], list[float]]


class Metrics:
    """Counts, and tells what was counted; implements `Meters`.

    `folder` is shared by the workers of one server, None where there is but one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.lag = LoopLag()
        self._process = str(os.getpid())
        self._files = (
            None
            if folder is None or not HAS_LOCKS
            else MetricFiles(folder, f"{self._process}-{token_hex(4)}")
        )
        self._models: Collection[tuple[str, str]] = frozenset()
        self._families: dict[str, Family] = {}
        self._requests: dict[tuple[str, str, int], list[float]] = {}
        self._calls: dict[Labels, _Call] = {}
        self._attempts: Family = {}
        self._watched: list[Callable[[], Mapping[str, float]]] = []
        self._bounds: list[tuple[str, Callable[[], float], Callable[[], float]]] = []
        self._serial = count(1)
        self._task: asyncio.Task[None] | None = None

    def use_models(self, models: Collection[tuple[str, str]]) -> None:
        """Name these models, by provider and name, from now on."""
        self._models = models

    def watch(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read gauges by their names, without the prefix, whenever somebody asks."""
        self._watched.append(read)

    def watch_bound(self, name: str, size: Callable[[], float], most: Callable[[], float]) -> None:
        """Read how much something that is bounded holds, and how much it may."""
        self._bounds.append((name, size, most))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request by its route's template."""
        known = self._requests.get((route, method, status))
        if known is None:
            known = self._requests_of(route, method, status)
        known[bisect_left(BUCKETS_S, seconds)] += 1
        known[-1] += seconds

    def call(  # noqa: PLR0913 - what one call came to
        self,
        *,
        operation: str,
        provider: str,
        model: str,
        outcome: str,
        seconds: float,
        first_event_s: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_nanos: int | None = None,
    ) -> None:
        """Count a model call; `outcome` is "ok", "left", or an error's code. Cost is None where nobody knows it."""
        known = self._calls.get((operation, provider, model, outcome))
        if known is None:
            known = self._call_of(operation, provider, model, outcome)
        whole, first, bill = known
        whole[bisect_left(BUCKETS_S, seconds)] += 1
        whole[-1] += seconds
        if first_event_s is not None:
            first[bisect_left(BUCKETS_S, first_event_s)] += 1
            first[-1] += first_event_s
        if input_tokens:
            bill[0] += input_tokens
        if output_tokens:
            bill[1] += output_tokens
        if cost_nanos is not None:
            bill[2] += cost_nanos
        elif outcome == _OK or input_tokens or output_tokens:
            bill[3] += 1

    def attempt(self, provider: str, model: str, operation: str, outcome: str, seconds: float) -> None:
        """Count an attempt. `outcome` is "ok", "left", or the error's code."""
        known = self._attempts.get((operation, provider, model, outcome))
        if known is None:
            known = self._attempts_of(operation, provider, model, outcome)
        known[bisect_left(BUCKETS_S, seconds)] += 1
        known[-1] += seconds

    def retried(self, provider: str) -> None:
        """Count another try at the same target."""
        self._series("retries", (provider,), 1)[0] += 1

    def fell_back(self, provider: str, reason: str) -> None:
        """Count that a target was given up for the next; `reason` is an error's code."""
        self._series("fallbacks", (provider, reason), 1)[0] += 1

    def cooled(self, provider: str, reason: str) -> None:
        """Count the beginning of a cooldown."""
        self._series("cooldowns", (provider, reason), 1)[0] += 1

    def hedged(self, provider: str, *, won: bool) -> None:
        """Count a target that was asked beside a slow one."""
        self._series("hedges", (provider, "true" if won else "false"), 1)[0] += 1

    def shed(self, reason: str) -> None:
        """Count a call that was turned away for want of room."""
        self._series("shed", (reason,), 1)[0] += 1

    def cached(self, operation: str, word: str, saved_nanos: int | None) -> None:
        """Count what became of a call at the cache, and what a kept answer saved."""
        self._series("cache", (operation, word), 1)[0] += 1
        if saved_nanos:
            self._series("saved", (operation,), 1)[0] += saved_nanos

    def start(self) -> None:
        """Begin to watch the event loop, and to write for the other workers; inside the loop."""
        self.lag.start()
        if self._files is not None:
            self._task = asyncio.get_running_loop().create_task(self._keep_publishing(self._files))

    async def close(self) -> None:
        """Write what was counted last, for the other workers."""
        self.lag.stop()
        if self._task is not None:
            self._task.cancel()
        if self._files is not None:
            try:
                self._files.publish(self._numbers())
            except OSError as error:
                _logger.warning("the metrics of this process are lost", extra={"error": str(error)})
            self._files.give_back()

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return what was counted, by all workers together, and its content type; `accept` is the request's header."""
        numbers, files = self._numbers(), self._files
        # Writing many series takes a while, and files may be slow: calls go on meanwhile.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: written(_joined(numbers, files), accept))

    def _requests_of(self, route: str, method: str, status: int) -> list[float]:
        method = method if method in _METHODS else OTHER
        found = self._series("requests", (route, method, str(status)), len(BUCKETS_S) + 2)
        if len(self._requests) < MAX_SERIES and method != OTHER:
            self._requests[route, method, status] = found
        return found

    def _attempts_of(self, operation: str, provider: str, model: str, outcome: str) -> list[float]:
        shown = self._shown(provider, model)
        found = self._series("attempts", (operation, provider, shown, outcome), len(BUCKETS_S) + 2)
        if shown == model and len(self._attempts) < MAX_SERIES:
            self._attempts[operation, provider, model, outcome] = found
        return found

    def _call_of(self, operation: str, provider: str, model: str, outcome: str) -> _Call:
        shown = self._shown(provider, model)
        place = (operation, provider, shown)
        found = (
            self._series("calls", (*place, outcome), len(BUCKETS_S) + 2),
            self._series("first_events", place, len(BUCKETS_S) + 2),
            self._series("bills", place, 4),
        )
        if shown == model and len(self._calls) < MAX_SERIES:
            self._calls[operation, provider, model, outcome] = found
        return found

    def _shown(self, provider: str, model: str) -> str:
        return model if model == NONE or (provider, model) in self._models else UNLISTED

    def _series(self, family: str, labels: Labels, size: int) -> list[float]:
        known = self._families.setdefault(family, {})
        found = known.get(labels)
        if found is None:
            if len(known) >= MAX_SERIES:
                labels = (OTHER,) * len(labels)
            found = known.setdefault(labels, [0] * size)
        return found

    def _numbers(self) -> Numbers:
        return Numbers(serial=next(self._serial), counts=self._counts(), gauges=self._gauges())

    def _counts(self) -> dict[str, list[tuple[Labels, list[float]]]]:
        return {
            family: [(labels, list(values)) for labels, values in known.items()]
            for family, known in self._families.items()
        }

    def _gauges(self) -> list[Gauge]:
        process = ("process", self._process)
        found = [
            Gauge("loop_lag_seconds", (process, ("quantile", quantile)), value)
            for quantile, value in self.lag.quantiles().items()
        ]
        for read in self._watched:
            found += [Gauge(name, (process,), value) for name, value in read().items()]
        for name, size, most in self._bounds:
            labels = (process, ("name", name))
            found += [Gauge("bounded", labels, size()), Gauge("bound", labels, most())]
        return found

    async def _keep_publishing(self, files: MetricFiles) -> None:
        loop, was_away = asyncio.get_running_loop(), False
        while True:
            numbers = self._numbers()
            try:
                await loop.run_in_executor(None, _publish, files, numbers)
            except OSError as error:
                if not was_away:
                    _logger.warning("metrics cannot be shared", extra={"error": str(error)})
                was_away = True
            else:
                was_away = False
            await asyncio.sleep(PUBLISH_EVERY_S)


def _publish(files: MetricFiles, numbers: Numbers) -> None:
    files.publish(numbers)
    files.fold()


def _joined(own: Numbers, files: MetricFiles | None) -> Exposed:
    """Return one process's numbers with those of all others; alone where these cannot be read."""
    everyone = [own]
    if files is not None:
        try:
            # Written first: no other worker may tell less than this one is about to.
            files.publish(own)
            everyone += files.others()
        except (OSError, msgspec.DecodeError) as error:
            _logger.warning("the metrics of other workers cannot be read", extra={"error": str(error)})
    return Exposed(
        counts=added(numbers.counts for numbers in everyone),
        gauges=tuple(gauge for numbers in everyone for gauge in numbers.gauges),
    )
