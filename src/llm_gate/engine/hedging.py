"""Asks a second target beside one that is slow; whoever answers first wins, and what the other cost is recorded.

Theory of operation: the main attempts go on as they always do. When nothing has come after the delay, and the first
target is still being asked, the next one is taken out of their list and asked by a rival, which has a place of its own
in the ledger: held, charged and recorded by itself, but not counted as a call. The loser is cancelled.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from llm_gate.domain.errors import GateError
from llm_gate.domain.provider import Target
from llm_gate.engine.admission import Booking
from llm_gate.engine.attempts import Attempts, Call, Plan, Success, Trial
from llm_gate.engine.estimate import Bound
from llm_gate.engine.fleet import Turn

T = TypeVar("T")
Rival = Callable[[Bound], Awaitable[Call[T]]]
"""Lets a second call in, and returns how it is made.

Raises:
    GateError: it is not let in.
"""


async def run_hedged(
    attempts: Attempts,
    bounds: Sequence[Bound],
    call: Call[T],
    plan: Plan,
    *,
    rival: Rival[T],
    discard: Callable[[T], Awaitable[None]],
) -> Success[T]:
    """Return the first success of the attempts or of their rival; raises what `Attempts.run` raises.

    An answer that comes too late is given to `discard`.
    """
    trial = Trial(attempts.fleet, bounds, call, plan)
    main = asyncio.ensure_future(attempts.run_trial(trial))
    second: asyncio.Future[Success[T]] | None = None
    winner: asyncio.Future[Success[T]] | None = None
    try:
        await asyncio.wait({main}, timeout=plan.policy.hedge_after_s)
        if not main.done() and trial.has_next and attempts.fleet.may_hedge():
            second = asyncio.ensure_future(_challenge(attempts, trial.give_next(), plan, rival))
        winner = main if second is None else await _winner(main, second)
        success = await winner
        if second is not None:
            attempts.fleet.meters.hedged(success.target.provider, won=winner is second)
        return success
    finally:
        for each in (main, second):
            if each is not None and each is not winner:
                await _stop(each, discard)


async def _challenge(attempts: Attempts, bound: Bound, plan: Plan, rival: Rival[T]) -> Success[T]:
    call = await rival(bound)
    return await attempts.run_trial(Trial(attempts.fleet, [bound], call, plan))


async def _winner(
    main: "asyncio.Future[Success[T]]", second: "asyncio.Future[Success[T]]"
) -> "asyncio.Future[Success[T]]":
    """Return the first side that answered; the main one where both failed."""
    running = {main, second}
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for each in (main, second):
            if each in done and not each.cancelled() and each.exception() is None:
                return each
    return main


async def _stop(each: "asyncio.Future[Success[T]]", discard: Callable[[T], Awaitable[None]]) -> None:
    """End a side that is no longer needed."""
    if not each.done():
        each.cancel()
        await asyncio.wait({each})
    if each.cancelled():
        return
    error = each.exception()
    if error is None:
        await discard(each.result().value)
    elif not isinstance(error, GateError):
        raise error


def kept(booking: Booking, call: Call[T]) -> Call[T]:
    """Return a call that ends its booking where it comes to nothing."""

    async def once(target: Target, turn: Turn) -> T:
        is_answered = False
        try:
            answer = await call(target, turn)
            is_answered = True
            return answer
        finally:
            if not is_answered:
                booking.close()

    return once
