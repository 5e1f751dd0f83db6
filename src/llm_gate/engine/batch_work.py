"""Works on the batches of one process: those it took in, and those whose owner's lease has run out.

Each has a task of its own, which carries it from step to step (`batch_steps`), however often something is in the way.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from msgspec import structs

from llm_gate.domain.batches import Batch, Batches
from llm_gate.domain.errors import GateError, StoreUnavailable
from llm_gate.domain.files import FileShelf
from llm_gate.engine.batch_held import LEASE_MS, Held, KeyOf, Stopped, TakenOver
from llm_gate.engine.batch_lines import Wording
from llm_gate.engine.batch_steps import BatchSteps
from llm_gate.engine.gate import Gate

_TICK_S, _CLAIM_EVERY_S, _RENEW_EVERY_S, _WISHES_EVERY_S = 0.2, 2.0, 8.0, 1.0
_CLAIMED = 100
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_GIVEN_UP_AFTER = 8
_DRAIN_S = 8.0
_logger = logging.getLogger("llm_gate.batches")


class BatchWork:
    """Works on the batches of one process."""

    def __init__(
        self,
        gate: Gate,
        batches: Batches,
        shelf: FileShelf,
        wording: Wording,
        *,
        key_of: KeyOf,
        now_ms: Callable[[], int],
    ) -> None:
        self._batches = batches
        self._steps = BatchSteps(gate, batches, shelf, wording)
        self._key_of = key_of
        self._now_ms = now_ms
        self._owner = gate.admission.owner
        self._mine: dict[str, tuple[Held, asyncio.Task[None]]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._at_s = {"claim": 0.0, "renew": 0.0, "wishes": 0.0}

    def start(self) -> None:
        """Begin to work."""
        self._loop = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Begin nothing more, let what is under way come to its end for a while, and leave the rest to others."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        tasks = []
        for held, task in self._mine.values():
            held.is_closing = True
            tasks.append(task)
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=_DRAIN_S)
        for held, task in self._mine.values():
            # What is being handed in must not be left in the middle: nobody would know whether it is there.
            if held.batch.phase != "submitting":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(StoreUnavailable):
            await self._batches.leave(self._owner)

    def take_up(self, batch: Batch) -> None:
        """Work on a batch from now on."""
        held = Held(batch, self._batches, owner=self._owner, key_of=self._key_of, now_ms=self._now_ms)
        before = self._mine.get(batch.id)
        task = asyncio.get_running_loop().create_task(
            self._carry_on(held, None if before is None else before[1])
        )
        self._mine[batch.id] = (held, task)

        def let_go(_: asyncio.Task[None]) -> None:
            if self._mine.get(batch.id) == (held, task):
                del self._mine[batch.id]

        task.add_done_callback(let_go)

    def unwanted(self, batch_id: str) -> None:
        """Note at once that a batch is not wanted any more, where this process works on it."""
        mine = self._mine.get(batch_id)
        if mine is not None:
            mine[0].batch = structs.replace(mine[0].batch, is_cancelled=True)

    async def _work(self) -> None:
        while True:
            try:
                await self._do_chores()
            except StoreUnavailable as error:
                _logger.warning("batches cannot be looked for", extra={"error": error.message})
                await asyncio.sleep(_CLAIM_EVERY_S)
            await asyncio.sleep(_TICK_S)

    async def _do_chores(self) -> None:
        now_ms = self._now_ms()
        if self._is_due("claim", _CLAIM_EVERY_S):
            for batch in await self._batches.claim(
                self._owner, now_ms=now_ms, until_ms=now_ms + LEASE_MS, limit=_CLAIMED
            ):
                self.take_up(batch)
        if self._is_due("renew", _RENEW_EVERY_S):
            await self._batches.renew(self._owner, until_ms=now_ms + LEASE_MS)
        if self._mine and self._is_due("wishes", _WISHES_EVERY_S):
            for batch_id in await self._batches.wishes(self._owner):
                self.unwanted(batch_id)

    def _is_due(self, chore: str, every_s: float) -> bool:
        now_s = monotonic()
        if now_s - self._at_s[chore] < every_s:
            return False
        self._at_s[chore] = now_s
        return True

    async def _carry_on(self, held: Held, before: asyncio.Task[None] | None) -> None:
        """Carry a batch to its end; what this process did for it before another one had it is over first."""
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        await self._carry(held)

    async def _carry(self, held: Held) -> None:
        """Carry a batch to its end, however often something stands in the way."""
        failures = 0
        while not held.batch.is_over and not held.is_closing:
            try:
                await self._steps.advance(held)
                failures = 0
                continue
            except TakenOver:
                return
            except Stopped as stopped:
                await self._steps.stop(held, stopped.fault)
            except StoreUnavailable as error:
                _logger.warning("a batch waits", extra={"batch": held.batch.id, "error": error.message})
            except Exception as error:
                failures += 1
                if not isinstance(error, GateError):
                    _logger.exception("a batch's step broke down", extra=_named(held))
                else:
                    _logger.warning("a batch's step failed", extra={**_named(held), "error": error.message})
                if failures >= _GIVEN_UP_AFTER and await self._steps.give_up(held, error):
                    continue
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** min(failures, 10), _LONGEST_PAUSE_S))


def _named(held: Held) -> dict[str, str]:
    return {"batch": held.batch.id, "phase": held.batch.phase}
