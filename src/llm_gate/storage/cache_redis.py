"""Kept answers in Redis, shared by all who know its address: sealed for their places, bounded, cheap to lose.

Theory of operation: every answer is a key that ends with it. Beside them stand the book (whose each is, of which
neighbourhood, how large), two lists by age and by end, one by tenant, and for each neighbourhood its vectors in the
order in which they came. A script changes all of them at once. Whatever of it Redis loses is a miss: numbers are taken
from its clock, so that they grow even over that. Redis away is a miss at once (storage/redis.py).
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from llm_gate.domain.cache import CacheEntry, CacheStats, Neighbour, Shelf
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.storage.cache_sealing import Seal, head_bytes_of, neighbourhood_of, packed, place_of
from llm_gate.storage.cache_writes import CacheWrites, Waiting
from llm_gate.storage.redis import RedisLink
from llm_gate.storage.vectors import Span, VectorIndex, VectorRow

UNKNOWN_GENERATION = -1

_PREFIX = "llm-gate:cache:"
_ROW_BYTES = 1_024  # what an answer takes beside itself: its key, and its places in the lists
_AT_ONCE = 200
_COUNTED_AT_ONCE = 1_000
_VECTORS_AT_ONCE = 300
_NO_NEIGHBOURHOOD = bytes(32)

# The book holds, by place: 32 bytes of the tenant's digest, 32 of the neighbourhood, and the size in bytes.
_LISTS = """
local prefix = KEYS[1]
local book, ages, ends, totals = prefix .. 'book', prefix .. 'ages', prefix .. 'ends', prefix .. 'totals'
local nowhere = string.rep('\\0', 32)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now_us = time[1] * 1000000 + tonumber(time[2])
local function whole(number) return string.format('%.0f', number) end
local function next_number(name)
  local next = math.max(tonumber(redis.call('HGET', totals, name) or '0') + 1, now_us)
  redis.call('HSET', totals, name, whole(next))
  return next
end
local function forget(place)
  redis.call('DEL', prefix .. 'entry:' .. place)
  redis.call('ZREM', ages, place)
  redis.call('ZREM', ends, place)
  local said = redis.call('HGET', book, place)
  if not said then return 0 end
  redis.call('HDEL', book, place)
  redis.call('ZREM', prefix .. 'tenant:' .. string.sub(said, 1, 32), place)
  local group = string.sub(said, 33, 64)
  if group ~= nowhere then
    redis.call('ZREM', prefix .. 'order:' .. group, place)
    redis.call('HDEL', prefix .. 'heads:' .. group, place)
  end
  redis.call('HINCRBY', totals, 'bytes', '-' .. string.sub(said, 65))
  return 1
end
local function drop_ended(most)
  local gone = 0
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', whole(now_ms), 'LIMIT', 0, most)) do
    gone = gone + forget(place)
  end
  return gone
end
local function drop_oldest(max_entries, max_bytes, most)
  local gone = 0
  if redis.call('HLEN', book) == 0 then redis.call('HSET', totals, 'bytes', '0') end
  while gone < most do
    local entries = redis.call('ZCARD', ages)
    local size = tonumber(redis.call('HGET', totals, 'bytes') or '0')
    if entries <= max_entries and size <= max_bytes then break end
    local oldest = redis.call('ZRANGE', ages, 0, 0)
    if not oldest[1] then break end
    forget(oldest[1])
    gone = gone + 1
  end
  return gone
end
"""
_KEEP = (
    _LISTS
    + """
local place, tenant, group, sealed, head_bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local made, expires, size = ARGV[6], tonumber(ARGV[7]), ARGV[8]
local function outlast(list)
  -- A list ends a day after the last of its answers.
  if redis.call('PTTL', list) < expires - now_ms + 43200000 then
    redis.call('PEXPIREAT', list, whole(expires + 86400000))
  end
end
drop_ended(20)
forget(place)
if expires <= now_ms then return 0 end
redis.call('SET', prefix .. 'entry:' .. place, sealed)
redis.call('PEXPIREAT', prefix .. 'entry:' .. place, ARGV[7])
redis.call('HSET', book, place, tenant .. group .. size)
redis.call('ZADD', ages, made, place)
redis.call('ZADD', ends, ARGV[7], place)
redis.call('ZADD', prefix .. 'tenant:' .. tenant, made, place)
if group ~= nowhere then
  local order, heads = prefix .. 'order:' .. group, prefix .. 'heads:' .. group
  redis.call('ZADD', order, whole(next_number('number')), place)
  redis.call('HSET', heads, place, string.sub(sealed, 1, head_bytes))
  outlast(order)
  outlast(heads)
