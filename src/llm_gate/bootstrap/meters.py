"""Puts the metrics of a gateway together: what is counted in it, and how full everything in it is that is bounded."""

from collections.abc import Callable, Mapping
from functools import partial

from llm_gate.bootstrap.caching import MOST_WAITING_WRITES, cache_gauges
from llm_gate.bootstrap.gateway import Gateway
from llm_gate.engine.access import MAX_KEPT
from llm_gate.engine.cache_keys import MAX_MARKS
from llm_gate.engine.estimate import MAX_RATES
from llm_gate.engine.fleet import MAX_PLACES
from llm_gate.engine.flights import MAX_FLIGHTS
from llm_gate.engine.notices import MAX_QUEUED, MAX_SUBJECTS
from llm_gate.schemas import MAX_COMPILED
from llm_gate.settings import Settings
from llm_gate.storage.ledger import MOST_WAITING, StoredLedger
from llm_gate.telemetry.metrics import Metrics


def open_metrics(gateway: Gateway, settings: Settings) -> Metrics:
    """Count what a gateway does; several workers share a folder that is named after their server."""
    folder = settings.server.data_dir / "metrics" / gateway.gate.instance_id.encode().hex()
    metrics = Metrics(folder if settings.server.workers > 1 else None)
    metrics.use_models(listed_models(gateway))
    gate, ledger = gateway.gate, gateway.stores.ledger
    gate.fleet.meters = gate.caching.meters = metrics
    metrics.watch(
        lambda: {
            "reservations_open": gate.admission.open_bookings,
            "jobs_open": gate.open_jobs,
            "waiting_for_room": gate.fleet.gauges()["waiting_for_room"],
        }
    )
    for name in ("places", "sites"):
        metrics.watch_bound(name, partial(_one_of, gate.fleet.gauges, name), lambda: MAX_PLACES)
    for name in gate.access.sizes:
        metrics.watch_bound(name, partial(_one_of, lambda: gate.access.sizes, name), lambda: MAX_KEPT)
    metrics.watch_bound("rates", lambda: gate.rates.size, lambda: MAX_RATES)
    metrics.watch_bound("cache_waits", lambda: gate.caching.flights.size, lambda: MAX_FLIGHTS)
    metrics.watch_bound("cache_prices", lambda: gate.caching.keys.size, lambda: MAX_MARKS)
    cache = partial(cache_gauges, gate.caching)
    metrics.watch(lambda: {name: cache()[name] for name in ("cache_copies", "cache_unwritten")})
    most_bytes = settings.cache.memory_bytes
    metrics.watch_bound("cache_memory_bytes", partial(_one_of, cache, "memory_bytes"), lambda: most_bytes)
    metrics.watch_bound("cache_writes", partial(_one_of, cache, "waiting"), lambda: MOST_WAITING_WRITES)
    metrics.watch_bound("told_notices", lambda: gateway.notices.subjects, lambda: MAX_SUBJECTS)
    metrics.watch_bound(
        "waiting_for_room",
        partial(_one_of, gate.fleet.gauges, "waiting_for_room"),
        partial(_one_of, gate.fleet.gauges, "room_to_wait"),
    )
    metrics.watch_bound("schemas", lambda: gateway.schemas.size, lambda: MAX_COMPILED)
    metrics.watch_bound("notices", lambda: gateway.notices.queued, lambda: MAX_QUEUED)
    if isinstance(ledger, StoredLedger):
        metrics.watch_bound("ledger_queue", lambda: ledger.stats.waiting, lambda: MOST_WAITING)
    return metrics


def listed_models(gateway: Gateway) -> frozenset[tuple[str, str]]:
    """Return the models of the catalog, by provider and name."""
    return frozenset(
        (entry.name, model.name)
        for entry in gateway.directory.catalog.providers.values()
        for model in entry.models.values()
    )


def _one_of(read: Callable[[], Mapping[str, float]], name: str) -> float:
    return read()[name]
