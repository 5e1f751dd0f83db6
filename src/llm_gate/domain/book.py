"""The rules of the ledger, applied to what a store has loaded: pure, so that every store does exactly the same.

Theory of operation: a store takes a batch of steps, locks and loads the reservations and balances they touch, applies
the steps one after the other here, and writes back what changed, in one transaction. Nothing here outlives it.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from llm_gate.domain.ledger import (
    Advance,
    Call,
    Ended,
    Expire,
    Granted,
    Hold,
    Intent,
    Missing,
    Outcome,
    Record,
    Refused,
    Release,
    Reservation,
    Reserve,
    Result,
    Settle,
    Shortage,
    Step,
)

Place = tuple[str, int]
"""An account and the start of a window, in milliseconds since 1970."""


class Balance:
    """What is used and held on one account in one window.

    `seeded` of it was used before the quota came to be. `used_before` is what was used before the batch, 0 where
    nothing but that was.
    """

    __slots__ = ("end_ms", "held", "is_changed", "seeded", "used", "used_before")

    def __init__(self, *, used: int = 0, held: int = 0, seeded: int = 0, end_ms: int = 0) -> None:
        self.used = used
        self.held = held
        self.seeded = seeded
        self.end_ms = end_ms
        self.used_before = 0 if used == seeded else used
        self.is_changed = False

    def add(self, *, used: int = 0, held: int = 0) -> None:
        """Change both by so much."""
        self.used += used
        self.held += held
        self.is_changed = True


class Book:
    """Balances and open reservations as loaded, and what the steps made of them.

    `finished` tells which reservations have a record already. `changed` maps the id of a reservation to what it is
    now, None where it has ended. `records` are those of calls that ended in this batch.
    """

    def __init__(self, reservations: Mapping[str, Reservation], finished: Iterable[str] = ()) -> None:
        self.reservations = dict(reservations)
        self.balances: dict[Place, Balance] = {}
        self.changed: dict[str, Reservation | None] = {}
        self.records: list[Record] = []
        self._finished = set(finished)

    def places(self, steps: Sequence[Step]) -> dict[Place, Hold]:
        """Return where the steps read or write balances, each with a hold that names it."""
        found: dict[Place, Hold] = {}
        for step in steps:
            if isinstance(step, Reserve | Advance):
                for hold in step.holds:
                    found[hold.account, hold.start_ms] = hold
        for reservation in self.reservations.values():
            for hold in reservation.holds:
                found[hold.account, hold.start_ms] = hold
        return found

    def apply(self, step: Step) -> Result:
        """Apply one step and return what came of it."""
        if isinstance(step, Reserve):
            return self._reserve(step)
        if isinstance(step, Advance):
            return self._advance(step)
        if isinstance(step, Settle):
            return self._settle(step)
        if isinstance(step, Release):
            return self._release(step)
        return self._expire(step)

    def _reserve(self, step: Reserve) -> Result:
        call = step.call
        if call.id in self.reservations or call.id in self._finished:
            return Granted()
        quote: Reservation | None = None
        if call.quote_id is not None:
            quote = self.reservations.get(call.quote_id)
            if quote is None or not _is_for(quote, call):
                return Missing(id=call.quote_id)
        extra: Sequence[Hold] = step.holds
        if quote is not None:
            spent = {hold.place: hold.amount for hold in quote.holds}
            extra = [
                structs.replace(hold, amount=max(0, hold.amount - spent.get(hold.place, 0)))
                for hold in step.holds
            ]
        if refused := self._shortages(extra, step.holds):
            return refused
        for hold in extra:
            self.balances[hold.place].add(held=hold.amount)
        if quote is not None:
            self._draw(quote, step.holds)
        self._keep(Reservation(call=call, holds=step.holds, intent=step.intent, expires_ms=step.expires_ms))
        return Granted()

    def _draw(self, quote: Reservation, holds: Sequence[Hold]) -> None:
        """Take out of a quote what a call has taken over from it."""
        taken = {hold.place: hold.amount for hold in holds}
        left = tuple(
            structs.replace(hold, amount=hold.amount - min(hold.amount, taken.get(hold.place, 0)))
            for hold in quote.holds
        )
        self._keep(structs.replace(quote, holds=left))

    def _advance(self, step: Advance) -> Result:
        reservation = self.reservations.get(step.id)
        if reservation is None:
            return Missing(id=step.id)
        if reservation.intent is not None and reservation.intent.number >= step.intent.number:
            return Granted()
        outcomes = _with(reservation.outcomes, step.outcome)
        before = {hold.place: hold for hold in reservation.holds}
        # What earlier attempts used stays held until the call ends, also on quotas that bind the next one no more.
        after = {
            place: structs.replace(hold, amount=charge(hold, reservation.call, outcomes))
            for place, hold in before.items()
        }
        for hold in step.holds:
            used = charge(hold, reservation.call, outcomes) if hold.meter in {"tokens", "cost"} else 0
            after[hold.place] = structs.replace(hold, amount=used + hold.amount)
        extra = [
            structs.replace(hold, amount=hold.amount - (before[place].amount if place in before else 0))
            for place, hold in after.items()
        ]
        # What is overdrawn elsewhere by now is used already, and no reason to refuse what binds it no more.
        binding = {hold.place for hold in step.holds}
        more = [hold for hold in extra if hold.amount > 0 and hold.place in binding]
        if refused := self._shortages(more, step.holds):
            # The attempt that ended is kept all the same; the call goes no further.
            self._keep(structs.replace(reservation, outcomes=outcomes, intent=None))
            return refused
        for hold in extra:
            self.balances[hold.place].add(held=hold.amount)
        self._keep(
            structs.replace(reservation, outcomes=outcomes, intent=step.intent, holds=tuple(after.values()))
        )
        return Granted()

    def _settle(self, step: Settle) -> Result:
        reservation = self.reservations.get(step.id)
        if reservation is None:
            return Ended(was_open=False)
        outcomes = reservation.outcomes
        if step.outcome is not None:
            outcomes = _with(outcomes, step.outcome)
        record = Record(
            call=reservation.call,
            status=step.status,
            ended_ms=step.ended_ms,
            outcomes=outcomes,
            charges=tuple((hold, charge(hold, reservation.call, outcomes)) for hold in reservation.holds),
            error_code=step.error_code,
        )
        self._close(reservation, record)
        return Ended(was_open=True, record=record)

    def _release(self, step: Release) -> Result:
        reservation = self.reservations.get(step.id)
        if reservation is None:
            return Ended(was_open=False)
        self._close(reservation, None)
        return Ended(was_open=True)

    def _expire(self, step: Expire) -> Result:
        reservation = self.reservations.get(step.id)
        if reservation is None:
            return Ended(was_open=False)
        if reservation.intent is None and not reservation.outcomes:
            return self._release(Release(id=step.id))
        bound = None if reservation.intent is None else _at_bound(reservation.intent, step.at_ms)
        return self._settle(
            Settle(
                id=step.id, outcome=bound, status="unconfirmed", ended_ms=step.at_ms, error_code="unconfirmed"
            )
        )

    def _shortages(self, extra: Sequence[Hold], wanted: Sequence[Hold]) -> Refused | None:
        amounts = {hold.place: hold for hold in wanted}
        found: list[Shortage] = []
        for hold in extra:
            balance = self.balances[hold.place]
            # What a quote holds already needs no room, also where others have overdrawn theirs since.
            if hold.amount and balance.used + balance.held + hold.amount > hold.cap:
                shown = amounts.get(hold.place, hold)
                found.append(Shortage(hold=shown, used=balance.used, held=balance.held))
        if not found:
            return None
        return Refused(shortages=tuple(sorted(found, key=lambda each: -each.hold.end_ms)))

    def _keep(self, reservation: Reservation) -> None:
        self.reservations[reservation.call.id] = reservation
        self.changed[reservation.call.id] = reservation

    def _close(self, reservation: Reservation, record: Record | None) -> None:
        charges = tuple((hold, 0) for hold in reservation.holds) if record is None else record.charges
        for hold, amount in charges:
            self.balances[hold.account, hold.start_ms].add(used=amount, held=-hold.amount)
        del self.reservations[reservation.call.id]
        self.changed[reservation.call.id] = None
        self._finished.add(reservation.call.id)
        if record is not None:
            self.records.append(record)


def charge(hold: Hold, call: Call, outcomes: Sequence[Outcome]) -> int:
    """Return what a call uses up of a quota, going by how its attempts ended."""
    if hold.meter == "requests":
        return 1
    if hold.meter == "jobs":
        return 0
    mine = [each for each in outcomes if hold.provider is None or each.provider == hold.provider]
    if hold.meter == "calls":
        return call.count if any(each.counts for each in mine) else 0
    if hold.meter == "tokens":
        return sum(each.tokens for each in mine)
    return sum(each.cost_nanos or 0 for each in mine)


def _with(outcomes: tuple[Outcome, ...], outcome: Outcome) -> tuple[Outcome, ...]:
    """Return the outcomes with another one, unless it is there already."""
    return outcomes if any(each.number == outcome.number for each in outcomes) else (*outcomes, outcome)


def _at_bound(intent: Intent, at_ms: int) -> Outcome:
    return Outcome(
        number=intent.number,
        provider=intent.provider,
        model=intent.model,
        started_ms=intent.started_ms,
        ended_ms=at_ms,
        status="unknown",
        quality="upper_bound",
        units={"tokens": intent.bound_tokens} if intent.bound_tokens else {},
        tokens=intent.bound_tokens,
        cost_nanos=intent.bound_cost_nanos,
        error_code="unconfirmed",
    )


def _is_for(quote: Reservation, call: Call) -> bool:
    """Tell whether a quote is open for a call: of the same user, and not past its end."""
    same = (quote.call.tenant, quote.call.user) == (call.tenant, call.user)
    return same and quote.expires_ms is not None and call.made_ms < quote.expires_ms
