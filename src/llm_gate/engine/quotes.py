"""Quotes: a preflight whose amounts are held for a while, so that the calls that name it find them.

What is held is what the operations would hold, added up, on quotas whose windows last a day or longer: minutes and
hours belong to the moment of the call. A call spends from its quote first; what is left when the quote ends is free
again.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import NotFound
from llm_gate.domain.ledger import Call, Hold, Refused, Release, Reservation, Reserve
from llm_gate.domain.preflight import Asked, Preflight
from llm_gate.domain.stores import Quotes
from llm_gate.domain.windows import FOREVER_MS, instant, milliseconds
from llm_gate.engine.admission import Admission
from llm_gate.engine.holds import refusal
from llm_gate.engine.preflight import Standings, preflight
from llm_gate.engine.resolve import Directory

DEFAULT_EXPIRY_S = 300
MAX_EXPIRY_S = 3600

_DAY_MS = 82_800_000  # the shortest day there is has 23 hours


class HeldQuote(Struct, frozen=True, kw_only=True):
    """An open quote and what it still holds."""

    id: str
    made_at: datetime
    expires_at: datetime
    plan: str
    holds: tuple[Hold, ...]


class Quoting:
    """Makes, shows and ends quotes."""

    def __init__(self, *, standings: Standings, admission: Admission, quotes: Quotes) -> None:
        self._standings = standings
        self._admission = admission
        self._quotes = quotes

    async def look(
        self, asked: Sequence[Asked], caller: Caller, directory: Directory, at: datetime
    ) -> Preflight:
        """Look at operations without holding anything.

        Raises:
            InvalidRequest: an operation says too little, or what nobody does.
            NotFound: nobody in the catalog does one of them.
            StoreUnavailable: the ledger cannot be reached.
        """
        return await preflight(
            asked,
            caller=caller,
            standings=self._standings,
            ledger=self._admission.ledger,
            directory=directory,
            at=at,
        )

    async def hold(self, found: Preflight, context: CallContext, *, expires_in_s: int) -> HeldQuote:
        """Hold what was found, until the quote expires.

        Raises:
            QuotaExceeded: another call was faster, and there is no room any more.
            StoreUnavailable: the ledger cannot be reached.
        """
        first = found.lines[0].estimate
        made_ms = self._admission.now_ms()
        expires_ms = made_ms + expires_in_s * 1000
        call = Call(
            id=self._admission.new_id(),
            tenant=context.caller.tenant,
            application=context.caller.application,
            user=context.caller.user,
            key_id=context.caller.key_id,
            request_id=context.request_id,
            operation=first.operation,
            bucket=first.bucket,
            endpoint=context.endpoint,
            made_ms=made_ms,
            owner=self._admission.owner,
            plan=found.standing.plan.name,
            count=sum(line.estimate.count for line in found.lines),
        )
        holds = _added(found)
        step = Reserve(call=call, holds=holds, intent=None, expires_ms=expires_ms)
        result = await self._admission.ledger.submit(step)
        if isinstance(result, Refused):
            raise refusal(
                result,
                found.standing,
                provider=first.model.provider,
                operation=first.operation,
                at_ms=milliseconds(found.at),
                plans=self._admission.plans,
            )
        return _shown(Reservation(call=call, holds=holds, expires_ms=expires_ms))

    async def show(self, id: str, caller: Caller) -> HeldQuote:  # noqa: A002 - it is one
        """Return an open quote of a caller.

        Raises:
            NotFound: there is none of that id, or it is another's.
            StoreUnavailable: the store cannot be reached.
        """
        found = await self._quotes.quote(id)
        if found is None or found.intent is not None or found.expires_ms is None:
            raise _unknown(id)
        of = found.call
        is_own = (of.tenant, of.user) == (caller.tenant, caller.user)
        if not is_own or self._admission.now_ms() >= found.expires_ms:
            raise _unknown(id)
        return _shown(found)

    async def release(self, id: str, caller: Caller) -> HeldQuote:  # noqa: A002 - it is one
        """End an open quote of a caller, and return what it held; calls that spent from it keep what they took.

        Raises:
            NotFound: there is none of that id, or it is another's.
            StoreUnavailable: the store cannot be reached.
        """
        held = await self.show(id, caller)
        await self._admission.ledger.submit(Release(id=id))
        return held


def _added(found: Preflight) -> tuple[Hold, ...]:
    """Add up what the operations hold on each balance, of windows of a day or longer."""
    added: dict[tuple[str, int], Hold] = {}
    for line in found.lines:
        for hold in (room.hold for room in line.rooms):
            if hold.end_ms - hold.start_ms < _DAY_MS or hold.end_ms >= FOREVER_MS:
                continue
            known = added.get(hold.place)
            amount = hold.amount + (0 if known is None else known.amount)
            added[hold.place] = structs.replace(hold, amount=amount)
    return tuple(added.values())


def _shown(found: Reservation) -> HeldQuote:
    return HeldQuote(
        id=found.call.id,
        made_at=instant(found.call.made_ms),
        expires_at=instant(found.expires_ms or 0),
        plan=found.call.plan,
        holds=found.holds,
    )


def _unknown(id_: str) -> NotFound:
    return NotFound(f"there is no open quote {id_!r}", param="quote_id", code="quote_not_found")
