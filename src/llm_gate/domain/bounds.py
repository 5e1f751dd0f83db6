"""What an operation will cost before it runs, and what a finished media operation did cost; in exact integers."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from math import ceil, floor
from typing import Literal

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.media_prices import amount_of, fitting_prices, quantity_of
from llm_gate.domain.money import round_half_even
from llm_gate.domain.operations import Count, Draft
from llm_gate.domain.pricing import Cost, CostLine, Price, Unit, cost_of, price_for
from llm_gate.domain.usage import Usage


class CostRange(Struct, frozen=True, kw_only=True):
    """Between what an operation will cost, in nano-dollars: `min_nanos` <= `expected_nanos` <= `max_nanos`.

    The most holds for everything that the draft allows. The least is that of the expected counts at the cheapest
    prices that may apply. `price_ids` are the prices that may apply.
    """

    min_nanos: int
    expected_nanos: int
    max_nanos: int
    price_ids: tuple[str, ...]


class _Side(Struct, frozen=True, kw_only=True):
    """Tokens that go in or come out: the draft's count of them, and how they may be billed, the usual way first."""

    count: Literal["input_tokens", "output_tokens", "image_output_tokens"]
    units: tuple[Unit, ...]


class _Billing(Struct, frozen=True, kw_only=True):
    """How an operation is billed: by tokens, and by what else is counted. It needs a price of one of `essential`."""

    sides: tuple[_Side, ...] = ()
    counted: tuple[Unit, ...] = ()
    essential: frozenset[Unit]


_INPUT = _Side(
    count="input_tokens",
    units=(
        "input_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "audio_input_tokens",
        "image_input_tokens",
    ),
)
_OUTPUT = _Side(count="output_tokens", units=("output_tokens", "audio_output_tokens"))
_MIXED_OUTPUT = _Side(count="output_tokens", units=(*_OUTPUT.units, "image_output_tokens"))
_DRAWN_OUTPUT = _Side(count="image_output_tokens", units=("image_output_tokens",))

_PICTURES = _Billing(
    sides=(_INPUT, _OUTPUT, _DRAWN_OUTPUT),
    counted=("images", "megapixels", "requests"),
    essential=frozenset({"images", "megapixels", "requests", "image_output_tokens"}),
)
_BILLING: Mapping[Operation, _Billing] = {
    "chat": _Billing(sides=(_INPUT, _MIXED_OUTPUT), essential=frozenset({"input_tokens", "output_tokens"})),
    "embedding": _Billing(sides=(_INPUT,), essential=frozenset({"input_tokens"})),
    "image": _PICTURES,
    "image_edit": _PICTURES,
    "face_swap": _PICTURES,
    "video": _Billing(counted=("seconds", "requests"), essential=frozenset({"seconds", "requests"})),
    "speech": _Billing(
        sides=(_INPUT, _OUTPUT),
        counted=("characters", "seconds", "requests"),
        essential=frozenset({"characters", "seconds", "requests", *_OUTPUT.units}),
    ),
    "transcription": _Billing(
        sides=(_INPUT, _OUTPUT),
        counted=("seconds", "requests"),
        essential=frozenset({"seconds", "requests", "input_tokens", "audio_input_tokens"}),
    ),
    "search": _Billing(
        sides=(_INPUT, _OUTPUT),
        counted=("requests", "pages"),
        essential=frozenset({"requests", "pages"}),
    ),
    "fine_tune": _Billing(
        counted=("training_tokens", "requests"), essential=frozenset({"training_tokens", "requests"})
    ),
}
# Text is never billed by anything but tokens, so that a side without a price is unknown there, not free.
_BY_TOKENS_ALONE: frozenset[Operation] = frozenset({"chat", "embedding"})


def price_range(prices: Iterable[Price], draft: Draft, on: date) -> CostRange | None:
    """Bound what a draft will cost at a model's prices of a day; None where a count or a price it needs is unknown.

    What the draft leaves open is bounded by the dearest price that may apply. It is expected to be what the first of
    these prices is for.
    """
    known = tuple(prices)
    billing = _BILLING[draft.operation]
    if not _is_priced(known, billing.essential):
        return None
    parts: list[CostRange | None] = []
    for side in _sides(known, draft.operation):
        count: Count | None = getattr(draft, side.count)
        if count is not None:
            parts.append(_range_of_tokens(known, side, count, draft, on))
        elif not any(price.instead_of == side.count for price in known):
            parts.append(None)
    said = _said(draft)
    for unit in billing.counted:
        rows = _counted(known, unit, said)
        if rows:
            parts.append(_range_of_units(rows, unit, draft, on))
    return _added(parts)


def cost_of_media(prices: Iterable[Price], draft: Draft, on: date, usage: Usage | None = None) -> Cost | None:
    """Price a finished operation of which everything is said, at a model's prices of a day.

    `usage` holds the tokens that the vendor counted; without it, those of the draft count. None where a count or a
    price is unknown, or where prices of different amounts may apply.
    """
    known = tuple(prices)
    billing = _BILLING[draft.operation]
    sides = _sides(known, draft.operation)
    tokens = _exact_usage(known, sides, draft) if usage is None else usage
    if tokens is None or not _is_priced(known, billing.essential):
        return None
    lines: list[CostLine] = []
    if sides:
        by_tokens = cost_of(known, tokens, on)
        if by_tokens is None:
            return None
        lines += by_tokens.lines
    said = _said(draft) | {side.count for side in sides if getattr(tokens, side.count)}
    for unit in billing.counted:
        rows = _counted(known, unit, said)
        line = _line(rows, unit, draft, on) if rows else None
        if rows and line is None:
            return None
        lines += [] if line is None else [line]
    return Cost(lines=tuple(lines))


