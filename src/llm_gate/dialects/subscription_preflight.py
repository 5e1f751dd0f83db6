"""The subscription API's preflight: a list of planned operations in, verdicts, costs and what is left of limits out.

The documents' fields are all here. What they lack has names of its own: what an operation may cost at least and most,
exact nano-dollars, the prices that were used, and the limit that binds.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from math import ceil
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from llm_gate.dialects._json import read_as, read_object
from llm_gate.dialects.native_wire import Number
from llm_gate.dialects.subscription_names import WIRE_BUCKETS, WIRE_PROVIDERS, wire_limit
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import InvalidRequest, QuotaExceeded
from llm_gate.domain.limits import Bucket
from llm_gate.domain.money import format_usd, round_to_digits
from llm_gate.domain.operations import parse_size
from llm_gate.domain.preflight import Asked, Line, Preflight, Room
from llm_gate.domain.workflows import MOST_COUNT, Denial, Vendors, Workflow, WorkflowStep, denial_of, steps_of

MAX_OPERATIONS = 100
SHOWN_DIGITS = 4
"""Decimals of the costs that the documents define."""

_Whole = Annotated[int, Meta(ge=0, le=2**40)]
_Some = Annotated[int, Meta(ge=1, le=10_000)]
_Pixels = Annotated[int, Meta(ge=1, le=100_000)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]
_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class OperationBody(Struct, frozen=True, kw_only=True):
    """One planned operation; only `provider` and `operation_type` are required.

    `provider` is a provider, or a word for everyone who serves a bucket. `tokens_requested` are input and output
    together, priced as the dearer of the two; `tokens_input` with `tokens_output` or `max_tokens` tell them apart.
    For audio they are characters. `duration` is in seconds, `size` is `WIDTHxHEIGHT`.
    """

    provider: _Name
    operation_type: _Name
    model: _Name | None = None
    actual_provider_name: _Name | None = None
    operation: Operation | None = None
    tokens_requested: _Whole = 0
    tokens_input: _Whole | None = None
    tokens_output: _Whole | None = None
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


class WorkflowBody(Struct, frozen=True, kw_only=True):
    """A workflow that the documents know by its name; `provider` is who answers or makes, `count` how many pictures."""

    name: _Name
    provider: _Name | None = None
    count: Annotated[int, Meta(ge=1, le=MOST_COUNT)] = 1


class PreflightBody(Struct, frozen=True, kw_only=True):
    """The operations, in the order in which they are to be run; those of a `workflow` come first."""

    operations: tuple[OperationBody, ...] = ()
    workflow: _Name | WorkflowBody | None = None


class LimitInfo(Struct, frozen=True, kw_only=True):
    """How far a limit is used, null where there is none. `current_usage` holds what calls under way take.

    `remaining` is what is left for the operation, beside those before it. Money is in US dollars.
    """

    limit_type: str | None = None
    current_usage: Number | int | None = None
    limit: Number | int | None = None
    remaining: Number | int | None = None
    resets_at: datetime | None = None


class OperationVerdict(Struct, frozen=True, kw_only=True):
    """What was found of one operation. Costs are in US dollars, null where a price is missing.

    `configured` tells whether it can be called here now, which has no part in the verdict. `limit_info` is the limit
    that forbids it, or else its limit of calls or tokens; `code` and `message` say why it is not allowed.
    """

    provider: str
    operation_type: str
    model: str
    bucket: str
    cost: Number | None
    min_cost: Number | None
    max_cost: Number | None
    cost_nanos: int | None
    price_ids: tuple[str, ...]
    configured: bool
    allowed: bool
    limit_info: LimitInfo | None
    message: str | None
    code: str | None


class CallsLeft(Struct, frozen=True, kw_only=True):
    """A bucket's limit of calls: without and with the operations; null where there is none."""

    current_calls: int | None = None
    limit: int | None = None
    remaining: int | None = None
    projected_calls: int | None = None


class CostLeft(Struct, frozen=True, kw_only=True):
    """The limit of money of the billing period, in US dollars: without and with the operations."""

    current_cost: Number | None = None
    limit: Number | None = None
    projected_cost: Number | None = None
    remaining: Number | None = None


