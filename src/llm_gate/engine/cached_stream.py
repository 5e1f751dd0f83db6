"""Streams and the cache: a kept answer sent as a stream, and a stream that is kept when it is complete."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from llm_gate.domain.cache import CacheWord
from llm_gate.domain.conditions import Tried
from llm_gate.domain.events import ChatEvent
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage
from llm_gate.engine.kept_answers import KeptChat, replayed

NO_COST = Cost(lines=())
"""What a kept answer costs."""


class AnswerStream(Protocol):
    """A chat answer that has begun, from a vendor or out of the cache. Iterate `batches` once, and `close` in any case.

    `usage` and `finish_reason` are filled while the stream runs. `cache` says what became of the call at the cache,
    None while there is none; `age_s` is how old a kept answer is.
    """

    target: Target
    dropped: tuple[str, ...]
    shown_headers: Mapping[str, str]
    attempts: int
    tried: tuple[Tried, ...]
    usage: Usage | None
    finish_reason: FinishReason | None
    model: str | None
    is_complete: bool
    cache: CacheWord | None
    age_s: int | None

    @property
    def cost(self) -> Cost | None:
        """The cost of what has been counted so far."""

    def price(self, usage: Usage | None, /) -> Cost | None:
        """Return the cost of a usage."""

    def batches(self) -> AsyncIterator[Sequence[ChatEvent]]:
        """Yield events as they arrive, those of one read together; Ended is the last of a complete answer."""

    async def close(self) -> None:
        """Give everything back."""


class ReplayedStream:
    """A kept answer, sent as a stream."""

    def __init__(self, kept: KeptChat, target: Target, *, cache: CacheWord, age_s: int) -> None:
        self.target = target
        self.cache: CacheWord | None = cache
        self.age_s: int | None = age_s
        self.dropped: tuple[str, ...] = ()
        self.shown_headers: Mapping[str, str] = {}
        self.attempts = 0
        self.tried: tuple[Tried, ...] = ()
        self.usage = kept.usage
        self.model = kept.model
        self.finish_reason: FinishReason | None = kept.choices[0].finish_reason
        self.is_complete = False
        self._kept = kept
        self._resources = AsyncExitStack()

    @property
    def cost(self) -> Cost | None:
        """It costs nothing."""
        return NO_COST

    def price(self, usage: Usage | None, /) -> Cost | None:  # noqa: ARG002 - whatever was used once
        """Return what it costs: nothing."""
        return NO_COST

    def on_close(self, resources: AsyncExitStack) -> None:
        """Take over what must be given back with the stream."""
        self._resources.push_async_exit(resources)

    async def batches(self) -> AsyncIterator[Sequence[ChatEvent]]:
        """Yield the answer's events; all of it is there, so none are waited for."""
        for batch in replayed(self._kept):
            yield batch
        self.is_complete = True

    async def close(self) -> None:
        """Give everything back."""
        await self._resources.aclose()
