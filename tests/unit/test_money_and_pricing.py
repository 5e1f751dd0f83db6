"""Promises of money and prices: exact integers, rounded once, never a float, unknown stays unknown."""

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.domain.money import format_usd, parse_usd, read_nanos, round_half_even, usd_decimal
from llm_gate.domain.pricing import Cost, Price, PriceCondition, cost_of, price_for
from llm_gate.domain.usage import Usage, total_usage

TODAY = date(2026, 11, 20)


def price(unit, usd, per=1_000_000, above=None, since=None, **condition):
    limits = {"above_input_tokens": above, **condition}
    given_limits = {key: value for key, value in limits.items() if value is not None}
    return Price(
        id=f"{unit}/{usd}/{above}/{since}",
        unit=unit,
        per=per,
        nanos=parse_usd(usd),
        condition=PriceCondition(**given_limits) if given_limits else None,
        since=since,
    )


PLAIN = (price("input_tokens", "2.50"), price("output_tokens", "10"))


def lines(prices, on=TODAY, **counts):
    cost = cost_of(prices, Usage(**counts), on)
    return None if cost is None else [(line.price.unit, line.quantity, line.nanos) for line in cost.lines]


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", Fraction(0)),
        ("1", Fraction(10**9)),
        ("0.15", Fraction(150_000_000)),
        ("0.000000001", Fraction(1)),
        ("0.0000000001", Fraction(1, 10)),
        ("0.1", Fraction(10**8)),
        ("999999999.999999999", Fraction(999_999_999_999_999_999)),
    ],
)
def test_amounts_are_read_exactly(text, nanos):
    """Decimal text becomes an exact amount, also below one nano-dollar."""
    assert parse_usd(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "1e3",
        "1e999999999",
        "1_000",
        " 1",
        "1 ",
        "1\n",
        "NaN",
        "Infinity",
        "1,5",
        ".5",
        "5.",
        "0x1",
        "$1",
        "\u0661",
        "1" * 16,
        "0." + "1" * 31,
    ],
)
def test_anything_but_plain_decimals_is_refused(text):
    """Signs, exponents, separators, other scripts and absurd lengths are no amounts."""
    with pytest.raises(ValueError, match="is not a plain, non-negative decimal amount"):
        parse_usd(text)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        (Fraction(1, 2), 0),
        (Fraction(3, 2), 2),
        (Fraction(5, 2), 2),
        (Fraction(7, 2), 4),
        (Fraction(-1, 2), 0),
        (Fraction(-3, 2), -2),
        (Fraction(10**30 + 1, 2), 5 * 10**29),
        (Fraction(499_999, 10**6), 0),
        (Fraction(500_001, 10**6), 1),
    ],
)
def test_ties_go_to_the_even_neighbour(amount, rounded):
    """Halves round to the even neighbour and everything else to the nearest, at any size."""
    assert round_half_even(amount) == rounded


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (10**9, "1"),
        (1_500_000_000, "1.5"),
        (-1, "-0.000000001"),
        (-2_500_000_000, "-2.5"),
        (10**27 + 1, "1000000000000000000.000000001"),
        (100 * 10**9, "100"),
    ],
)
def test_amounts_are_written_plainly(nanos, text):
    """Amounts are written with all digits, no exponent and no trailing zeros."""
    assert format_usd(nanos) == text
    assert usd_decimal(nanos) == Decimal(text)


@given(nanos=st.integers(min_value=0, max_value=10**24 - 1))
def test_writing_and_reading_gives_the_same(nanos):
    """What is written reads back as the same amount."""
    assert parse_usd(format_usd(nanos)) == nanos


def test_plain_cost():
    """Input and output are priced apart, and the total is their sum."""
    cost = cost_of(PLAIN, Usage(input_tokens=1000, output_tokens=10), TODAY)
    assert [line.nanos for line in cost.lines] == [2_500_000, 100_000]
    assert cost.nanos == 2_600_000


