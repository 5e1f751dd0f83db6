"""Money as integers: one unit is a nano-dollar (1e-9 USD). No float ever enters."""

import re
from decimal import Decimal
from fractions import Fraction

NANOS_PER_USD = 1_000_000_000

# Decimal itself would also take exponents, underscores and digits of any script.
_AMOUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,30})?")
# Exponents are bounded, since a large one makes a number that fills the memory.
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,40})?(?:[eE](?:-[0-9]{1,2}|\+?0?[0-9]))?")


def parse_usd(text: str) -> Fraction:
    """Read a decimal amount of dollars, exactly, as nano-dollars.

    Raises:
        ValueError: `text` is not a plain, finite, non-negative decimal number.
    """
    if _AMOUNT.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a plain, non-negative decimal amount")
    return Fraction(text) * NANOS_PER_USD


def read_nanos(number: str) -> int | None:
    """Read a JSON number of dollars as a vendor writes it, rounded to nano-dollars; None for anything else."""
    return round(Fraction(number) * NANOS_PER_USD) if _NUMBER.fullmatch(number) else None


def round_half_even(amount: Fraction) -> int:
    """Round an exact amount to whole nano-dollars, ties to the even neighbour."""
    return round(amount)


def share_half_even(amount: Fraction, quantity: int, per: int) -> int:
    """Return `amount * quantity / per` in whole nano-dollars, ties to the even neighbour.

    It stays in integers: making the fractions between would take most of the time of pricing a call.
    """
    divisor = amount.denominator * per
    whole, rest = divmod(amount.numerator * quantity, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


def round_to_digits(nanos: int, digits: int) -> int:
    """Round to so many decimals of a dollar (at most 9), ties to the even neighbour; the result is nano-dollars."""
    step: int = 10 ** (9 - digits)
    return share_half_even(Fraction(nanos), 1, step) * step


def usd_decimal(nanos: int) -> Decimal:
    """Return nano-dollars as dollars, exactly, without trailing zeros or an exponent."""
    return Decimal(format_usd(nanos))


def format_usd(nanos: int) -> str:
    """Write nano-dollars as a plain decimal number of dollars, exactly, without trailing zeros."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    digits = f"{rest:09d}".rstrip("0")
    sign = "-" if nanos < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
