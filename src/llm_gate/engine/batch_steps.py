"""What is done for one batch: it is checked, its lines are worked on, its files are written, it is settled.

Each change of phase is written before the next begins. Every step may be done again without harm, but handing a batch
to its vendor: one whose process died over that ends as failed, and is charged at its bound, since nobody knows whether
the vendor has it.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic

from msgspec import Struct, structs

from llm_gate.domain.batches import (
    MOST_LINES,
    Batch,
    BatchCounts,
    Batches,
    BatchFault,
    BatchStatus,
    BatchTokens,
    LineResult,
)
from llm_gate.domain.errors import (
    GateError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ProviderError,
    QuotaExceeded,
    StoreUnavailable,
)
from llm_gate.domain.files import FileShelf
from llm_gate.engine.batch_calls import LineCalls
from llm_gate.engine.batch_held import Held, Stopped, TakenOver
from llm_gate.engine.batch_lines import Line, Sheet, Wording, check_sheet, read_lines, spot_of
from llm_gate.engine.batch_vendor import Place, VendorBatches, missing, operation_of
from llm_gate.engine.gate import Gate

AT_ONCE = 4
"""How many batches one process works through at the same moment; their files are in memory meanwhile."""

OUTPUT_S = 30 * 86_400
"""How long the files of a batch are kept where nobody says, in seconds."""

LOOKS_AT_ONCE = 4
"""How many vendors one process asks at the same moment how batches stand."""

_LOOK_S = 0.2
_LONGEST_PAUSE_S, _SLOWER_AFTER_S = 60.0, 30.0
_LATE_MS = 48 * 3_600_000


class _Ended(Struct, frozen=True, kw_only=True):
    """What the lines of a batch came to."""

    output: bytes
    errors: bytes
    counts: BatchCounts
    tokens: BatchTokens | None
    cost_nanos: int | None


class BatchSteps:
    """The steps of the batches of one process."""

    def __init__(self, gate: Gate, batches: Batches, shelf: FileShelf, wording: Wording) -> None:
        self._gate = gate
        self._batches = batches
        self._shelf = shelf
        self._wording = wording
        self._calls = LineCalls(gate, batches, wording)
        self._vendor = VendorBatches(gate, wording)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def advance(self, held: Held) -> None:
        """Do what the phase of a batch asks for."""
        match held.batch.phase:
            case "validating":
                async with self._room:
                    await self._check(held)
            case "submitting":
                await self._abandon(held)
            case "waiting":
                await self._look(held)
            case "collecting":
                async with self._room:
                    await self._collect(held)
            case "settling":
                await self._vendor.settle(held)
                await self._end(held)
            case "working":
                async with self._room:
                    await self._work_through(held)
            case _:
                async with self._room:
                    await self._write(held)

    async def _check(self, held: Held) -> None:
        """Read the file, find what is wrong with it, and choose where it is worked on."""
        batch = held.batch
        if batch.is_cancelled:
            await self._end(held, ended_as="cancelled", cancelling_ms=held.now_ms())
            return
        try:
            data = await self._shelf.read(batch.tenant, batch.input_file)
        except NotFound as error:
            await self._fail(held, BatchFault(code="file_not_found", message=error.message))
            return
        sheet = await asyncio.to_thread(check_sheet, data, batch.endpoint, self._wording)
        del data
        faults = sheet.faults or await self._model_faults(held, sheet)
        if faults:
            await self._fail(held, *faults)
            return
        await held.save(counts=BatchCounts(total=len(sheet.lines)), begun_ms=held.now_ms())
        if batch.wish == "gateway" or not await self._hand_in(held, sheet):
            names = {each.model for each in sheet.models}
            await held.save(
                phase="working",
                way="gateway",
                status="in_progress",
                provider="",
                model=names.pop() if len(names) == 1 else "",
                deployment="",
                prices=(),
            )

    async def _model_faults(self, held: Held, sheet: Sheet) -> tuple[BatchFault, ...]:
        """Say which models the lines ask for that are not there, or not for this caller."""
        faults: list[BatchFault] = []
        working = self._gate.working.enter()
        try:
            context = held.context(await held.caller(), held.batch.request_id)
            for each in sheet.models:
                asked = _Asked(model=each.model)
                try:
                    await self._gate.pipeline.routed(working, operation_of(held), asked, context, each.needs)
                except (NotFound, NotAllowed, InvalidRequest) as error:
                    param = None if error.code in {"account_inactive", "plan_missing"} else "body.model"
                    faults.append(
                        BatchFault(code=error.code, message=error.message, line=each.line, param=param)
                    )
                except ProviderError:
                    # Everything it leads to is away now; that may pass.
                    continue
        finally:
            working.leave()
        return tuple(faults)

    async def _hand_in(self, held: Held, sheet: Sheet) -> bool:
        """Hand a batch to its vendor, or say why not; False where it is to be worked on here."""
        working = self._gate.working.enter()
        try:
            place = await self._vendor.place(working, held, sheet)
            if not isinstance(place, Place):
                return await self._is_refused(held, "batch_not_offered", place)
            try:
                prepared = await asyncio.to_thread(self._vendor.prepare, held, sheet.lines, place)
                await self._vendor.submit(working, held, place, prepared)
            except (InvalidRequest, QuotaExceeded) as error:
                return await self._is_refused(held, error.code, error.message)
            except StoreUnavailable:
                # Nothing was sent: it begins again.
                held.batch = structs.replace(held.batch, phase="validating", way=None)
                raise
            except GateError as error:
                await self._fail(held, BatchFault(code=error.code, message=error.message))
        finally:
            working.leave()
        return True

    async def _is_refused(self, held: Held, code: str, why: str) -> bool:
        """End a batch that was meant for its vendor and cannot go there; False where it may be worked on here."""
        if held.batch.wish != "vendor":
            return False
        await self._fail(
            held, BatchFault(code=code, message=f"the batch cannot be handed to its provider: {why}")
        )
        return True

    async def _abandon(self, held: Held) -> None:
        """End a batch whose process died while it was handed in: nobody knows whether the vendor has it."""
        charged = await self._vendor.give_up(held)
        fault = BatchFault(
            code="submission_unclear",
            message="the gateway stopped while the batch was handed in; it is not handed in a second time",
        )
        await self._end(held, ended_as="failed", faults=(fault,), cost_nanos=charged)

    async def _look(self, held: Held) -> None:
        """Ask the vendor how a batch stands, and wait for the next look."""
        working = self._gate.working.enter()
        try:
            if not held.batch.is_cancelled:
                await held.caller()
            async with self._looks:
                view = await self._vendor.look(working, held)
        finally:
            working.leave()
        total, completed, failed = view.counts
        counts = BatchCounts(total=total or held.batch.counts.total, completed=completed, failed=failed)
        match view.status:
            case "completed" | "expired" | "cancelled":
                # One that was stopped here for a reason has failed, whatever the vendor calls it.
                ended_as: BatchStatus = "failed" if held.batch.faults else view.status
                await held.save(
                    phase="collecting", status=_finalizing(held), counts=counts, ended_as=ended_as,
                    finalizing_ms=held.now_ms(), view_data={"files": ",".join(view.files)},
                )  # fmt: skip
            case "failed":
                faults = tuple(
                    BatchFault(code=code, message=message, line=line, param=param)
                    for code, message, line, param in view.faults
                ) or (BatchFault(code="provider_failed", message="The provider failed the batch."),)
                await held.save(phase="settling", ended_as="failed", faults=faults, cost_nanos=0)
            case _:
                status: BatchStatus = "validating" if view.status == "queued" else "in_progress"
                if held.batch.is_cancelled:
                    status = "cancelling"
                if (status, counts) != (held.batch.status, held.batch.counts):
                    await held.save(status=status, counts=counts)
                await self._pause(held)

    async def _pause(self, held: Held) -> None:
        """Wait for the next look: the longer a batch takes, the longer; not if it is not wanted any more."""
        age_s = (held.now_ms() - held.batch.started_ms) / 1000
        look_every_s = self._vendor.look_every_s(self._gate.working, held)
        pause_s = min(look_every_s * (1 + age_s / _SLOWER_AFTER_S), max(_LONGEST_PAUSE_S, look_every_s))
        ends_s = monotonic() + pause_s
        while monotonic() < ends_s and not held.is_closing:
            if held.batch.is_cancelled and held.batch.cancelling_ms is None:
                return
            await asyncio.sleep(min(_LOOK_S, max(0.0, ends_s - monotonic())))

    async def _collect(self, held: Held) -> None:
        lines = await self._lines(held)
        working = self._gate.working.enter()
        try:
            collected = await self._vendor.collect(working, held, lines)
        finally:
            working.leave()
        output, errors = await self._put_files(held, collected.output, collected.errors)
        await held.save(
            phase="settling",
            output_file=output,
            error_file=errors,
            counts=collected.counts,
            tokens=collected.tokens,
            units=collected.units,
            cost_nanos=collected.cost_nanos,
            price_ids=collected.price_ids,
            is_estimated=collected.is_estimated,
        )

    async def _work_through(self, held: Held) -> None:
        ended_as = await self._calls.work(held, await self._lines(held))
        if ended_as is not None:
            await self._finish_lines(held, ended_as)

    async def _finish_lines(self, held: Held, ended_as: BatchStatus, *faults: BatchFault) -> None:
        now_ms = held.now_ms()
        changes = {"cancelling_ms": held.batch.cancelling_ms or now_ms} if ended_as == "cancelled" else {}
        await held.save(
            phase="writing",
            status="cancelling" if ended_as == "cancelled" else "finalizing",
            ended_as=ended_as,
            finalizing_ms=now_ms,
            faults=(*held.batch.faults, *faults),
            **changes,
        )

    async def _write(self, held: Held) -> None:
        """Write the files of a batch that was worked on here."""
        lines = await self._lines(held)
        results = await self._batches.results(held.batch.id)
        ended = await asyncio.to_thread(self._ended, held.batch, lines, results)
        del results, lines
        output, errors = await self._put_files(held, ended.output, ended.errors)
        await self._end(
            held,
            output_file=output,
            error_file=errors,
            counts=ended.counts,
            tokens=ended.tokens,
            cost_nanos=ended.cost_nanos,
        )
        await self._batches.forget(held.batch.id)

    def _ended(self, batch: Batch, lines: tuple[Line, ...], results: tuple[LineResult, ...]) -> _Ended:
        by_number = {each.number: each for each in results}
        code, message = missing(batch.ended_as)
        output: list[bytes] = []
        errors: list[bytes] = []
        for line in lines:
            result = by_number.get(line.number)
            if result is None:
                errors.append(self._wording.lost(spot_of(batch, line), code=code, message=message))
            else:
                (errors if result.is_error else output).append(result.text)
        costs = [each.cost_nanos for each in results]
        known = [cost for cost in costs if cost is not None]
        failed = sum(each.is_error for each in results)
        return _Ended(
            output=b"".join(text + b"\n" for text in output),
            errors=b"".join(text + b"\n" for text in errors),
            counts=BatchCounts(total=len(lines), completed=len(results) - failed, failed=failed),
            tokens=_added(each.tokens for each in results if each.tokens is not None),
            cost_nanos=sum(known) if len(known) == len(costs) else None,
        )

    async def _lines(self, held: Held) -> tuple[Line, ...]:
        """Read the lines again.

        Raises:
            Stopped: the input file is gone.
        """
        try:
            data = await self._shelf.read(held.batch.tenant, held.batch.input_file)
        except NotFound as error:
            raise Stopped(BatchFault(code="file_not_found", message=error.message)) from None
        return (await asyncio.to_thread(read_lines, data))[:MOST_LINES]

    async def _put_files(self, held: Held, output: bytes, errors: bytes) -> tuple[str | None, str | None]:
        """Keep the files of a batch; done twice, it keeps them once."""
        batch = held.batch
        names: list[str | None] = []
        for kind, data in (("output", output), ("error", errors)):
            if not data:
                names.append(None)
                continue
            file = await self._shelf.put(
                batch.tenant,
                batch.application,
                batch.user,
                purpose="batch_output",
                name=f"{batch.id}_{kind}.jsonl",
                data=data,
                expires_after_s=batch.output_expires_s or OUTPUT_S,
                file_id=f"file-{batch.stem}-{kind}",
            )
            names.append(file.id)
        return names[0], names[1]

    async def stop(self, held: Held, fault: BatchFault) -> None:
        """See to the end of a batch that may not go on: what is done of it is written all the same."""
        with suppress(TakenOver, StoreUnavailable):
            if held.batch.phase == "working":
                await self._finish_lines(held, "failed", fault)
            elif held.batch.phase == "waiting" and not held.batch.is_cancelled:
                await held.save(is_cancelled=True, faults=(*held.batch.faults, fault))
            elif held.batch.phase == "validating":
                await self._fail(held, fault)
            elif held.batch.way == "vendor":
                await self._lose(held, fault)
            else:
                await self._end(held, ended_as="failed", faults=(*held.batch.faults, fault))

    async def give_up(self, held: Held, error: Exception) -> bool:
        """End a batch that does not get on, once it is late or nobody can mend it; tells whether it has."""
        is_late = held.now_ms() > held.batch.expires_ms + _LATE_MS
        is_refused = not isinstance(error, ProviderError) or not error.moves_on
        if not is_late and not is_refused:
            return False
        message = (
            error.message
            if isinstance(error, GateError)
            else f"a fault of the gateway: {type(error).__name__}"
        )
        fault = BatchFault(
            code=error.code if isinstance(error, GateError) else "internal_error", message=message
        )
        with suppress(TakenOver, StoreUnavailable):
            if held.batch.way == "vendor":
                await self._lose(held, fault)
            else:
                await self._end(held, ended_as="failed", faults=(*held.batch.faults, fault))
        return True

    async def _lose(self, held: Held, fault: BatchFault) -> None:
        """End a batch that its vendor has and nobody can follow: it is charged at its bound."""
        charged = await self._vendor.give_up(held)
        await self._end(held, ended_as="failed", faults=(*held.batch.faults, fault), cost_nanos=charged)

    async def _fail(self, held: Held, *faults: BatchFault) -> None:
        await self._end(held, ended_as="failed", faults=faults)

    async def _end(self, held: Held, **changes: object) -> None:
        ended_as = changes.get("ended_as", held.batch.ended_as)
        await held.save(**{**changes, "phase": "over", "status": ended_as, "ended_ms": held.now_ms()})


class _Asked(Struct, frozen=True, kw_only=True):
    """A request as far as it says who is to answer it."""

    model: str
    fallbacks: tuple[str, ...] = ()


def _finalizing(held: Held) -> BatchStatus:
    return "cancelling" if held.batch.is_cancelled else "finalizing"


def _added(tokens: Iterable[BatchTokens]) -> BatchTokens | None:
    total: BatchTokens | None = None
    for each in tokens:
        known = total or BatchTokens()
        total = BatchTokens(
            input=known.input + each.input,
            cached=known.cached + each.cached,
            output=known.output + each.output,
            reasoning=known.reasoning + each.reasoning,
        )
    return total