def test_fractions_of_a_nano_are_rounded_once_per_line():
    """A price below one nano-dollar a token is multiplied first and rounded after."""
    prices = (price("input_tokens", "0.0005"), price("output_tokens", "0.0015"))
    assert lines(prices, input_tokens=1, output_tokens=1) == [("input_tokens", 1, 0), ("output_tokens", 1, 2)]
    assert lines(prices, input_tokens=3, output_tokens=3) == [("input_tokens", 3, 2), ("output_tokens", 3, 4)]
    assert lines(prices, input_tokens=10**6) == [("input_tokens", 10**6, 500_000)]


def test_unknown_stays_unknown():
    """No usage, no prices or a missing price gives no cost; a price of zero gives zero."""
    assert cost_of(PLAIN, None, TODAY) is None
    assert cost_of((), Usage(input_tokens=1), TODAY) is None
    assert cost_of(PLAIN[:1], Usage(input_tokens=1, output_tokens=1), TODAY) is None
    assert cost_of(PLAIN[1:], Usage(input_tokens=1), TODAY) is None
    assert cost_of(PLAIN[:1], Usage(input_tokens=1), TODAY).nanos == 2500
    assert cost_of((price("input_tokens", "0"),), Usage(input_tokens=9), TODAY).nanos == 0
    assert cost_of(PLAIN, Usage(), TODAY).nanos == 0


def test_children_are_billed_at_their_own_price():
    """Cached, cache-writing and audio tokens leave the plain lines where they have a price."""
    prices = (
        *PLAIN,
        price("cached_input_tokens", "0.25"),
        price("cache_write_tokens", "3"),
        price("audio_input_tokens", "40"),
        price("audio_output_tokens", "80"),
    )
    assert lines(
        prices,
        input_tokens=1000,
        cached_input_tokens=600,
        cache_write_tokens=100,
        audio_input_tokens=50,
        output_tokens=100,
        reasoning_tokens=40,
        audio_output_tokens=30,
    ) == [
        ("cached_input_tokens", 600, 150_000),
        ("cache_write_tokens", 100, 300_000),
        ("audio_input_tokens", 50, 2_000_000),
        ("audio_output_tokens", 30, 2_400_000),
        ("input_tokens", 250, 625_000),
        ("output_tokens", 70, 700_000),
    ]


def test_children_without_a_price_are_plain_tokens():
    """Where cached tokens have no price of their own they cost what input costs."""
    assert lines(PLAIN, input_tokens=1000, cached_input_tokens=600, output_tokens=10, reasoning_tokens=5) == [
        ("input_tokens", 1000, 2_500_000),
        ("output_tokens", 10, 100_000),
    ]


def test_children_never_exceed_their_parent():
    """A vendor that reports more cached tokens than input is billed for the input only."""
    prices = (*PLAIN, price("cached_input_tokens", "0.25"))
    assert lines(prices, input_tokens=7, cached_input_tokens=163) == [("cached_input_tokens", 7, 1750)]


@pytest.mark.parametrize(("tokens", "nanos"), [(200_000, 250_000_000), (200_001, 500_002_500)])
def test_tiers_apply_above_their_threshold(tokens, nanos):
    """A tier prices the whole call once the input is above its threshold, and the output with it."""
    prices = (
        price("input_tokens", "1.25"),
        price("input_tokens", "2.50", above=200_000),
        price("output_tokens", "10"),
        price("output_tokens", "15", above=200_000),
    )
    assert lines(prices, input_tokens=tokens)[0][2] == nanos
    assert lines(prices, input_tokens=tokens, output_tokens=1)[1][2] == (
        10_000 if tokens == 200_000 else 15_000
    )


def test_the_highest_threshold_reached_wins():
    """Of several tiers the highest that is reached counts, in whatever order they stand."""
    tiers = [price("input_tokens", usd, above=above) for usd, above in (("4", 400), ("2", None), ("3", 200))]
    usage = [Usage(input_tokens=count) for count in (100, 201, 400, 401)]
    assert [price_for(tiers, "input_tokens", one, TODAY).nanos for one in usage] == [
        2 * 10**9,
        3 * 10**9,
        3 * 10**9,
        4 * 10**9,
    ]


