"""Says beforehand whether a list of operations may be done, and what it will cost; nothing is sent or held.

The operations are looked at in order. Each must find room beside those before it on every quota that counts it, by
the amounts a call would hold (`Holds`); all balances are read at one moment. One that may not be done takes no room
from those after it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import structs

from llm_gate.domain.access import Caller
from llm_gate.domain.errors import CallerError, InvalidRequest, NotFound
from llm_gate.domain.ledger import Hold, Shortage
from llm_gate.domain.plans import Plan, Standing
from llm_gate.domain.preflight import Asked, Estimate, Line, Preflight, Room
from llm_gate.domain.stores import BalanceNow, Ledger
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.drafts import estimate
from llm_gate.engine.holds import Holds, check_included, check_model, refusal
from llm_gate.engine.resolve import Directory

_NOTHING = BalanceNow()


class Standings(Protocol):
    """Knows what binds a caller now, and the plans that could be had."""

    plans: tuple[Plan, ...]

    async def standing(self, caller: Caller) -> Standing:
        """Return what binds a caller now."""


async def preflight(
    asked: Sequence[Asked],
    *,
    caller: Caller,
    standings: Standings,
    ledger: Ledger,
    directory: Directory,
    at: datetime,
) -> Preflight:
    """Look at operations for a caller.

    Raises:
        InvalidRequest: an operation says too little, or what nobody does.
        NotFound: nobody in the catalog does one of them.
        StoreUnavailable: the ledger cannot be reached.
    """
    standing = await standings.standing(caller)
    estimates = [_estimate(index, each, directory, standing.plan, at) for index, each in enumerate(asked)]
    at_ms = milliseconds(at)
    places = {
        (quota.account, quota.window(at_ms, standing.zone).start_ms): quota for quota in standing.quotas
    }
    balances: Mapping[tuple[str, int], BalanceNow] = {}
    if places:
        balances = await ledger.balances([(quota, start_ms) for (_, start_ms), quota in places.items()])
    look = _Look(standing, standings.plans, balances, at_ms)
    return Preflight(
        standing=standing, at=at, lines=tuple(look.at(each) for each in estimates), balances=balances
    )


def named(index: int, asked: Asked, directory: Directory) -> Asked:
    """Return an operation with its provider under the name that the catalog has for it, whatever the case of letters.

    Raises:
        InvalidRequest: there is no such provider.
    """
    if asked.provider is None:
        return asked
    provider = directory.canonical(asked.provider) or directory.canonical(asked.provider.lower())
    if provider is None:
        raise InvalidRequest(
            f"provider {asked.provider!r} is not known here",
            param=f"operations[{index}].provider.name",
            code="provider_not_found",
        )
    return structs.replace(asked, provider=provider)


def _estimate(index: int, asked: Asked, directory: Directory, plan: Plan, at: datetime) -> Estimate:
    try:
        return estimate(asked, directory, plan, at.date())
    except InvalidRequest as error:
        place = f"operations[{index}]"
        param = f"{place}.{error.param}" if error.param else place
        raise InvalidRequest(f"{place}: {error.message}", param=param, code=error.code) from None
    except NotFound as error:
        place = f"operations[{index}]"
        raise NotFound(f"{place}: {error.message}", param=f"{place}.model", code=error.code) from None


class _Look:
    """Goes through operations, and keeps what those that may be done have taken of each balance."""

    def __init__(
        self,
        standing: Standing,
        plans: tuple[Plan, ...],
        balances: Mapping[tuple[str, int], BalanceNow],
        at_ms: int,
    ) -> None:
        self._standing = standing
        self._plans = plans
        self._balances = balances
        self._at_ms = at_ms
        self._holds = Holds(standing)
        self._planned: dict[tuple[str, int], int] = {}

    def at(self, found: Estimate) -> Line:
        """Look at the next operation."""
        try:
            rooms = self._rooms(found)
        except CallerError as error:
            return Line(estimate=found, refusal=error)
        short = [room for room in rooms if not room.is_enough]
        if short:
            # As in the ledger, of several quotas the one that resets last counts.
            binding = max(short, key=lambda room: room.hold.end_ms)
            return Line(estimate=found, rooms=rooms, binding=binding, refusal=self._refusal(found, binding))
        for room in rooms:
            # Jobs end and make room again, so that those of a list need not run side by side.
            if room.hold.meter != "jobs":
                place = room.hold.place
                self._planned[place] = self._planned.get(place, 0) + room.hold.amount
        return Line(estimate=found, rooms=rooms, binding=min(rooms, key=_share_left, default=None))

    def _rooms(self, found: Estimate) -> tuple[Room, ...]:
        standing, model = self._standing, found.model
        check_included(
            standing,
            bucket=found.bucket,
            provider=model.provider,
            operation=found.operation,
            at_ms=self._at_ms,
            plans=self._plans,
        )
        asked = (found.asked.model,) if found.asked.model else ()
        check_model(standing, (f"{model.provider}/{model.name}", model.name, *asked))
        holds = self._holds.of(
            bucket=found.bucket,
            provider=model.provider,
            count=found.count,
            tokens=found.tokens(strict=standing.is_strict),
            cost_nanos=found.cost_nanos(strict=standing.is_strict),
            at_ms=self._at_ms,
        )
        return tuple(self._room(hold) for hold in holds)

    def _room(self, hold: Hold) -> Room:
        now = self._balances.get(hold.place, _NOTHING)
        return Room(hold=hold, used=now.used, held=now.held, planned=self._planned.get(hold.place, 0))

    def _refusal(self, found: Estimate, binding: Room) -> CallerError:
        return refusal(
            Shortage(hold=binding.hold, used=binding.used, held=binding.held),
            self._standing,
            provider=found.model.provider,
            operation=found.operation,
            at_ms=self._at_ms,
            plans=self._plans,
            planned=binding.planned,
        )


def _share_left(room: Room) -> tuple[int, int]:
    """Return how much of a quota would be left, in millionths, and in case of a tie its window's length."""
    left = room.remaining - room.hold.amount
    return left * 1_000_000 // max(room.hold.cap, 1), room.hold.start_ms - room.hold.end_ms
