"""Money as integers: one unit is a nano-dollar (1e-9 USD). No float ever enters."""

from decimal import Decimal, InvalidOperation
from fractions import Fraction

NANOS_PER_USD = 1_000_000_000


def parse_usd(text: str) -> Fraction:
    """Read a decimal amount of dollars, exactly, as nano-dollars.

    Raises:
        ValueError: `text` is not a plain, finite, non-negative decimal number.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal amount") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{text!r} is not a finite, non-negative amount")
    return Fraction(amount) * NANOS_PER_USD


def round_half_even(amount: Fraction) -> int:
    """Round an exact amount to whole nano-dollars, ties to the even neighbour."""
    return round(amount)


def usd_decimal(nanos: int) -> Decimal:
    """Return nano-dollars as dollars, exactly, without trailing zeros or an exponent."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    digits = f"{rest:09d}".rstrip("0")
    sign = "-" if nanos < 0 else ""
    return Decimal(f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}")


def format_usd(nanos: int) -> str:
    """Write nano-dollars as a plain decimal number of dollars."""
    return format(usd_decimal(nanos), "f")
