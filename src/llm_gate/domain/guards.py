"""Guards: what an operator has every prompt and every answer looked at by, whatever they came in as."""

from collections.abc import Awaitable
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation


class Guarded(Struct, frozen=True, kw_only=True):
    """What a guard is shown: the texts that go in or came out, and whose call it is.

    `model` is the name that was asked for; `provider` is who answered, None before anybody did.
    """

    side: Literal["input", "output"]
    operation: Operation
    texts: tuple[str, ...]
    model: str
    tenant: str
    application: str
    user: str
    request_id: str
    provider: str | None = None


class Guard(Protocol):
    """Looks at one side of a call; plain or asynchronous.

    It lets pass by returning, and refuses by raising `GuardRefused` with the reason that the caller is told.
    """

    def __call__(self, guarded: Guarded, /) -> Awaitable[None] | None:
        """Look, and return or raise."""