end
for _, list in ipairs({book, ages, ends, prefix .. 'tenant:' .. tenant}) do outlast(list) end
redis.call('HINCRBY', totals, 'bytes', size)
drop_oldest(tonumber(ARGV[9]), tonumber(ARGV[10]), 2000)
return 1
"""
)
_SWEEP = _LISTS + "return drop_ended(200) + drop_oldest(tonumber(ARGV[1]), tonumber(ARGV[2]), 200)"
_FIND = "return redis.call('GET', KEYS[1] .. 'entry:' .. ARGV[1])"
_GENERATION = "return redis.call('HGET', KEYS[1] .. 'totals', 'generation') or '0'"
_CLEARED = _LISTS + "return whole(next_number('generation'))"
_CLEAR = (
    _LISTS
    + """
local list = ages
if ARGV[1] ~= '' then list = prefix .. 'tenant:' .. ARGV[1] end
local gone = 0
for _, place in ipairs(redis.call('ZRANGE', list, 0, 199)) do
  gone = gone + 1
  if forget(place) == 0 then redis.call('ZREM', list, place) end
end
return gone
"""
)
_COUNT = (
    _LISTS
    + """
local list = ages
if ARGV[1] ~= '' then list = prefix .. 'tenant:' .. ARGV[1] end
local entries, vectors, size, oldest = 0, 0, 0, ''
local found = redis.call('ZRANGE', list, ARGV[2], ARGV[3], 'WITHSCORES')
for i = 1, #found, 2 do
  local said = redis.call('HGET', book, found[i])
  if said and tonumber(redis.call('ZSCORE', ends, found[i]) or '0') > now_ms then
    entries = entries + 1
    if string.sub(said, 33, 64) ~= nowhere then vectors = vectors + 1 end
    size = size + tonumber(string.sub(said, 65))
    if oldest == '' then oldest = found[i + 1] end
  end
