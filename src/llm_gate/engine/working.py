"""One state of the configuration at work: what calls need of it, counted so that it closes after the last of them."""

import asyncio

from msgspec import Struct

from llm_gate.domain.ports import Transport
from llm_gate.engine.resolve import Directory


class Deadlines(Struct, frozen=True, kw_only=True):
    """How long things may take, in seconds.

    `headers_s` bounds a stream's head, and then its first event; `idle_s` runs between its content events,
    `total_s` over a unary call and `stream_total_s` over a stream.
    """

    headers_s: float = 300.0
    idle_s: float = 300.0
    total_s: float = 600.0
    stream_total_s: float = 14_400.0


class Working:
    """A directory, the transport its targets are called through, and the deadlines.

    Theory of operation: the gate points at one of these. A call takes it (`enter`) at its start and gives it back
    (`leave`) at its end, so that it sees one state throughout. A reload points the gate at a new one and retires
    the old, which closes its connections when the last call has left.
    """

    def __init__(self, *, directory: Directory, transport: Transport, deadlines: Deadlines) -> None:
        self.directory = directory
        self.transport = transport
        self.deadlines = deadlines
        self._calls = 0
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None

    def enter(self) -> "Working":
        """Count a call in."""
        self._calls += 1
        return self

    def leave(self) -> None:
        """Count a call out; the last one out of a retired state closes it."""
        self._calls -= 1
        if self._is_retired and self._calls == 0:
            self._close()

    def retire(self) -> None:
        """Take no more calls; close now, or after the last that is under way."""
        self._is_retired = True
        if self._calls == 0:
            self._close()

    def _close(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self.transport.close())

    async def close(self) -> None:
        """Close at once, at the end of the process."""
        await self.transport.close()
