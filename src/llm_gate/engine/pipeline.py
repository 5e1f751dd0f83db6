"""What every operation has in common once its targets have bounds: their order, the attempts, the end in the ledger."""

from collections.abc import Awaitable, Callable, Sequence
from random import random
from time import perf_counter
from typing import Any, Protocol, TypeVar

from llm_gate.domain.access import CallContext
from llm_gate.domain.catalog import Ability, Operation, SearchKind
from llm_gate.domain.conditions import Tried
from llm_gate.domain.errors import AllAttemptsFailed, GateError, ProviderError
from llm_gate.domain.plans import Standing
from llm_gate.domain.pricing import total_cost
from llm_gate.domain.provider import Target
from llm_gate.domain.usage import total_usage
from llm_gate.engine.access import Access
from llm_gate.engine.admission import Admission, Booking
from llm_gate.engine.answer import Admitted, Answer, Attempted
from llm_gate.engine.attempts import Attempts, Call, Plan, Success, tried_of
from llm_gate.engine.choice import Chooser, Route, allowed_part
from llm_gate.engine.estimate import Bound
from llm_gate.engine.fleet import Fleet, Turn
from llm_gate.engine.hedging import kept, run_hedged
from llm_gate.engine.holds import Holds
from llm_gate.engine.resolve import DEFAULT
from llm_gate.engine.working import Working

T = TypeVar("T")


