"""The dearest rates of text are a bound: no usage within the tokens that were bounded costs more."""

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.pricing import Price, PriceCondition, cost_of
from llm_gate.domain.text_rates import text_rates
from llm_gate.domain.usage import Usage
from support.figures import property_of

TODAY = date(2026, 11, 20)
PRICED = sorted(
    {
        model.id: model
        for entry in load_catalog().providers.values()
        for model in entry.models.values()
        if model.prices and {"chat", "embedding"} & set(model.operations)
    }.items()
)
# Around every threshold of the catalog's tiers, and up to the longest contexts there are.
TOKENS = st.one_of(
    st.integers(0, 40),
    st.integers(199_990, 200_010),
    st.integers(271_990, 272_010),
    st.integers(127_990, 128_010),
    st.integers(0, 2_000_000),
)


@st.composite
def usages(draw):
    """Any usage whose parts lie within its whole, with the bounds it was let in under."""
    read, written = draw(TOKENS), draw(TOKENS)
    parts = {
        "cached_input_tokens": draw(st.integers(0, read)),
        "cache_write_tokens": draw(st.integers(0, read)),
        "audio_input_tokens": draw(st.integers(0, read)),
        "image_input_tokens": draw(st.integers(0, read)),
        "reasoning_tokens": draw(st.integers(0, written)),
        "audio_output_tokens": draw(st.integers(0, written)),
        "image_output_tokens": draw(st.integers(0, written)),
    }
    usage = Usage(input_tokens=read, output_tokens=written, **parts)
    return usage, read + draw(st.integers(0, 100)), written + draw(st.integers(0, 100))


def price(unit, nanos, *, above=None, since=None):
    return Price(
        id=f"{unit}/{nanos}/{above}",
        unit=unit,
        per=1,
        nanos=Fraction(nanos),
        condition=None if above is None else PriceCondition(above_input_tokens=above),
        since=since,
    )


def check_bounds(prices, usage, most_input, most_output, *, reads_only=False):
    rates = text_rates(prices, TODAY, reads_only=reads_only)
    cost = cost_of(prices, usage, TODAY)
    if rates is None or cost is None:
        return
    assert rates.most(most_input, most_output) >= cost.nanos


@property_of(100, 2_000)
@given(usages(), st.data())
def test_no_usage_of_the_catalog_costs_more_than_its_bound(drawn, data):
    """For every model of text that is shipped, what a usage costs is within the bound of its tokens."""
    for _, model in data.draw(st.just(PRICED)):
        check_bounds(model.prices, *drawn, reads_only="chat" not in model.operations)


RATES = st.fractions(0, 20, max_denominator=8)


@st.composite
def price_lists(draw):
    """Any prices, with whole and broken rates, in up to three tiers."""
    prices = [price("input_tokens", draw(RATES)), price("output_tokens", draw(RATES))]
    units = ["cached_input_tokens", "cache_write_tokens", "audio_input_tokens", "image_input_tokens",
             "audio_output_tokens", "image_output_tokens", "input_tokens", "output_tokens"]  # fmt: skip
    more = draw(st.lists(st.sampled_from(units), max_size=10))
    prices += [price(unit, draw(RATES), above=draw(st.sampled_from([None, 0, 10, 30]))) for unit in more]
    return tuple(prices)


SMALL = st.integers(0, 60)
HALVES = tuple(
    price(unit, "1.5")
    for unit in ("input_tokens", "cached_input_tokens", "output_tokens", "audio_output_tokens")
)


@property_of(500, 20_000)
@given(price_lists(), SMALL, SMALL, st.lists(st.integers(0, 60), min_size=6, max_size=6))
@example(HALVES, 2, 2, [1, 0, 0, 0, 1, 0])
def test_no_price_list_breaks_the_bound(prices, read, written, parts):
    """Whatever a model's prices are, in whatever tiers, rounding each line of a cost does not pass the bound."""
    cached, writing, heard, seen, spoken, drawn = parts
    usage = Usage(
        input_tokens=read,
        output_tokens=written,
        cached_input_tokens=min(cached, read),
        cache_write_tokens=min(writing, read),
        audio_input_tokens=min(heard, read),
        image_input_tokens=min(seen, read),
        audio_output_tokens=min(spoken, written),
        image_output_tokens=min(drawn, written),
    )

    check_bounds(prices, usage, read, written)


def test_a_bound_of_whole_rates_is_exact():
    """Where nothing has to be rounded the bound is what that many of the dearest tokens cost."""
    rates = text_rates([price("input_tokens", 3), price("output_tokens", 15)], TODAY, reads_only=False)

    assert rates.most(100, 10) == 450
    assert rates.most(0, 0) == 0


def test_a_tier_counts_from_where_it_can_be_reached():
    """The dearer price of long inputs is taken as soon as the input may be that long."""
    prices = [price("input_tokens", 1), price("input_tokens", 2, above=100), price("output_tokens", 5),
              price("output_tokens", 9, above=100)]  # fmt: skip
    rates = text_rates(prices, TODAY, reads_only=False)

    assert rates.most(100, 10) == 150
    assert rates.most(101, 10) == 292


def test_a_special_token_may_be_the_dearest():
    """Tokens written to a cache, heard or seen cost more than plain ones where their price says so."""
    rates = text_rates(
        [price("input_tokens", 4), price("cache_write_tokens", 5), price("output_tokens", 1),
         price("audio_output_tokens", 8)],
        TODAY,
        reads_only=False,
    )  # fmt: skip

    assert rates.most(10, 10) == 130


@pytest.mark.parametrize(
    ("prices", "reads_only", "known"),
    [
        ([], True, False),
        ([price("output_tokens", 1)], False, False),
        ([price("input_tokens", 1)], False, False),
        ([price("input_tokens", 1)], True, True),
        ([price("input_tokens", 1, since=date(2026, 11, 21)), price("output_tokens", 1)], False, False),
    ],
)
def test_without_a_needed_price_there_is_no_bound(prices, reads_only, known):
    """What has no price today cannot be bounded; what only reads needs no price of output."""
    assert (text_rates(prices, TODAY, reads_only=reads_only) is not None) is known
