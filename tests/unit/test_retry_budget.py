"""Repeats stay a share of the calls, however long an outage lasts; a few are let through where calls are rare."""

from hypothesis import given
from hypothesis import strategies as st

from llm_gate.engine.retry_budget import RetryBudget
from support.figures import property_of


def test_a_full_outage_is_not_made_worse():
    """Of 6,000 calls that all fail, and all would be repeated twice, 600 are repeated."""
    budget = RetryBudget(floor=0)
    repeats = 0
    for n in range(6000):
        now_s = n / 100
        budget.called(now_s)
        repeats += budget.take(now_s)
        repeats += budget.take(now_s)
    assert repeats == 600


def test_a_short_outage_is_passed_by():
    """After many good calls ten in a row may be repeated, and three by the floor."""
    budget = RetryBudget()
    for _ in range(10_000):
        budget.called(0.0)
    assert sum(budget.take(0.0) for _ in range(50)) == 13


def test_the_floor_fills_again():
    """Where calls are rare, three may be repeated, and one more every five seconds."""
    budget = RetryBudget(share=0.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(4.9)
    assert budget.take(5.0)
    assert not budget.take(5.0)
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_without_floor_and_calls_nothing_is_repeated():
    """A floor of 0 switches it off."""
    budget = RetryBudget(floor=0)
    assert not any(budget.take(float(n)) for n in range(1000))


def test_a_small_share_still_comes_to_a_whole():
    """At a share of a thousandth the thousandth call earns one."""
    budget = RetryBudget(share=0.001, floor=0)
    for _ in range(1000):
        assert not budget.take(0.0)
        budget.called(0.0)
    assert budget.take(0.0)


@property_of()
@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 30), st.integers(0, 30)), max_size=60),
    st.sampled_from([0.0, 0.05, 0.1, 0.2, 1.0]),
    st.sampled_from([0, 1, 3]),
)
def test_repeats_never_pass_the_share_and_the_floor(events, share, floor):
    """However calls and repeats follow each other: the share of the calls, the floor and its refill, no more."""
    budget = RetryBudget(share=share, floor=floor)
    now_s, calls, repeats = 0.0, 0, 0
    for later_s, called, wanted in events:
        now_s += later_s
        for _ in range(called):
            budget.called(now_s)
        calls += called
        repeats += sum(budget.take(now_s) for _ in range(wanted))
        assert repeats <= share * calls + floor + (0.2 * now_s if floor else 0.0) + 1e-6
