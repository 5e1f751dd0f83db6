"""Requests under way that others wait for, so that the same question asked at once is put to a vendor once.

Theory of operation: who first asks for a key leads; the others wait, each under its own deadline, and leave without
disturbing anyone. The leader's answer is theirs, and so is a vendor's failure. What concerns the leader alone (its
quota, its leaving) is not: the next in line leads then. An answer that may not be kept is nobody else's either, and
each of those who waited asks for itself.
"""

import asyncio

from msgspec import Struct

from llm_gate.domain.cache import CacheEntry
from llm_gate.domain.errors import AllAttemptsFailed, GateError, ProviderError, ProviderTimeout

MAX_FLIGHTS = 100_000
"""How many keys are followed at once; beyond, calls go their own ways."""


class Landing(Struct, frozen=True, kw_only=True):
    """What came of a flight: an entry, a vendor's failure, or neither.

    `is_fresh` tells that the entry was made just now; `similarity` is there where it answers a like question.
    `is_over` tells those who waited to ask for themselves; else the next one leads.
    """

    entry: CacheEntry | None = None
    similarity: float | None = None
    is_fresh: bool = False
    error: GateError | None = None
    is_over: bool = False


AGAIN = Landing()


class Flight:
    """One key under way."""

    __slots__ = ("_landed", "_waiting")

    def __init__(self) -> None:
        self._waiting: asyncio.Future[Landing] | None = None
        self._landed: Landing | None = None

    def land(self, landing: Landing) -> None:
        """Tell everybody who waits, once."""
        if self._landed is None:
            self._landed = landing
            if self._waiting is not None:
                self._waiting.set_result(landing)

    async def wait(self, within_s: float, provider: str) -> Landing:
        """Wait for the end.

        Raises:
            ProviderTimeout: it did not come in time.
        """
        if self._landed is not None:
            return self._landed
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait({self._waiting}, timeout=max(0.0, within_s))
        if not done:
            raise ProviderTimeout(
                "the same request, which was under way already, was not answered in time", provider=provider
            )
        return self._waiting.result()


class Flights:
    """The keys under way in this process."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._flights)

    def of(self, key: bytes) -> Flight | None:
        """Return the flight of a key."""
        return self._flights.get(key)

    def begin(self, key: bytes) -> Flight | None:
        """Lead a key from now on; None where there is no room to follow it."""
        if len(self._flights) >= MAX_FLIGHTS:
            return None
        flight = self._flights[key] = Flight()
        return flight

    def end(self, key: bytes, flight: Flight, landing: Landing) -> None:
        """End a flight; whoever comes now begins another."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.land(landing)


def shared_failure(error: BaseException) -> GateError | None:
    """Return a vendor's failure as those who wait get it; None for what concerns the leader alone."""
    if not isinstance(error, ProviderError | AllAttemptsFailed):
        return None
    return twin(error)


def twin(error: GateError) -> GateError:
    """Return the same error without where it arose: one that is raised in many tasks would keep them all alive."""
    copied = error.__class__.__new__(error.__class__)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    if isinstance(copied, ProviderError):
        copied.preceding = ()
    return copied
