"""Kept answers in the table `cache_entry`: sealed for their places, bounded, cheap to lose.

Theory of operation: nobody waits for a write (storage/cache_writes.py). One row of `meta` holds what all processes
must agree on: how many answers there are, how large they are together, the number of the last row, and how often they
were cleared. Whoever changes anything locks it first, so that the bounds hold exactly and numbers are seen in their
order. A database that is away, or slow, is a miss, and is left alone for a while.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, select, true, update
from sqlalchemy.exc import DBAPIError

from llm_gate.domain.cache import CacheEntry, CacheStats, Neighbour, Shelf
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.storage.cache_sealing import Seal, head_room_bytes, neighbourhood_of, packed, place_of
from llm_gate.storage.cache_writes import CacheWrites, Waiting
from llm_gate.storage.changes import insert
from llm_gate.storage.database import Database
from llm_gate.storage.schema import cache_entry as table
from llm_gate.storage.schema import meta
from llm_gate.storage.vectors import Span, VectorIndex, VectorRow

PATIENCE_S = 1.0
"""How long a question may take."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
_NOTED_EVERY_S = 60.0
_ROW_BYTES = 256
_AT_ONCE = 500
_VECTORS_AT_ONCE = 2_000
_BOOK_ROW = "cache"
UNKNOWN_GENERATION = -1

T = TypeVar("T")
_logger = logging.getLogger("llm_gate.cache")


