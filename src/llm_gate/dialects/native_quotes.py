"""Quotes in the native wire format: planned operations in; verdicts, costs and binding limits out."""

from datetime import datetime
from math import ceil
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from llm_gate.dialects._json import read_as, read_object
from llm_gate.dialects.native_wire import Name, Number, ProviderSelector
from llm_gate.domain.bounds import CostRange
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import Fault, InvalidRequest, QuotaExceeded
from llm_gate.domain.ledger import Hold
from llm_gate.domain.money import format_usd
from llm_gate.domain.operations import parse_size
from llm_gate.domain.preflight import Asked, Line, Preflight, Room
from llm_gate.domain.windows import FOREVER_MS, instant
from llm_gate.domain.workflows import MOST_COUNT, Vendors, Workflow, denial_of, steps_of

MAX_OPERATIONS = 100

_Whole = Annotated[int, Meta(ge=0, le=2**40)]
_Some = Annotated[int, Meta(ge=1, le=10_000)]
_Pixels = Annotated[int, Meta(ge=1, le=100_000)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class _Body(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a caller sends."""


class _Reply(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a caller gets. What is not known or does not apply is left out."""


class QuotedOperation(_Body, frozen=True, kw_only=True):
    """One planned operation. Who does it is named as in a call.

    A conversation needs `inputTokens`, or `tokens` for input and output together (priced as the dearer of the two).
    `outputTokens` is how much is expected to come out, `maxTokens` how much may. `count` is how many pictures,
    videos, searches or answers there are; `duration` (seconds), `characters` and `pages` are those of one of them.
    """

    operation: Operation
    provider: ProviderSelector | None = None
    label: Name | None = None
    tokens: _Whole | None = None
    input_tokens: _Whole | None = None
    output_tokens: _Whole | None = None
    max_tokens: _Whole | None = None
    count: _Some = 1
    width: _Pixels | None = None
    height: _Pixels | None = None
    size: str | None = None
    quality: str | None = None
    resolution: str | None = None
    duration: _Seconds | None = None
    characters: _Whole | None = None
    pages: _Whole | None = None


class QuotedWorkflow(_Body, frozen=True, kw_only=True):
    """A workflow that the documents know by its name; `provider` is who answers or makes, `count` how many pictures."""

    name: Name
    provider: Name | None = None
    count: Annotated[int, Meta(ge=1, le=MOST_COUNT)] = 1


class QuoteBody(_Body, frozen=True, kw_only=True):
    """The operations, in order; those of a `workflow` come first.

    With `reserve`, what they may use is held for `expiresInS` seconds.
    """

    operations: tuple[QuotedOperation, ...] = ()
    workflow: Name | QuotedWorkflow | None = None
    reserve: bool = False
    expires_in_s: Annotated[int, Meta(ge=1, le=3600)] = 300


class RangeReply(_Reply, frozen=True, kw_only=True):
    """What something will cost, in US dollars: never less than `min` nor more than `max`."""

    min: Number
    expected: Number
    max: Number
    currency: str = "USD"


class LimitReply(_Reply, frozen=True, kw_only=True):
    """A limit and how far it is used; money is in US dollars.

    `held` is by calls under way and open quotes, `planned` by the operations before this one, `remaining` is what is
    left for it, of which it wants `wanted`.
    """

    name: str
    scope: str
    used: Number | int
    held: Number | int
    planned: Number | int
    wanted: Number | int
    limit: Number | int
    remaining: Number | int
    resets_at: datetime | UnsetType = UNSET


class QuotedLine(_Reply, frozen=True, kw_only=True):
    """What was found of one operation. `limit` is the one that forbids it, or else the one that leaves the least.

    `configured` tells whether it can be called here now; prices are known without that.
    """

    operation: str
    label: str | UnsetType = UNSET
    provider: str
    model: str
    configured: bool
    allowed: bool
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    upgrade_to: str | UnsetType = UNSET
    cost: RangeReply | UnsetType = UNSET
    price_ids: tuple[str, ...]
    limit: LimitReply | UnsetType = UNSET


class QuoteReply(_Reply, frozen=True, kw_only=True):
    """What was found of all operations. `cost` is absent where one has no price.

    `quoteId` is what calls name in `x-llm-gate-quote` to spend what is held, until `expiresAt`. `errorType` is what
    kind of limit the operation at `failedOperationIndex` meets with.
    """

    can_proceed: bool
    failed_operation_index: int | UnsetType = UNSET
    error_type: str | UnsetType = UNSET
    plan: str
    cost: RangeReply | UnsetType = UNSET
    price_ids: tuple[str, ...]
    operations: list[QuotedLine]
    quote_id: str | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET


class HeldReply(_Reply, frozen=True, kw_only=True):
    """What a quote still holds of one limit."""

    limit: str
    scope: str
    amount: Number | int
    resets_at: datetime | UnsetType = UNSET


class HeldQuoteReply(_Reply, frozen=True, kw_only=True):
    """An open quote."""

    quote_id: str
    created_at: datetime
    expires_at: datetime
    plan: str
    holds: list[HeldReply]


_decoder = msgspec.json.Decoder(QuoteBody)


def decode_quote(body: bytes, vendors: Vendors) -> tuple[QuoteBody, list[Asked]]:
    """Read the operations, those of a workflow spelt out.

    Raises:
        InvalidRequest: there are none, or they are faulty; with every fault that goes beyond the shape.
    """
    read_object(body)
    parsed = read_as(_decoder, body)
    spelt = [] if parsed.workflow is None else _spelt_out(parsed.workflow, vendors)
    if not 1 <= len(spelt) + len(parsed.operations) <= MAX_OPERATIONS:
        raise InvalidRequest(
            f"operations: between 1 and {MAX_OPERATIONS} of them can be quoted", param="operations"
        )
    faults = [fault for index, each in enumerate(parsed.operations) for fault in _faults(index, each)]
    if faults:
        raise InvalidRequest(faults[0].message, param=faults[0].path, faults=faults)
    return parsed, [*spelt, *(_asked(each) for each in parsed.operations)]


def _spelt_out(body: str | QuotedWorkflow, vendors: Vendors) -> list[Asked]:
    if isinstance(body, str):
        workflow = Workflow(name=body)
    else:
        workflow = Workflow(name=body.name, provider=body.provider, count=body.count)
    return [step.asked() for step in steps_of(workflow, vendors)]


def _faults(index: int, body: QuotedOperation) -> list[Fault]:
    where = f"operations[{index}]"
    faults: list[Fault] = []
    if body.provider is not None and "/" in (body.provider.name or ""):
        faults.append(Fault(f"{where}.provider.name", "must not hold a slash"))
    if (body.width is None) != (body.height is None):
        faults.append(Fault(f"{where}.width", "width and height need each other"))
    if body.size not in {None, "auto"} and parse_size(body.size or "") is None:
        faults.append(Fault(f"{where}.size", "expected WIDTHxHEIGHT"))
    if body.tokens is not None and body.input_tokens is not None:
        faults.append(
            Fault(f"{where}.tokens", "is for input and output together: give it without inputTokens")
        )
    return faults


def _asked(body: QuotedOperation) -> Asked:
    selector = body.provider or ProviderSelector()
    model = None if selector.model is None else selector.model.name
    size = None if body.width is None or body.height is None else (body.width, body.height)
    return Asked(
        operation=body.operation,
        provider=selector.name,
        model=model,
        label=body.label,
        total_tokens=body.tokens,
        input_tokens=body.input_tokens,
        output_tokens=body.output_tokens,
        max_tokens=body.max_tokens,
        count=body.count,
        size=size or parse_size(body.size or ""),
        quality=body.quality,
        resolution=body.resolution,
        duration_s=None if body.duration is None else ceil(body.duration),
        characters=body.characters,
        pages=body.pages,
    )


def encode_quote(
    found: Preflight, *, quote_id: str | None = None, expires_at: datetime | None = None
) -> bytes:
    """Write what was found, and the quote that holds it."""
    cost, denial = found.cost, denial_of(found)
    priced = [line.cost for line in found.lines if line.cost is not None]
    return msgspec.json.encode(
        QuoteReply(
            can_proceed=found.can_proceed,
            failed_operation_index=UNSET if denial is None else denial.operation_index,
            error_type=UNSET if denial is None else denial.error_type,
            plan=found.standing.plan.name,
            cost=_range(cost),
            price_ids=tuple(dict.fromkeys(id_ for each in priced for id_ in each.price_ids)),
            operations=[_line(line) for line in found.lines],
            quote_id=quote_id or UNSET,
            expires_at=expires_at or UNSET,
        )
    )


def encode_held(
    *, quote_id: str, made_at: datetime, expires_at: datetime, plan: str, holds: tuple[Hold, ...]
) -> bytes:
    """Write an open quote."""
    return msgspec.json.encode(
        HeldQuoteReply(
            quote_id=quote_id,
            created_at=made_at,
            expires_at=expires_at,
            plan=plan,
            holds=[
                HeldReply(
                    limit=hold.name,
                    scope=hold.scope,
                    amount=_amount(hold, hold.amount),
                    resets_at=instant(hold.end_ms) if hold.end_ms < FOREVER_MS else UNSET,
                )
                for hold in holds
            ],
        )
    )


def _line(line: Line) -> QuotedLine:
    found, refusal = line.estimate, line.refusal
    upgrade = refusal.facts.upgrade_to if isinstance(refusal, QuotaExceeded) else None
    return QuotedLine(
        operation=found.operation,
        label=found.asked.label or UNSET,
        provider=found.model.provider,
        model=found.model.name,
        configured=found.is_configured,
        allowed=line.is_allowed,
        code=UNSET if refusal is None else refusal.code,
        message=UNSET if refusal is None else refusal.message,
        upgrade_to=upgrade or UNSET,
        cost=_range(line.cost),
        price_ids=() if line.cost is None else line.cost.price_ids,
        limit=UNSET if line.binding is None else _limit(line.binding),
    )


def _limit(room: Room) -> LimitReply:
    hold = room.hold
    return LimitReply(
        name=hold.name,
        scope=hold.scope,
        used=_amount(hold, room.used),
        held=_amount(hold, room.held),
        planned=_amount(hold, room.planned),
        wanted=_amount(hold, hold.amount),
        limit=_amount(hold, hold.cap),
        remaining=_amount(hold, room.remaining),
        resets_at=room.resets_at or UNSET,
    )


def _range(cost: CostRange | None) -> RangeReply | UnsetType:
    if cost is None:
        return UNSET
    return RangeReply(min=_usd(cost.min_nanos), expected=_usd(cost.expected_nanos), max=_usd(cost.max_nanos))


def _amount(hold: Hold, amount: int) -> Number | int:
    return _usd(amount) if hold.meter == "cost" else amount


def _usd(nanos: int) -> Number:
    return Raw(format_usd(nanos).encode())
