"""Takes files in, checks them, and hands them out: what is known of them in the store, their bytes among the blobs.

A file is its tenant's: for everybody else it is not there, in the same words as one that never was.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
from msgspec import Raw

from llm_gate.domain.blobs import FOR_GOOD_MS
from llm_gate.domain.errors import GateError, InvalidRequest, NotFound, TooLarge
from llm_gate.domain.files import LINED, MOST_FILE_BYTES, FilePurpose, Files, StoredFile
from llm_gate.domain.media import Medium
from llm_gate.engine.keeping import Keeping

_PREFIX = "file-"
_SECOND_MS = 1000
_LINES, _BYTES = "application/jsonl", "application/octet-stream"
_line_decoder = msgspec.json.Decoder(dict[str, Raw])


class FileDesk:
    """The port `FileShelf`, and what callers may do with their files beside. `new_id` gives ids that grow with time."""

    def __init__(
        self, files: Files, keeping: Keeping, *, new_id: Callable[[], str], now_ms: Callable[[], int]
    ) -> None:
        self._files = files
        self._keeping = keeping
        self._new_id = new_id
        self._now_ms = now_ms
        keeping.on_sweep.append(files.sweep)

    async def put(
        self,
        tenant: str,
        application: str,
        user: str,
        *,
        purpose: FilePurpose,
        name: str,
        data: bytes,
        expires_after_s: int | None = None,
        file_id: str | None = None,
    ) -> StoredFile:
        """Keep a file: until somebody removes it where no end is given, under an id of its own where none is.

        One that is there already under a given id stays as it is, and is returned.

        Raises:
            InvalidRequest: it is not what its purpose asks for.
            TooLarge: it is larger than any file may be.
            StoreUnavailable: it cannot be kept.
        """
        if len(data) > MOST_FILE_BYTES:
            raise TooLarge(f"file: larger than {MOST_FILE_BYTES} bytes")
        if purpose in LINED:
            await asyncio.to_thread(check_lines, data)
        now_ms = self._now_ms()
        if file_id is not None:
            known = await self._files.find(tenant, file_id, at_ms=now_ms)
            if known is not None:
                return known
        expires_ms = None if expires_after_s is None else now_ms + expires_after_s * _SECOND_MS
        medium = Medium(data=data, type=_LINES if purpose in LINED else _BYTES)
        blob = await self._keeping.keep(tenant, medium, until_ms=expires_ms or FOR_GOOD_MS)
        file = StoredFile(
            id=file_id or f"{_PREFIX}{self._new_id()}",
            tenant=tenant,
            application=application,
            user=user,
            purpose=purpose,
            name=name,
            size=len(data),
            blob=blob.id,
            made_ms=now_ms,
            expires_ms=expires_ms,
        )
        is_new = False
        try:
            is_new = await self._files.add(file)
        finally:
            if not is_new:
                with suppress(GateError, OSError):
                    await self._keeping.blobs.remove(tenant, blob.id)
        return file if is_new else await self.describe(tenant, file.id)

    async def describe(self, tenant: str, file_id: str) -> StoredFile:
        """Return what is known of a tenant's file.

        Raises:
            NotFound: there is none of that id that is the tenant's.
        """
        file = await self._files.find(tenant, file_id, at_ms=self._now_ms())
        if file is None:
            raise _no_file(file_id)
        return file

    async def read(self, tenant: str, file_id: str) -> bytes:
        """Return the bytes of a tenant's file.

        Raises:
            NotFound: there is none of that id that is the tenant's, or its bytes are gone.
        """
        file = await self.describe(tenant, file_id)
        found = await self._keeping.read(file.blob)
        if found is None or found[0].tenant != tenant:
            raise _no_file(file_id)
        return found[1]

    async def listed(
        self,
        tenant: str,
        *,
        purpose: str | None = None,
        limit: int,
        after: str = "",
        newest_first: bool = True,
    ) -> Sequence[StoredFile]:
        """Return a tenant's files behind another one."""
        return await self._files.listed(
            tenant,
            at_ms=self._now_ms(),
            purpose=purpose,
            limit=limit,
            after=after,
            newest_first=newest_first,
        )

    async def remove(self, tenant: str, file_id: str) -> None:
        """Remove a tenant's file and its bytes.

        Raises:
            NotFound: there is none of that id that is the tenant's.
        """
        file = await self.describe(tenant, file_id)
        # The row first: bytes that nobody names are a smaller loss than a name without bytes.
        if not await self._files.remove(tenant, file_id):
            raise _no_file(file_id)
        await self._keeping.blobs.remove(tenant, file.blob)


def check_lines(data: bytes) -> None:
    """Check that a file holds one JSON object on each of its lines; the last line may end with the file.

    Raises:
        InvalidRequest: it holds something else, with the number of the first line that does.
    """
    lines = data.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InvalidRequest("file: it is empty", param="file", code="invalid_jsonl")
    for number, line in enumerate(lines, start=1):
        try:
            # What is kept raw is not looked into by the parser.
            line.decode()
            _line_decoder.decode(line)
        except msgspec.ValidationError:
            reason = "is no JSON object"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = "is empty" if not line.strip() else f"is not valid JSON: {error}"
        else:
            continue
        raise InvalidRequest(f"file: line {number} {reason}", param="file", code="invalid_jsonl")


def _no_file(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id!r}", param="id", code="file_not_found")