class _Book(msgspec.Struct):
    """What all processes must agree on."""

    number: int = 0
    entries: int = 0
    bytes: int = 0
    generation: int = 0


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Whose nearest answer is looked for, in which group, to what, and when."""

    shelf: Shelf
    group: bytes
    vector: tuple[float, ...]
    at_ms: int


class SqlCache:
    """The port `CacheStore` over a database. `key` is the secret of 16, 24 or 32 bytes that answers are sealed with.

    `index` holds the vectors; without one there are no neighbours.
    """

    def __init__(
        self,
        database: Database,
        *,
        key: bytes,
        max_entries: int,
        max_bytes: int,
        now_ms: Callable[[], int],
        index: VectorIndex | None = None,
    ) -> None:
        self._database = database
        self._seal = Seal(key)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now_ms = now_ms
        self._index = index
        self._gate = _Gate()
        self._is_counted = False
        self.writes = CacheWrites(self._write, self._sweep_all)

    async def find(self, shelf: Shelf, key: bytes, *, at_ms: int) -> CacheEntry | None:
        """Return the entry of a key that has not expired."""
        self.writes.begin()
        waiting = self.writes.find(shelf, key)
        if waiting is not None:
            found: CacheEntry | None = msgspec.structs.replace(waiting, vector=None)
        else:
            place = place_of(shelf, key)
            sealed = await self._asked(lambda connection: _sealed_at(connection, place))
            found = None if sealed is None else self._seal.open(shelf, place, sealed)
        return found if found is not None and found.expires_ms > at_ms else None

    async def nearest(
        self, shelf: Shelf, group: bytes, vector: Sequence[float], *, at_ms: int
    ) -> Neighbour | None:
        """Return the entry of a group whose vector is nearest."""
        self.writes.begin()
        index = self._index
        if index is None or packed(tuple(vector)) is None:
            return None
        wanted = _Wanted(shelf=shelf, group=group, vector=tuple(vector), at_ms=at_ms)
        return await self._asked(lambda connection: self._nearest(connection, index, wanted))

    async def keep(self, shelf: Shelf, entry: CacheEntry) -> None:
        """Let an entry be written soon."""
        self.writes.add(shelf, entry)

    async def generation(self) -> int:
        """Return a number that grows with every `clear`; -1 while the database is away."""
        found = await self._asked(lambda connection: _book(connection).generation)
        return UNKNOWN_GENERATION if found is None else found

    async def stats(self, tenant: str | None) -> CacheStats:
        """Return what is kept for a tenant, or for all.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        columns = (
            func.count(),
            func.count(table.c.neighbourhood),
            func.sum(table.c.size),
            func.min(table.c.made_ms),
        )
        query = select(*columns).where(_of(tenant))
        entries, with_vectors, size, oldest_ms = await self._database.survey(
            lambda connection: tuple(connection.execute(query).one())
        )
        return CacheStats(
            entries=entries, with_vectors=with_vectors, bytes=int(size or 0), oldest_ms=oldest_ms
        )

    async def clear(self, tenant: str | None) -> int:
        """Remove what is kept for a tenant, or for all, a part at a time: others write meanwhile.

        Raises:
            StoreUnavailable: the database cannot be reached; some of it may be removed already.
        """
        await self.writes.clear(tenant)
        last = await self._database.write(_cleared)
        where = _of(tenant) & (table.c.number <= last)
        gone = 0
        while removed := await self._database.write(lambda connection: _remove(connection, where)):
            gone += removed
        # Copies that were made while this went on are old ones as well.
        await self._database.write(_cleared)
        return gone

    async def sweep(self, at_ms: int) -> int:
        """Remove some of what has expired, and of what is more than there is room for."""
        if not self._is_counted:
            await self._database.write(_count_anew)
            self._is_counted = True
        expired = table.c.expires_ms <= at_ms
        gone = await self._database.write(lambda connection: _remove(connection, expired))
        return gone + await self._database.write(self._make_room)

    async def close(self) -> None:
        """Write what waits; the database is closed by whoever opened it."""
        await self.writes.close()

    async def _sweep_all(self) -> None:
        gone = _AT_ONCE
        while gone >= _AT_ONCE:
            gone = await self.sweep(self._now_ms())

    async def _asked(self, question: Callable[[Connection], T]) -> T | None:
        return await self._gate.asked(lambda: self._database.read(question))

    async def _write(self, batch: Sequence[Waiting]) -> None:
        try:
            await self._database.write(lambda connection: self._keep(connection, batch))
        except (DBAPIError, ValueError) as error:
            # A text that the database does not take must not end the writing of others.
            raise StoreUnavailable(f"answers were refused: {type(error).__name__}") from error

    def _keep(self, connection: Connection, batch: Sequence[Waiting]) -> None:
        book = _locked_book(connection)
        _forget(connection, book, table.c.place.in_([item.place for item in batch]))
        rows = []
        for item in batch:
            sealed = self._seal.close(item.shelf, item.place, item.entry)
            size = len(sealed) + _ROW_BYTES
            if size > self._max_bytes:
                continue
            book.number += 1
            book.entries += 1
            book.bytes += size
            rows.append(_row(item, sealed, size, book.number))
        if rows:
            connection.execute(insert(connection, table), rows)
        self._drop_oldest(connection, book)
        _write_book(connection, book)

    def _make_room(self, connection: Connection) -> int:
        book = _locked_book(connection)
        before = book.entries
        self._drop_oldest(connection, book)
        _write_book(connection, book)
        return before - book.entries

    def _drop_oldest(self, connection: Connection, book: _Book) -> None:
        oldest = select(table.c.place, table.c.size).order_by(table.c.made_ms, table.c.place).limit(_AT_ONCE)
        while book.entries > self._max_entries or book.bytes > self._max_bytes:
            entries, size, places = book.entries, book.bytes, []
            for row in connection.execute(oldest):
                if entries <= self._max_entries and size <= self._max_bytes:
                    break
                places.append(row.place)
                entries, size = entries - 1, size - row.size
            if not places:
                return
            _forget(connection, book, table.c.place.in_(places))

    def _nearest(self, connection: Connection, index: VectorIndex, wanted: _Wanted) -> Neighbour | None:
        shelf, at_ms = wanted.shelf, wanted.at_ms
        place = neighbourhood_of(shelf, wanted.group, len(wanted.vector))
        span = index.span(place, _book(connection).generation)
        rows, is_whole = self._unknown_rows(connection, wanted, place, span)
        index.add(place, rows, span=span, is_whole=is_whole, at_ms=at_ms)
        for at, similarity in index.nearest(place, wanted.vector, at_ms):
            sealed = _sealed_at(connection, at)
            entry = None if sealed is None else self._seal.open(shelf, at, sealed)
            if entry is not None and entry.group == wanted.group and entry.expires_ms > at_ms:
                return Neighbour(entry=entry, similarity=similarity)
            index.forget(place, at)
        return None

    def _unknown_rows(
        self, connection: Connection, wanted: _Wanted, neighbourhood: bytes, span: Span
    ) -> tuple[list[VectorRow], bool]:
        """Return rows of a neighbourhood that the index lacks, and whether these are all from before."""
        number = table.c.number
        head = func.substr(table.c.sealed, 1, head_room_bytes(len(wanted.vector))).label("head")
        query = (
            select(number, table.c.place, head)
            .where(table.c.neighbourhood == neighbourhood)
            .limit(_VECTORS_AT_ONCE)
        )
        found: list[Any] = []
        if span.newest:
            found += connection.execute(query.where(number > span.newest).order_by(number)).all()
        older = 0
        if not span.is_whole:
            before = number < span.oldest if span.newest else true()
            rows = connection.execute(query.where(before).order_by(number.desc())).all()
            older = len(rows)
            found += rows
        opened = [self._vector_row(wanted.shelf, neighbourhood, *row) for row in found]
        return opened, span.is_whole or older < _VECTORS_AT_ONCE

    def _vector_row(
        self, shelf: Shelf, neighbourhood: bytes, number: int, place: bytes, sealed: bytes | None
    ) -> VectorRow:
        head = self._seal.head(shelf, place, sealed or b"")  # nothing, for some databases, is nothing at all
        if head is None or head.neighbourhood(shelf) != neighbourhood:
            return VectorRow(number=number, place=place)
        return VectorRow(number=number, place=place, expires_ms=head.expires_ms, vector=head.vector)


