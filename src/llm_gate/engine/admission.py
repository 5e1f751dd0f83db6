"""Lets calls in: what a call may cost is held before anything is sent, and replaced by what it did cost.

Theory of operation: `Admission.book` commits the intent of the first attempt together with everything it may use, or
refuses. The `Booking` then goes with the call: `begin` commits the intent of every further attempt, `answered`,
`failed` and `left` note how an attempt ended, and `settle` ends it all. Whatever happens to the call (the caller
leaves, the task is cancelled), `close` hands the end in, and the ledger sees to it that it is written.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

from llm_gate.domain.access import CallContext, Tally
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import (
    GateError,
    NotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    QuotaExceeded,
    StoreUnavailable,
    Unsettled,
)
from llm_gate.domain.ledger import (
    JOBS_OWNER,
    Advance,
    AttemptStatus,
    Call,
    Ended,
    Hold,
    Intent,
    Missing,
    Outcome,
    Quality,
    RecordStatus,
    Refused,
    Release,
    Reserve,
    Result,
    Settle,
    Shortage,
)
from llm_gate.domain.limits import BUCKET_OF
from llm_gate.domain.plans import Plan
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.stores import Ledger, ShortWindows
from llm_gate.domain.usage import Usage
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.estimate import Bound
from llm_gate.engine.holds import Holds, check_included, refusal

_HOUR_MS = 3_600_000
_FIRST_FAILURE_STATUS = 300
_logger = logging.getLogger("llm_gate.ledger")


class Plans(Protocol):
    """Where the plans that could be had stand."""

    plans: tuple[Plan, ...]


class Admission:
    """Makes bookings. `owner` is this process as the ledger knows it; `new_id` gives ids that grow with time."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        plans: Plans,
        owner: str,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        short: ShortWindows | None = None,
    ) -> None:
        self.ledger = ledger
        self.owner = owner
        self.now_ms = now_ms
        self.short = short
        self.open_bookings = 0
        self._plans = plans
        self.new_id = new_id

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans that could be had, the cheapest first."""
        return self._plans.plans

    async def book(
        self,
        context: CallContext,
        operation: Operation,
        holds: Holds,
        bounds: Sequence[Bound],
        *,
        count: int = 1,
        job_id: str | None = None,
    ) -> "Booking":
        """Hold what a call may use, at the dearest of its targets, and commit that the first is about to be called.

        With a `job_id`, what is held belongs to that job and not to this process.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing is held.
            NotFound: the quote that the call names is not open.
            StoreUnavailable: the ledger cannot be reached.
        """
        call = self._call(context, operation, holds, count=count, job_id=job_id)
        booking = Booking(self, call, holds, bounds, context.tally)
        await booking.open()
        return booking

    async def book_kept(
        self,
        context: CallContext,
        operation: Operation,
        holds: Holds,
        target: Target,
        *,
        saved_nanos: int | None,
    ) -> None:
        """Let a call in that a kept answer settles, and record it: one call, no tokens, no cost.

        `target` is who gave the answer once; `saved_nanos` is what it cost then. Raises what `book` raises, and
        Unsettled where it is not known to be recorded.
        """
        free = Bound(target=target, input_tokens=0, tokens=0, cost_nanos=0, most_tokens=0, most_cost_nanos=0)
        booking = Booking(self, self._call(context, operation, holds), holds, [free], context.tally)
        await booking.settle_kept(saved_nanos)

    def _call(
        self,
        context: CallContext,
        operation: Operation,
        holds: Holds,
        *,
        count: int = 1,
        job_id: str | None = None,
    ) -> Call:
        return Call(
            id=job_id or self.new_id(),
            tenant=context.caller.tenant,
            application=context.caller.application,
            user=context.caller.user,
            key_id=context.caller.key_id,
            request_id=context.request_id,
            operation=operation,
            bucket=BUCKET_OF[operation],
            endpoint=context.endpoint,
            made_ms=milliseconds(context.received_at),
            owner=self.owner if job_id is None else JOBS_OWNER,
            plan=holds.standing.plan.name,
            count=count,
            quote_id=context.quote_id,
        )


class Booking:
    """One call's place in the ledger, from before its first attempt to its end."""

    def __init__(
        self,
        admission: Admission,
        call: Call,
        holds: Holds,
        bounds: Sequence[Bound],
        tally: Tally | None = None,
    ) -> None:
        self.call = call
        self._tally = tally
        self._admission = admission
        self._ledger = admission.ledger
        self._holds = holds
        self._bounds = tuple(bounds)
        self._dearest = max((bound.cost_nanos or 0 for bound in bounds), default=0)
        self._number = 0
        self._bound = bounds[0]
        self._started_ms = 0
        self._is_called = False
        self._was_called = False
        self._last: Outcome | None = None
        self._is_over = False
        self._is_open = False
        self._taken: Mapping[str, int] = {}

    @property
    def is_strict(self) -> bool:
        """Whether what nobody counted is charged at its bound."""
        return self._holds.standing.is_strict

    @property
    def likely_input_tokens(self) -> int:
        """What the request is expected to have, where nobody has counted it."""
        return self._bound.input_tokens

    async def open(self) -> None:
        """Hold the call's bound, and commit the intent of the first attempt."""
        submitted = await self._reserve()
        try:
            result = await submitted
        except asyncio.CancelledError:
            # It may be held already, or be so in a moment; nothing was sent.
            self._hand_in_release()
            raise
        if isinstance(result, Missing | Refused):
            await self._refuse(result)
        self._is_open = True
        self._admission.open_bookings += 1

    async def settle_kept(self, saved_nanos: int | None) -> None:
        """Hold and end a call that a kept answer settles, both in one go."""
        reserved = await self._reserve()
        self._last = Outcome(
            number=self._number,
            provider=self._bound.target.provider,
            model=self._bound.target.model.name,
            started_ms=self._started_ms,
            ended_ms=self._started_ms,
            status="ok",
            synthetic=self._bound.target.deployment.spec.synthetic,
            saved_nanos=saved_nanos,
        )
        # It is handed in before the first answer comes, so that one commit does for both. Of a call that was
        # refused, there is nothing to end.
        ended = self._hand_in("ok", None)
        try:
            result = await reserved
        except (GateError, asyncio.CancelledError):
            _forget(ended)
            raise
        if isinstance(result, Missing | Refused):
            _forget(ended)
            await self._refuse(result)
        await self._settled(ended)

    async def _reserve(self) -> Awaitable[Result]:
        """Ask for what the call may use, and for the intent of its first attempt."""
        bound = self._bounds[0]
        check_included(
            self._holds.standing,
            bucket=self.call.bucket,
            provider=bound.target.provider,
            operation=self.call.operation,
            at_ms=self.call.made_ms,
            plans=self._admission.plans,
        )
        holds = self._holds_at(bound, self._dearest if bound.cost_nanos is not None else None)
        await self._take_short(holds)
        return self._ledger.submit(Reserve(call=self.call, holds=holds, intent=self._intend(bound)))

    async def _refuse(self, result: Missing | Refused) -> NoReturn:
        self._is_over = True
        await self._give_short_back()
        if isinstance(result, Missing):
            raise NotFound(
                f"there is no open quote {result.id!r}", param="x-llm-gate-quote", code="quote_not_found"
            )
        raise self._refusal(result)

    def _holds_at(self, bound: Bound, cost_nanos: int | None) -> tuple[Hold, ...]:
        return self._holds.of(
            bucket=self.call.bucket,
            provider=bound.target.provider,
            count=self.call.count,
            tokens=bound.tokens,
            cost_nanos=cost_nanos,
            at_ms=self.call.made_ms,
        )

    def _intend(self, bound: Bound) -> Intent:
        self._number += 1
        self._bound = bound
        self._started_ms = self._admission.now_ms()
        self._is_called = False
        return Intent(
            number=self._number,
            provider=bound.target.provider,
            model=bound.target.model.name,
            started_ms=self._started_ms,
            bound_tokens=bound.most_tokens,
            bound_cost_nanos=bound.most_cost_nanos,
        )

    def _refusal(self, refused: Refused) -> QuotaExceeded:
        return refusal(
            refused,
            self._holds.standing,
            provider=self._bound.target.provider,
            operation=self.call.operation,
            at_ms=self.call.made_ms,
            plans=self._admission.plans,
        )

    async def begin(self, target: Target, bound: Bound | None = None) -> None:
        """Commit that a target is about to be called; of the first one, this was done by `open`.

        `bound` is that of this attempt where it is another than the target's, which was given before.

        Raises:
            QuotaExceeded: a limit leaves no room for one more attempt.
            StoreUnavailable: the ledger cannot be reached.
        """
        if not self._is_called and self._last is None and target is self._bound.target:
            self._is_called = self._was_called = True
            return
        if bound is None:
            bound = next(each for each in self._bounds if each.target is target)
        if self._last is None:
            self.left()
        last = self._last
        assert last is not None  # noqa: S101 - `left` has just noted it where nothing else had
        intent = self._intend(bound)
        step = Advance(
            id=self.call.id, outcome=last, intent=intent, holds=self._holds_at(bound, bound.cost_nanos)
        )
        result = await self._ledger.submit(step)
        if isinstance(result, Refused):
            raise self._refusal(result)
        self._last = None
        self._is_called = True

    def answered(
        self, usage: Usage | None, cost: Cost | None, units: Mapping[str, int] | None = None
    ) -> None:
        """Note that the attempt gave an answer. Without a usage it is charged as estimated or at its bound.

        `units` are what else was made or used, by name; with them and a cost, no tokens need be counted.
        """
        if usage is None and (cost is None or units is None):
            self._end_uncounted("ok", None)
            return
        counted = usage or Usage()
        quality: Quality = "measured" if counted.source == "measured" else "estimated"
        self._end("ok", quality, counted, cost, units=units)

    def failed(self, error: ProviderError, usage: Usage | None = None, cost: Cost | None = None) -> None:
        """Note that the attempt failed; `usage` is what was counted before it did."""
        if self._last is not None:
            return
        if usage is None and is_unbilled(error):
            self._end("failed", "measured", Usage(), None, error=error)
        elif usage is None or self.is_strict:
            self._end_uncounted("failed", error)
        else:
            self._end("failed", "estimated", usage, cost, error=error)

    def left(self, usage: Usage | None = None, cost: Cost | None = None) -> None:
        """Note that nobody waits for the attempt any more; `usage` is what was counted so far."""
        if self._is_over or self._last is not None:
            return
        if not self._is_called:
            self._end("cut", "measured", Usage(), None)
        elif usage is None or self.is_strict:
            self._end_uncounted("cut", None)
        else:
            self._end("cut", "estimated", usage, cost)

    def _end(
        self,
        status: AttemptStatus,
        quality: Quality,
        usage: Usage,
        cost: Cost | None,
        *,
        error: ProviderError | None = None,
        units: Mapping[str, int] | None = None,
    ) -> None:
        unused = usage.total_tokens == 0 and status != "ok"
        self._last = Outcome(
            number=self._number,
            provider=self._bound.target.provider,
            model=self._bound.target.model.name,
            started_ms=self._started_ms,
            ended_ms=self._admission.now_ms(),
            status=status,
            quality=quality,
            units=usage.counts if units is None else {**usage.counts, **units},
            tokens=usage.total_tokens,
            cost_nanos=0 if unused else None if cost is None else cost.nanos,
            prices=() if cost is None else tuple(line.price.id for line in cost.lines),
            vendor_cost_nanos=usage.vendor_cost_nanos,
            error_code=None if error is None else error.code,
            upstream_status=None if error is None else error.status,
            synthetic=self._bound.target.deployment.spec.synthetic,
        )

    def _end_uncounted(self, status: AttemptStatus, error: ProviderError | None) -> None:
        """Charge what nobody counted: at the bound that holds for a strict plan, as it was estimated for others."""
        bound = self._bound
        tokens = bound.most_tokens if self.is_strict else bound.tokens
        self._last = Outcome(
            number=self._number,
            provider=bound.target.provider,
            model=bound.target.model.name,
            started_ms=self._started_ms,
            ended_ms=self._admission.now_ms(),
            status=status,
            quality="upper_bound" if self.is_strict else "estimated",
            units={"tokens": tokens},
            tokens=tokens,
            cost_nanos=bound.most_cost_nanos if self.is_strict else bound.cost_nanos,
            error_code=None if error is None else error.code,
            upstream_status=None if error is None else error.status,
            synthetic=bound.target.deployment.spec.synthetic,
        )

    async def settle(self) -> None:
        """End the call well: its record is on disk when this returns.

        Raises:
            Unsettled: the ledger cannot be reached; the record is written when it can.
        """
        await self._settled(self._hand_in("ok", None))

    async def _settled(self, ended: "asyncio.Future[Result]") -> None:
        try:
            result = await ended
        except StoreUnavailable as error:
            raise Unsettled(f"the call was answered, but not recorded yet: {error.message}") from error
        await self._return_rest(result)

    async def settle_failed(self, error: GateError) -> None:
        """End a call that failed; it waits for the record, but not for a ledger that is away."""
        if not self._was_called:
            self._hand_in_release()
            await self._give_short_back()
            return
        self.left()
        ended = self._hand_in("failed", error.code)
        if isinstance(error, StoreUnavailable):
            # It was waited for already, in vain.
            _forget(ended)
            return
        try:
            result = await ended
        except GateError:
            return
        await self._return_rest(result)

    def hand_over(self) -> tuple[int, int]:
        """Leave the call open: its job ends it. Returns the number and start (ms since 1970) of its attempt."""
        self._finish()
        return self._number, self._started_ms

    def lost(self) -> None:
        """End a call that another one beside it has answered; what it may have cost is charged all the same."""
        if not self._is_over:
            self.left()
            _forget(self._hand_in("cut", "hedged"))

    def close(self) -> None:
        """End the call if nothing else did: the caller has left, or the task was cancelled."""
        if self._is_over:
            return
        if not self._was_called:
            self._hand_in_release()
            return
        self.left()
        _forget(self._hand_in("cut", "client_gone"))

    def _hand_in(self, status: RecordStatus, error_code: str | None) -> "asyncio.Future[Result]":
        self._finish()
        step = Settle(
            id=self.call.id,
            outcome=self._last,
            status=status,
            ended_ms=self._admission.now_ms(),
            error_code=error_code,
        )
        ended = asyncio.ensure_future(self._ledger.submit(step))
        if self._tally is not None:
            self._tally.add(ended)
        return ended

    def _finish(self) -> None:
        self._is_over = True
        if self._is_open:
            self._is_open = False
            self._admission.open_bookings -= 1

    def _hand_in_release(self) -> None:
        self._finish()
        _forget(asyncio.ensure_future(self._ledger.submit(Release(id=self.call.id))))

    async def _take_short(self, holds: Sequence[Hold]) -> None:
        """Ask the counters that processes share, which are faster than the ledger; they only ever refuse early."""
        short = self._admission.short
        wanted = {
            f"{hold.account}|{hold.start_ms}": (hold.amount, hold.cap, hold.end_ms)
            for hold in holds
            if hold.end_ms - hold.start_ms <= _HOUR_MS
        }
        if short is None or not wanted:
            return
        full = await short.take(wanted)
        if full is None:
            self._taken = {name: amount for name, (amount, _, _) in wanted.items()}
            return
        self._is_over = True
        hold = next(hold for hold in holds if f"{hold.account}|{hold.start_ms}" == full)
        raise self._refusal(Refused(shortages=(Shortage(hold=hold, used=hold.cap, held=0),)))

    async def _give_short_back(self) -> None:
        if self._admission.short is not None and self._taken:
            await self._admission.short.give_back(self._taken)

    async def _return_rest(self, result: Result) -> None:
        """Give the shared counters back what was taken and not used."""
        if not self._taken or not isinstance(result, Ended) or result.record is None:
            return
        charged = {f"{hold.account}|{hold.start_ms}": amount for hold, amount in result.record.charges}
        rest = {name: amount - charged.get(name, 0) for name, amount in self._taken.items()}
        if self._admission.short is not None:
            await self._admission.short.give_back(
                {name: amount for name, amount in rest.items() if amount > 0}
            )


def is_unbilled(error: ProviderError) -> bool:
    """Tell whether an attempt that failed like this certainly cost nothing.

    A provider that answered with an error did not answer the request; one that fell silent may have.
    """
    if error.was_accepted and not error.is_unbilled:
        return False
    if isinstance(
        error,
        ProviderRateLimited
        | ProviderQuotaExhausted
        | ProviderAuthFailed
        | ProviderModelGone
        | ProviderRejected,
    ):
        return True
    return (
        error.is_unbilled
        or not error.was_sent
        or (error.status is not None and error.status >= _FIRST_FAILURE_STATUS)
    )


def _forget(future: "asyncio.Future[Result]") -> None:
    """Let a step go on without anyone waiting for it; the ledger keeps it, and a failure is said in the log."""

    def look(done: "asyncio.Future[Result]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            _logger.warning("a settlement waits for the store", extra={"error": str(error)})

    future.add_done_callback(look)
