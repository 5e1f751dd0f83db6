"""Keeps media that were made for a while, and makes the signed links by which they are fetched."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from msgspec import Struct

from llm_gate.domain.blobs import Blob, Blobs, Links
from llm_gate.domain.errors import GateError, NotFound
from llm_gate.domain.media import Medium

_MS = 1000
_SWEEP_S = 600.0
_logger = logging.getLogger("llm_gate.blobs")


class Kept(Struct, frozen=True, kw_only=True):
    """The path of a link to a medium that is kept; it works until `expires_at`."""

    path: str
    expires_at: datetime


class Keeping:
    """Where media are kept. `root` is the path that links begin with, `link_s` how long they work, in seconds.

    `on_sweep` are called, with the time, whenever what is past its end is removed.
    """

    def __init__(
        self, blobs: Blobs, links: Links, *, root: str, link_s: float, now_ms: Callable[[], int]
    ) -> None:
        self.blobs = blobs
        self._links = links
        self._root = root
        self._link_s = link_s
        self._now_ms = now_ms
        self._sweeping: asyncio.Task[None] | None = None
        self.on_sweep: list[Callable[[int], Awaitable[None]]] = []

    def start(self) -> None:
        """Begin to remove, now and again, what is past its end."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            try:
                await self.blobs.sweep(self._now_ms())
                for hear in self.on_sweep:
                    await hear(self._now_ms())
            except (OSError, GateError) as error:
                _logger.warning("kept media could not be swept", extra={"error": str(error)})
            await asyncio.sleep(_SWEEP_S)

    async def close(self) -> None:
        """Stop sweeping, and close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self.blobs.close()

    async def keep(self, tenant: str, medium: Medium, *, until_ms: int | None = None) -> Blob:
        """Keep a medium for a tenant: until an instant where one is given, else for the usual while."""
        return await self.blobs.keep(tenant, medium, at_ms=self._now_ms(), until_ms=until_ms)

    def link(self, blob: Blob) -> Kept:
        """Return a new link to what is kept."""
        return self.link_to(blob.id, self._now_ms())

    def link_to(self, blob_id: str, from_ms: int) -> Kept:
        """Return the link to what is kept under an id that works for a while from an instant on."""
        expires_ms = from_ms + round(self._link_s * _MS)
        signature = self._links.sign(blob_id, expires_ms)
        path = f"{self._root}/{blob_id}?expires={expires_ms}&signature={signature}"
        return Kept(path=path, expires_at=datetime.fromtimestamp(expires_ms / _MS, UTC))

    async def read(self, blob_id: str) -> tuple[Blob, bytes] | None:
        """Return what is kept under an id; None where it is gone."""
        return await self.blobs.read(blob_id, at_ms=self._now_ms())

    async def fetch(self, blob_id: str, expires: str, signature: str) -> tuple[Blob, bytes]:
        """Return what a link names.

        Raises:
            NotFound: the link was not made here, has ended, or what it names is gone.
        """
        is_number = expires.isascii() and expires.isdigit()
        now_ms = self._now_ms()
        if is_number and self._links.is_valid(blob_id, int(expires), signature, now_ms):
            found = await self.blobs.read(blob_id, at_ms=now_ms)
            if found is not None:
                return found
        raise NotFound("there is nothing at this link, or no more", code="blob_not_found")
