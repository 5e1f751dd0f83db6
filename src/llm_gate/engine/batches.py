"""Takes batches in, shows them, calls them off; `batch_work` carries them to their end."""

from collections.abc import Callable, Mapping

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.batches import (
    MOST_BATCH_BYTES,
    TERMINAL,
    WINDOW_MS,
    Batch,
    BatchEndpoint,
    Batches,
    BatchWay,
)
from llm_gate.domain.errors import AlreadyOver, InvalidRequest, NotFound
from llm_gate.domain.files import FileShelf
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.batch_held import LEASE_MS
from llm_gate.engine.batch_work import BatchWork

_PREFIX = "batch_"


class BatchDesk:
    """What callers may do with batches. `work` works on those that this process takes in."""

    def __init__(
        self,
        batches: Batches,
        shelf: FileShelf,
        work: BatchWork,
        *,
        owner: str,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self.work = work
        self._batches = batches
        self._shelf = shelf
        self._owner = owner
        self._new_id = new_id
        self._now_ms = now_ms

    async def create(
        self,
        context: CallContext,
        *,
        endpoint: BatchEndpoint,
        input_file: str,
        metadata: Mapping[str, str] | None = None,
        wish: BatchWay | None = None,
        output_expires_s: int | None = None,
    ) -> Batch:
        """Take a batch in; whether its lines are good is found out afterwards.

        Raises:
            NotFound: there is no such file that is the tenant's.
            InvalidRequest: the file is for something else, or too large.
            StoreUnavailable: it cannot be written down.
        """
        caller = context.caller
        try:
            file = await self._shelf.describe(caller.tenant, input_file)
        except NotFound as error:
            raise NotFound(
                f"input_file_id: {error.message}", param="input_file_id", code=error.code
            ) from None
        if file.purpose != "batch":
            raise InvalidRequest(
                f"input_file_id: the file is for {file.purpose!r}, not for 'batch'", param="input_file_id"
            )
        if file.size > MOST_BATCH_BYTES:
            raise InvalidRequest(
                f"input_file_id: the file is larger than {MOST_BATCH_BYTES} bytes", param="input_file_id"
            )
        made_ms = milliseconds(context.received_at)
        batch = Batch(
            id=f"{_PREFIX}{self._new_id()}",
            tenant=caller.tenant,
            application=caller.application,
            user=caller.user,
            key_id=caller.key_id,
            request_id=context.request_id,
            endpoint=endpoint,
            input_file=file.id,
            metadata=metadata,
            wish=wish,
            output_expires_s=output_expires_s,
            made_ms=made_ms,
            expires_ms=made_ms + WINDOW_MS,
        )
        await self._batches.add(batch, owner=self._owner, until_ms=self._now_ms() + LEASE_MS)
        self.work.take_up(batch)
        return batch

    async def find(self, tenant: str, batch_id: str) -> Batch:
        """Return a tenant's batch.

        Raises:
            NotFound: there is none of that id that is the tenant's.
        """
        batch = await self._batches.find(batch_id)
        if batch is None or batch.tenant != tenant:
            raise NotFound(f"there is no batch {batch_id!r}", param="id", code="batch_not_found")
        return batch

    async def listed(self, tenant: str, *, limit: int, after: str = "") -> tuple[Batch, ...]:
        """Return a tenant's batches, the newest first, those older than the batch `after`."""
        return await self._batches.listed(tenant, None, limit=limit, before=after)

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Call a batch off: calls that are under way come to their end, no other begins.

        Raises:
            NotFound: there is none of that id that is the tenant's.
            AlreadyOver: it has ended already.
        """
        batch = await self.find(tenant, batch_id)
        if batch.status in TERMINAL or batch.is_over or not await self._batches.cancel(batch_id):
            raise AlreadyOver(
                f"batch {batch_id!r} has ended already: it is {batch.status}", code="batch_over"
            )
        self.work.unwanted(batch_id)
        return structs.replace(batch, is_cancelled=True, cancelling_ms=batch.cancelling_ms or self._now_ms())
