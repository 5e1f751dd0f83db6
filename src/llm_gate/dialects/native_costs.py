"""Costs and prices in the native wire format: exact decimal numbers of dollars."""

from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction

from msgspec import UNSET, Raw, UnsetType

from llm_gate.dialects.native_wire import CostReply, Number, TokenCost, TokenPrice
from llm_gate.domain.money import NANOS_PER_USD, format_usd
from llm_gate.domain.pricing import Cost, CostLine, Price, Unit

UNIT_OF_MEASURE = 1_000_000
"""The number of tokens that prices of this format are given for."""

_INPUT: frozenset[Unit] = frozenset(
    {"input_tokens", "cached_input_tokens", "cache_write_tokens", "audio_input_tokens", "image_inputs"}
)
_OUTPUT: frozenset[Unit] = frozenset({"output_tokens", "audio_output_tokens"})
# More digits than any price has; only a price per three of something would ever be rounded here.
_DIGITS = 40


def write_cost(cost: Cost | None) -> CostReply | UnsetType:
    """Write a cost: what each side came to, and the plain prices that were used."""
    if cost is None:
        return UNSET
    used = {line.price.unit: price_number(line.price, UNIT_OF_MEASURE) for line in cost.lines}
    return CostReply(
        token=TokenCost(
            price=TokenPrice(
                input_value=used.get("input_tokens", UNSET), output_value=used.get("output_tokens", UNSET)
            ),
            prompt=_sum(line for line in cost.lines if line.price.unit in _INPUT),
            completion=_sum(line for line in cost.lines if line.price.unit in _OUTPUT),
            total=Raw(format_usd(cost.nanos).encode()),
        )
    )


def price_number(price: Price, units: int) -> Number:
    """Return what a number of units cost, as the documents write prices: `30.0`, `0.15`."""
    usd = Fraction(price.nanos) * units / (price.per * NANOS_PER_USD)
    with localcontext() as context:
        context.prec = _DIGITS
        text = format(Decimal(usd.numerator) / Decimal(usd.denominator), "f")
    return Raw((text if "." in text else f"{text}.0").encode())


def _sum(lines: Iterable[CostLine]) -> Number:
    return Raw(format_usd(sum(line.nanos for line in lines)).encode())
