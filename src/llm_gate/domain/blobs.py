"""What is kept of media that were made, the signed links to it, and the fetcher of what stands at addresses."""

import base64
import hashlib
import hmac
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.errors import GateError
from llm_gate.domain.media import Medium

FOR_GOOD_MS = 253_370_764_800_000
"""The end of what is kept until somebody removes it: the year 9999, in ms since 1970."""

FetchReason = Literal["refused", "unreachable", "status", "too_large", "timeout", "type"]
"""Why nothing was fetched: the address is not allowed, nobody is there, or what came is not what was wanted."""


class FetchFailed(GateError):
    """Something at an address could not be fetched. The message names scheme and host alone."""

    code = "fetch_failed"

    def __init__(self, message: str, *, reason: FetchReason) -> None:
        super().__init__(message)
        self.reason = reason


class Fetcher(Protocol):
    """Gets what stands at addresses that callers and vendors name, and at no others than those anybody may reach."""

    async def fetch(self, url: str, *, most_bytes: int, trusted: str = "", within_s: float = 60.0) -> Medium:
        """Fetch a medium. `trusted` is an origin (scheme://host:port) that may be reached though it is private.

        Raises:
            FetchFailed: it cannot be had; `reason` says why.
        """

    def allows(self, url: str) -> bool:
        """Tell whether an address may be asked, as far as its text tells."""

    async def close(self) -> None:
        """Close every connection."""


class Blob(Struct, frozen=True, kw_only=True):
    """A medium that is kept: whose it is, its media type, its size in bytes, and its end (ms since 1970)."""

    id: str
    tenant: str
    type: str
    size: int
    made_ms: int
    expires_ms: int


class Blobs(Protocol):
    """Where media are kept for a while, each tenant's apart."""

    async def keep(self, tenant: str, medium: Medium, *, at_ms: int, until_ms: int | None = None) -> Blob:
        """Keep a medium from now on: until an instant where one is given, else for the usual while."""

    async def read(self, id: str, *, at_ms: int) -> tuple[Blob, bytes] | None:  # noqa: A002 - the word for it
        """Return a medium; None where there is none, or no more."""

    async def remove(self, tenant: str, id: str) -> bool:  # noqa: A002 - the word for it
        """Remove a tenant's medium, and tell whether it was there."""

    async def sweep(self, at_ms: int) -> int:
        """Remove what is past its end, and tell how many there were."""

    async def close(self) -> None:
        """Close every connection."""


class Links:
    """Signs links, so that whoever has one can fetch what it names, for as long as it says, without a key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, blob_id: str, expires_ms: int) -> str:
        """Return the signature of a link, as text for an address."""
        said = hmac.digest(self._key, f"{blob_id}\n{expires_ms}".encode(errors="replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(said).rstrip(b"=").decode()

    def is_valid(self, blob_id: str, expires_ms: int, signature: str, now_ms: int) -> bool:
        """Tell whether a link was signed here and has not ended."""
        expected = self.sign(blob_id, expires_ms).encode()
        # What is no text becomes a question mark, which no signature holds.
        return now_ms < expires_ms and hmac.compare_digest(expected, signature.encode(errors="replace"))
