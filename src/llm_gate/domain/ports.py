"""What the engine needs from the outside world, as Protocols."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from llm_gate.domain.provider import Deployment, HttpReply, HttpRequest


class StreamReply(Protocol):
    """An answer whose head has arrived and whose body is still to be read."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives; reading slowly pauses the sender.

        Raises:
            ProviderError: the connection broke.
        """

    async def read(self) -> bytes:
        """Return the whole remaining body, bounded in size."""


class Transport(Protocol):
    """The only code that sends anything to a provider."""

    async def send(self, request: HttpRequest, deployment: Deployment) -> HttpReply:
        """Send a request and read the complete answer.

        Raises:
            ProviderUnavailable: no connection, or it broke.
            ProviderTimeout: the connection took too long.
            BadProviderResponse: the answer is larger than allowed or not HTTP.
        """

    def stream(
        self, request: HttpRequest, deployment: Deployment
    ) -> AbstractAsyncContextManager[StreamReply]:
        """Send a request and hand out the answer as it arrives; leaving the context closes it."""

    async def close(self) -> None:
        """Close every connection."""


class PictureFacts(Struct, frozen=True, kw_only=True):
    """What the bytes of a picture say of it: sizes in pixels, an animation's length in seconds (0: it stands still)."""

    type: str
    width: int
    height: int
    duration_s: float = 0.0


class Measures(Protocol):
    """Looks into media. Nothing of them is believed but their bytes."""

    async def picture(self, data: bytes) -> PictureFacts | None:
        """Return what a picture is; None where it is none, is cut off, or would unfold beyond all measure."""

    async def sound(self, data: bytes) -> float | None:
        """Return how long a recording lasts, in seconds; None where the bytes do not tell."""


class SchemaCheck(Protocol):
    """Checks values against JSON Schemas."""

    def __call__(self, schema: bytes, value: object) -> list[str]:
        """Return what is wrong with a value; empty when it fits.

        Raises:
            InvalidRequest: the schema itself cannot be used.
        """
