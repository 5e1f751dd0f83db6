"""Hands a batch to its vendor, looks how it stands, and makes what came of it into the lines of our own surface.

All of it is one call of the ledger: what every line may cost is held before, and what the lines did cost is settled
once, at the price that held when the batch was handed in.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from msgspec import Struct, structs

from llm_gate.domain.batches import BatchCounts, BatchTokens, PinnedPrice
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import BadProviderResponse, GateError, GateFault, InvalidRequest, ProviderError
from llm_gate.domain.files import MOST_FILE_BYTES
from llm_gate.domain.ledger import AttemptStatus, Ended, Expire, Outcome, RecordStatus, Settle
from llm_gate.domain.plans import Standing
from llm_gate.domain.pricing import Price, batch_prices, cost_of
from llm_gate.domain.provider import BatchAnswer, BatchCodec, BatchLine, BatchView, HttpReply, Target, Ticket
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.text_rates import TextRates, text_rates
from llm_gate.domain.tracing import NO_SPAN
from llm_gate.domain.usage import Usage
from llm_gate.domain.windows import instant
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Answer
from llm_gate.engine.batch_held import Held
from llm_gate.engine.batch_lines import AskedLine, Line, Sheet, Wording, add_tokens, add_units, spot_of
from llm_gate.engine.estimate import (
    Bound,
    Size,
    bound,
    check_bounded,
    limit_output,
    size_of_chat,
    size_of_embedding,
)
from llm_gate.engine.exchanges import FIRST_FAILURE_STATUS, chat_codec, embedding_codec, failure_of, framed
from llm_gate.engine.exchanging import Road, drive, facts
from llm_gate.engine.gate import Gate
from llm_gate.engine.holds import Holds
from llm_gate.engine.working import Working

_SHORT_WINDOWS = frozenset({"minute", "hour"})
_MISSING: Mapping[str, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
    "failed": ("batch_failed", "The batch failed before this request was executed."),
}
_LOST = ("batch_line_missing", "The provider gave nothing for this request.")


class Place(Struct, frozen=True, kw_only=True):
    """Where a batch is handed in, and what binds it there."""

    target: Target
    holds: Holds


class Prepared(Struct, frozen=True, kw_only=True):
    """The lines as they go to the vendor, and what they may cost together."""

    lines: tuple[BatchLine, ...]
    bound: Bound
    prices: tuple[Price, ...]


class Collected(Struct, frozen=True, kw_only=True):
    """What came of a vendor's batch: the two files, and what the lines came to. A cost of None is not known."""

    output: bytes
    errors: bytes
    counts: BatchCounts
    tokens: BatchTokens | None
    units: Mapping[str, int]
    cost_nanos: int | None
    price_ids: tuple[str, ...]
    is_estimated: bool


def operation_of(held: Held) -> Operation:
    """Return what the calls of a batch are."""
    return "embedding" if held.batch.endpoint == "/v1/embeddings" else "chat"