end
return {#found / 2, entries, vectors, whole(size), oldest}
"""
)
_FOLLOW = """
local prefix, group, newest, oldest, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local order, heads = prefix .. 'order:' .. group, prefix .. 'heads:' .. group
local function rows(found)
  local all = {}
  for i = 1, #found, 2 do
    table.insert(all, found[i + 1])
    table.insert(all, found[i])
    table.insert(all, redis.call('HGET', heads, found[i]) or '')
  end
  return all
end
local newer, older = {}, {}
if newest ~= '' then
  newer = rows(redis.call('ZRANGEBYSCORE', order, '(' .. newest, '+inf', 'WITHSCORES', 'LIMIT', 0, most))
end
if oldest ~= '' then
  older = rows(redis.call('ZREVRANGEBYSCORE', order, oldest, '-inf', 'WITHSCORES', 'LIMIT', 0, most))
end
return {redis.call('HGET', prefix .. 'totals', 'generation') or '0', newer, older}
"""


class RedisCache:
    """The port `CacheStore` over Redis. `key` is the secret of 16, 24 or 32 bytes that answers are sealed with.

    `index` holds the vectors; without one there are no neighbours.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        key: bytes,
        max_entries: int,
        max_bytes: int,
        now_ms: Callable[[], int],
        index: VectorIndex | None = None,
        prefix: str = _PREFIX,
    ) -> None:
        self._link = link
        self._seal = Seal(key)
        self._bounds = [max_entries, max_bytes]
        self._now_ms = now_ms
        self._index = index
        self._prefix = prefix.encode()
        names = {"keep": _KEEP, "sweep": _SWEEP, "find": _FIND, "generation": _GENERATION}
        names |= {"cleared": _CLEARED, "clear": _CLEAR, "count": _COUNT, "follow": _FOLLOW}
        self._scripts = {name: link.script(text) for name, text in names.items()}
        self.writes = CacheWrites(self._write, self._sweep_all)

    async def find(self, shelf: Shelf, key: bytes, *, at_ms: int) -> CacheEntry | None:
        """Return the entry of a key that has not expired."""
        self.writes.begin()
        found = self.writes.find(shelf, key) or await self._at(shelf, place_of(shelf, key))
        if found is None or found.expires_ms <= at_ms:
            return None
        return found if found.vector is None else msgspec.structs.replace(found, vector=None)

    async def nearest(
        self, shelf: Shelf, group: bytes, vector: Sequence[float], *, at_ms: int
    ) -> Neighbour | None:
        """Return the entry of a group whose vector is nearest."""
        self.writes.begin()
        index, wanted = self._index, tuple(vector)
        if index is None or packed(wanted) is None:
            return None
        place = neighbourhood_of(shelf, group, len(wanted))
        generation = await self.generation()
        if generation == UNKNOWN_GENERATION:
            return None
        span = index.span(place, generation)
        said = await self._said("follow", place, span.newest or "", _before(span), _VECTORS_AT_ONCE)
        if said is None:
            return None
        # Opening and comparing takes milliseconds, which other calls need not wait for.
        offered = await asyncio.to_thread(
            lambda: self._offered(index, shelf, place, span, said, wanted, at_ms)
        )
        for at, similarity in offered:
            entry = await self._at(shelf, at)
            if entry is not None and entry.group == group and entry.expires_ms > at_ms:
                return Neighbour(entry=entry, similarity=similarity)
            index.forget(place, at)
        return None

    async def keep(self, shelf: Shelf, entry: CacheEntry) -> None:
        """Let an entry be written soon."""
        self.writes.add(shelf, entry)

    async def generation(self) -> int:
        """Return a number that grows with every `clear`; -1 while Redis is away."""
        found = await self._said("generation")
        return UNKNOWN_GENERATION if found is None else int(found)

    async def stats(self, tenant: str | None) -> CacheStats:
        """Return what is kept for a tenant, or for all.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        entries, with_vectors, size, oldest_ms, first = 0, 0, 0, None, 0
        while True:
            said = await self._asked("count", _list_of(tenant), first, first + _COUNTED_AT_ONCE - 1)
            entries, with_vectors, size = entries + said[1], with_vectors + said[2], size + int(said[3])
            if oldest_ms is None and said[4]:
                oldest_ms = int(said[4])
            if said[0] < _COUNTED_AT_ONCE:
                return CacheStats(entries=entries, with_vectors=with_vectors, bytes=size, oldest_ms=oldest_ms)
            first += _COUNTED_AT_ONCE

    async def clear(self, tenant: str | None) -> int:
        """Remove what is kept for a tenant, or for all, a part at a time: others ask meanwhile.

        Raises:
            StoreUnavailable: Redis does not answer; some of it may be removed already.
        """
        await self.writes.clear(tenant)
        await self._asked("cleared")
        gone = 0
        while removed := int(await self._asked("clear", _list_of(tenant))):
            gone += removed
        # Copies that were made while this went on are old ones as well.
        await self._asked("cleared")
        return gone

    async def sweep(self, at_ms: int) -> int:  # noqa: ARG002 - what has expired, Redis knows by its own clock
        """Remove some of what has expired, and of what is more than there is room for."""
        return int(await self._asked("sweep", *self._bounds))

    async def close(self) -> None:
        """Write what waits, and close every connection."""
        await self.writes.close()
        await self._link.close()

    async def _at(self, shelf: Shelf, place: bytes) -> CacheEntry | None:
        sealed = await self._said("find", place)
        return None if sealed is None else self._seal.open(shelf, place, sealed)

    async def _said(self, script: str, *arguments: Any) -> Any:
        """Return what a script says; None where Redis does not answer."""
        ask = self._scripts[script]
        return await self._link.guarded(lambda: ask(keys=[self._prefix], args=list(arguments)))

    async def _asked(self, script: str, *arguments: Any) -> Any:
        said = await self._said(script, *arguments)
        if said is None:
            raise StoreUnavailable("Redis does not answer")
        return said

    async def _sweep_all(self) -> None:
        gone = _AT_ONCE
        while gone >= _AT_ONCE:
            gone = await self.sweep(self._now_ms())

    async def _write(self, batch: Sequence[Waiting]) -> None:
        for item in batch:
            entry = item.entry
            sealed = self._seal.close(item.shelf, item.place, entry)
            size = len(sealed) + _ROW_BYTES
            if size > self._bounds[1]:
                continue
            group, head_bytes = _NO_NEIGHBOURHOOD, 0
            if entry.group is not None and entry.vector is not None and packed(entry.vector) is not None:
                group = neighbourhood_of(item.shelf, entry.group, len(entry.vector))
                head_bytes = head_bytes_of(sealed)
            whose = [item.place, _list_of(item.shelf.tenant), group]
            times = [entry.made_ms, entry.expires_ms]
            await self._asked("keep", *whose, sealed, head_bytes, *times, size, *self._bounds)

    def _offered(  # noqa: PLR0917 - runs in a thread: all it needs is given to it
        self,
        index: VectorIndex,
        shelf: Shelf,
        place: bytes,
        span: Span,
        said: list[Any],
        wanted: tuple[float, ...],
        at_ms: int,
    ) -> list[tuple[bytes, float]]:
        _, newer, older = said
        rows = [self._vector_row(shelf, place, *row) for found in (newer, older) for row in _threes(found)]
        is_whole = span.is_whole or len(older) < 3 * _VECTORS_AT_ONCE
        index.add(place, rows, span=span, is_whole=is_whole, at_ms=at_ms)
        return index.nearest(place, wanted, at_ms)

    def _vector_row(
        self, shelf: Shelf, neighbourhood: bytes, number: bytes, place: bytes, sealed: bytes
    ) -> VectorRow:
        head = self._seal.head(shelf, place, sealed)
        if head is None or head.neighbourhood(shelf) != neighbourhood:
            return VectorRow(number=int(number), place=place)
        return VectorRow(number=int(number), place=place, expires_ms=head.expires_ms, vector=head.vector)


def _list_of(tenant: str | None) -> bytes:
    """Return what stands for a tenant; no name of one is seen in Redis."""
    return b"" if tenant is None else sha256(b"llm-gate cache tenant 1" + tenant.encode()).digest()


def _before(span: Span) -> str:
    """Return up to which number rows from before are missing; nothing where none are."""
    if span.is_whole:
        return ""
    return f"({span.oldest}" if span.newest else "+inf"


def _threes(found: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    return zip(found[::3], found[1::3], found[2::3], strict=True)
