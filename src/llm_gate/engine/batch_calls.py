"""Works through the lines of a batch here: each is an ordinary call, and what came of it is stored before it counts.

Theory of operation: a few calls are under way at a time. Where a limit of the plan or a vendor asks for patience, the
whole batch rests, and the line is tried again; nothing was spent on it. What a vendor failed to answer is tried a few
times, and is an error then. What is stored is never done again, so that another process goes on behind it; a line that
was under way when its process died is done once more.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from llm_gate.domain.access import Caller
from llm_gate.domain.batches import Batch, BatchCounts, Batches, BatchFault, BatchStatus, LineResult
from llm_gate.domain.errors import (
    AllAttemptsFailed,
    ContentFiltered,
    GateError,
    GateFault,
    NotAllowed,
    Overloaded,
    ProviderError,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    QuotaExceeded,
    ShuttingDown,
    StoreUnavailable,
    Unsettled,
)
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.answer import Answer
from llm_gate.engine.batch_held import Held, Stopped, TakenOver
from llm_gate.engine.batch_lines import AskedLine, Line, Wording, add_tokens, spot_of
from llm_gate.engine.batch_pace import LINES_AT_ONCE, Pace, SharedPace
from llm_gate.engine.gate import Gate

MOST_TRIES = 4
"""How often a line is tried that a vendor fails to answer."""

_LOOK_S = 1.0
_LONGEST_REST_S = 5.0
_STORE_AGAIN_S = 1.0
_ENDS_BATCH = frozenset({"account_inactive", "plan_missing"})
_logger = logging.getLogger("llm_gate.batches")


class LineCalls:
    """Makes the calls of batches in one process."""

    def __init__(self, gate: Gate, batches: Batches, wording: Wording) -> None:
        self.gate = gate
        self._batches = batches
        self._wording = wording
        self._shared = SharedPace()

    async def work(self, held: Held, lines: Sequence[Line]) -> BatchStatus | None:
        """Make the calls that are not made yet; returns how it ended, None where it did not: the process does.

        Raises:
            TakenOver: another process works on the batch now.
            Stopped: the batch may not go on.
            StoreUnavailable: the store cannot be reached.
        """
        done = await self._batches.done(held.batch.id)
        run = _Run(self, held, lines, done)
        return await run.work()

    async def call(self, held: Held, caller: Caller, line: Line, asked: AskedLine) -> Answer[Any]:
        """Make the call of a line."""
        spot = spot_of(held.batch, line)
        context = held.context(caller, spot.request_id)
        request = asked.request
        if isinstance(request, ChatRequest):
            return await self.gate.chat(request, context)
        return await self.gate.embed(request, context)

    @property
    def wording(self) -> Wording:
        """How lines are read and written."""
        return self._wording

    @property
    def shared(self) -> SharedPace:
        """The pace of all batches together."""
        return self._shared

    async def store(self, batch: Batch, results: Sequence[LineResult]) -> None:
        """Store what came of lines, however long the store is away: it is paid for."""
        while True:
            try:
                await self._batches.append(batch.id, results)
            except StoreUnavailable as error:
                _logger.warning("lines wait for the store", extra={"batch": batch.id, "error": error.message})
                await asyncio.sleep(_STORE_AGAIN_S)
            else:
                return


class _Run:
    """One process's work on one batch."""

    def __init__(self, calls: LineCalls, held: Held, lines: Sequence[Line], done: Any) -> None:
        self._calls = calls
        self._held = held
        self._total = len(lines)
        self._pending: Iterator[Line] = iter([line for line in lines if line.number not in done])
        self._completed = sum(not is_error for is_error in done.values())
        self._failed = len(done) - self._completed
        self._pace = Pace(calls.shared)
        self._caller: Caller | None = None
        self._ended: BatchStatus | None = None
        self._stopped: Stopped | None = None
        self._broken: BaseException | None = None
        self._waiting: list[tuple[LineResult, asyncio.Future[None]]] = []
        self._storing: asyncio.Task[None] | None = None

    def _has_stopped(self) -> bool:
        return (
            self._held.is_closing
            or self._ended is not None
            or self._stopped is not None
            or self._broken is not None
        )

    async def work(self) -> BatchStatus | None:
        """Make the calls; see `LineCalls.work`."""
        await self._look()
        if not self._has_stopped():
            watching = asyncio.get_running_loop().create_task(self._watch())
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(LINES_AT_ONCE, self._total)):
                        group.create_task(self._take_lines())
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        if self._broken is not None:
            raise self._broken
        if self._stopped is not None:
            raise self._stopped
        await self._held.save(counts=self._counts)
        if self._ended is None and self._held.is_closing and self._completed + self._failed < self._total:
            return None
        return self._ended or "completed"

    @property
    def _counts(self) -> BatchCounts:
        return BatchCounts(total=self._total, completed=self._completed, failed=self._failed)

    async def _watch(self) -> None:
        """See to it, every second, that the work may go on, and tell how far it is."""
        while not self._has_stopped():
            await asyncio.sleep(_LOOK_S)
            try:
                await self._look()
                if self._counts != self._held.batch.counts:
                    await self._held.save(counts=self._counts)
            except StoreUnavailable:
                # What is under way waits for the store by itself.
                continue
            except (TakenOver, GateError) as error:
                self._broken = error

    async def _look(self) -> None:
        held = self._held
        if held.batch.is_cancelled:
            self._ended = "cancelled"
        elif held.has_expired:
            self._ended = "expired"
        else:
            try:
                self._caller = await held.caller()
            except Stopped as stopped:
                self._stopped = stopped

    async def _take_lines(self) -> None:
        for line in self._pending:
            result = await self._carry_out(line)
            if result is None:
                return
            await self._keep(result)
            if result.is_error:
                self._failed += 1
            else:
                self._completed += 1

    async def _carry_out(self, line: Line) -> LineResult | None:
        """Try a line until it comes to something; None where the work has stopped before."""
        tries = 0
        while await self._pace.enter(self._has_stopped):
            try:
                if self._has_stopped():
                    return None
                tries += 1
                result = await self._once(line, tries)
            finally:
                self._pace.leave()
            if isinstance(result, LineResult):
                return result
            if not result:
                # Nothing was spent: it is as if it had not been tried.
                tries -= 1
        return None

    async def _once(self, line: Line, tries: int) -> LineResult | bool | None:
        """Make the call of a line; where it is to be tried again, tell whether this was a try."""
        calls, held = self._calls, self._held
        spot = spot_of(held.batch, line)
        try:
            asked = calls.wording.ask(held.batch.endpoint, line.body)
            assert self._caller is not None  # noqa: S101 - `_look` found it before any line was taken
            answer = await calls.call(held, self._caller, line, asked)
        except NotAllowed as error:
            if error.code in _ENDS_BATCH:
                self._stopped = Stopped(BatchFault(code=error.code, message=error.message))
                return None
            return self._error(line, error)
        except GateError as error:
            again = self._is_tried_again(error, tries)
            return self._error(line, error) if again is None else again
        self._pace.went_well()
        text = calls.wording.answered(spot, asked, answer, at_s=int(datetime.now(UTC).timestamp()))
        return LineResult(
            number=line.number,
            is_error=False,
            text=text,
            tokens=add_tokens(None, answer.usage),
            cost_nanos=None if answer.cost is None else answer.cost.nanos,
        )

    def _error(self, line: Line, error: GateError) -> LineResult:
        text = self._calls.wording.refused(spot_of(self._held.batch, line), error)
        return LineResult(number=line.number, is_error=True, text=text, cost_nanos=0)

    def _is_tried_again(self, error: GateError, tries: int) -> bool | None:
        """Say whether a line that came to an error was a try of several; None where that is its end."""
        if isinstance(error, QuotaExceeded):
            if not error.facts.heals:
                return None
            # Plans change: it is looked again before the limit resets by itself.
            self._pace.rest(min(error.retry_after_s or _LONGEST_REST_S, _LONGEST_REST_S))
            return False
        if isinstance(error, Unsettled):
            # It was answered and is paid for, and its answer is gone: asking again would be paid twice.
            return None
        if isinstance(error, StoreUnavailable | Overloaded | ShuttingDown):
            self._pace.rest(None)
            return False
        errors = error.errors if isinstance(error, AllAttemptsFailed) else (error,)
        if all(isinstance(each, ProviderRateLimited) for each in errors):
            waits = [
                each.retry_after_s
                for each in errors
                if isinstance(each, ProviderError) and each.retry_after_s
            ]
            self._pace.rest(min(waits, default=None))
            return False
        if isinstance(error, GateFault) or not any(_may_pass(each) for each in errors) or tries >= MOST_TRIES:
            return None
        self._pace.rest(None)
        return True

    async def _keep(self, result: LineResult) -> None:
        """Store what came of a line; those that come meanwhile are stored together."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, future))
        if self._storing is None or self._storing.done():
            self._storing = asyncio.get_running_loop().create_task(self._store())
        await future

    async def _store(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            await self._calls.store(self._held.batch, [result for result, _ in taken])
            for _, future in taken:
                if not future.done():
                    future.set_result(None)


def _may_pass(error: GateError) -> bool:
    """Tell whether another try may help where a vendor failed."""
    return (
        isinstance(error, ProviderError)
        and error.moves_on
        and not isinstance(error, ProviderQuotaExhausted | ContentFiltered)
    )