def _is_priced(prices: Sequence[Price], units: Iterable[Unit]) -> bool:
    wanted = frozenset(units)
    return any(price.unit in wanted for price in prices)


def _sides(prices: Sequence[Price], operation: Operation) -> list[_Side]:
    """Return the sides that are billed: media may be billed by none, by some or by all of them."""
    sides = _BILLING[operation].sides
    return [side for side in sides if operation in _BY_TOKENS_ALONE or _is_priced(prices, side.units)]


def _said(draft: Draft) -> frozenset[str]:
    """Return the tokens whose count a draft says."""
    return frozenset(
        side.count for side in _BILLING[draft.operation].sides if getattr(draft, side.count) is not None
    )


def _counted(prices: Sequence[Price], unit: Unit, said: frozenset[str]) -> list[Price]:
    """Return a unit's prices, without those that stand in for tokens whose count is said."""
    return [price for price in prices if price.unit == unit and price.instead_of not in said]


def _range_of_tokens(
    prices: Sequence[Price], side: _Side, count: Count, draft: Draft, on: date
) -> CostRange | None:
    if not count.most:
        return CostRange(min_nanos=0, expected_nanos=0, max_nanos=0, price_ids=())
    read = draft.input_tokens
    levels = [_priced(prices, side, level, on) for level in _levels(prices, read)]
    usual = _priced(prices, side, 0 if read is None else read.expected, on)
    if any(side.units[0] not in level for level in [usual, *levels]):
        return None
    rates = {price.id: Fraction(price.nanos, price.per) for level in levels for price in level.values()}
    expected = usual[side.units[0]]
    # Every way of billing is a line of its own, which rounding may raise by half a nano-dollar where its rate is no
    # whole number; rounding up the sum covers one of them.
    rounded = max(sum(rates[price.id].denominator > 1 for price in level.values()) for level in levels)
    most = max(rates.values()) * count.most + Fraction(max(rounded - 1, 0), 2)
    return CostRange(
        min_nanos=floor(min(Fraction(price.nanos, price.per) for price in usual.values()) * count.expected),
        expected_nanos=round_half_even(Fraction(expected.nanos * count.expected, expected.per)),
        max_nanos=ceil(most),
        price_ids=tuple(rates),
    )


def _levels(prices: Iterable[Price], read: Count | None) -> list[int]:
    """Return one number of input tokens for each tier of prices that can be reached."""
    thresholds = {price.condition.above_input_tokens for price in prices if price.condition is not None}
    return [0, *(at + 1 for at in thresholds if at is not None and (read is None or at < read.most))]


def _priced(prices: Sequence[Price], side: _Side, input_tokens: int, on: date) -> dict[Unit, Price]:
    """Return the prices of a side at a number of input tokens."""
    usage = Usage(input_tokens=input_tokens)
    found = {unit: price_for(prices, unit, usage, on) for unit in side.units}
    return {unit: price for unit, price in found.items() if price is not None}


def _range_of_units(prices: Sequence[Price], unit: Unit, draft: Draft, on: date) -> CostRange | None:
    fitting = fitting_prices(prices, unit, draft, on)
    quantity = quantity_of(unit, draft)
    if not fitting or quantity is None:
        return None
    expected = [amount_of(price, quantity.expected, draft.count) for price in fitting]
    return CostRange(
        min_nanos=floor(min(expected)),
        expected_nanos=round_half_even(expected[0]),
        max_nanos=ceil(max(amount_of(price, quantity.most, draft.count) for price in fitting)),
        price_ids=tuple(price.id for price in fitting),
    )


def _line(prices: Sequence[Price], unit: Unit, draft: Draft, on: date) -> CostLine | None:
    fitting = fitting_prices(prices, unit, draft, on)
    quantity = quantity_of(unit, draft)
    if not fitting or quantity is None or not quantity.is_exact:
        return None
    amounts = {amount_of(price, quantity.expected, draft.count) for price in fitting}
    if len(amounts) > 1:
        return None
    return CostLine(
        price=fitting[0],
        quantity=quantity.expected * draft.count,
        nanos=round_half_even(amounts.pop()),
    )


def _exact_usage(prices: Sequence[Price], sides: Iterable[_Side], draft: Draft) -> Usage | None:
    """Return a draft's tokens as if they had been counted; None where one that is billed is not known."""
    found: dict[str, int] = {}
    for side in sides:
        count: Count | None = getattr(draft, side.count)
        if count is None and any(price.instead_of == side.count for price in prices):
            continue
        if count is None or not count.is_exact:
            return None
        found[side.count] = count.expected
    drawn = found.get("image_output_tokens", 0)
    return Usage(
        input_tokens=found.get("input_tokens", 0),
        output_tokens=found.get("output_tokens", 0) + drawn,
        image_output_tokens=drawn,
    )


def _added(parts: Iterable[CostRange | None]) -> CostRange | None:
    known: list[CostRange] = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return CostRange(
        min_nanos=sum(part.min_nanos for part in known),
        expected_nanos=sum(part.expected_nanos for part in known),
        max_nanos=sum(part.max_nanos for part in known),
        price_ids=tuple(dict.fromkeys(id_ for part in known for id_ in part.price_ids)),
    )
