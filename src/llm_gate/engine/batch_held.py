"""A batch as the process holds it that works on it: how it stands, and how it is written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import structs

from llm_gate.domain.access import CallContext, Caller, VirtualKey
from llm_gate.domain.batches import Batch, Batches, BatchFault
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.windows import instant

LEASE_MS = 30_000
"""How long a batch is nobody else's without a word from the one who works on it."""

_MOST_ROTATIONS = 10
_SAVE_AGAIN_S = 1.0

KeyOf = Callable[[str, str], Awaitable[VirtualKey | None]]
"""Finds a key by its tenant and id."""


class TakenOver(Exception):
    """Another process works on the batch now."""


class Stopped(Exception):
    """The batch may not go on; `fault` says why."""

    def __init__(self, fault: BatchFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Held:
    """One batch in the hands of this process."""

    def __init__(
        self, batch: Batch, batches: Batches, *, owner: str, key_of: KeyOf, now_ms: Callable[[], int]
    ) -> None:
        self.batch = batch
        self.is_closing = False
        self._batches = batches
        self._owner = owner
        self._key_of = key_of
        self.now_ms = now_ms

    @property
    def has_expired(self) -> bool:
        """Whether the time within which it is to be done is over."""
        return self.now_ms() >= self.batch.expires_ms

    async def save(self, **changed: Any) -> Batch:
        """Write the batch with its changes.

        Raises:
            TakenOver: another process works on it now.
            StoreUnavailable: the store cannot be reached; nothing has changed.
        """
        batch = structs.replace(self.batch, version=self.batch.version + 1, **changed)
        is_mine = await self._batches.save(batch, owner=self._owner, until_ms=self.now_ms() + LEASE_MS)
        if not is_mine:
            raise TakenOver
        self.batch = batch
        return batch

    async def save_surely(self, **changed: Any) -> Batch:
        """Write what must not be lost, however long the store is away; raises `TakenOver` as `save` does."""
        while True:
            try:
                return await self.save(**changed)
            except StoreUnavailable:
                await asyncio.sleep(_SAVE_AGAIN_S)

    async def caller(self) -> Caller:
        """Return on whose behalf the batch's calls are made, with the key as it is now.

        A key that was rotated meanwhile is followed to the one that came of it.

        Raises:
            Stopped: the key was revoked, or has ended.
        """
        batch = self.batch
        key: VirtualKey | None = None
        if batch.key_id is not None:
            key = await self._key_of(batch.tenant, batch.key_id)
            for _ in range(_MOST_ROTATIONS):
                if key is None or key.replaced_by is None or key.revoked_at_ms is not None:
                    break
                key = await self._key_of(batch.tenant, key.replaced_by)
            if key is None or not key.is_valid(self.now_ms()):
                raise Stopped(BatchFault(code="key_revoked", message="The key of this batch works no more."))
        return Caller(tenant=batch.tenant, application=batch.application, user=batch.user, key=key)

    def context(self, caller: Caller, request_id: str) -> CallContext:
        """Return the frame of one of its calls."""
        return CallContext(
            request_id=request_id,
            caller=caller,
            received_at=instant(self.now_ms()),
            headers={},
            endpoint=self.batch.endpoint,
        )
