"""Media in a folder: one file each, below a folder for each tenant; written whole or not at all."""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from llm_gate.domain.blobs import Blob
from llm_gate.domain.media import Medium

MOST_SWEPT = 10_000
"""How many files one sweep removes at most."""

ID = re.compile(r"([0-9a-f]{16})-([0-9a-f]{32})")
"""An id: the folder of a tenant, and the name in it."""

MAX_HEAD_BYTES = 65_536
"""The longest first line that is read; a media type may be as long as a server's header lets it be."""

_FOLDER = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"\.?[0-9a-f]{32}")
_HEX, _RANDOM_BYTES = 16, 16
_OLD_S = 3_600.0


class Head(Struct, frozen=True, kw_only=True):
    """The first line of a file, as JSON; the medium follows."""

    tenant: str
    type: str
    size: int
    made_ms: int
    expires_ms: int


_head_decoder = msgspec.json.Decoder(Head)


class FolderBlobs:
    """The port `Blobs` over a folder. An id holds the folder of its tenant, so that one look finds the file."""

    def __init__(self, folder: Path, *, retention_s: float) -> None:
        self._folder = folder
        self._retention_ms = round(retention_s * 1000)

    async def keep(self, tenant: str, medium: Medium, *, at_ms: int, until_ms: int | None = None) -> Blob:
        """Keep a medium from now on: until an instant where one is given, else for the usual while."""
        until_ms = at_ms + self._retention_ms if until_ms is None else until_ms
        return await asyncio.to_thread(self._keep, tenant, medium, at_ms, until_ms)

    def _keep(self, tenant: str, medium: Medium, at_ms: int, until_ms: int) -> Blob:
        head = new_head(tenant, medium, at_ms, until_ms)
        place, name = new_place(tenant)
        folder = self._folder / place
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{name}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        is_whole = False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(head_line(head))
                file.write(medium.data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(folder / name)
            is_whole = True
            _flush(folder)
        finally:
            if not is_whole:
                with suppress(OSError):
                    draft.unlink()
        return blob_of(f"{place}-{name}", head)

    async def read(self, id: str, *, at_ms: int) -> tuple[Blob, bytes] | None:  # noqa: A002 - the word for it
        """Return a medium; None where there is none, or no more."""
        path = self._path(id)
        return None if path is None else await asyncio.to_thread(_read, path, id, at_ms)

    def _path(self, blob_id: str) -> Path | None:
        parts = ID.fullmatch(blob_id)
        return None if parts is None else self._folder / parts[1] / parts[2]

    async def remove(self, tenant: str, id: str) -> bool:  # noqa: A002 - the word for it
        """Remove a tenant's medium, and tell whether it was there."""
        path = self._path(id)
        return path is not None and await asyncio.to_thread(_remove, path, tenant)

    async def sweep(self, at_ms: int) -> int:
        """Remove what is past its end, and tell how many there were."""
        return await asyncio.to_thread(self._sweep, at_ms)

    def _sweep(self, at_ms: int) -> int:
        removed = 0
        for path in self._files():
            if removed == MOST_SWEPT:
                break
            with suppress(OSError):
                if path.name.startswith("."):
                    is_over = path.stat().st_mtime < at_ms / 1000 - _OLD_S
                else:
                    with path.open("rb") as file:
                        head = read_head(file.readline(MAX_HEAD_BYTES))
                    is_over = head is None or head.expires_ms <= at_ms
                if is_over:
                    path.unlink()
                    removed += 1
        return removed

    def _files(self) -> Iterator[Path]:
        # Only what bears a name of ours: the operator may have pointed to a folder that holds other things.
        with suppress(FileNotFoundError):
            for folder in self._folder.iterdir():
                if _FOLDER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                    yield from (path for path in folder.iterdir() if _FILE.fullmatch(path.name))

    async def close(self) -> None:
        """Close nothing: no file stays open."""


def _read(path: Path, blob_id: str, at_ms: int) -> tuple[Blob, bytes] | None:
    try:
        with path.open("rb") as file:
            head = read_head(file.readline(MAX_HEAD_BYTES))
            if head is None or head.expires_ms <= at_ms:
                return None
            data = file.read()
    except FileNotFoundError:
        return None
    return (blob_of(blob_id, head), data) if len(data) == head.size else None


def _flush(folder: Path) -> None:
    """Have a name in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path, tenant: str) -> bool:
    try:
        with path.open("rb") as file:
            head = read_head(file.readline(MAX_HEAD_BYTES))
        if head is None or head.tenant != tenant:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def new_place(tenant: str) -> tuple[str, str]:
    """Return the folder of a tenant, and a name in it that nobody can guess."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:_HEX], secrets.token_hex(_RANDOM_BYTES)


def new_head(tenant: str, medium: Medium, at_ms: int, until_ms: int) -> Head:
    """Return what is written before a medium that is kept from one instant to another."""
    return Head(
        tenant=tenant,
        type=medium.type,
        size=len(medium.data),
        made_ms=at_ms,
        expires_ms=until_ms,
    )


def head_line(head: Head) -> bytes:
    """Write it."""
    return msgspec.json.encode(head) + b"\n"


def read_head(line: bytes) -> Head | None:
    """Read it; None where it is none."""
    try:
        return _head_decoder.decode(line)
    except msgspec.DecodeError:
        return None


def blob_of(blob_id: str, head: Head) -> Blob:
    """Return what a head says of a medium."""
    return Blob(
        id=blob_id,
        tenant=head.tenant,
        type=head.type,
        size=head.size,
        made_ms=head.made_ms,
        expires_ms=head.expires_ms,
    )
