"""In which order the targets of a call are tried, and why: strategies over what is known of the places."""

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from msgspec import Struct, structs

from llm_gate.domain.access import Caller
from llm_gate.domain.errors import NotAllowed
from llm_gate.domain.plans import Standing
from llm_gate.domain.policy import Sticky, Strategy
from llm_gate.domain.provider import Target
from llm_gate.engine.estimate import Bound
from llm_gate.engine.fleet import Fleet
from llm_gate.engine.holds import check_model

_LOOK_AROUND = 0.05
"""How often the fastest place is not preferred, so that what is known of the others stays fresh."""

_HASH_BYTES = 8


class Candidate(Struct, frozen=True, kw_only=True):
    """A target that may answer, and its weight beside the others of its group."""

    target: Target
    weight: int = 1


class Group(Struct, frozen=True, kw_only=True):
    """Targets that stand for one another; the next group is tried when none of them answers."""

    candidates: tuple[Candidate, ...]
    strategy: Strategy = "ordered"
    sticky: Sticky | None = None


class Left(Struct, frozen=True, kw_only=True):
    """A name that was left out, and why."""

    name: str
    reason: str


class Route(Struct, frozen=True, kw_only=True):
    """Where a call may go: groups in the order in which they are tried, and what was left out."""

    groups: tuple[Group, ...]
    left: tuple[Left, ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every target, as written."""
        groups = self.groups
        return groups[0].candidates if len(groups) == 1 else tuple(c for g in groups for c in g.candidates)


class Step(Struct, frozen=True, kw_only=True):
    """A target at its place in the order, and why it stands there."""

    target: Target
    reason: str


class Explanation(Struct, frozen=True, kw_only=True):
    """What would be tried for a name now, in order, and what would not."""

    strategy: str
    taken: tuple[Step, ...]
    left: tuple[Left, ...]


class Chooser:
    """Puts the targets of a call into order. `chance` gives numbers from 0 to 1."""

    def __init__(self, fleet: Fleet, chance: Callable[[], float]) -> None:
        self._fleet = fleet
        self._chance = chance

    def order(self, route: Route, bounds: Sequence[Bound], sticky: str | None, caller: Caller) -> list[Bound]:
        """Return the bounds of a route's targets in the order in which they are to be tried."""
        if len(bounds) == 1:
            return list(bounds)
        known = {id(bound.target): bound for bound in bounds}
        ordered: list[Bound] = []
        for group in route.groups:
            there = [each for each in group.candidates if id(each.target) in known]
            if len(there) > 1 and group.strategy != "ordered":
                costs = {key: bound.cost_nanos for key, bound in known.items()}
                there = self._by_strategy(group, there, costs, _key_of(group, sticky, caller))
            ordered += [known[id(each.target)] for each in there]
        return ordered

    def _by_strategy(
        self,
        group: Group,
        there: Sequence[Candidate],
        costs: Mapping[int, int | None],
        key: str | None,
    ) -> list[Candidate]:
        if key is not None or group.strategy == "weighted":
            return sorted(there, key=lambda each: self._draw(each, key))
        if group.strategy == "least_busy":
            return sorted(there, key=lambda each: self._business(each.target) / each.weight)
        if group.strategy == "lowest_cost":
            return sorted(there, key=lambda each: _cost(costs.get(id(each.target))))
        if self._chance() < _LOOK_AROUND:
            return sorted(there, key=lambda _: self._chance())
        return sorted(there, key=lambda each: self._fleet.place(each.target).vitals.latency_ms or 0.0)

    def _draw(self, each: Candidate, key: str | None) -> float:
        """Return what sorts candidates by chance in proportion to their weights; always the same for one key."""
        if key is None:
            chance = self._chance()
        else:
            target = each.target
            name = f"{key}|{target.deployment.key or target.deployment.name}|{target.wire_model}"
            digest = blake2b(name.encode(), digest_size=_HASH_BYTES).digest()
            chance = int.from_bytes(digest, "big") / 2 ** (8 * _HASH_BYTES)
        return -math.log(max(chance, 1e-300)) / each.weight

    def _business(self, target: Target) -> float:
        capacity = self._fleet.place(target).site.capacity
        return capacity.under_way + capacity.waiting

    def explain(
        self, route: Route, bounds: Sequence[Bound], sticky: str | None, caller: Caller
    ) -> Explanation:
        """Say what would be tried now, in order, and why; what is left alone for now comes with the rest."""
        steps: list[Step] = []
        left = list(route.left)
        places = {id(each.target): (group, each) for group in route.groups for each in group.candidates}
        for bound in self.order(route, bounds, sticky, caller):
            trouble = self._fleet.trouble(bound.target)
            if trouble is not None:
                left.append(Left(name=_named(bound.target), reason=trouble.message))
                continue
            group, each = places[id(bound.target)]
            steps.append(Step(target=bound.target, reason=self._reason(group, each, bound)))
        payable = {id(bound.target) for bound in bounds}
        left += [
            Left(name=_named(each.target), reason="its price is not known, and money is limited")
            for each in route.candidates
            if id(each.target) not in payable
        ]
        strategies = dict.fromkeys(group.strategy for group in route.groups if len(group.candidates) > 1)
        return Explanation(strategy=", ".join(strategies) or "ordered", taken=tuple(steps), left=tuple(left))

    def _reason(self, group: Group, each: Candidate, bound: Bound) -> str:
        """Say why a target stands where it does in its group."""
        place = self._fleet.place(each.target)
        if len(group.candidates) == 1:
            return "the only one of its name"
        if group.strategy == "weighted":
            total = sum(other.weight for other in group.candidates)
            return f"weight {each.weight} of {total}"
        if group.strategy == "least_busy":
            return f"{self._business(each.target):g} calls under way or waiting"
        if group.strategy == "lowest_cost":
            return "no price is known" if bound.cost_nanos is None else "by its price"
        if group.strategy == "lowest_latency":
            known = place.vitals.latency_ms
            return "nothing is known of its speed yet" if known is None else f"answers in {known:.0f} ms"
        return "as written"


def _named(target: Target) -> str:
    place = target.deployment.name
    return target.name if not place or place == target.provider else f"{target.name} at {place}"


def _key_of(group: Group, sticky: str | None, caller: Caller) -> str | None:
    """Return whose calls are to stay together; None where nobody asked for it."""
    if sticky is not None:
        return sticky
    if group.sticky is None:
        return None
    subject = {"user": caller.user, "application": caller.application, "key": caller.key_id or ""}[
        group.sticky
    ]
    return f"{caller.tenant}|{subject}"


def _cost(nanos: int | None) -> float:
    return math.inf if nanos is None else nanos


def allowed_part(route: Route, standing: Standing, name: str) -> Route:
    """Return what a caller's plan allows of a route; `name` is how it was asked for.

    Raises:
        NotAllowed: nothing of it.
    """
    usable = [each for each in route.candidates if each.target.provider not in standing.excluded]
    keep: set[int] = set()
    left: list[Left] = []
    refused: NotAllowed | None = None
    for each in usable or route.candidates:
        target = each.target
        try:
            check_model(standing, (target.name, target.model.name, name, *target.model.aliases))
        except NotAllowed as error:
            refused = error
            left.append(Left(name=target.name, reason=error.message))
        else:
            keep.add(id(each))
    if refused is not None and not keep:
        raise refused
    left += [
        Left(name=each.target.name, reason="the plan does not include this provider")
        for each in route.candidates
        if usable and each.target.provider in standing.excluded
    ]
    groups = [
        structs.replace(group, candidates=tuple(each for each in group.candidates if id(each) in keep))
        for group in route.groups
    ]
    return Route(groups=tuple(group for group in groups if group.candidates), left=(*route.left, *left))
