"""Tries targets until one answers: repeats, pauses and fallback, for every operation, whole and streamed.

Theory of operation: the targets come in the order in which they are to be tried. At each of them the error's class and
the policy say whether it is tried again after a pause, and the deployment's budget whether it may be. What is given up
is not come back to. All of it lies under one deadline: a pause that would pass it is not begun.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Generic, TypeVar

from msgspec import Struct

from llm_gate.domain.conditions import AttemptWatch, Tried
from llm_gate.domain.errors import (
    AllAttemptsFailed,
    GateError,
    ProviderError,
    ProviderTimeout,
    QuotaExceeded,
)
from llm_gate.domain.policy import AttemptPolicy, pause_before_repeat
from llm_gate.domain.provider import Target
from llm_gate.domain.tracing import NO_SPAN, Span
from llm_gate.engine.deadline import Deadline
from llm_gate.engine.estimate import Bound
from llm_gate.engine.fleet import Fleet, Turn

T = TypeVar("T")
_AFTER_S = 0.01  # a timer may fire a little early
Call = Callable[[Target, Turn], Awaitable[T]]


class Plan(Struct, frozen=True, kw_only=True):
    """How one call is tried. `within_s` bounds all of it, in seconds from now; `is_budgeted` its repeats."""

    operation: str
    policy: AttemptPolicy
    within_s: float
    watch: AttemptWatch | None = None
    is_budgeted: bool = True
    span: Span = NO_SPAN


class Success(Struct, Generic[T], frozen=True, kw_only=True):
    """An answer, who gave it, how many attempts were made, and what had failed before."""

    value: T
    target: Target
    attempts: int
    tried: tuple[Tried, ...] = ()


class Attempts:
    """Runs the attempts of calls over a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def run(self, bounds: Sequence[Bound], call: Call[T], plan: Plan) -> Awaitable[Success[T]]:
        """Return the first success, when awaited.

        Raises:
            ProviderError: the only target failed, or one failed in a way that no other target can mend.
            AllAttemptsFailed: several targets failed.
            QuotaExceeded: the limits leave no room for any target.
        """
        return self.run_trial(Trial(self.fleet, bounds, call, plan))

    async def run_trial(self, trial: "Trial[T]") -> Success[T]:
        """Run one call's attempts under their deadline, as `run` does."""
        try:
            with Deadline(trial.left_s):
                return await trial.run()
        except TimeoutError:
            trial.note(_late(trial.target), trial.target)
            raise trial.failure() from None
        finally:
            trial.forget()


