"""Stores of kept answers for tests: over each database and Redis, plain and with copies in memory before them."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llm_gate.domain.cache import CacheEntry, CacheStore, Shelf
from llm_gate.domain.secret import Secret
from llm_gate.storage.cache import SqlCache
from llm_gate.storage.cache_memory import MemoryCopy
from llm_gate.storage.cache_redis import RedisCache
from llm_gate.storage.redis import RedisLink
from llm_gate.storage.vectors import VectorIndex
from support.servers import redis_url
from support.stores import KINDS, openings

STORES = (*KINDS, "redis")
ALL = tuple(f"{kind}{copies}" for kind in STORES for copies in ("", "+copies"))
NOW_MS = int(time.time() * 1000)
LATER_MS = NOW_MS + 3_600_000
GROUP = b"g" * 32
SECRET = b"k" * 32


class Caches:
    """Any number of processes' ways to the same kept answers; they end with the event loop of `run`."""

    def __init__(self, kind: str, stack: ExitStack, folder: Path) -> None:
        self.kind, self._copies = kind.removesuffix("+copies"), kind.endswith("+copies")
        self._database = None
        self.prefix = f"test:{uuid.uuid4().hex}:"
        self._opened: list[CacheStore] = []
        if self.kind in KINDS:
            self._database = stack.enter_context(openings(self.kind, folder))

    def open(self, *, key: bytes = SECRET, max_entries: int = 10_000, max_bytes: int = 10**9) -> Any:
        """Open the store as another process would."""
        rules: dict[str, Any] = {
            "key": key,
            "max_entries": max_entries,
            "max_bytes": max_bytes,
            "now_ms": lambda: int(time.time() * 1000),
            "index": VectorIndex(most_bytes=10**8),
        }
        if self._database is None:
            link = RedisLink(Secret(redis_url()), operation_s=5.0)
            store: Any = RedisCache(link, prefix=self.prefix, **rules)
        else:
            store = SqlCache(self._database(), **rules)
        store = MemoryCopy(store, most_bytes=10**8) if self._copies else store
        self._opened.append(store)
        return store

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run some work over them, and close them."""

        async def whole() -> Any:
            try:
                return await work()
            finally:
                for store in self._opened:
                    if self._database is None:
                        await plain(store).clear(None)
                    await store.close()
                self._opened.clear()

        return asyncio.run(whole())


def plain(store: Any) -> Any:
    """Return the store behind the copies."""
    return store.store if isinstance(store, MemoryCopy) else store


async def settled(*stores: Any) -> None:
    """Wait until what was given to them is written."""
    for store in stores:
        await plain(store).writes.settled()


def key_of(number: int) -> bytes:
    """Return a key."""
    return number.to_bytes(32, "big")


def entry(number: int, body: bytes = b"answer", **fields: Any) -> CacheEntry:
    """Return an answer that is good for an hour."""
    fields = {"made_ms": NOW_MS + number, "expires_ms": LATER_MS, **fields}
    return CacheEntry(key=key_of(number), body=body, **fields)


def pointing(*numbers: float) -> tuple[float, ...]:
    """Return a vector of length one in a direction."""
    length = sum(each * each for each in numbers) ** 0.5
    return tuple(each / length for each in numbers)


ONE, OTHER = Shelf(tenant="one"), Shelf(tenant="other")