class VendorBatches:
    """Batches that are worked on by their vendor."""

    def __init__(self, gate: Gate, wording: Wording) -> None:
        self._gate = gate
        self._wording = wording

    async def place(self, working: Working, held: Held, sheet: Sheet) -> Place | str:
        """Return where a batch could be handed in, or why it cannot be.

        Raises:
            GateError: as every call of the gate that is to be let in.
        """
        if len({each.model for each in sheet.models}) != 1:
            return "not every line names the same model"
        if working.guards is not None:
            return "guards look at every call"
        context = held.context(await held.caller(), held.batch.request_id)
        needs = frozenset(need for each in sheet.models for need in each.needs)
        asked = _Named(model=sheet.models[0].model)
        holds, route = await self._gate.pipeline.routed(working, operation_of(held), asked, context, needs)
        if any(
            quota.limit.meter == "requests" and quota.limit.window not in _SHORT_WINDOWS
            for quota in holds.standing.quotas
        ):
            return "the plan counts requests one by one"
        target = route.candidates[0].target
        if not _takes_batches(target):
            return f"{target.name} takes no batches"
        trouble = self._gate.fleet.trouble(target)
        return Place(target=target, holds=holds) if trouble is None else trouble.message

    def prepare(self, held: Held, lines: Sequence[Line], place: Place) -> Prepared:
        """Make the lines into what goes to the vendor; takes its time, so that it belongs into a thread.

        Raises:
            InvalidRequest: one of them cannot be carried over, or costs what nobody can say.
        """
        target, standing = place.target, place.holds.standing
        on = instant(held.batch.made_ms).date()
        prices = valid_prices(batch_prices(target.model.prices, target.model.batch_prices, on), on)
        rates = text_rates(prices, on, reads_only=operation_of(held) == "embedding")
        sent: list[BatchLine] = []
        whole = Bound(target=target, input_tokens=0, tokens=0, cost_nanos=0, most_tokens=0, most_cost_nanos=0)
        for line in lines:
            asked = self._wording.ask(held.batch.endpoint, line.body)
            try:
                request = _bounded(asked.request, standing, target)
                call = _encoded(request, target)
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"line {line.number}: {error.message}", param=error.param, code=error.code
                ) from None
            sent.append(BatchLine(mark=str(line.number), call=call))
            whole = _sum(whole, _bound(request, target, rates, standing))
        return Prepared(lines=tuple(sent), bound=whole, prices=prices)

    async def submit(self, working: Working, held: Held, place: Place, prepared: Prepared) -> None:
        """Book a batch and hand it in; when this returns, it is stored that the vendor has it.

        Raises:
            GateError: it was not taken, and what was held is given back; or nobody knows, and it is charged.
        """
        target = place.target
        await held.save(
            phase="submitting",
            way="vendor",
            provider=target.provider,
            model=target.model.name,
            deployment=target.deployment.key,
            synthetic=target.deployment.spec.synthetic,
            prices=tuple(_pinned(price) for price in prepared.prices),
        )
        context = held.context(await held.caller(), held.batch.request_id)
        booking = await self._gate.admission.book(
            context,
            operation_of(held),
            place.holds,
            [prepared.bound],
            count=len(prepared.lines),
            job_id=held.batch.stem,
        )
        try:
            ticket = await self._hand_in(working, target, prepared, booking)
        except GateError as error:
            await booking.settle_failed(error)
            raise
        number, started_ms = booking.hand_over()
        await held.save_surely(
            phase="waiting",
            status="validating",
            ticket=ticket.id,
            ticket_data=dict(ticket.data),
            number=number,
            started_ms=started_ms,
        )

    async def _hand_in(
        self, working: Working, target: Target, prepared: Prepared, booking: Booking
    ) -> Ticket:
        codec, road = _codec(target), self._road(working, target)
        async with framed(booking, target):
            file_id = await drive(codec.upload(prepared.lines, target, facts()), road)
            return await drive(codec.create(file_id, prepared.lines, target, facts()), road)

    def _road(self, working: Working, target: Target) -> Road:
        return self._gate.media.road(working, None, target, NO_SPAN)

    def target(self, working: Working, held: Held) -> Target:
        """Return where a batch was handed in.

        Raises:
            GateFault: that place is not configured any more.
        """
        batch = held.batch
        directory = working.directory_of(batch.tenant)
        places = directory.deployments.get(batch.provider, ())
        place = next((each for each in places if each.key == batch.deployment), next(iter(places), None))
        if place is None or place.codecs.batches is None:
            raise GateFault(f"provider {batch.provider!r} is not configured any more")
        on = instant(batch.made_ms).date()
        model = directory.catalogued(batch.provider, batch.model, operation_of(held), on)
        return Target(deployment=place, model=model)

    def look_every_s(self, working: Working, held: Held) -> float:
        """Return how long to wait between two looks, at first."""
        return _codec(self.target(working, held)).look_every_s

    async def look(self, working: Working, held: Held) -> BatchView:
        """Ask the vendor how a batch stands; one that is not wanted any more is called off first."""
        target = self.target(working, held)
        codec, road, ticket = _codec(target), self._road(working, target), _ticket(held)
        if held.batch.is_cancelled and held.batch.cancelling_ms is None:
            await drive(codec.cancel(ticket, target, facts()), road)
            await held.save(status="cancelling", cancelling_ms=held.now_ms())
        return await drive(codec.look(ticket, target, facts()), road)

    async def collect(self, working: Working, held: Held, lines: Sequence[Line]) -> Collected:
        """Fetch what came of a batch, and make it into our own lines.

        Raises:
            ProviderError: it cannot be had now.
        """
        target = self.target(working, held)
        codec = _codec(target)
        names = [name for name in held.batch.view_data.get("files", "").split(",") if name]
        fetched = [await self._fetch(working, codec, name, target) for name in names]
        return await asyncio.to_thread(self._translate, held, target, lines, fetched)

    async def _fetch(self, working: Working, codec: BatchCodec, name: str, target: Target) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async with working.transport.stream(codec.fetch(name, target), target.deployment) as reply:
            if reply.status >= FIRST_FAILURE_STATUS:
                body = await reply.read()
                raise failure_of(HttpReply(status=reply.status, headers=reply.headers, body=body), target)
            async for piece in reply.chunks():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_FILE_BYTES:
                    raise BadProviderResponse(
                        f"a file of provider {target.provider!r} is larger than {MOST_FILE_BYTES} bytes",
                        provider=target.provider,
                        model=target.wire_model,
                    )
        return b"".join(pieces)

    def _translate(
        self, held: Held, target: Target, lines: Sequence[Line], fetched: Sequence[bytes]
    ) -> Collected:
        codec = _codec(target)
        answers: dict[str, BatchAnswer] = {}
        for data in fetched:
            for text in data.split(b"\n"):
                if text.strip():
                    answer = codec.read(text, target)
                    answers.setdefault(answer.mark, answer)
        telling = _Telling(self._wording, held, target)
        for line in lines:
            telling.take(line, answers.get(str(line.number)))
        return telling.collected(len(lines))

    async def settle(self, held: Held) -> None:
        """Book what a batch came to, once.

        Raises:
            StoreUnavailable: the ledger cannot be reached.
        """
        batch = held.batch
        is_good = batch.ended_as == "completed" or batch.counts.completed > 0
        status: AttemptStatus = "ok" if is_good else "cut" if batch.ended_as == "cancelled" else "failed"
        record: RecordStatus = "ok" if is_good else "cut" if batch.ended_as == "cancelled" else "failed"
        code = None if is_good else f"batch_{batch.ended_as}"
        now_ms = held.now_ms()
        outcome = Outcome(
            number=batch.number,
            provider=batch.provider,
            model=batch.model,
            started_ms=batch.started_ms,
            ended_ms=now_ms,
            status=status,
            quality="estimated" if batch.is_estimated else "measured",
            units=batch.units,
            tokens=batch.units.get("input_tokens", 0) + batch.units.get("output_tokens", 0),
            cost_nanos=batch.cost_nanos,
            prices=batch.price_ids,
            error_code=code,
            synthetic=batch.synthetic,
        )
        await self._gate.admission.ledger.submit(
            Settle(id=batch.stem, outcome=outcome, status=record, ended_ms=now_ms, error_code=code)
        )

    async def give_up(self, held: Held) -> int | None:
        """End the booking of a batch of which nobody knows what became; returns what is charged."""
        step = Expire(id=held.batch.stem, at_ms=held.now_ms())
        ended = await self._gate.admission.ledger.submit(step)
        record = ended.record if isinstance(ended, Ended) else None
        return 0 if record is None else record.cost_nanos