class UsageSummary(Struct, frozen=True, kw_only=True):
    """What is left of the limits of calls of each bucket that is touched, and of money."""

    text: CallsLeft | UnsetType = UNSET
    image: CallsLeft | UnsetType = UNSET
    image_edit: CallsLeft | UnsetType = UNSET
    video: CallsLeft | UnsetType = UNSET
    audio: CallsLeft | UnsetType = UNSET
    transcription: CallsLeft | UnsetType = UNSET
    embedding: CallsLeft | UnsetType = UNSET
    search: CallsLeft | UnsetType = UNSET
    fine_tune: CallsLeft | UnsetType = UNSET
    cost: CostLeft


class OperationUsage(Struct, frozen=True, kw_only=True):
    """How far the limit is used that the first operation which may not be done meets with.

    The field `current_…` is named after what is counted. Of tokens, `base_tokens_from_db` are those of calls that
    ended or are under way, `projected_from_previous_ops` those of the operations before it.
    """

    limit: Number | int | None
    provider: str
    operation_type: str
    operation_index: int
    current_calls: int | UnsetType = UNSET
    current_images: int | UnsetType = UNSET
    current_tokens: int | UnsetType = UNSET
    base_tokens_from_db: int | UnsetType = UNSET
    projected_from_previous_ops: Number | int | UnsetType = UNSET
    requested_tokens: int | UnsetType = UNSET
    current_cost: Number | UnsetType = UNSET
    requested_cost: Number | UnsetType = UNSET


class ErrorDetails(Struct, frozen=True, kw_only=True):
    """Why the operations may not all be done. `usage_info` is null where no limit is behind it."""

    error_type: str
    usage_info: OperationUsage | None


class PreflightData(Struct, frozen=True, kw_only=True):
    """What was found. The costs are null where one operation has no price, `error_details` where all may be done."""

    can_proceed: bool
    failed_operation_index: int | None
    estimated_cost: Number | None
    total_cost: Number | None
    min_cost: Number | None
    max_cost: Number | None
    estimated_cost_nanos: int | None
    operations: list[OperationVerdict]
    usage_summary: UsageSummary
    plan: str
    error_details: ErrorDetails | None
    cached: bool = False


class PreflightReply(Struct, frozen=True, kw_only=True):
    """The answer, whether or not the operations may be done."""

    success: bool
    data: PreflightData


_decoder = msgspec.json.Decoder(PreflightBody, strict=True)


def decode_preflight(body: bytes, vendors: Vendors) -> tuple[PreflightBody, list[Asked]]:
    """Read the operations, those of a workflow spelt out.

    Raises:
        InvalidRequest: there are none, one is faulty, or its provider or the workflow is not known.
    """
    read_object(body)
    parsed = read_as(_decoder, body)
    asked = [_asked(index, each, vendors.canonical) for index, each in enumerate(parsed.operations)]
    if parsed.workflow is not None:
        steps = steps_of(_workflow(parsed.workflow), vendors)
        bodies = [_step_body(step) for step in steps]
        parsed = structs.replace(parsed, operations=(*bodies, *parsed.operations))
        asked = [*(_step_asked(step) for step in steps), *asked]
    if not parsed.operations:
        raise InvalidRequest("operations: name at least one, or a workflow", param="operations")
    if len(parsed.operations) > MAX_OPERATIONS:
        raise InvalidRequest(f"operations: at most {MAX_OPERATIONS} at a time", param="operations")
    return parsed, asked


def _workflow(body: str | WorkflowBody) -> Workflow:
    if isinstance(body, str):
        return Workflow(name=body)
    return Workflow(name=body.name, provider=body.provider, count=body.count)


def _step_body(step: WorkflowStep) -> OperationBody:
    return OperationBody(
        provider=step.provider or step.bucket, operation_type=step.label, tokens_requested=step.tokens
    )


