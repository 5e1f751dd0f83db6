"""Answers on their way to a store: whoever made one goes on at once, one task writes many together.

What waits is bounded in number and bytes; what there is no room for, and what the store did not take, is dropped and
counted: a kept answer is worth less than a call's time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic

from msgspec import Struct

from llm_gate.domain.cache import CacheEntry, Shelf
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.storage.cache_sealing import place_of

MOST_WAITING = 1_024
MOST_WAITING_BYTES = 16 * 1024 * 1024
SWEEP_S = 60.0

_TOGETHER, _TOGETHER_BYTES = 64, 4 * 1024 * 1024
_GATHERING_S = 0.02
_LAST_WORDS_S = 2.0
_NOTED_EVERY_S = 60.0
_ENTRY_BYTES = 512

_logger = logging.getLogger("llm_gate.cache")


class Waiting(Struct, frozen=True, kw_only=True):
    """An answer that is to be written."""

    place: bytes
    shelf: Shelf
    entry: CacheEntry

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return _ENTRY_BYTES + len(self.entry.body) + 32 * len(self.entry.vector or ())


class CacheWrites:
    """What waits to be written, and the task that writes it and sweeps the store now and again.

    `write` and `sweep` raise StoreUnavailable where the store is away. `dropped` counts what was never written.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Waiting]], Awaitable[None]],
        sweep: Callable[[], Awaitable[object]],
    ) -> None:
        self.dropped = 0
        self._write = write
        self._sweep = sweep
        self._waiting: dict[bytes, Waiting] = {}
        self._bytes = 0
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._noted_s: float | None = None

    @property
    def size(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def begin(self) -> None:
        """Begin to write and to sweep, unless it has begun; inside the event loop."""
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, shelf: Shelf, entry: CacheEntry) -> None:
        """Let an answer wait to be written, in place of any other of its key."""
        item = Waiting(place=place_of(shelf, entry.key), shelf=shelf, entry=entry)
        self._forget(item.place)
        too_many = len(self._waiting) >= MOST_WAITING or self._bytes + item.bytes > MOST_WAITING_BYTES
        if self._is_closed or too_many:
            self.dropped += 1
            return
        self.begin()
        self._waiting[item.place] = item
        self._bytes += item.bytes
        self._idle.clear()
        self._wanted.set()

    def find(self, shelf: Shelf, key: bytes) -> CacheEntry | None:
        """Return an answer that is not written yet."""
        found = self._waiting.get(place_of(shelf, key)) if self._waiting else None
        return None if found is None else found.entry

    async def clear(self, tenant: str | None) -> None:
        """Forget what waits of a tenant, or of all; what is being written is written before this returns."""
        async with self._writing:
            gone = [each.place for each in self._waiting.values() if tenant in {None, each.shelf.tenant}]
            for place in gone:
                self._forget(place)

    async def settled(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def close(self) -> None:
        """Write what waits, if that is quickly done, and end."""
        self._is_closed = True
        if self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._idle.wait()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.dropped += len(self._waiting)

    async def _run(self) -> None:
        next_sweep_s = monotonic()
        while True:
            if monotonic() >= next_sweep_s:
                next_sweep_s = monotonic() + SWEEP_S
                await self._tolerating(self._sweep())
            with suppress(TimeoutError):
                async with asyncio.timeout(max(next_sweep_s - monotonic(), 0)):
                    await self._wanted.wait()
            if not self._is_closed:
                await asyncio.sleep(_GATHERING_S)
            async with self._writing:
                await self._write_some()

    async def _write_some(self) -> None:
        batch: list[Waiting] = []
        size = 0
        for item in self._waiting.values():
            if len(batch) == _TOGETHER or (batch and size + item.bytes > _TOGETHER_BYTES):
                break
            batch.append(item)
            size += item.bytes
        if batch and not await self._tolerating(self._write(batch)):
            self.dropped += len(batch)
        for item in batch:
            if self._waiting.get(item.place) is item:  # else a newer one waits in its place
                self._forget(item.place)
        if not self._waiting:
            self._wanted.clear()
            self._idle.set()

    async def _tolerating(self, work: Awaitable[object]) -> bool:
        try:
            await work
        except StoreUnavailable as error:
            if self._noted_s is None or monotonic() - self._noted_s > _NOTED_EVERY_S:
                self._noted_s = monotonic()
                _logger.warning("answers cannot be kept", extra={"error": error.message})
            return False
        return True

    def _forget(self, place: bytes) -> None:
        item = self._waiting.pop(place, None)
        if item is not None:
            self._bytes -= item.bytes
