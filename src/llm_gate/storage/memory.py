"""A ledger and directives that live in this process alone: for embedding, and as the measure of the durable ones."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.book import Balance, Book
from llm_gate.domain.ledger import Record, Reservation, Result, Step
from llm_gate.domain.plans import Plan, Quota, Subscription
from llm_gate.domain.stores import ApplicationEntry, BalanceNow, TenantEntry


class MemoryLedger:
    """The rules of the ledger over plain dictionaries. What it knows ends with the process.

    `records` are those of calls that ended, the newest last.
    """

    def __init__(self) -> None:
        self._book = Book({})

    @property
    def is_away(self) -> bool:
        """It is here as long as the process is."""
        return False

    @property
    def records(self) -> list[Record]:
        """The records so far."""
        return self._book.records

    def submit(self, step: Step) -> Awaitable[Result]:
        """Apply a step at once."""
        for place, hold in self._book.places([step]).items():
            self._book.balances.setdefault(place, Balance(end_ms=hold.end_ms))
        result = self._book.apply(step)
        self._book.changed.clear()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.set_result(result)
        return future

    async def balances(self, quotas: Iterable[tuple[Quota, int]]) -> Mapping[tuple[str, int], BalanceNow]:
        """Read balances."""
        found: dict[tuple[str, int], BalanceNow] = {}
        for quota, start_ms in quotas:
            balance = self._book.balances.get((quota.account, start_ms), Balance())
            found[quota.account, start_ms] = BalanceNow(used=balance.used, held=balance.held)
        return found

    async def quote(self, id: str) -> Reservation | None:  # noqa: A002 - it is one
        """Return an open quote."""
        found = self._book.reservations.get(id)
        return None if found is None or found.expires_ms is None else found

    async def start(self) -> None:
        """There is nothing to begin."""

    async def close(self) -> None:
        """There is nothing to write."""


class NoDirectives:
    """An operator who has decided nothing: no keys, no plans, no subscriptions."""

    async def revision(self) -> int:
        """Nothing ever changes."""
        return 0

    async def has_keys(self) -> bool:
        """There are none."""
        return False

    async def key_of(self, digest: bytes) -> VirtualKey | None:  # noqa: ARG002
        """There are none."""
        return None

    async def plan(self, name: str) -> Plan | None:  # noqa: ARG002
        """There are none."""
        return None

    async def plans(self) -> tuple[Plan, ...]:
        """There are none."""
        return ()

    async def subscription(self, tenant: str, user: str) -> Subscription | None:  # noqa: ARG002
        """There are none."""
        return None

    async def tenant(self, tenant: str) -> TenantEntry | None:  # noqa: ARG002
        """There are none."""
        return None

    async def application(self, tenant: str, application: str) -> ApplicationEntry | None:  # noqa: ARG002
        """There are none."""
        return None