def _step_asked(step: WorkflowStep) -> Asked:
    """Return a step as it is planned; a bucket's word means the same here as in an operation."""
    _, usual = WIRE_BUCKETS.get(step.bucket, (None, None)) if step.provider is None else (None, None)
    return structs.replace(step.asked(), usual_provider=usual)


def _asked(index: int, body: OperationBody, canonical: Callable[[str], str | None]) -> Asked:
    word = body.provider.strip().lower()
    bucket, usual = WIRE_BUCKETS.get(word, (None, None))
    provider = canonical(WIRE_PROVIDERS.get(word, word)) if bucket is None else None
    where = f"operations[{index}]"
    if bucket is None and provider is None:
        raise InvalidRequest(
            f"{where}.provider: {body.provider!r} is not a provider known here, nor a word for a bucket "
            f"({', '.join(WIRE_BUCKETS)})",
            param=f"{where}.provider",
            code="provider_not_found",
        )
    split = body.tokens_input is not None or body.tokens_output is not None or body.max_tokens is not None
    is_audio = bucket == "audio" or body.operation == "speech"
    characters = body.characters
    if characters is None and (is_audio or body.tokens_requested) and not split:
        characters = body.tokens_requested
    return Asked(
        operation=body.operation,
        bucket=bucket,
        provider=provider,
        usual_provider=usual,
        model=body.model,
        label=body.operation_type,
        total_tokens=None if split else body.tokens_requested,
        input_tokens=_input(body) if split else None,
        output_tokens=body.tokens_output,
        max_tokens=body.max_tokens,
        count=body.count,
        size=_size(where, body),
        quality=body.quality,
        resolution=body.resolution,
        duration_s=None if body.duration is None else ceil(body.duration),
        characters=characters,
        pages=body.pages,
    )


def _input(body: OperationBody) -> int:
    """Return what goes in: what is left of the sum where only what comes out is told."""
    if body.tokens_input is not None:
        return body.tokens_input
    return max(0, body.tokens_requested - (body.tokens_output or body.max_tokens or 0))


def _size(where: str, body: OperationBody) -> tuple[int, int] | None:
    if (body.width is None) != (body.height is None):
        raise InvalidRequest(f"{where}: width and height need each other", param=where)
    if body.width is not None and body.height is not None:
        return body.width, body.height
    if body.size is None or body.size == "auto":
        return None
    size = parse_size(body.size)
    if size is None:
        raise InvalidRequest(f"{where}.size: expected WIDTHxHEIGHT", param=f"{where}.size")
    return size


def encode_preflight(body: PreflightBody, found: Preflight) -> bytes:
    """Write what was found."""
    cost = found.cost
    expected = None if cost is None else cost.expected_nanos
    shown = _shown(expected)
    data = PreflightData(
        can_proceed=found.can_proceed,
        failed_operation_index=found.failed_index,
        estimated_cost=shown,
        total_cost=shown,
        min_cost=None if cost is None else _exact(cost.min_nanos),
        max_cost=None if cost is None else _exact(cost.max_nanos),
        estimated_cost_nanos=expected,
        operations=[_verdict(asked, line) for asked, line in zip(body.operations, found.lines, strict=True)],
        usage_summary=_summary(found),
        plan=found.standing.plan.name,
        error_details=_error_details(body, denial_of(found)),
    )
    return msgspec.json.encode(PreflightReply(success=True, data=data))


def _error_details(body: PreflightBody, denial: Denial | None) -> ErrorDetails | None:
    if denial is None:
        return None
    asked, facts = body.operations[denial.operation_index], denial.facts
    if facts is None:
        return ErrorDetails(error_type=denial.error_type, usage_info=None)
    base = facts.used + facts.held - denial.before
    amounts: dict[str, object] = {}
    match denial.error_type:
        case "token_limit":
            amounts = {
                "current_tokens": base + denial.before,
                "base_tokens_from_db": base,
                "projected_from_previous_ops": denial.before,
                "requested_tokens": facts.wanted,
            }
        case "cost_limit":
            amounts = {
                "current_cost": _exact(base),
                "projected_from_previous_ops": _exact(denial.before),
                "requested_cost": _exact(facts.wanted),
            }
        case "image_limit" | "image_edit_limit":
            amounts = {"current_images": base + denial.before}
        case "subscription_expired":
            pass
        case _:
            amounts = {"current_calls": base + denial.before}
    usage = OperationUsage(
        limit=None if facts.cap is None else _exact(facts.cap) if facts.is_money else facts.cap,
        provider=asked.actual_provider_name or asked.provider,
        operation_type=asked.operation_type,
        operation_index=denial.operation_index,
        **amounts,  # type: ignore[arg-type]
    )
    return ErrorDetails(error_type=denial.error_type, usage_info=usage)


