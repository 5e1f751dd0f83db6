"""Answers of providers that live inside the gateway, delivered as a network would deliver them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping

from llm_gate.domain.errors import ProviderUnavailable
from llm_gate.domain.provider import Deployment, LocalReply


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


async def open_local(reply: LocalReply, deployment: Deployment) -> LocalStreamReply:
    """Wait as long as the reply asks for, then hand it out."""
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    return LocalStreamReply(reply, deployment)


def now_s() -> float:
    """Return the time in seconds since 1970."""
    return time.time()
