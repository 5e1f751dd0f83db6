"""Files that callers hand in and that jobs leave behind; each belongs to the tenant that made it."""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

FilePurpose = Literal[
    "fine-tune", "fine-tune-results", "batch", "batch_output", "assistants", "vision", "user_data", "evals"
]
"""What a file is for, in OpenAI's words; the gateway itself works with the first four."""

MOST_FILE_BYTES = 512 * 1024 * 1024
"""The largest file that is taken."""


LINED: frozenset[FilePurpose] = frozenset({"fine-tune", "batch"})
"""What holds one JSON object on each line."""


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file: whose it is, what it is for, and under which id its bytes are kept. Instants in ms since 1970.

    `id` begins with "file-". Without `expires_ms` it is kept until somebody removes it.
    """

    id: str
    tenant: str
    application: str
    user: str
    purpose: FilePurpose
    name: str
    size: int
    blob: str
    made_ms: int
    expires_ms: int | None = None


class Files(Protocol):
    """Where is written down which files there are. Every method may raise StoreUnavailable.

    The tenant is a part of every question: one tenant's files are not there for another.
    """

    async def add(self, file: StoredFile) -> bool:
        """Write a file down, and tell whether there was none of its id."""

    async def find(self, tenant: str, file_id: str, *, at_ms: int) -> StoredFile | None:
        """Return a tenant's file; one that has expired is none."""

    async def listed(
        self,
        tenant: str,
        *,
        at_ms: int,
        purpose: str | None = None,
        limit: int,
        after: str = "",
        newest_first: bool = True,
    ) -> Sequence[StoredFile]:
        """Return a tenant's files in the order of their ids, which grow with time, those behind the file `after`."""

    async def remove(self, tenant: str, file_id: str) -> bool:
        """Strike a file out, and tell whether it was there."""

    async def sweep(self, at_ms: int) -> None:
        """Strike out what has expired."""


class FileShelf(Protocol):
    """Files with their bytes: what fine-tuning and batches need of them."""

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
        """Keep a file; one that is there already under a given id stays as it is, and is returned."""

    async def describe(self, tenant: str, file_id: str) -> StoredFile:
        """Return what is known of a tenant's file.

        Raises:
            NotFound: there is none of that id that is the tenant's.
        """

    async def read(self, tenant: str, file_id: str) -> bytes:
        """Return the bytes of a tenant's file.

        Raises:
            NotFound: there is none of that id that is the tenant's, or its bytes are gone.
        """