class Named(Protocol):
    """A request as far as it says who is to answer it."""

    @property
    def model(self) -> str:
        """The name that was asked for."""

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Names to try after it."""


class Pipeline:
    """Chooses among bounded targets, makes the attempts, and settles. `instance_id` names this gateway to others."""

    def __init__(self, *, access: Access, admission: Admission, fleet: Fleet, instance_id: str) -> None:
        self.access = access
        self.admission = admission
        self.fleet = fleet
        self.instance_id = instance_id
        self.attempts = Attempts(fleet)
        self.chooser = Chooser(fleet, random)

    async def routed(
        self,
        working: Working,
        operation: Operation,
        request: Named,
        context: CallContext,
        needs: frozenset[Ability] = frozenset(),
        *,
        kind: SearchKind | None = None,
    ) -> tuple[Holds, Route]:
        """Return what binds the caller, and where its plan lets the call go; `kind` is that of a search.

        Raises:
            CallerError: the name leads nowhere, or the plan allows none of it.
            ProviderUnavailable: everything it leads to is known to be away.
        """
        holds = await self.access.holds(context.caller)
        route = working.directory_of(context.caller.tenant).route(
            request.model,
            operation,
            context.received_at.date(),
            context.headers,
            needs=needs,
            fallbacks=request.fallbacks or context.fallbacks,
            kind=kind,
        )
        standing = holds.standing
        if standing.allowed_models or standing.excluded:
            route = allowed_part(route, standing, request.model)
        return holds, route

    def choose(
        self, route: Route, bounds: Sequence[Bound], standing: Standing, context: CallContext
    ) -> tuple[tuple[Bound, ...], tuple[Tried, ...]]:
        """Put the targets into order, those with room first, and leave out what is cooling.

        Raises:
            ProviderError: the only target is left alone for now; nothing is held.
            AllAttemptsFailed: all of several are.
        """
        bounds = payable(bounds, standing)
        if len(bounds) > 1:
            bounds = self.chooser.order(route, bounds, context.sticky, context.caller)
        usable: list[Bound] = []
        cooling: list[ProviderError] = []
        tried: list[Tried] = []
        for each in bounds:
            trouble = self.fleet.trouble(each.target)
            if trouble is None:
                usable.append(each)
            else:
                cooling.append(trouble)
                tried.append(tried_of(each.target, trouble, was_called=False))
        if not usable:
            # Somebody is finding out whether one of them is well again: that is worth a little waiting.
            usable = [each for each in bounds if self.fleet.is_probed(each.target)]
        if not usable:
            raise cooling[0] if len(cooling) == 1 else AllAttemptsFailed(cooling)
        return tuple(self.fleet.roomy_first(usable)), tuple(tried)

    async def answer(
        self,
        working: Working,
        admitted: Admitted[Any],
        calls: Callable[[Booking], Call[Attempted[T]]],
        context: CallContext,
    ) -> Answer[T]:
        """Make the attempts of a call that is answered whole, and settle it; raises what `Attempts.run` raises."""
        started_s = perf_counter()

        def ending(booking: Booking) -> Call[Attempted[T]]:
            call = calls(booking)

            async def once(target: Target, turn: Turn) -> Attempted[T]:
                try:
                    return await call(target, turn)
                finally:
                    turn.leave_room()

            return once

        async def discard(late: Attempted[T]) -> None:
            await late.booking.settle()

        try:
            success = await self.run(working, admitted, ending, context, discard=discard)
            upstream_s = perf_counter() - started_s
            attempted = success.value
            if attempted.booking is not admitted.booking:
                admitted.booking.lost()
            await attempted.booking.settle()
        finally:
            admitted.booking.close()
        costs = attempted.costs
        return Answer(
            result=attempted.result,
            target=success.target,
            cost=costs[0] if len(costs) == 1 else total_cost(costs),
            usage=attempted.usages[0] if len(costs) == 1 else total_usage(attempted.usages),
            attempts=success.attempts + len(costs) - 1,
            dropped=attempted.dropped,
            upstream_s=upstream_s,
            shown_headers=attempted.shown_headers,
            tried=(*admitted.tried, *success.tried),
        )

    async def run(
        self,
        working: Working,
        admitted: Admitted[Any],
        calls: Callable[[Booking], Call[T]],
        context: CallContext,
        *,
        discard: Callable[[T], Awaitable[None]] | None,
    ) -> Success[T]:
        """Make the attempts of a call, and note how they ended; a failed call is settled.

        `discard` ends what came too late from a target that was asked beside another; without it, none is.
        """
        booking, name = admitted.booking, admitted.request.model
        plan = plan_of(working, booking.call.operation, context)

        async def rival(bound: Bound) -> Call[T]:
            other = await self.admission.book(
                context, booking.call.operation, admitted.holds, [bound], count=0
            )
            return kept(other, calls(other))

        try:
            if discard is None or plan.policy.hedge_after_s is None or len(admitted.bounds) == 1:
                success = await self.attempts.run(admitted.bounds, calls(booking), plan)
            else:
                success = await run_hedged(
                    self.attempts, admitted.bounds, calls(booking), plan, rival=rival, discard=discard
                )
        except GateError as error:
            if isinstance(error, AllAttemptsFailed):
                self.fleet.note_all_failed(name or DEFAULT, error.message)
            await booking.settle_failed(error)
            raise
        if name in {"", DEFAULT}:
            self.fleet.current = success.target.provider
        return success


def plan_of(working: Working, operation: Operation, context: CallContext) -> Plan:
    """Return how a call is tried."""
    return Plan(
        operation=operation,
        policy=context.policy or working.policy,
        within_s=left_s(context, working.deadlines.total_s),
        watch=context.watch,
        # Whoever brings a policy of its own means just that.
        is_budgeted=context.policy is None,
        span=context.span,
    )


def left_s(context: CallContext, total_s: float) -> float:
    """Return how long a call may take: as configured, or less where the caller says so."""
    return total_s if context.timeout_s is None else min(context.timeout_s, total_s)


def payable(bounds: Sequence[Bound], standing: Standing) -> list[Bound]:
    """Leave out targets without a price where money is limited, as long as there is one with a price."""
    if all(quota.limit.meter != "cost" for quota in standing.quotas):
        return list(bounds)
    return [bound for bound in bounds if bound.cost_nanos is not None] or list(bounds)