@pytest.mark.parametrize(
    ("on", "usd"),
    [
        (date(2023, 12, 31), None),
        (date(2024, 1, 1), 5),
        (date(2026, 5, 31), 5),
        (date(2026, 6, 1), 3),
        (date(2030, 1, 1), 3),
    ],
)
def test_prices_hold_from_their_date_on(on, usd):
    """The latest price that had begun by the day of the request counts; before the first there is none."""
    prices = (
        price("input_tokens", "3", since=date(2026, 6, 1)),
        price("input_tokens", "5", since=date(2024, 1, 1)),
    )
    found = price_for(prices, "input_tokens", Usage(input_tokens=1), on)
    assert (found and found.nanos) == (usd and usd * 10**9)
    assert (cost_of(prices, Usage(input_tokens=1), on) is None) == (usd is None)


def test_an_undated_price_gives_way_to_a_dated_one():
    """A price without a date holds until a dated one begins."""
    prices = (price("input_tokens", "3", since=date(2026, 6, 1)), price("input_tokens", "5"))
    found = [price_for(prices, "input_tokens", Usage(), day).nanos for day in (date(2026, 5, 31), TODAY)]
    assert found == [5 * 10**9, 3 * 10**9]


def test_prices_of_pictures_do_not_price_tokens():
    """A price for one size of picture is never taken for tokens or for another condition."""
    pictures = (price("images", "0.04", per=1, width=1024, height=1024), *PLAIN)
    assert lines(pictures, input_tokens=1) == [("input_tokens", 1, 2500)]
    assert price_for(pictures, "images", Usage(), TODAY) is None


@pytest.mark.parametrize(
    ("number", "nanos"),
    [
        ("0", 0),
        ("0.00012", 120_000),
        ("8.1e-05", 81_000),
        ("1E+2", 100_000_000_000),
        ("0.00016499999999999998", 165_000),
        ("1e-99", 0),
        ("-1", None),
        ("1e999999999", None),
        ("null", None),
        ('"0.1"', None),
        ("{}", None),
        ("", None),
    ],
)
def test_a_vendors_number_of_dollars(number, nanos):
    """A vendor's cost is read to the nano-dollar, exponents included; anything but a plausible number is none."""
    assert read_nanos(number) == nanos


def test_vendor_costs_add_up_only_when_all_are_known():
    """The vendor's cost of several calls is unknown when that of one is."""
    one, other = Usage(input_tokens=1, vendor_cost_nanos=5), Usage(input_tokens=1, vendor_cost_nanos=7)
    sums = [total_usage([one, other]), total_usage([one, Usage(input_tokens=1)])]
    assert [found and found.vendor_cost_nanos for found in sums] == [12, None]


COUNTS = st.integers(min_value=0, max_value=10**9)
AMOUNTS = st.decimals(min_value=0, max_value=1000, places=9, allow_nan=False).map(lambda d: format(d, "f"))
UNITS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "output_tokens",
    "audio_output_tokens",
    "image_output_tokens",
)


@given(
    counts=st.tuples(*(COUNTS for _ in UNITS)),
    amounts=st.tuples(*(AMOUNTS for _ in UNITS)),
    per=st.sampled_from([1, 7, 1000, 1_000_000]),
)
def test_lines_add_up_and_no_float_enters(counts, amounts, per):
    """Every token is billed exactly once, each line is its exact product, and the sum of lines is the total."""
    prices = [price(unit, usd, per=per) for unit, usd in zip(UNITS, amounts, strict=True)]
    usage = Usage(**dict(zip(UNITS, counts, strict=True)))
    cost = cost_of(prices, usage, TODAY)
    assert isinstance(cost, Cost)
    assert sum(line.quantity for line in cost.lines) == usage.total_tokens
    assert cost.nanos == sum(line.nanos for line in cost.lines)
    for line in cost.lines:
        assert type(line.nanos) is int
        assert type(line.price.nanos) is Fraction
        assert abs(line.nanos - line.price.nanos * line.quantity / per) <= Fraction(1, 2)
    assert parse_usd(format_usd(cost.nanos)) == cost.nanos


@given(counts=st.tuples(*(COUNTS for _ in UNITS)))
def test_usages_add_up_in_every_kind_of_token(counts):
    """Each count of a sum is the sum of the counts."""
    usage = Usage(**dict(zip(UNITS, counts, strict=True)))
    total = total_usage([usage, usage])
    assert total is not None
    assert [getattr(total, unit) for unit in UNITS] == [2 * count for count in counts]