class Trial(Generic[T]):
    """The attempts of one call."""

    def __init__(self, fleet: Fleet, bounds: Sequence[Bound], call: Call[T], plan: Plan) -> None:
        self.target = bounds[0].target
        self._fleet = fleet
        self._bounds = list(bounds)
        self._index = 0
        self._call = call
        self._plan = plan
        self._ends_s = monotonic() + plan.within_s
        self._attempts = 0
        self._errors: list[ProviderError] = []
        self._tried: list[Tried] = []
        self._refusal: QuotaExceeded | None = None

    @property
    def left_s(self) -> float:
        """How long it may still go on."""
        return max(0.0, self._ends_s - monotonic())

    @property
    def has_next(self) -> bool:
        """Whether the first target is still being asked, and another waits behind it."""
        return self._index == 0 and len(self._bounds) > 1

    def give_next(self) -> Bound:
        """Take the target behind the first out, for somebody else to ask."""
        return self._bounds.pop(1)

    @property
    def _is_last(self) -> bool:
        return self._index == len(self._bounds) - 1

    async def run(self) -> Success[T]:
        """Try one target after the other; raises what `Attempts.run` raises."""
        watch = self._plan.watch
        while self._index < len(self._bounds):
            bound = self._bounds[self._index]
            self.target = bound.target
            if watch is not None:
                watch.trying(bound.target.provider)
            tries = 0
            while True:
                tries += 1
                result = await self._once(bound, is_first=tries == 1)
                if isinstance(result, Success):
                    return result
                if result is None or not await self._may_repeat(bound.target, result, tries):
                    break
            self._index += 1
            following = self._bounds[self._index].target if self._index < len(self._bounds) else None
            self._give_up(bound.target, following)
        raise self.failure()

    def _give_up(self, target: Target, following: Target | None) -> None:
        if following is not None:
            self._fleet.meters.fell_back(target.provider, self._tried[-1].code)
        if self._plan.watch is not None and self._errors:
            next_provider = None if following is None else following.provider
            self._plan.watch.failed(target.provider, self._errors[-1], next_provider)

    async def _once(self, bound: Bound, *, is_first: bool) -> Success[T] | ProviderError | None:
        """Make one attempt: its success, the error it met with, or None where there is nothing to repeat."""
        target, fleet = bound.target, self._fleet
        try:
            turn = fleet.enter_now(target, self._plan.operation)
            if turn is None:
                turn = await fleet.enter(
                    target,
                    operation=self._plan.operation,
                    tokens=bound.tokens,
                    patience_s=self._patience_s() if self._is_last else 0.0,
                )
        except ProviderError as error:
            self.note(error, target, was_called=False)
            return None
        if is_first:
            fleet.called(turn)
        turn.span = self._plan.span.attempt(self._plan.operation, target)
        self._attempts += 1
        has_ended = False
        try:
            value = await self._call(target, turn)
        except QuotaExceeded as refusal:
            # The limits have no room for this one: they may for another vendor's.
            self._refusal = refusal
            self._tried.append(tried_of(target, refusal, was_called=False))
            return None
        except ProviderError as error:
            hide_secret(error, target)
            has_ended = True
            turn.failed(error)
            turn.leave_room()
            log_failure(error, target)
            self.note(error, target)
            if not error.moves_on:
                raise
            return error
        else:
            has_ended = True
            turn.answered()
        finally:
            if not has_ended:
                turn.left()
        log_answer(turn, self._attempts)
        return Success(value=value, target=target, attempts=self._attempts, tried=tuple(self._tried))

    async def _may_repeat(self, target: Target, error: ProviderError, tries: int) -> bool:
        """Wait for the moment of the next try at the same target; False where there is none."""
        fleet, is_last = self._fleet, self._is_last
        if not error.may_repeat:
            return False
        chance = fleet.chance()
        pause_s = pause_before_repeat(self._plan.policy, error, tries=tries, is_last=is_last, chance=chance)
        if pause_s is None or pause_s >= self.left_s:
            return False
        trouble = fleet.trouble(target)
        rest_s = 0.0 if trouble is None else trouble.retry_after_s or 0.0
        if rest_s > pause_s:
            # What the vendor asked for was found worth waiting for; a breaker that failures have opened is not.
            if error.retry_after_s is None or rest_s >= self.left_s:
                return False
            pause_s = rest_s + _AFTER_S
        if self._plan.is_budgeted and not fleet.may_repeat(target):
            return False
        fleet.meters.retried(target.provider)
        await asyncio.sleep(pause_s)
        return True

    def _patience_s(self) -> float:
        return min(self._plan.policy.longest_pause_s, self.left_s)

    def note(self, error: ProviderError, target: Target, *, was_called: bool = True) -> None:
        """Keep an error for the one who wants to know what was tried.

        Without where it arose: that would keep a refused answer, however large, until the collector comes.
        """
        error.__traceback__ = error.__context__ = None
        self._errors.append(error)
        self._tried.append(tried_of(target, error, was_called=was_called))

    def forget(self) -> None:
        """Let go of the errors, which lead back here by where they arose."""
        self._errors = []

    def failure(self) -> GateError:
        """Return what the caller is told when nobody answered."""
        if not self._errors:
            assert self._refusal is not None  # noqa: S101 - a target is given up for an error or a refusal
            return self._refusal
        if len({each.deployment + each.model for each in self._tried}) == 1:
            return self._errors[-1]
        return AllAttemptsFailed(_last_of_each(self._errors))


def _last_of_each(errors: Sequence[ProviderError]) -> list[ProviderError]:
    """Return the last error of each place, in the order in which they were first tried."""
    last: dict[tuple[str, str | None], ProviderError] = {}
    for error in errors:
        last[error.provider, error.model] = error
    return list(last.values())


def tried_of(target: Target, error: GateError, *, was_called: bool) -> Tried:
    """Return an error as one thing that was tried."""
    return Tried(
        provider=target.provider,
        model=target.model.name,
        deployment=target.deployment.name or target.provider,
        error=error.message,
        code=error.code,
        was_called=was_called,
    )


def _late(target: Target) -> ProviderTimeout:
    return ProviderTimeout(
        f"provider {target.provider!r} did not answer in time",
        provider=target.provider,
        model=target.wire_model,
    )


def hide_secret(error: ProviderError, target: Target) -> None:
    """Take the target's credential out of an error's texts, should the vendor have quoted it."""
    secret = target.deployment.auth.secret
    if secret is not None:
        error.message = secret.redact(error.message)
        error.detail = secret.redact(error.detail)
        error.args = (error.message,)


def log_answer(turn: Turn, attempts: int) -> None:
    """Tell the provider's logger that it answered; only there, and only where somebody wants to know."""
    logger = turn.place.logger
    if logger.isEnabledFor(logging.DEBUG):
        target = turn.place.target
        logger.debug(
            "attempt answered",
            extra={"provider": target.provider, "model": target.model.name, "attempts": attempts},
        )


def log_failure(error: ProviderError, target: Target) -> None:
    """Tell the provider's logger that an attempt failed."""
    logging.getLogger(f"llm_gate.provider.{target.provider}").warning(
        "attempt failed",
        extra={
            "provider": target.provider,
            "model": target.model.name,
            "error_code": error.code,
            "upstream_status": error.status,
            "error": error.message,
        },
    )
