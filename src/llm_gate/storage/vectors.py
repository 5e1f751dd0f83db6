"""The vectors of questions in this process's memory, a matrix for each neighbourhood, compared all at once.

Theory of operation: the store is the truth, this follows it. Rows of a store have growing numbers; a neighbourhood
knows the newest and the oldest number it has, so that what was added since, and what there is from before, can be
fetched a part at a time. All matrices together stay within a bound: what was used least recently goes, and of one that
is too large by itself, its oldest half. Nothing here says whose a vector is: the neighbourhood does.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

from msgspec import Struct

_FIRST_ROWS = 4
_MATRIX_BYTES = 1_024  # what a matrix takes beside its rows
_ROW_BYTES = 256  # what a row takes beside its vector: its place, twice referred to, and its numbers
_OFFERED = 3
_NEVER = -2.0


class VectorRow(Struct, frozen=True, kw_only=True):
    """A row of a store. `vector` is packed (see storage/cache_sealing.py); None where the row cannot be read."""

    number: int
    place: bytes
    expires_ms: int = 0
    vector: bytes | None = None


class Span(Struct, frozen=True, kw_only=True):
    """Which rows are known: from `oldest` to `newest`, none where these are 0; `is_whole` where none are from before.

    `generation` is that of the store in which they were found.
    """

    generation: int
    oldest: int = 0
    newest: int = 0
    is_whole: bool = False


class _Matrix:
    """The vectors of one neighbourhood; the rows from 0 to `rows` are in use."""

    def __init__(self, numpy: Any, dimensions: int) -> None:
        self._numpy = numpy
        self.dimensions = dimensions
        self.rows = 0
        self.places: list[bytes] = []
        self._row_of: dict[bytes, int] = {}
        self._vectors = numpy.empty((_FIRST_ROWS, dimensions), dtype=numpy.float32)
        self._expires_ms = numpy.empty(_FIRST_ROWS, dtype=numpy.int64)
        self._numbers = numpy.empty(_FIRST_ROWS, dtype=numpy.int64)

    @property
    def size_bytes(self) -> int:
        return _MATRIX_BYTES + int(self._vectors.nbytes) + len(self._numbers) * _ROW_BYTES

    def put(self, row: VectorRow, vector: Any) -> None:
        """Take a row in, in place of an older one at its place."""
        at = self._row_of.get(row.place)
        if at is not None and row.number < self._numbers[at]:
            return
        if at is None:
            at = self.rows
            if at == len(self._numbers):
                self._resize(2 * at)
            self.rows += 1
            self.places.append(row.place)
            self._row_of[row.place] = at
        self._vectors[at] = vector
        self._expires_ms[at] = row.expires_ms
        self._numbers[at] = row.number

    def nearest(self, vector: Any, at_ms: int) -> list[tuple[bytes, float]]:
        numpy, rows = self._numpy, self.rows
        if not rows:
            return []
        found = self._vectors[:rows] @ vector
        found[self._expires_ms[:rows] <= at_ms] = _NEVER
        offered = []
        for _ in range(min(_OFFERED, rows)):
            best = int(numpy.argmax(found))
            if found[best] == _NEVER:
                break
            offered.append((self.places[best], min(1.0, max(-1.0, float(found[best])))))
            found[best] = _NEVER
        return offered

    def drop(self, place: bytes) -> None:
        """Forget a row; the last one takes its seat."""
        at = self._row_of.pop(place, None)
        if at is None:
            return
        self.rows -= 1
        last = self.places.pop()
        if at < self.rows:
            self.places[at] = last
            self._row_of[last] = at
            for column in (self._vectors, self._expires_ms, self._numbers):
                column[at] = column[self.rows]

    def drop_expired(self, at_ms: int) -> None:
        """Forget what has expired."""
        self._keep_only(self._expires_ms[: self.rows] > at_ms)

    def drop_older_half(self) -> None:
        """Forget the half with the lower numbers, and give its room back."""
        numbers = self._numbers[: self.rows]
        self._keep_only(numbers > self._numpy.median(numbers) if self.rows else numbers > 0)

    def _keep_only(self, kept: Any) -> None:
        numpy = self._numpy
        at = numpy.flatnonzero(kept)
        self.places = [self.places[each] for each in at]
        self._row_of = {place: row for row, place in enumerate(self.places)}
        for column in (self._vectors, self._expires_ms, self._numbers):
            column[: len(at)] = column[at]
        self.rows = len(at)
        self._resize(max(self.rows, _FIRST_ROWS))

    def _resize(self, rows: int) -> None:
        numpy, used = self._numpy, self.rows

        def resized(column: Any) -> Any:
            larger = numpy.empty((rows, *column.shape[1:]), dtype=column.dtype)
            larger[:used] = column[:used]
            return larger

        self._vectors, self._expires_ms, self._numbers = map(
            resized, (self._vectors, self._expires_ms, self._numbers)
        )


class VectorIndex:
    """The vectors of many neighbourhoods, within `most_bytes`. May be used from several threads."""

    def __init__(self, *, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = Lock()
        self._matrices: OrderedDict[bytes, _Matrix] = OrderedDict()
        self._spans: dict[bytes, Span] = {}
        self._generation: int | None = None
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What the matrices take in memory."""
        return self._bytes

    @cached_property
    def _numpy(self) -> Any:
        import numpy as np  # noqa: PLC0415 - optional: loaded only where vectors are compared

        return np

    def span(self, neighbourhood: bytes, generation: int) -> Span:
        """Return which rows of a neighbourhood are known; none where the store was cleared since."""
        with self._lock:
            if generation != self._generation:
                self._generation = generation
                self._matrices.clear()
                self._spans.clear()
                self._bytes = 0
            return self._spans.get(neighbourhood) or Span(generation=generation)

    def add(
        self, neighbourhood: bytes, rows: Sequence[VectorRow], *, span: Span, is_whole: bool, at_ms: int
    ) -> None:
        """Take in rows that were not known when `span` was; `is_whole` tells that none from before these are left."""
        with self._lock:
            known = self._spans.get(neighbourhood) or Span(generation=span.generation)
            if span.generation != self._generation or (span.newest and not known.newest):
                return  # what they were to be added to has gone meanwhile
            numbers = [row.number for row in rows]
            if known.newest:
                numbers += [known.oldest, known.newest]
            if not numbers:
                return
            before = self._matrices.get(neighbourhood)
            self._bytes -= 0 if before is None else before.size_bytes
            for row in rows:
                self._put(neighbourhood, row)
            matrix = self._matrices.get(neighbourhood)
            if matrix is None:
                return  # not one of them could be read
            self._matrices.move_to_end(neighbourhood)
            is_cut = self._make_room(matrix, at_ms)
            self._spans[neighbourhood] = Span(
                generation=span.generation,
                oldest=min(numbers),
                newest=max(numbers),
                # What goes for want of room is not fetched again.
                is_whole=is_whole or known.is_whole or is_cut,
            )

    def nearest(self, neighbourhood: bytes, vector: Sequence[float], at_ms: int) -> list[tuple[bytes, float]]:
        """Return the places of the nearest few that have not expired, with their cosines, the nearest first."""
        numpy = self._numpy
        wanted = numpy.asarray(vector, dtype=numpy.float32)
        length = float(numpy.linalg.norm(wanted))
        with self._lock:
            matrix = self._matrices.get(neighbourhood)
            if matrix is None or matrix.dimensions != len(wanted) or not 0 < length < float("inf"):
                return []
            self._matrices.move_to_end(neighbourhood)
            return matrix.nearest(wanted / length, at_ms)

    def forget(self, neighbourhood: bytes, place: bytes) -> None:
        """Forget a row that the store has no more."""
        with self._lock:
            matrix = self._matrices.get(neighbourhood)
            if matrix is not None:
                matrix.drop(place)

    def _put(self, neighbourhood: bytes, row: VectorRow) -> None:
        numpy = self._numpy
        if row.vector is None:
            return
        vector = numpy.frombuffer(row.vector, dtype="<f4")
        length = float(numpy.linalg.norm(vector))
        if not 0 < length < float("inf"):
            return
        matrix = self._matrices.get(neighbourhood)
        if matrix is None:
            matrix = self._matrices[neighbourhood] = _Matrix(numpy, len(vector))
        if matrix.dimensions == len(vector):
            matrix.put(row, vector / length)

    def _make_room(self, own: _Matrix, at_ms: int) -> bool:
        """Count the matrix that was used last, and let others go where there is no room; tells whether it was cut."""
        room_bytes = self.most_bytes - self._bytes
        if own.size_bytes > room_bytes:
            own.drop_expired(at_ms)
        while own.size_bytes > room_bytes and len(self._matrices) > 1:
            neighbourhood, other = self._matrices.popitem(last=False)
            del self._spans[neighbourhood]
            room_bytes += other.size_bytes
        is_cut = own.size_bytes > room_bytes
        while own.size_bytes > room_bytes and own.rows:
            own.drop_older_half()
        self._bytes = self.most_bytes - room_bytes + own.size_bytes
        return is_cut
