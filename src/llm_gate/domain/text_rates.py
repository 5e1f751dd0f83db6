"""The dearest that a token of text can cost at one model, worked out once so that every call can be bounded quickly."""

from collections.abc import Iterable
from datetime import date
from fractions import Fraction

from msgspec import Struct

from llm_gate.domain.pricing import Price, Unit, price_for
from llm_gate.domain.usage import Usage

_INPUTS: tuple[Unit, ...] = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "image_input_tokens",
)
_OUTPUTS: tuple[Unit, ...] = ("output_tokens", "audio_output_tokens", "image_output_tokens")
_ROUNDING_NANOS = 4
"""What rounding the lines of a cost, one by one, can add to it at most."""


class Tier(Struct, frozen=True, kw_only=True):
    """Nano-dollars per token, at the dearest, from a number of input tokens on."""

    above: int
    input: Fraction
    output: Fraction


class TextRates(Struct, frozen=True, kw_only=True):
    """A model's tiers on one day."""

    tiers: tuple[Tier, ...]

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Return an upper bound, in nano-dollars, of what so many tokens at most can cost."""
        reached = [tier for tier in self.tiers if tier.above < input_tokens] or [self.tiers[0]]
        read = max(tier.input for tier in reached)
        written = max(tier.output for tier in reached)
        # In integers, as a cost is: adding up fractions would take most of the time of bounding a call.
        divisor = read.denominator * written.denominator
        cost = read.numerator * written.denominator * input_tokens
        cost += written.numerator * read.denominator * output_tokens
        # Of whole rates nothing passes its bound by rounding; of others each line may, also where their sum is whole.
        return cost if divisor == 1 else -(-cost // divisor) + _ROUNDING_NANOS


def text_rates(prices: Iterable[Price], on: date, *, reads_only: bool) -> TextRates | None:
    """Work out the tiers of a day; None where input, or output unless nothing comes out, has no price."""
    known = tuple(prices)
    thresholds = {
        price.condition.above_input_tokens
        for price in known
        if price.condition is not None and price.condition.above_input_tokens is not None
    }
    needed: tuple[Unit, ...] = ("input_tokens",) if reads_only else ("input_tokens", "output_tokens")
    tiers: list[Tier] = []
    for above in sorted({-1, *thresholds}):
        usage = Usage(input_tokens=above + 1)
        if any(price_for(known, unit, usage, on) is None for unit in needed):
            return None
        tiers.append(
            Tier(
                above=above,
                input=_dearest(known, _INPUTS, usage, on),
                output=_dearest(known, _OUTPUTS, usage, on),
            )
        )
    return TextRates(tiers=tuple(tiers))


def _dearest(prices: tuple[Price, ...], units: tuple[Unit, ...], usage: Usage, on: date) -> Fraction:
    found = [price_for(prices, unit, usage, on) for unit in units]
    return max(
        (Fraction(price.nanos, price.per) for price in found if price is not None), default=Fraction(0)
    )
