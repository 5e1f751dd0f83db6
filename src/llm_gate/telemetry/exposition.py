"""Writes numbers in the forms that collectors read: the Prometheus text format, or OpenMetrics."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from llm_gate.telemetry.metric_files import Gauge, Series
from llm_gate.telemetry.metric_names import (
    BUCKETS_S,
    COST,
    COUNTED,
    GAUGES,
    PREFIX,
    TIMED,
    TOKENS,
    UNPRICED,
    Counted,
    Timed,
)

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ENDS = (*(str(end) for end in BUCKETS_S), "+Inf")


class Exposed(Struct, frozen=True, kw_only=True):
    """What is told: counts by family, and gauges."""

    counts: Mapping[str, Sequence[Series]]
    gauges: Sequence[Gauge]


def written(exposed: Exposed, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type, as an Accept header wants them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(exposed))
    if _wants_openmetrics(accept):
        return generate_openmetrics(registry), OPENMETRICS  # type: ignore[no-untyped-call]
    return generate_latest(registry), TEXT


def _wants_openmetrics(accept: str) -> bool:
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind == "application/openmetrics-text":
            return not any(part.replace(" ", "") in {"q=0", "q=0.0"} for part in parameters)
    return False


class _Told(Collector):
    def __init__(self, exposed: Exposed) -> None:
        self._exposed = exposed

    def collect(self) -> Iterator[Metric]:
        """Give every family, those without a series as well."""
        counts = self._exposed.counts
        for name, timed in TIMED.items():
            yield from _timed(timed, counts.get(name, ()))
        for name, counted in COUNTED.items():
            yield _counter(counted, [(labels, values[0]) for labels, values in counts.get(name, ())])
        yield from _bills(counts.get("bills", ()))
        yield from _gauges(self._exposed.gauges)


def _timed(family: Timed, series: Sequence[Series]) -> Iterator[Metric]:
    if family.total is not None:
        counted = Counted(total=family.total, text=family.total_text, labels=family.labels)
        yield _counter(counted, [(labels, sum(values[:-1])) for labels, values in series])
    seconds = HistogramMetricFamily(PREFIX + family.seconds, family.seconds_text, labels=family.labels)
    for labels, values in series:
        if any(values[:-1]):
            buckets = list(zip(_ENDS, accumulate(values[:-1]), strict=True))
            seconds.add_metric(labels, buckets, values[-1])
    yield seconds


def _bills(series: Sequence[Series]) -> Iterator[Metric]:
    directions = ("input", "output")
    yield _counter(
        TOKENS,
        [
            ((*labels, directions[at]), values[at])
            for labels, values in series
            for at in range(2)
            if values[at]
        ],
    )
    for counted, at in ((COST, 2), (UNPRICED, 3)):
        yield _counter(counted, [(labels, values[at]) for labels, values in series])


def _counter(family: Counted, values: Sequence[tuple[Sequence[str], float]]) -> Metric:
    counter = CounterMetricFamily(PREFIX + family.total, family.text, labels=family.labels)
    for labels, value in values:
        counter.add_metric(labels, value)
    return counter


def _gauges(gauges: Sequence[Gauge]) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for gauge in gauges:
        family = families.get(gauge.name)
        if family is None:
            text = GAUGES.get(gauge.name, f"{gauge.name.replace('_', ' ').capitalize()}.")
            names = [name for name, _ in gauge.labels]
            family = families[gauge.name] = GaugeMetricFamily(PREFIX + gauge.name, text, labels=names)
        family.add_metric([value for _, value in gauge.labels], gauge.value)
    yield from families.values()
