"""Copies of kept answers in this process, in front of a store: the same question again costs no way to it.

Theory of operation: copies are bounded in bytes, and what was used least recently goes. They hold only as long as the
store's generation is the one they were made under, which is asked for once a second, by whoever comes then: so what an
operator clears is gone everywhere within about a second. While the store cannot tell its generation, none is given out.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

import msgspec

from llm_gate.domain.cache import CacheEntry, CacheStats, CacheStore, Neighbour, Shelf
from llm_gate.storage.cache_sealing import place_of
from llm_gate.storage.cache_writes import CacheWrites
from llm_gate.storage.vectors import VectorIndex

FOLLOWED_EVERY_S = 1.0
_ENTRY_BYTES = 1_024  # what an entry takes beside its body


class SharedStore(CacheStore, Protocol):
    """A store for all processes, with what waits to be written to it."""

    writes: CacheWrites


class MemoryCopy:
    """The port `CacheStore` over another one, with copies of what was kept or found, within `most_bytes`.

    `index` is that of the store, if it has one: what it takes of `most_bytes`, the copies have not.
    """

    def __init__(
        self,
        store: SharedStore,
        *,
        most_bytes: int,
        index: VectorIndex | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.store = store
        self.most_bytes = most_bytes
        self._index = index
        self._copied_bytes = 0
        self._clock = clock
        self._copies: OrderedDict[bytes, CacheEntry] = OrderedDict()
        self._generation: int | None = None
        self._is_known = False
        self._follow_at_s = 0.0
        self._following: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    @property
    def size_bytes(self) -> int:
        """What copies and vectors take in memory."""
        return self._copied_bytes + (0 if self._index is None else self._index.size_bytes)

    @property
    def waiting(self) -> int:
        """How many answers wait to be written to the store."""
        return self.store.writes.size

    @property
    def dropped(self) -> int:
        """How many answers were never written to it."""
        return self.store.writes.dropped

    async def find(self, shelf: Shelf, key: bytes, *, at_ms: int) -> CacheEntry | None:
        """Return the entry of a key that has not expired."""
        if self._clock() >= self._follow_at_s:
            await self._follow()
        place = place_of(shelf, key)
        entry = self._copies.get(place)
        if entry is not None and self._is_known:
            if entry.expires_ms > at_ms:
                self._copies.move_to_end(place)
                return entry
            self._drop(place)
        generation = self._generation
        found = await self.store.find(shelf, key, at_ms=at_ms)
        if found is not None and self._is_known and generation == self._generation:
            self._copy(place, found)
        return found

    async def nearest(
        self, shelf: Shelf, group: bytes, vector: Sequence[float], *, at_ms: int
    ) -> Neighbour | None:
        """Return the entry of a group whose vector is nearest; the store knows."""
        found = await self.store.nearest(shelf, group, vector, at_ms=at_ms)
        self._make_room()
        return found

    async def keep(self, shelf: Shelf, entry: CacheEntry) -> None:
        """Keep an entry, and a copy of it."""
        if self._clock() >= self._follow_at_s:
            await self._follow()
        if self._is_known:
            self._copy(place_of(shelf, entry.key), entry)
        await self.store.keep(shelf, entry)

    async def generation(self) -> int:
        """Return the store's number."""
        return await self.store.generation()

    async def stats(self, tenant: str | None) -> CacheStats:
        """Return what is kept in the store for a tenant, or for all.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return await self.store.stats(tenant)

    async def clear(self, tenant: str | None) -> int:
        """Remove what is kept for a tenant, or for all, and every copy.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        try:
            return await self.store.clear(tenant)
        finally:
            self._forget_all()
            self._follow_at_s = 0.0

    async def sweep(self, at_ms: int) -> int:
        """Remove copies that have expired, and let the store sweep."""
        for place in [place for place, entry in self._copies.items() if entry.expires_ms <= at_ms]:
            self._drop(place)
        return await self.store.sweep(at_ms)

    async def close(self) -> None:
        """Close the store."""
        self._forget_all()
        await self.store.close()

    async def _follow(self) -> None:
        """Learn the store's generation; of all who come meanwhile, one asks."""
        if self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._learn())
        # Whoever leaves must not take the answer away from the others.
        await asyncio.shield(self._following)

    async def _learn(self) -> None:
        try:
            found = await self.store.generation()
        finally:
            self._following = None
            self._follow_at_s = self._clock() + FOLLOWED_EVERY_S
        self._is_known = found >= 0
        if self._is_known and found != self._generation:
            self._forget_all()
            self._generation = found

    def _copy(self, place: bytes, entry: CacheEntry) -> None:
        self._drop(place)
        size = _ENTRY_BYTES + len(entry.body)
        if size > self.most_bytes:
            return
        self._copies[place] = entry if entry.vector is None else msgspec.structs.replace(entry, vector=None)
        self._copied_bytes += size
        self._make_room()

    def _make_room(self) -> None:
        while self._copies and self.size_bytes > self.most_bytes:
            self._drop(next(iter(self._copies)))

    def _drop(self, place: bytes) -> None:
        entry = self._copies.pop(place, None)
        if entry is not None:
            self._copied_bytes -= _ENTRY_BYTES + len(entry.body)

    def _forget_all(self) -> None:
        self._copies.clear()
        self._copied_bytes = 0
