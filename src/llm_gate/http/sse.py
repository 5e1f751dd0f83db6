"""Sends a streamed chat answer: first event at once, signs of life in silences, errors in band, never a false end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Protocol

from llm_gate.domain.cache import CacheWord
from llm_gate.domain.conditions import Tried
from llm_gate.domain.events import ChatEvent
from llm_gate.domain.provider import Target
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.http.exchange import Exchange

HEARTBEAT = b": keep-alive\n\n"
_MAX_SHOWN_TRIES = 8


class EventEncoder(Protocol):
    """Writes the events of one answer in a surface's form."""

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events; may be empty."""


class Heartbeat:
    """Sends a sign of life whenever nothing has gone to the caller for a while.

    It is held back while a piece is being sent, since then it is the caller who is slow.
    """

    def __init__(self, exchange: Exchange, every_s: float, beat: bytes) -> None:
        self._exchange = exchange
        self._beat = beat
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._sent = self._loop.time()
        self._is_sending = False
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(every_s, self._look)

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer."""
        self._is_sending = True
        try:
            await self._exchange.send_piece(data)
        finally:
            self._is_sending = False
        self._sent = self._loop.time()

    def _look(self) -> None:
        wait_s = self._sent + self._every_s - self._loop.time()
        if wait_s <= 0:
            wait_s = self._every_s
            if not self._is_sending and (self._task is None or self._task.done()):
                self._task = self._loop.create_task(self._exchange.send_piece(self._beat))
        self._timer = self._loop.call_later(wait_s, self._look)

    def stop(self) -> None:
        """Send no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def send_stream(
    exchange: Exchange,
    opening: Awaitable[AnswerStream],
    make_encoder: Callable[[AnswerStream], EventEncoder],
    *,
    heartbeat_s: float,
    beat: bytes = HEARTBEAT,
) -> None:
    """Open a streamed answer and send it to its end.

    Until the first event an error keeps its own status; when the provider takes longer than a heartbeat, the
    answer begins without it, and an error comes in band. `beat` is the surface's own sign of life.

    Raises:
        GateError: the answer could not begin, or broke off; the caller of this function reports it.
    """
    started_s = perf_counter()
    heartbeat: Heartbeat | None = None
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait({task}, timeout=heartbeat_s)
        if not task.done():
            await exchange.begin_stream({})
            await exchange.send_piece(beat)
            heartbeat = Heartbeat(exchange, heartbeat_s, beat)
            await asyncio.wait({task})
        stream = task.result()
        if heartbeat is None:
            await exchange.begin_stream(
                answer_headers(
                    stream.target,
                    attempts=stream.attempts,
                    tried=stream.tried,
                    dropped=stream.dropped,
                    shown=stream.shown_headers,
                    cache=stream.cache,
                    age_s=stream.age_s,
                )
            )
            heartbeat = Heartbeat(exchange, heartbeat_s, beat)
        exchange.log["first_event_ms"] = round((perf_counter() - started_s) * 1000, 2)
        encoder = make_encoder(stream)
        async for events in stream.batches():
            if data := encoder.encode(events):
                await heartbeat.send(data)
        await exchange.end_stream()
    finally:
        if heartbeat is not None:
            heartbeat.stop()
        await _settle(exchange, task, started_s)


async def _settle(exchange: Exchange, task: asyncio.Future[AnswerStream], started_s: float) -> None:
    """Close the stream, if one was opened, and note what it came to."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if task.cancelled() or task.exception() is not None:
        return
    stream = task.result()
    await stream.close()
    upstream_s = perf_counter() - started_s
    exchange.note_result(
        stream.target,
        stream.usage,
        stream.cost,
        attempts=stream.attempts,
        upstream_s=upstream_s,
        cache=stream.cache,
    )
    exchange.log["stream"] = "complete" if stream.is_complete else "cut"


def answer_headers(
    target: Target,
    *,
    attempts: int,
    tried: Sequence[Tried],
    dropped: Sequence[str],
    shown: Mapping[str, str],
    cache: CacheWord | None = None,
    age_s: int | None = None,
) -> Mapping[str, str]:
    """Return the headers that say who answered and how; `shown` are the provider's own, under our names.

    `tried` is what failed before, `cache` what became of the call at the cache, `age_s` how old a kept answer is.
    """
    headers = {
        **shown,
        "x-llm-gate-provider": target.provider,
        "x-llm-gate-model": target.model.name,
        "x-llm-gate-attempts": str(attempts),
    }
    if tried:
        headers["x-llm-gate-tried"] = _tried_text(tried)
    if dropped:
        headers["x-llm-gate-dropped"] = ", ".join(dropped)
    if target.deployment.spec.synthetic:
        headers["x-llm-gate-synthetic"] = "true"
    if cache is not None:
        headers["x-llm-gate-cache"] = cache
    if age_s is not None:
        # A kept answer costs nothing, which a stream may say in its head.
        headers["age"] = str(age_s)
        headers["x-llm-gate-cost-usd"] = "0"
    return headers


def _tried_text(tried: Sequence[Tried]) -> str:
    """Write what failed before the answer, each target with each of its errors once."""
    names = dict.fromkeys(f"{each.provider}/{each.model} ({each.code})" for each in tried)
    shown = list(names)[:_MAX_SHOWN_TRIES]
    return ", ".join(shown if len(shown) == len(names) else [*shown, f"and {len(names) - len(shown)} more"])
