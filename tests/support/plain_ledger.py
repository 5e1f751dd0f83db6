"""The ledger again, as plainly as it can be said: lists of calls, and sums over them each time. For comparison only."""

from dataclasses import dataclass, field


@dataclass
class PlainCall:
    """A call: what it holds by place, what its attempts used, and how it ended."""

    user: str
    count: int
    amounts: dict[tuple[str, int], int]
    kinds: dict[tuple[str, int], tuple[str, str | None]]
    attempt: int | None
    used: dict[int, tuple[str, int, int, bool]] = field(default_factory=dict)
    state: str = "open"

    def charge(self, place):
        """Return what the attempts so far used up at a place."""
        meter, provider = self.kinds[place]
        mine = [use for use in self.used.values() if provider in {None, use[0]}]
        return {
            "requests": 1,
            "jobs": 0,
            "calls": self.count if any(is_ok or tokens or cost for _, tokens, cost, is_ok in mine) else 0,
            "tokens": sum(tokens for _, tokens, _, _ in mine),
            "cost": sum(cost for _, _, cost, _ in mine),
        }[meter]


class PlainLedger:
    """What is used is the sum over calls that were settled, what is held the sum over those that are open."""

    def __init__(self):
        self.calls: dict[str, PlainCall] = {}

    def used(self, place):
        return sum(
            call.charge(place)
            for call in self.calls.values()
            if call.state == "settled" and place in call.kinds
        )

    def held(self, place):
        return sum(call.amounts.get(place, 0) for call in self.calls.values() if call.state == "open")

    def _lacks(self, wanted, caps):
        """Return where there is no room; what a quote holds already (a further amount of 0) needs none."""
        return {p for p, n in wanted.items() if n and self.used(p) + self.held(p) + n > caps[p]}

    def reserve(self, id_, user, count, holds, *, attempt, quote=None):
        """Return "granted", "missing" or the places without room; holds: place → (amount, cap, meter, provider)."""
        if id_ in self.calls and self.calls[id_].state != "released":
            return "granted"
        amounts = {place: hold[0] for place, hold in holds.items()}
        source = self.calls.get(quote)
        if quote is not None and (source is None or source.state != "open" or source.user != user):
            return "missing"
        drawn = {p: min(n, source.amounts.get(p, 0)) for p, n in amounts.items()} if source else {}
        lacking = self._lacks(
            {p: n - drawn.get(p, 0) for p, n in amounts.items()}, {p: h[1] for p, h in holds.items()}
        )
        if lacking:
            return lacking
        for place, amount in drawn.items():
            if place in source.amounts:
                source.amounts[place] -= amount
        self.calls[id_] = PlainCall(user, count, amounts, {p: h[2:] for p, h in holds.items()}, attempt)
        return "granted"

    def advance(self, id_, number, use, next_number, holds):
        call = self.calls.get(id_)
        if call is None or call.state != "open":
            return "missing"
        if call.attempt is not None and call.attempt >= next_number:
            return "granted"
        call.used.setdefault(number, use)
        kinds = call.kinds | {place: hold[2:] for place, hold in holds.items()}
        before, call.kinds = call.kinds, kinds
        after = {place: call.charge(place) for place in before}
        for place, (amount, _, meter, _) in holds.items():
            after[place] = amount + (call.charge(place) if meter in {"tokens", "cost"} else 0)
        more = {place: n - call.amounts.get(place, 0) for place, n in after.items()}
        caps = {place: hold[1] for place, hold in holds.items()}
        lacking = self._lacks({p: n for p, n in more.items() if n > 0 and p in caps}, caps)
        if lacking:
            call.kinds, call.attempt = before, None
            return lacking
        call.amounts, call.attempt = after, next_number
        return "granted"

    def end(self, id_, state, number=None, use=None):
        """Settle or release a call; tells whether it was open."""
        call = self.calls.get(id_)
        if call is None or call.state != "open":
            return False
        if use is not None:
            call.used.setdefault(number, use)
        call.state = state
        return True
