"""Answers of providers that live inside the gateway, delivered as a network would deliver them.

Theory of operation: most of them are made at once. Code that is not ours may block, so that it runs in a thread of its
own; whoever no longer waits for it leaves the thread behind, which ends by itself and keeps no process from ending.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from llm_gate.domain.errors import ProviderUnavailable
from llm_gate.domain.provider import Deployment, LocalReply

MOST_THREADS = 64
"""How many threads may run code that is not ours at the same time, those that were left behind included."""


class LocalStreamReply:
    """A reply made inside the process."""

    def __init__(self, reply: LocalReply, deployment: Deployment) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._reply = reply
        self._provider = deployment.provider

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces, one turn of the event loop apart."""
        for piece in self._reply.chunks:
            yield piece
            await asyncio.sleep(0)
        if self._reply.broken:
            raise ProviderUnavailable(
                f"the connection to provider {self._provider!r} broke in the middle of the answer",
                provider=self._provider,
            )

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.chunks()])


class Threads:
    """Runs what may block, each call in a thread, so many at a time; those beyond wait. For one event loop."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._room = asyncio.Semaphore(most)

    async def run(self, work: Callable[[], LocalReply]) -> LocalReply | None:
        """Return what a call returns; None where its thread ended without a word."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[LocalReply | None] = loop.create_future()

        def deliver(reply: LocalReply | None) -> None:
            self._room.release()
            if not ended.done():
                ended.set_result(reply)

        def run() -> None:
            reply: LocalReply | None = None
            try:
                reply = work()
            finally:
                # The loop may have closed meanwhile: then nobody waits.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(deliver, reply)

        try:
            threading.Thread(target=run, name="llm-gate-own", daemon=True).start()
        except RuntimeError:
            # The system has no thread left.
            deliver(None)
        return await ended


class BlockingReply(LocalReply, frozen=True, kw_only=True):
    """The answer of code that may block: `work` makes it, in one of the `threads`. The rest says nothing yet."""

    work: Callable[[], LocalReply]
    threads: Threads


async def open_local(reply: LocalReply, deployment: Deployment) -> LocalStreamReply:
    """Wait as long as the reply asks for, or takes, then hand it out.

    Raises:
        ProviderUnavailable: code that is not ours ended without an answer.
    """
    if isinstance(reply, BlockingReply):
        made = await reply.threads.run(reply.work)
        if made is None:
            provider = deployment.provider
            raise ProviderUnavailable(f"provider {provider!r} ended without an answer", provider=provider)
        reply = made
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    return LocalStreamReply(reply, deployment)


def now_s() -> float:
    """Return the time in seconds since 1970."""
    return time.time()
