"""Media in a bucket that speaks S3, through the library obstore; each object begins with the head line of a file.

Address and credentials of the store are those that the environment names for it (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, ...).
"""

import re

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from llm_gate.domain.blobs import Blob
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.media import Medium
from llm_gate.storage.blobs import (
    ID,
    MAX_HEAD_BYTES,
    MOST_SWEPT,
    Head,
    blob_of,
    head_line,
    new_head,
    new_place,
    read_head,
)

_PATH = re.compile(r"[0-9a-f]{16}/[0-9a-f]{32}")


class S3Blobs:
    """The port `Blobs` over a bucket: `s3://bucket/prefix`."""

    def __init__(self, url: str, *, retention_s: float) -> None:
        self._store = S3Store.from_url(url)
        self._retention_ms = round(retention_s * 1000)

    async def keep(self, tenant: str, medium: Medium, *, at_ms: int, until_ms: int | None = None) -> Blob:
        """Keep a medium from now on: until an instant where one is given, else for the usual while.

        Raises:
            StoreUnavailable: the bucket cannot be written to.
        """
        head = new_head(tenant, medium, at_ms, at_ms + self._retention_ms if until_ms is None else until_ms)
        place, name = new_place(tenant)
        try:
            await obstore.put_async(self._store, f"{place}/{name}", head_line(head) + medium.data)
        except BaseError as error:
            raise StoreUnavailable("the store of media cannot be written to") from error
        return blob_of(f"{place}-{name}", head)

    async def read(self, id: str, *, at_ms: int) -> tuple[Blob, bytes] | None:  # noqa: A002 - the word for it
        """Return a medium; None where there is none, or no more.

        Raises:
            StoreUnavailable: the bucket cannot be read.
        """
        path = _path(id)
        if path is None:
            return None
        try:
            found = await obstore.get_async(self._store, path)
            data = bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise StoreUnavailable("the store of media cannot be read") from error
        line, _, rest = data.partition(b"\n")
        head = read_head(line)
        if head is None or head.expires_ms <= at_ms or head.size != len(rest):
            return None
        return blob_of(id, head), rest

    async def remove(self, tenant: str, id: str) -> bool:  # noqa: A002 - the word for it
        """Remove a tenant's medium, and tell whether it was there.

        Raises:
            StoreUnavailable: the bucket cannot be read or changed.
        """
        path = _path(id)
        head = None if path is None else await self._head(path)
        if path is None or head is None or head.tenant != tenant:
            return False
        await self._delete(path)
        return True

    async def sweep(self, at_ms: int) -> int:
        """Remove what is past its end, and tell how many there were.

        Raises:
            StoreUnavailable: the bucket cannot be read or changed.
        """
        removed = 0
        try:
            async for found in obstore.list(self._store):
                for each in found:
                    # The bucket may hold what is not ours. What is kept is never changed, so that its age tells
                    # whether it is worth a look.
                    is_young = each["last_modified"].timestamp() * 1000 + self._retention_ms > at_ms
                    if is_young or not _PATH.fullmatch(each["path"]):
                        continue
                    # The operator may have shortened the retention since.
                    head = await self._head(each["path"])
                    if head is not None and head.expires_ms > at_ms:
                        continue
                    await self._delete(each["path"])
                    removed += 1
                    if removed == MOST_SWEPT:
                        return removed
        except BaseError as error:
            raise StoreUnavailable("the store of media cannot be swept") from error
        return removed

    async def _delete(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except BaseError as error:
            raise StoreUnavailable("the store of media cannot be changed") from error

    async def _head(self, path: str) -> Head | None:
        try:
            start = bytes(await obstore.get_range_async(self._store, path, start=0, end=MAX_HEAD_BYTES))
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise StoreUnavailable("the store of media cannot be read") from error
        return read_head(start.partition(b"\n")[0])

    async def close(self) -> None:
        """Close nothing: the library keeps its own connections."""


def _path(blob_id: str) -> str | None:
    parts = ID.fullmatch(blob_id)
    return None if parts is None else f"{parts[1]}/{parts[2]}"
