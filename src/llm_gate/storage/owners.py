"""Which processes of this machine are alive: each keeps a file locked, and the system unlocks it when it dies.

So the reservations of a process that was killed are found at once by the next one that works in the same data folder;
elsewhere (another machine, a folder of its own) the lease in the store decides.
"""

import os
import platform
import re
from pathlib import Path

from msgspec import Struct

# Windows has no such locks: there the lease decides alone.
_HAS_LOCKS = os.name == "posix"
if _HAS_LOCKS:
    import fcntl

_NAME = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_END = ".lock"


class Seen(Struct, frozen=True, kw_only=True):
    """What the files tell about other processes, by their ids."""

    alive: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


class OwnerFiles:
    """The files of a folder; `folder` is None where there is none to share."""

    def __init__(self, folder: Path | None, owner: str) -> None:
        self._folder = folder if _HAS_LOCKS else None
        self._owner = owner
        self._own: int | None = None

    def take(self) -> None:
        """Show that this process is alive, until `give_back` or its end.

        Raises:
            OSError: the folder cannot be written to.
        """
        if self._folder is None or self._own is not None or not _NAME.fullmatch(self._owner):
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self._folder / f"{self._owner}.new"
        number = os.open(made, os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A folder may be shared between machines, whose locks need not be seen here.
        os.write(number, _machine())
        # It gets its name when it is locked: whoever sees it unlocked knows that its process is gone.
        made.rename(self._path(self._owner))
        self._own = number

    def look(self) -> Seen:
        """Tell which other processes are alive and which are not; of those without a file here, nothing is known."""
        if self._folder is None or not self._folder.is_dir():
            return Seen()
        alive: set[str] = set()
        dead: set[str] = set()
        for path in self._folder.glob(f"*{_END}"):
            if path.stem != self._owner:
                is_alive = _is_locked(path)
                if is_alive is not None:
                    (alive if is_alive else dead).add(path.stem)
        return Seen(alive=frozenset(alive), dead=frozenset(dead))

    def forget(self, owners: frozenset[str]) -> None:
        """Remove the files of processes that are gone and have nothing left."""
        if self._folder is not None:
            for owner in owners:
                self._path(owner).unlink(missing_ok=True)

    def give_back(self) -> None:
        """Show that this process is done."""
        if self._own is not None:
            self.forget(frozenset({self._owner}))
            os.close(self._own)
            self._own = None

    def _path(self, owner: str) -> Path:
        assert self._folder is not None  # noqa: S101 - there are files only in a folder
        return self._folder / f"{owner}{_END}"


def _machine() -> bytes:
    return platform.node().encode()


def _is_locked(path: Path) -> bool | None:
    """Tell whether a process holds a file locked; None when it cannot be known from here."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.read(number, 256) != _machine():
            return None
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