class _Gate:
    """Lets questions through to a database, unless it failed a moment ago."""

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._skip_until_s = 0.0
        self._noted_s: float | None = None

    async def asked(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        now_s, pause_s = monotonic(), self._pause_s
        if now_s < self._skip_until_s:
            return None
        # Of those that come after a failure, one asks and the others go on without.
        self._skip_until_s = now_s + pause_s
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await ask()
        except (StoreUnavailable, TimeoutError, DBAPIError) as error:
            if self._pause_s == pause_s:  # else one that began with this one has noted it
                self._note(error)
            return None
        self._pause_s = self._skip_until_s = 0.0
        return answer

    def _note(self, error: Exception) -> None:
        self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), LONGEST_PAUSE_S)
        self._skip_until_s = monotonic() + self._pause_s
        if self._noted_s is None or monotonic() - self._noted_s > _NOTED_EVERY_S:
            self._noted_s = monotonic()
            _logger.warning("kept answers cannot be read", extra={"error": type(error).__name__})


def _row(item: Waiting, sealed: bytes, size: int, number: int) -> dict[str, object]:
    entry = item.entry
    neighbourhood = None
    if entry.group is not None and entry.vector is not None and packed(entry.vector) is not None:
        neighbourhood = neighbourhood_of(item.shelf, entry.group, len(entry.vector))
    return {
        "place": item.place,
        "tenant": item.shelf.tenant,
        "neighbourhood": neighbourhood,
        "number": number,
        "made_ms": entry.made_ms,
        "expires_ms": entry.expires_ms,
        "size": size,
        "sealed": sealed,
    }


def _of(tenant: str | None) -> ColumnElement[bool]:
    return true() if tenant is None else table.c.tenant == tenant


def _sealed_at(connection: Connection, place: bytes) -> bytes | None:
    return connection.execute(select(table.c.sealed).where(table.c.place == place)).scalar()


def _remove(connection: Connection, where: ColumnElement[bool]) -> int:
    """Remove some of what a condition names, and tell how much that was."""
    book = _locked_book(connection)
    places = select(table.c.place).where(where).limit(_AT_ONCE)
    gone = _forget(connection, book, table.c.place.in_(connection.execute(places).scalars().all()))
    _write_book(connection, book)
    return gone


def _forget(connection: Connection, book: _Book, where: ColumnElement[bool]) -> int:
    sizes = connection.execute(delete(table).where(where).returning(table.c.size)).scalars().all()
    book.entries -= len(sizes)
    book.bytes -= sum(sizes)
    return len(sizes)


def _cleared(connection: Connection) -> int:
    """Count a clearing, and return the number of the last row before it."""
    book = _locked_book(connection)
    book.generation += 1
    _write_book(connection, book)
    return book.number


def _count_anew(connection: Connection) -> None:
    """Count what there is; rows may have come or gone by another hand."""
    book = _locked_book(connection)
    found = connection.execute(select(func.count(), func.sum(table.c.size), func.max(table.c.number))).one()
    book.entries, book.bytes, book.number = found[0], int(found[1] or 0), max(book.number, found[2] or 0)
    _write_book(connection, book)


def _book(connection: Connection) -> _Book:
    text = connection.execute(select(meta.c.value).where(meta.c.name == _BOOK_ROW)).scalar()
    return _Book() if text is None else msgspec.json.decode(text, type=_Book)


def _locked_book(connection: Connection) -> _Book:
    query = select(meta.c.value).where(meta.c.name == _BOOK_ROW).with_for_update()
    text = connection.execute(query).scalar()
    if text is None:
        first = insert(connection, meta).values(name=_BOOK_ROW, value="{}")
        connection.execute(first.on_conflict_do_nothing())
        text = connection.execute(query).scalar_one()
    return msgspec.json.decode(text, type=_Book)


def _write_book(connection: Connection, book: _Book) -> None:
    text = msgspec.json.encode(book).decode()
    connection.execute(update(meta).where(meta.c.name == _BOOK_ROW).values(value=text))
