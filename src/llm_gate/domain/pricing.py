"""Prices and the cost of one call: exact rationals, rounded half-even once per line."""

from collections.abc import Iterable
from datetime import date
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from llm_gate.domain.money import share_half_even
from llm_gate.domain.usage import Usage

Unit = Literal[
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "output_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "training_tokens",
    "images",
    "image_inputs",
    "megapixels",
    "requests",
    "seconds",
    "characters",
    "pages",
]


class PriceCondition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a price applies: above a number of input tokens, or for one size, quality or resolution of what is made.

    `resolution` is the vendor's own step, such as "720p" or "2K". With `batch`, it is that of a vendor's batches.
    """

    above_input_tokens: int | None = None
    width: int | None = None
    height: int | None = None
    quality: str | None = None
    resolution: str | None = None
    batch: bool = False


class Price(Struct, frozen=True, kw_only=True):
    """What `per` units cost, from a date on. `nanos` is exact, in nano-dollars.

    One item costs `minimum_nanos` at least. A price with `instead_of` stands in for that unit where nothing says how
    many of it there are: a picture's usual price, where the vendor bills the tokens of the picture.
    """

    id: str
    unit: Unit
    per: int
    nanos: Fraction
    minimum_nanos: Fraction | None = None
    instead_of: Unit | None = None
    condition: PriceCondition | None = None
    since: date | None = None
    source: str | None = None
    checked: date | None = None


class CostLine(Struct, frozen=True, kw_only=True):
    """One unit's share of a cost, with the price that was used."""

    price: Price
    quantity: int
    nanos: int


class Cost(Struct, frozen=True, kw_only=True):
    """What one call costs, in nano-dollars; the total is the sum of the rounded lines."""

    lines: tuple[CostLine, ...]

    @property
    def nanos(self) -> int:
        """The total, in nano-dollars."""
        return sum(line.nanos for line in self.lines)


def price_for(prices: Iterable[Price], unit: Unit, usage: Usage, on: date) -> Price | None:
    """Return the price of `unit` valid on a day: the highest threshold reached, then the latest start."""
    best: Price | None = None
    best_rank: tuple[int, date] | None = None
    for price in prices:
        if price.unit != unit or (price.since is not None and price.since > on):
            continue
        condition = price.condition
        threshold = -1
        if condition is not None:
            above = condition.above_input_tokens
            if condition.batch or above is None or usage.input_tokens <= above:
                continue
            threshold = above
        rank = (threshold, price.since or date.min)
        if best_rank is None or rank > best_rank:
            best, best_rank = price, rank
    return best


def cost_of(prices: Iterable[Price], usage: Usage | None, on: date) -> Cost | None:
    """Price a usage with the prices valid on a day; None when the usage or any needed price is unknown.

    Cached, cache-writing, audio and picture tokens are billed at their own price where there is one, else as
    plain input or output.
    """
    if usage is None:
        return None
    known = tuple(prices)
    if not known:
        return None
    plain_input, plain_output = usage.input_tokens, usage.output_tokens
    lines: list[CostLine] = []
    specials: tuple[tuple[Unit, int, bool], ...] = (
        ("cached_input_tokens", usage.cached_input_tokens, True),
        ("cache_write_tokens", usage.cache_write_tokens, True),
        ("audio_input_tokens", usage.audio_input_tokens, True),
        ("image_input_tokens", usage.image_input_tokens, True),
        ("audio_output_tokens", usage.audio_output_tokens, False),
        ("image_output_tokens", usage.image_output_tokens, False),
    )
    for unit, quantity, is_input in specials:
        price = price_for(known, unit, usage, on) if quantity else None
        if price is None:
            continue
        taken = min(quantity, plain_input if is_input else plain_output)
        lines.append(_line(price, taken))
        if is_input:
            plain_input -= taken
        else:
            plain_output -= taken
    plain: tuple[tuple[Unit, int], ...] = (("input_tokens", plain_input), ("output_tokens", plain_output))
    for unit, quantity in plain:
        if not quantity:
            continue
        price = price_for(known, unit, usage, on)
        if price is None:
            return None
        lines.append(_line(price, quantity))
    return Cost(lines=tuple(lines))


def batch_prices(usual: Iterable[Price], batch: Iterable[Price], on: date) -> tuple[Price, ...]:
    """Return what holds in a vendor's batch on a day: its own price of a unit where it has one, else the usual ones."""
    valid = tuple(price for price in batch if price.since is None or price.since <= on)
    units = {price.unit for price in valid}
    return (*valid, *(price for price in usual if price.unit not in units))


def total_cost(costs: Iterable[Cost | None]) -> Cost | None:
    """Add costs up; unknown when any of them is."""
    lines: list[CostLine] = []
    for cost in costs:
        if cost is None:
            return None
        lines += cost.lines
    return Cost(lines=tuple(lines))


def _line(price: Price, quantity: int) -> CostLine:
    return CostLine(price=price, quantity=quantity, nanos=share_half_even(price.nanos, quantity, price.per))
