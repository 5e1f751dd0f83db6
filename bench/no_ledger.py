"""A ledger that grants everything and remembers nothing: what the pipeline costs without one."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping

from llm_gate.domain.ledger import Ended, Granted, Release, Result, Settle, Step
from llm_gate.domain.plans import Quota
from llm_gate.domain.stores import BalanceNow


class NoLedger:
    """The port `Ledger`, for measuring only."""

    def submit(self, step: Step) -> Awaitable[Result]:
        """Grant it, or call it over."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.set_result(Ended(was_open=True) if isinstance(step, Settle | Release) else Granted())
        return future

    async def balances(self, quotas: Iterable[tuple[Quota, int]]) -> Mapping[tuple[str, int], BalanceNow]:
        """Nothing was ever used."""
        return {(quota.account, start_ms): BalanceNow() for quota, start_ms in quotas}

    async def start(self) -> None:
        """There is nothing to begin."""

    async def close(self) -> None:
        """There is nothing to write."""
