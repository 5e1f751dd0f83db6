"""The numbers of several worker processes as one: each writes its own into a folder, and adds those of the others.

Theory of operation: the workers of one server share a folder. Each keeps a file of its own locked for as long as it
lives, and replaces its numbers beside it as a whole. The numbers of a process that is gone are added, once, to those
of all that went before it, so that no counter ever goes down. Whoever reads holds the folder's guard meanwhile.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import msgspec
from msgspec import Struct

# Windows has no such locks: there each process tells its own numbers only.
HAS_LOCKS = os.name == "posix"
if HAS_LOCKS:
    import fcntl

Labels = tuple[str, ...]
Series = tuple[Labels, list[float]]
Counts = Mapping[str, Sequence[Series]]

_FORGET_AFTER_S = 3_600.0
_LOCK, _NUMBERS, _GUARD, _GONE = ".lock", ".numbers", "guard", "gone"


class Gauge(Struct, frozen=True, array_like=True):
    """A number that is read when it is asked for; labels are pairs of name and value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Numbers(Struct, frozen=True, kw_only=True):
    """What one process has counted, by family, and its gauges; `serial` grows with what is counted later."""

    serial: int = 0
    counts: dict[str, list[Series]] = {}
    gauges: list[Gauge] = []


class _Gone(Struct, frozen=True, kw_only=True):
    """The sum over processes that are gone; `names` are those whose files may still lie there."""

    counts: dict[str, list[Series]] = {}
    names: list[str] = []


def added(all_counts: Iterable[Counts]) -> dict[str, list[Series]]:
    """Add up what several have counted."""
    sums: dict[str, dict[Labels, list[float]]] = {}
    for counts in all_counts:
        for family, series in counts.items():
            known = sums.setdefault(family, {})
            for labels, values in series:
                before = known.get(labels)
                known[labels] = (
                    list(values)
                    if before is None
                    else [one + other for one, other in zip(before, values, strict=True)]
                )
    return {family: list(known.items()) for family, known in sums.items()}


class MetricFiles:
    """The folder of one server's workers, as one of them sees it; `name` is its own in there."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._lock: int | None = None
        self._serial = 0
        # A scrape and the round of every second write from threads of their own.
        self._turn = threading.Lock()
        self._numbers_coder = msgspec.msgpack.Decoder(Numbers)

    def publish(self, numbers: Numbers) -> None:
        """Write this process's numbers.

        Raises:
            OSError: the folder cannot be written to.
        """
        with self._turn:
            # What was counted later may have been written sooner, and told to somebody.
            if self._lock is not None and numbers.serial <= self._serial:
                return
            if self._lock is None:
                self._take()
            data = msgspec.msgpack.encode(numbers)
            try:
                _replace(self._path(self._name, _NUMBERS), data)
            except FileNotFoundError:
                # Somebody took the folder for one that nobody uses any more.
                self._let_go()
                self._take()
                _replace(self._path(self._name, _NUMBERS), data)
            self._serial = numbers.serial

    def others(self) -> list[Numbers]:
        """Read the numbers of the other processes, those that are gone as one.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._guarded(is_writing=False):
            gone = self._read_gone()
            names = [name for name in self._names() if name != self._name and name not in gone.names]
            found = [(self._read(name), self._is_alive(name)) for name in names]
        return [
            Numbers(counts=gone.counts),
            # The gauges of a process that is gone say nothing.
            *(each if is_alive else Numbers(counts=each.counts) for each, is_alive in found),
        ]

    def fold(self) -> None:
        """Add the numbers of processes that are gone to those that went before them.

        Raises:
            OSError: the folder cannot be written to.
        """
        dead = [name for name in self._names() if name != self._name and not self._is_alive(name)]
        if not dead:
            return
        with self._guarded(is_writing=True):
            gone = self._read_gone()
            # Another may have done it meanwhile.
            dead = [name for name in self._names() if name in dead]
            fresh = [self._read(name).counts for name in dead if name not in gone.names]
            sums = _Gone(counts=added([gone.counts, *fresh]), names=dead)
            _replace(self._folder / _GONE, msgspec.msgpack.encode(sums))
            for name in dead:
                self._path(name, _NUMBERS).unlink(missing_ok=True)
                self._path(name, _LOCK).unlink(missing_ok=True)

    def give_back(self) -> None:
        """Be gone: the next who looks adds this process's numbers to those of the others that are."""
        with self._turn:
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self) -> None:
        _forget_old(self._folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self._path(self._name, ".new")
        number = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It gets its name when it is locked: whoever sees it unlocked knows that its process is gone.
        made.rename(self._path(self._name, _LOCK))
        self._lock = number

    @contextmanager
    def _guarded(self, *, is_writing: bool) -> Iterator[None]:
        number = os.open(self._folder / _GUARD, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX if is_writing else fcntl.LOCK_SH)
            yield
        finally:
            os.close(number)

    def _names(self) -> list[str]:
        return [path.stem for path in self._folder.glob(f"*{_LOCK}")]

    def _is_alive(self, name: str) -> bool:
        try:
            number = os.open(self._path(name, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(number)
        return False

    def _read(self, name: str) -> Numbers:
        try:
            return self._numbers_coder.decode(self._path(name, _NUMBERS).read_bytes())
        except FileNotFoundError:
            # It has only just begun.
            return Numbers()

    def _read_gone(self) -> _Gone:
        try:
            return msgspec.msgpack.decode((self._folder / _GONE).read_bytes(), type=_Gone)
        except FileNotFoundError:
            return _Gone()

    def _path(self, name: str, end: str) -> Path:
        return self._folder / f"{name}{end}"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it sees all of it, or what was there before."""
    made = path.with_name(f"{path.name}.{os.getpid()}.part")
    made.write_bytes(data)
    made.replace(path)


def _forget_old(folder: Path) -> None:
    """Remove the folders of servers that ended long ago; that of a running one changes every second."""
    before_s = time.time() - _FORGET_AFTER_S
    for other in folder.parent.glob("*/"):
        try:
            if other != folder and other.is_dir() and other.stat().st_mtime < before_s:
                rmtree(other, ignore_errors=True)
        except FileNotFoundError:
            continue
