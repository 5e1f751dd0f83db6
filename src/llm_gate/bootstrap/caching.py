"""Opens where answers are kept, for the gateway and for the command line alike."""

from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING

from llm_gate.domain.cache import CacheStore
from llm_gate.engine.caching import Caching
from llm_gate.settings import Settings
from llm_gate.settings.records import CacheSettings
from llm_gate.storage.cache import SqlCache
from llm_gate.storage.cache_memory import MemoryCopy, SharedStore
from llm_gate.storage.cache_writes import MOST_WAITING as MOST_WAITING_WRITES
from llm_gate.storage.opening import Store
from llm_gate.storage.vectors import VectorIndex

__all__ = ["MOST_WAITING_WRITES", "cache_gauges", "cache_store", "open_cache"]

if TYPE_CHECKING:
    from llm_gate.bootstrap.gateway import Stores


def open_cache(settings: Settings, stores: "Stores") -> CacheStore | None:
    """Return where answers are kept; None where the settings keep none, or nothing outlives the process."""
    said, opened = settings.cache, stores.opened
    if opened is None or not (keeps_exact(said) or keeps_by_meaning(said)):
        return None
    # What is compared by meaning may be switched on while the gateway runs; until then the index is empty.
    index = VectorIndex(most_bytes=said.memory_bytes // 2)
    return MemoryCopy(cache_store(settings, opened, index=index), most_bytes=said.memory_bytes, index=index)


def cache_store(
    settings: Settings, opened: Store, *, index: VectorIndex | None = None, operation_s: float | None = None
) -> SharedStore:
    """Return the store that all processes share: Redis where its address is given, else the database.

    `operation_s` is how long Redis has to answer, where that is not as for calls.
    """
    said, key = settings.cache, opened.pepper.derive("cache")
    if settings.redis_url is None:
        return SqlCache(
            opened.database,
            key=key,
            max_entries=said.max_entries,
            max_bytes=said.max_bytes,
            now_ms=_now_ms,
            index=index,
        )
    # Optional drivers, as in storage/database.py.
    from llm_gate.storage.cache_redis import RedisCache  # noqa: PLC0415
    from llm_gate.storage.redis import OPERATION_S, RedisLink  # noqa: PLC0415

    # Connections of its own: an answer too large for their time must not keep the counters away from Redis.
    link = RedisLink(
        settings.redis_url, operation_s=operation_s or OPERATION_S, without="nothing is found in the cache"
    )
    return RedisCache(
        link,
        key=key,
        max_entries=said.max_entries,
        max_bytes=said.max_bytes,
        now_ms=_now_ms,
        index=index,
    )


def keeps_exact(said: CacheSettings) -> bool:
    """Tell whether anybody's answers are kept for those who ask the same."""
    return said.exact or any(rule.exact for rule in (*said.plans.values(), *said.aliases.values()))


def keeps_by_meaning(said: CacheSettings) -> bool:
    """Tell whether anybody's answers are kept for those who ask nearly the same."""
    return said.semantic or any(rule.semantic for rule in (*said.plans.values(), *said.aliases.values()))


def cache_gauges(caching: Caching) -> Mapping[str, int]:
    """Return what this process holds of the cache, and what waits to be written to its store, or never was."""
    copies = caching.store if isinstance(caching.store, MemoryCopy) else None
    return {
        "cache_copies": 0 if copies is None else copies.size,
        "cache_unwritten": 0 if copies is None else copies.dropped,
        "memory_bytes": 0 if copies is None else copies.size_bytes,
        "waiting": 0 if copies is None else copies.waiting,
    }


def _now_ms() -> int:
    return time_ns() // 1_000_000