class _Telling:
    """Makes a vendor's answers into our lines, and adds up what they came to."""

    def __init__(self, wording: Wording, held: Held, target: Target) -> None:
        self._wording = wording
        self._batch = held.batch
        self._target = target
        self._prices = tuple(each.price for each in held.batch.prices)
        self._on = instant(held.batch.made_ms).date()
        self._at_s = held.now_ms() // 1000
        self._output: list[bytes] = []
        self._errors: list[bytes] = []
        self._failed = 0
        self._tokens: BatchTokens | None = None
        self._units: dict[str, int] = {}
        self._cost: int | None = 0
        self._price_ids: dict[str, None] = {}
        self._is_estimated = False

    def take(self, line: Line, answer: BatchAnswer | None) -> None:
        """Tell what came of one line."""
        spot = spot_of(self._batch, line)
        if answer is None or answer.reply is None:
            code, message = _MISSING.get(self._batch.ended_as, _LOST) if answer is None else _said(answer)
            self._failed += answer is not None
            self._errors.append(self._wording.lost(spot, code=code, message=message))
            return
        if answer.reply.status >= FIRST_FAILURE_STATUS:
            self._failed += 1
            self._errors.append(self._wording.refused(spot, failure_of(answer.reply, self._target)))
            return
        asked = self._wording.ask(self._batch.endpoint, line.body)
        try:
            result = _decoded(asked, answer.reply, self._target)
        except ProviderError as error:
            self._count(_likely(asked.request, self._target))
            self._failed += 1
            self._errors.append(self._wording.refused(spot, error))
            return
        usage = result.usage or _likely(asked.request, self._target)
        cost = self._count(usage)
        given: Answer[Any] = Answer(
            result=result,
            target=self._target,
            usage=result.usage,
            cost=cost,
            attempts=1,
            dropped=(),
            upstream_s=0.0,
        )
        self._output.append(self._wording.answered(spot, asked, given, at_s=self._at_s))

    def _count(self, usage: Usage) -> Any:
        cost = cost_of(self._prices, usage, self._on)
        self._is_estimated = self._is_estimated or usage.source == "estimated"
        self._tokens = add_tokens(self._tokens, usage)
        self._units = add_units(self._units, usage)
        if cost is None or self._cost is None:
            self._cost = None
        else:
            self._cost += cost.nanos
            self._price_ids |= dict.fromkeys(each.price.id for each in cost.lines)
        return cost

    def collected(self, total: int) -> Collected:
        """Return all of it."""
        return Collected(
            output=b"".join(line + b"\n" for line in self._output),
            errors=b"".join(line + b"\n" for line in self._errors),
            counts=BatchCounts(total=total, completed=len(self._output), failed=self._failed),
            tokens=self._tokens,
            units=self._units,
            cost_nanos=self._cost,
            price_ids=tuple(self._price_ids),
            is_estimated=self._is_estimated,
        )