def _verdict(asked: OperationBody, line: Line) -> OperationVerdict:
    cost = line.cost
    return OperationVerdict(
        provider=asked.actual_provider_name or asked.provider,
        operation_type=asked.operation_type,
        model=f"{line.estimate.model.provider}/{line.estimate.model.name}",
        bucket=line.estimate.bucket,
        cost=_shown(None if cost is None else cost.expected_nanos),
        min_cost=None if cost is None else _exact(cost.min_nanos),
        max_cost=None if cost is None else _exact(cost.max_nanos),
        cost_nanos=None if cost is None else cost.expected_nanos,
        price_ids=() if cost is None else cost.price_ids,
        configured=line.estimate.is_configured,
        allowed=line.is_allowed,
        limit_info=_limit_info(line),
        message=None if line.refusal is None else line.refusal.message,
        code=None if line.refusal is None else line.refusal.code,
    )


def _limit_info(line: Line) -> LimitInfo | None:
    refusal = line.refusal
    if refusal is not None and line.binding is None:
        if not isinstance(refusal, QuotaExceeded) or refusal.facts.cap is None:
            return None
        facts = refusal.facts
        return LimitInfo(
            limit_type=wire_limit(facts.limit_name), current_usage=facts.used, limit=facts.cap, remaining=0
        )
    room = line.binding if refusal is not None else _usual(line)
    if room is None:
        return LimitInfo()
    return LimitInfo(
        limit_type=wire_limit(room.hold.name),
        current_usage=_amount(room, room.used + room.held),
        limit=_amount(room, room.hold.cap),
        remaining=_amount(room, room.remaining),
        resets_at=room.resets_at,
    )


def _usual(line: Line) -> Room | None:
    """Return the limit that the documents show of an allowed operation: of calls, of tokens, or what binds most."""
    ranked = [
        *(room for room in line.rooms if room.hold.meter == "calls" and room.hold.provider is None),
        *(room for room in line.rooms if room.hold.meter in {"calls", "tokens"}),
    ]
    return ranked[0] if ranked else line.binding


def _summary(found: Preflight) -> UsageSummary:
    touched: Iterable[Bucket] = dict.fromkeys(line.estimate.bucket for line in found.lines)
    calls = {bucket: _calls_left(found.tightest(bucket=bucket)) for bucket in touched}
    return UsageSummary(**calls, cost=_cost_left(found.tightest(meter="cost")))


def _calls_left(room: Room | None) -> CallsLeft:
    if room is None:
        return CallsLeft()
    current = room.used + room.held
    return CallsLeft(
        current_calls=current,
        limit=room.hold.cap,
        remaining=max(0, room.hold.cap - current),
        projected_calls=current + room.planned,
    )


def _cost_left(room: Room | None) -> CostLeft:
    if room is None:
        return CostLeft()
    current = room.used + room.held
    return CostLeft(
        current_cost=_exact(current),
        limit=_exact(room.hold.cap),
        projected_cost=_exact(current + room.planned),
        remaining=_exact(max(0, room.hold.cap - current)),
    )


def _amount(room: Room, amount: int) -> Number | int:
    return _exact(amount) if room.hold.meter == "cost" else amount


def _exact(nanos: int) -> Number:
    return Raw(format_usd(nanos).encode())


def _shown(nanos: int | None) -> Number | None:
    return None if nanos is None else _exact(round_to_digits(nanos, SHOWN_DIGITS))
