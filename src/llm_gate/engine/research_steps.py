"""One step of a research: a call of the gate, what it came to by the ledger, and how that is told."""

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Any

from msgspec import structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import GateError
from llm_gate.domain.ledger import Ended, Result, total
from llm_gate.domain.provider import Target
from llm_gate.domain.research import ResearchStep, StepReport
from llm_gate.domain.usage import Usage
from llm_gate.engine.answer import Answer
from llm_gate.engine.cached_stream import AnswerStream


class StepTally:
    """What the calls of one step came to, as the ledger wrote it down."""

    def __init__(self) -> None:
        self._ended: list[Awaitable[Result]] = []

    def add(self, ended: Awaitable[Result]) -> None:
        """Take the end of a call."""
        self._ended.append(ended)

    async def cost_nanos(self) -> int | None:
        """Return what all of them cost, attempts that failed included; None where one is unknown, or not written."""
        results = await asyncio.gather(*self._ended, return_exceptions=True)
        records = [result.record if isinstance(result, Ended) else None for result in results]
        return total(None if record is None else record.cost_nanos for record in records)


class Step:
    """A step that begins now. `context` is the frame of its call."""

    def __init__(self, context: CallContext, name: ResearchStep, query: str | None = None) -> None:
        self._tally = StepTally()
        self.context = structs.replace(context, tally=self._tally)
        self._name = name
        self._query = query
        self._started_s = monotonic()

    async def answered(self, answer: Answer[Any], operation: Operation) -> StepReport:
        """Return what came of a call that was answered whole."""
        return await self._report(operation, answer.target, answer.usage)

    async def streamed(self, stream: AnswerStream) -> StepReport:
        """Return what came of a stream that is closed."""
        return await self._report("chat", stream.target, stream.usage)

    async def failed(self, error: GateError, operation: Operation) -> StepReport:
        """Return what came of a call that nobody answered."""
        return structs.replace(await self._report(operation, None, None), error=error.code)

    async def _report(self, operation: Operation, target: Target | None, usage: Usage | None) -> StepReport:
        duration_ms = round((monotonic() - self._started_s) * 1000)
        return StepReport(
            step=self._name,
            operation=operation,
            provider=None if target is None else target.provider,
            model=None if target is None else target.model.name,
            usage=usage,
            cost_nanos=await self._tally.cost_nanos(),
            duration_ms=duration_ms,
            query=self._query,
            synthetic=target is not None and target.deployment.spec.synthetic,
        )
