"""The places that calls go to, and how they are doing: cooldowns, room, repeats, and what was seen lately.

Theory of operation: a deployment (an address with a credential) has room and a budget for repeats; each of its models
has a breaker and its vital signs. A call asks for a `Turn` there: it may have to wait for room, or is told at once why
not. What a turn came to is noted when it ends. Nothing here is lost at a reload, since a place is known by its key.
Where processes share a Redis, the beginning of a cooldown is told to the others, and heard of within half a second.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from random import random
from time import monotonic, time_ns

from msgspec import Struct

from llm_gate.domain.conditions import (
    Cooling,
    Meters,
    NoMeters,
    Notice,
    Notices,
    PlaceStatus,
    SharedConditions,
)
from llm_gate.domain.errors import (
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.policy import CapacityLimits, CooldownRules
from llm_gate.domain.provider import Deployment, Target
from llm_gate.domain.tracing import NO_SPAN, Span
from llm_gate.domain.usage import Usage
from llm_gate.engine.capacity import Capacity, Full
from llm_gate.engine.cooldown import Breaker
from llm_gate.engine.estimate import Bound
from llm_gate.engine.retry_budget import RetryBudget
from llm_gate.engine.vitals import VitalSigns

MAX_PLACES = 4_096
"""How many models at deployments are remembered; callers may name models that nobody has heard of."""

LISTEN_EVERY_S = 0.5

_AGAIN_PATIENCE_S = 8.0
_PROBE_PATIENCE_S, _PROBE_LOOK_S = 2.0, 0.05
_SEVERAL = 2

_COOLED: Mapping[str, type[ProviderError]] = {
    kind.code: kind
    for kind in (
        ProviderAuthFailed,
        ProviderModelGone,
        ProviderQuotaExhausted,
        ProviderRateLimited,
        ProviderTimeout,
        ProviderUnavailable,
    )
}


class Site:
    """One deployment: its room, and its budget for repeats."""

    def __init__(self, limits: CapacityLimits, budget: RetryBudget) -> None:
        self.limits = limits
        self.capacity = Capacity(limits)
        self.budget = budget
        self.waiting_for_rate = 0


class Place:
    """One model at one deployment."""

    def __init__(self, target: Target, site: Site, breaker: Breaker) -> None:
        self.target = target
        self.site = site
        self.breaker = breaker
        self.vitals = VitalSigns()
        self.under_way = 0
        self.logger = logging.getLogger(f"llm_gate.provider.{target.provider}")


class Turn:
    """One call's turn at a place. It ends once: by an answer, a failure, or because nobody waits any more."""

    __slots__ = (
        "_ended",
        "_fleet",
        "_has_slot",
        "_is_ordered",
        "_operation",
        "_site",
        "_tokens",
        "place",
        "span",
        "started_s",
    )

    def __init__(
        self, fleet: "Fleet", place: Place, target: Target, *, operation: str, tokens: int, now_s: float
    ) -> None:
        self.place = place
        self.span: Span = NO_SPAN
        # Kept, since changed limits put another one into its place.
        self._site = place.site
        self._is_ordered = target.control is not None
        self._fleet = fleet
        self._operation = operation
        self._tokens = tokens
        self.started_s = now_s
        self._ended = False
        self._has_slot = True

    def answered(self) -> None:
        """Note that the place did what was asked: a whole answer, or a stream's first event."""
        if self._ended:
            return
        self._ended = True
        now_s = monotonic()
        seconds = now_s - self.started_s
        place = self.place
        place.breaker.answered(now_s, self.started_s)
        place.vitals.answered(seconds)
        target = place.target
        self._fleet.meters.attempt(target.provider, target.model.name, self._operation, "ok", seconds)
        if not self._has_slot:
            self.span.end()

    def used(self, usage: Usage | None, model: str | None = None) -> None:
        """Say how many tokens it was in truth; `model` is who the vendor says it was."""
        self.span.used(self.place.target, usage, model)
        if usage is not None and self._site.limits.tpm is not None:
            self._site.capacity.correct(monotonic(), self._tokens, usage.total_tokens, began_s=self.started_s)
            self._tokens = usage.total_tokens

    async def again(self, tokens: int) -> None:
        """Send one more request within the same turn.

        Raises:
            ProviderRateLimited: the deployment may not have one more soon.
        """
        self._tokens = tokens
        was_ordered, self._is_ordered = self._is_ordered, True
        await self._fleet.take_rate(self.place, tokens, _AGAIN_PATIENCE_S)
        self._is_ordered = was_ordered

    def failed(self, error: ProviderError) -> None:
        """Note that the place failed; also a stream that had begun well may."""
        now_s = monotonic()
        was_answered, self._ended = self._ended, True
        if self._is_ordered:
            # A failure that the caller ordered, or that is our own, says nothing of the place.
            self.place.breaker.left(now_s, self.started_s)
        else:
            self.place.vitals.failed(error, time_ns() // 1_000_000, was_answered=was_answered)
            began = self.place.breaker.failed(error, now_s, self.started_s)
            self._fleet.note_failure(self.place, error, began)
        target, seconds = self.place.target, now_s - self.started_s
        self._fleet.meters.attempt(target.provider, target.model.name, self._operation, error.code, seconds)
        self.span.failed(error.code)
        if not self._has_slot:
            self.span.end()

    def left(self) -> None:
        """Note that nobody waits for it any more, unless it has ended already, and give its room back."""
        if not self._ended:
            self._ended = True
            now_s, place = monotonic(), self.place
            place.breaker.left(now_s, self.started_s)
            target, seconds = place.target, now_s - self.started_s
            self._fleet.meters.attempt(target.provider, target.model.name, self._operation, "left", seconds)
            self.span.failed("left")
            if not self._has_slot:
                self.span.end()
        self.leave_room()

    def leave_room(self) -> None:
        """Give its room to the next; a stream keeps it to its end."""
        if self._has_slot:
            self._has_slot = False
            self.place.under_way -= 1
            self._site.capacity.leave(monotonic() - self.started_s)
            if self._ended:
                self.span.end()


class Budgets(Struct, frozen=True, kw_only=True):
    """How much may be tried beyond the first attempts.

    `share` of a deployment's calls may be repeats, and `floor` in quiet times; `hedge_share` of all calls hedges.
    """

    share: float = 0.1
    floor: int = 3
    hedge_share: float = 0.05


class Fleet:
    """Every place that was called, and how it is doing."""

    def __init__(
        self,
        *,
        rules: CooldownRules | None = None,
        budgets: Budgets | None = None,
        notices: Notices | None = None,
        shared: SharedConditions | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.meters: Meters = meters or NoMeters()
        self.current: str | None = None
        self.chance = random
        self._rules = rules or CooldownRules()
        self._budgets = budgets or Budgets()
        self._hedges = RetryBudget(self._budgets.hedge_share, floor=self._budgets.floor)
        self._notices = notices
        self._shared = shared
        self._sites: dict[str, Site] = {}
        self._places: dict[tuple[str, str], Place] = {}
        self._heard: Mapping[str, Cooling] = {}
        self._listening: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def use(self, rules: CooldownRules, budgets: Budgets) -> None:
        """Go by other rules from now on; what is cooling now ends as it began."""
        if rules != self._rules:
            self._rules = rules
            for place in self._places.values():
                place.breaker = self._breaker_after(place.breaker)
        if budgets != self._budgets:
            self._budgets = budgets
            self._hedges = RetryBudget(budgets.hedge_share, floor=budgets.floor)
            for site in self._sites.values():
                site.budget = self._repeats()

    def _repeats(self) -> RetryBudget:
        return RetryBudget(self._budgets.share, floor=self._budgets.floor)

    def _breaker_after(self, old: Breaker) -> Breaker:
        now_s = monotonic()
        breaker = Breaker(self._rules, self.chance)
        if (cooling := old.cooling(now_s)) is not None:
            breaker.hear(cooling, now_s)
        return breaker

    def start(self) -> None:
        """Begin to listen to what other processes tell."""
        if self._shared is not None:
            self._listening = asyncio.get_running_loop().create_task(self._listen(self._shared))

    async def close(self) -> None:
        """Listen and tell no more."""
        for task in (self._listening, *self._telling):
            if task is not None:
                task.cancel()
        if self._shared is not None:
            await self._shared.close()

    async def _listen(self, shared: SharedConditions) -> None:
        while True:
            heard = await shared.heard()
            now_s = monotonic()
            self._heard = heard or {}
            for key, cooling in self._heard.items():
                site, _, model = key.partition("|")
                if (place := self._places.get((site, model))) is not None:
                    place.breaker.hear(cooling, now_s)
            await asyncio.sleep(LISTEN_EVERY_S)

    def place(self, target: Target) -> Place:
        """Return what is known of a target's place."""
        deployment = target.deployment
        name = (deployment.key or deployment.name or deployment.provider, target.wire_model)
        place = self._places.get(name)
        if place is None or place.site.limits is not deployment.capacity:
            place = self._placed(name, target)
        return place

    def _placed(self, name: tuple[str, str], target: Target) -> Place:
        site = self._site(name[0], target.deployment)
        known = self._places.get(name)
        if known is not None:
            known.site = site
            return known
        if len(self._places) >= MAX_PLACES:
            self._forget()
        place = self._places[name] = Place(target, site, Breaker(self._rules, self.chance))
        if (cooling := self._heard.get(f"{name[0]}|{name[1]}")) is not None:
            place.breaker.hear(cooling, monotonic())
        return place

    def _site(self, key: str, deployment: Deployment) -> Site:
        site = self._sites.get(key)
        if site is None:
            if len(self._sites) >= MAX_PLACES:
                in_use = {place.site for place in self._places.values() if place.under_way}
                self._sites = {key: site for key, site in self._sites.items() if site in in_use}
            site = self._sites[key] = Site(deployment.capacity, self._repeats())
        elif site.limits is not deployment.capacity:
            if site.limits != deployment.capacity:
                # The limits were changed: calls under way keep the room that they were given.
                site = self._sites[key] = Site(deployment.capacity, site.budget)
            else:
                site.limits = deployment.capacity
        return site

    def _forget(self) -> None:
        """Forget the oldest half of what nobody is calling."""
        idle = [name for name, place in self._places.items() if not place.under_way]
        for name in idle[: MAX_PLACES // 2]:
            del self._places[name]

    def trouble(self, target: Target) -> ProviderError | None:
        """Say why a target is left alone now, as the error it had; None where it can be tried."""
        cooling = self.place(target).breaker.cooling(monotonic())
        return None if cooling is None else _cooled(target, cooling)

    def is_probed(self, target: Target) -> bool:
        """Tell whether another call is finding out how a target is, so that waiting a little may help."""
        return self.place(target).breaker.is_probing

    def roomy_first(self, bounds: Sequence[Bound]) -> Sequence[Bound]:
        """Return targets in their order, those without room now behind the others."""
        if len(bounds) < _SEVERAL or all(bound.target.deployment.capacity.is_unlimited for bound in bounds):
            return bounds
        return sorted(bounds, key=lambda bound: not self.has_room(bound.target, bound.tokens))

    def has_room(self, target: Target, tokens: int) -> bool:
        """Tell whether a call with so many tokens could begin at a target without waiting."""
        capacity = self.place(target).site.capacity
        return capacity.has_slot and capacity.rate_wait_s(monotonic(), tokens) <= 0

    def enter_now(self, target: Target, operation: str) -> Turn | None:
        """Take a turn at a target that has neither limits nor troubles, as most have; None where it takes more."""
        place = self.place(target)
        site = place.site
        if not site.limits.is_unlimited:
            return None
        now_s = monotonic()
        if not place.breaker.enter(now_s):
            return None
        site.capacity.under_way += 1
        place.under_way += 1
        return Turn(self, place, target, operation=operation, tokens=0, now_s=now_s)

    async def enter(self, target: Target, *, operation: str, tokens: int, patience_s: float) -> Turn:
        """Take a turn at a target, waiting for room at most for so long.

        Raises:
            ProviderError: there is none in time, or the place is left alone; nothing was sent.
        """
        place = self.place(target)
        site = place.site
        capacity = site.capacity
        try:
            await capacity.enter(patience_s)
        except Full as full:
            self.meters.shed("slots")
            raise _no_room(target, full.wait_s) from None
        has_entered = False
        try:
            if not site.limits.is_unlimited:
                await self.take_rate(place, tokens, patience_s)
            started_s = monotonic()
            if not place.breaker.enter(started_s):
                started_s = await _entered(place.breaker, patience_s)
                if not started_s:
                    raise _cooled(target, place.breaker.cooling(monotonic()) or _PROBED)
            has_entered = True
        finally:
            if not has_entered:
                capacity.leave(0.0)
        place.under_way += 1
        return Turn(self, place, target, operation=operation, tokens=tokens, now_s=started_s)

    async def take_rate(self, place: Place, tokens: int, patience_s: float) -> None:
        """Count one request with so many tokens, as soon as the deployment may have it.

        Raises:
            ProviderRateLimited: it may not within that time.
        """
        site, limits, target = place.site, place.site.limits, place.target
        if limits.rpm is None and limits.tpm is None:
            return
        ends_s = monotonic() + patience_s
        site.waiting_for_rate += 1
        try:
            while (wait_s := await self._rate_wait_s(site, target, tokens)) > 0:
                if monotonic() + wait_s > ends_s or site.waiting_for_rate > limits.max_waiting:
                    self.meters.shed("rate")
                    raise _rate_full(target, wait_s)
                await asyncio.sleep(wait_s)
        finally:
            site.waiting_for_rate -= 1

    async def _rate_wait_s(self, site: Site, target: Target, tokens: int) -> float:
        """Count a call if it fits; else return after how many seconds it may."""
        limits = site.limits
        wait_s = site.capacity.rate_wait_s(monotonic(), tokens)
        if wait_s > 0:
            return wait_s
        if self._shared is not None:
            key = target.deployment.key
            shared_s = await self._shared.take(key, rpm=limits.rpm, tpm=limits.tpm, tokens=tokens)
            if shared_s:
                return shared_s
            if shared_s is None and (wait_s := site.capacity.rate_wait_s(monotonic(), tokens)) > 0:
                # Meanwhile others have taken the room, and nobody else can tell.
                return wait_s
        site.capacity.count(monotonic(), tokens)
        return 0.0

    def may_repeat(self, target: Target) -> bool:
        """Tell whether a repeat at a target fits its budget, and take it off if so."""
        return self.place(target).site.budget.take(monotonic())

    def may_hedge(self) -> bool:
        """Tell whether one more target may be asked beside a slow one."""
        return self._hedges.take(monotonic())

    def called(self, turn: Turn) -> None:
        """Count a first attempt at a target, which lets repeats come later."""
        turn.place.site.budget.called(turn.started_s)
        self._hedges.called(turn.started_s)

    def note_failure(self, place: Place, error: ProviderError, began: Cooling | None) -> None:
        """Tell whoever should know of an attempt's failure, and of the cooldown that began with it."""
        target = place.target
        if began is not None:
            self.meters.cooled(target.provider, error.code)
            self._tell(place, began)
        if self._notices is None:
            return
        name = target.deployment.name or target.provider
        if isinstance(error, ProviderAuthFailed):
            self._notices.tell(Notice(cause="vendor_key", subject=name, message=error.message))
        elif isinstance(error, ProviderQuotaExhausted):
            self._notices.tell(Notice(cause="vendor_credit", subject=name, message=error.message))
        elif began is not None and target.model.listed:
            # Callers may invent names of models, and nobody wants to be told of each.
            subject = f"{name} {target.wire_model}"
            said = f"{error.message}; left alone for {began.for_s:.1f} s"
            self._notices.tell(Notice(cause="cooldown", subject=subject, message=said))

    def note_all_failed(self, name: str, message: str) -> None:
        """Tell the operator that nobody could answer."""
        if self._notices is not None:
            self._notices.tell(Notice(cause="all_failed", subject=name, message=message))

    def _tell(self, place: Place, cooling: Cooling) -> None:
        if self._shared is None:
            return
        key = f"{place.target.deployment.key}|{place.target.wire_model}"
        task = asyncio.get_running_loop().create_task(self._shared.tell(key, cooling))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def statuses(self) -> list[PlaceStatus]:
        """Return how every place that was called is doing."""
        now_s = monotonic()
        return [
            PlaceStatus(
                key=place.target.deployment.key,
                provider=place.target.provider,
                deployment=place.target.deployment.name or place.target.provider,
                model=place.target.model.name,
                vitals=place.vitals.vitals(
                    under_way=place.under_way,
                    waiting=place.site.capacity.waiting + place.site.waiting_for_rate,
                ),
                cooling=place.breaker.cooling(now_s),
            )
            for place in self._places.values()
        ]

    def gauges(self) -> Mapping[str, float]:
        """Return sizes for the operator's metrics."""
        return {
            "places": len(self._places),
            "sites": len(self._sites),
            "waiting_for_room": sum(
                site.capacity.waiting + site.waiting_for_rate for site in self._sites.values()
            ),
            "room_to_wait": sum(
                site.limits.max_waiting for site in self._sites.values() if not site.limits.is_unlimited
            ),
        }


async def _entered(breaker: Breaker, patience_s: float) -> float:
    """Wait a little for what another call finds out, and return when this one was let in; 0 where it was not."""
    ends_s = monotonic() + min(patience_s, _PROBE_PATIENCE_S)
    while breaker.is_probing and (now_s := monotonic()) < ends_s:
        await asyncio.sleep(_PROBE_LOOK_S)
        now_s = monotonic()
        if breaker.enter(now_s):
            return now_s
    return 0.0


_PROBED = Cooling(for_s=1.0, code=ProviderUnavailable.code, message="it is being tried by another call")


def _cooled(target: Target, cooling: Cooling) -> ProviderError:
    """Return the error for a call to a place that is left alone: of the kind that made it so."""
    kind = _COOLED.get(cooling.code, ProviderUnavailable)
    error = kind(
        f"{cooling.message} (not tried again for another {max(cooling.for_s, 0.1):.1f} s)",
        provider=target.provider,
        model=target.wire_model,
        status=cooling.status,
        retry_after_s=cooling.for_s,
    )
    error.was_sent = False
    return error


def _no_room(target: Target, wait_s: float) -> ProviderError:
    error = ProviderUnavailable(
        f"as many calls are under way at provider {target.provider!r} as it may have",
        provider=target.provider,
        model=target.wire_model,
        retry_after_s=max(wait_s, 0.1),
    )
    error.was_sent = False
    return error


def _rate_full(target: Target, wait_s: float) -> ProviderError:
    error = ProviderRateLimited(
        f"provider {target.provider!r} has had as many requests or tokens as it may have in a minute",
        provider=target.provider,
        model=target.wire_model,
        retry_after_s=wait_s if wait_s < 3_600 else None,  # noqa: PLR2004 - never, where a call is too large by itself
    )
    error.was_sent = False
    return error