class _Named(Struct, frozen=True, kw_only=True):
    """A request as far as it says who is to answer it."""

    model: str
    fallbacks: tuple[str, ...] = ()


def missing(ended_as: str) -> tuple[str, str]:
    """Return code and words for a line that was not worked on when its batch ended."""
    return _MISSING.get(ended_as, _LOST)


def _said(answer: BatchAnswer) -> tuple[str, str]:
    return answer.code, answer.message or "The provider gave no answer to this request."


def _takes_batches(target: Target) -> bool:
    if target.deployment.codecs.batches is None:
        return False
    said = target.model.batches
    return target.deployment.spec.batches if said is None else said


def _codec(target: Target) -> BatchCodec:
    codec = target.deployment.codecs.batches
    assert codec is not None  # noqa: S101 - `place` and `target` choose no other
    return codec


def _ticket(held: Held) -> Ticket:
    return Ticket(id=held.batch.ticket, data=held.batch.ticket_data)


def _bounded(
    request: ChatRequest | EmbeddingRequest, standing: Standing, target: Target
) -> ChatRequest | EmbeddingRequest:
    if isinstance(request, EmbeddingRequest):
        return request
    limited = limit_output(request, standing, [target])
    if standing.is_strict and standing.is_capped:
        check_bounded(limited, target)
    return limited


def _encoded(request: ChatRequest | EmbeddingRequest, target: Target) -> Any:
    if isinstance(request, EmbeddingRequest):
        return embedding_codec(target).encode(request, target).request
    return chat_codec(target).encode(request.at(target.provider), target).request


def _size(request: ChatRequest | EmbeddingRequest, target: Target) -> Size:
    return (
        size_of_embedding(request) if isinstance(request, EmbeddingRequest) else size_of_chat(request, target)
    )


def _bound(
    request: ChatRequest | EmbeddingRequest, target: Target, rates: TextRates | None, standing: Standing
) -> Bound:
    return bound(target, _size(request, target), rates, strict=standing.is_strict and standing.is_capped)


def _sum(whole: Bound, one: Bound) -> Bound:
    return structs.replace(
        whole,
        input_tokens=whole.input_tokens + one.input_tokens,
        tokens=whole.tokens + one.tokens,
        cost_nanos=_added(whole.cost_nanos, one.cost_nanos),
        most_tokens=whole.most_tokens + one.most_tokens,
        most_cost_nanos=_added(whole.most_cost_nanos, one.most_cost_nanos),
    )


def _added(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _decoded(asked: AskedLine, reply: HttpReply, target: Target) -> ChatResult | EmbeddingResult:
    request = asked.request
    if isinstance(request, EmbeddingRequest):
        return embedding_codec(target).decode(reply, request, target)
    return chat_codec(target).decode(reply, request, target)


def _likely(request: ChatRequest | EmbeddingRequest, target: Target) -> Usage:
    """Return what a call probably used of which nobody says."""
    size = _size(request, target)
    return Usage(input_tokens=size.likely_input, output_tokens=size.likely_output, source="estimated")


def _pinned(price: Price) -> PinnedPrice:
    condition = price.condition
    return PinnedPrice(
        id=price.id,
        unit=price.unit,
        per=price.per,
        nanos=str(price.nanos),
        above_input_tokens=None if condition is None else condition.above_input_tokens,
    )


def valid_prices(prices: Sequence[Price], on: date) -> tuple[Price, ...]:
    """Return the prices that hold on a day, each unit's latest under each condition."""
    latest: dict[tuple[object, ...], Price] = {}
    for price in sorted(prices, key=lambda each: each.since or date.min):
        if (price.since is None or price.since <= on) and price.unit.endswith("_tokens"):
            condition = price.condition
            latest[price.unit, None if condition is None else condition.above_input_tokens] = price
    return tuple(latest.values())
