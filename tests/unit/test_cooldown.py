"""The breaker: what opens it, for how long, who may find out that it can be closed, and what a vendor asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.domain.conditions import Cooling
from llm_gate.domain.errors import (
    AnswerNotInForm,
    BadProviderResponse,
    ContentFiltered,
    ContextTooLong,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.policy import JITTER, CooldownRules
from llm_gate.engine.cooldown import RATE_LONGEST_S, Breaker
from support.figures import property_of

LONGEST_WISH_S = CooldownRules().longest_wish_s
PASSING = [ProviderUnavailable, ProviderTimeout, BadProviderResponse, ProviderError]
BROKEN = [ProviderQuotaExhausted, ProviderAuthFailed, ProviderModelGone]
HARMLESS = [ProviderRejected, ContextTooLong, ContentFiltered, AnswerNotInForm]
OFF = CooldownRules(failures=0)


def breaker(rules=None, chance=0.0):
    return Breaker(rules or CooldownRules(), lambda: chance)


def error(kind=ProviderUnavailable, retry_after_s=None):
    return kind("it failed", provider="p", model="m", status=503, retry_after_s=retry_after_s)


def fail(it, times, now_s=0.0, kind=ProviderUnavailable):
    """Let calls in and fail them; return what the last one began."""
    return [it.failed(error(kind), now_s) for _ in range(times)][-1]


def opened(rules=None, chance=0.0):
    it = breaker(rules, chance)
    assert fail(it, 5).for_s == 1.0 * (1 + JITTER * chance)
    return it


@pytest.mark.parametrize("kind", PASSING)
def test_failures_in_a_row_open_it(kind):
    """The fifth failure of a kind that may pass opens it for a second; four do not."""
    it = breaker()
    assert fail(it, 4, kind=kind) is None
    assert it.enter(0.0)
    began = it.failed(error(kind), 0.0)
    assert began == Cooling(for_s=1.0, code=kind.code, message="it failed", status=503)
    assert not it.enter(0.999)
    assert it.cooling(0.25).for_s == 0.75
    assert it.cooling(1.0) is None


def test_a_success_begins_the_row_anew():
    """Four failures, a success and four failures leave it closed."""
    it = breaker()
    fail(it, 4)
    it.answered(0.0)
    assert fail(it, 4) is None
    assert it.failed(error(), 0.0) is not None


def test_half_of_the_last_calls_open_it():
    """Every other call failing opens it, once as many calls as the window has were seen."""
    it = breaker()
    for seen in range(19):
        if seen % 2:
            it.answered(0.0)
        else:
            assert it.failed(error(), 0.0) is None
    it.answered(0.0)
    assert it.failed(error(), 0.0) is not None


def test_less_than_half_leave_it_closed():
    """Two of five calls failing, for long, do not open it, and old failures are forgotten."""
    it = breaker()
    for _ in range(200):
        assert fail(it, 2) is None
        for _ in range(3):
            it.answered(0.0)
    assert it.cooling(0.0) is None


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_says_nothing_of_the_place_does_not_count(kind):
    """Refused requests and answers out of form never open it, and close it where they were the probe."""
    it = breaker()
    assert fail(it, 100, kind=kind) is None
    assert it.enter(0.0)
    it = opened()
    assert it.enter(1.0)
    assert it.failed(error(kind), 1.1) is None
    assert it.enter(1.1)
    assert it.enter(1.1)
    assert not it.is_probing


def test_one_probe_is_let_in_at_a_time():
    """After the cooldown one call is let in, the others when it has succeeded."""
    it = opened()
    assert it.enter(1.0)
    assert it.is_probing
    assert not it.enter(1.1)
    assert it.cooling(1.1).code == "provider_unavailable"
    it.answered(1.5)
    assert it.cooling(1.5) is None
    assert it.enter(1.5)
    assert it.enter(1.5)


def test_a_probe_that_is_left_frees_its_place():
    """A probe whose caller went away says nothing; the next call is the probe."""
    it = opened()
    assert it.enter(1.0)
    it.left(1.2, 1.0)
    assert it.cooling(1.2) is None
    assert it.enter(1.2)
    assert not it.enter(1.2)
    it.left(1.3, 0.5)
    assert it.is_probing


def test_a_probe_that_hangs_does_not_keep_the_others_out_for_long():
    """Another call becomes the probe after the longest cooldown; the late verdict of the first still counts."""
    it = opened()
    assert it.enter(1.0)
    assert not it.enter(4.9)
    assert it.enter(5.0)
    assert not it.enter(5.1)
    it.answered(5.2, 1.0)
    assert it.enter(5.2)
    assert it.enter(5.2)


def test_each_failed_probe_doubles_up_to_the_longest():
    """Cooldowns last 1, 2, 4, 4 s, and 1 s again after a success."""
    it = opened()
    now_s = 1.0
    for expected_s in (2.0, 4.0, 4.0, 4.0):
        assert it.enter(now_s)
        assert it.failed(error(), now_s, now_s).for_s == expected_s
        now_s += expected_s
    assert it.enter(now_s)
    it.answered(now_s, now_s)
    assert fail(it, 5, now_s).for_s == 1.0


def test_another_trouble_begins_anew():
    """After a long outage a refused key cools for 5 s, not for as long as the outage would have made it."""
    it = opened()
    now_s = 1.0
    for _ in range(4):
        assert it.enter(now_s)
        now_s += it.failed(error(), now_s, now_s).for_s
    assert it.enter(now_s)
    assert it.failed(error(ProviderAuthFailed), now_s, now_s).for_s == 5.0


def test_after_a_probe_the_window_begins_anew():
    """What was seen before the cooldown neither opens it again nor makes up for what fails later."""
    it = breaker()
    while it.cooling(0.0) is None:
        it.answered(0.0)
        fail(it, 2)
    assert it.enter(9.0)
    it.answered(9.0, 9.0)
    began = []
    for _ in range(10):
        it.answered(9.0)
        began.append(it.failed(error(), 9.0))
    assert [each is not None for each in began] == [False] * 9 + [True]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_waiting_does_not_mend_begins_at_once(kind):
    """A refused key, an empty account or a model that is gone cools at once, from 5 s to 5 minutes."""
    it = breaker()
    assert it.failed(error(kind), 0.0).for_s == 5.0
    now_s = 5.0
    for expected_s in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        assert it.enter(now_s)
        assert it.failed(error(kind), now_s, now_s).for_s == expected_s
        now_s += expected_s


def test_a_limited_rate_without_a_hint():
    """It cools at once, from a second up to a minute."""
    it = breaker()
    assert it.failed(error(ProviderRateLimited), 0.0).for_s == 1.0
    now_s = 1.0
    for expected_s in (2.0, 4.0, RATE_LONGEST_S, RATE_LONGEST_S):
        assert it.enter(now_s)
        assert it.failed(error(ProviderRateLimited), now_s, now_s).for_s == expected_s
        now_s += expected_s


@pytest.mark.parametrize("kind", [ProviderRateLimited, *PASSING])
def test_a_hint_begins_at_once(kind):
    """One error with a hint cools for that long, of whatever kind."""
    it = breaker()
    assert it.failed(error(kind, 0.5), 0.0).for_s == 0.5
    it = breaker()
    assert it.failed(error(kind, 30.0), 0.0).for_s == 30.0
    assert not it.enter(29.9)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_hint_is_the_least_where_more_is_due(kind):
    """A broken place is left alone for 5 s, or for what the vendor says if that is longer."""
    assert breaker().failed(error(kind, 2.0), 0.0).for_s == 5.0
    assert breaker().failed(error(kind, 50.0), 0.0).for_s == 50.0


def test_a_hint_is_believed_up_to_a_day():
    """A hint of a year is a day; nonsense is none."""
    assert breaker().failed(error(ProviderRateLimited, 31_536_000.0), 0.0).for_s == LONGEST_WISH_S
    assert breaker().failed(error(ProviderRateLimited, float("inf")), 0.0).for_s == LONGEST_WISH_S
    assert breaker().failed(error(ProviderRateLimited, float("nan")), 0.0).for_s == 1.0
    assert breaker().failed(error(ProviderRateLimited, -5.0), 0.0).for_s == 1.0


def test_chance_only_makes_it_longer():
    """Every cooldown is up to a quarter longer."""
    assert opened(chance=1.0).cooling(0.0).for_s == 1.25
    assert breaker(chance=1.0).failed(error(ProviderRateLimited, 40.0), 0.0).for_s == 50.0


@pytest.mark.parametrize("kind", [*PASSING, *BROKEN, ProviderRateLimited])
def test_switched_off_only_a_hint_cools(kind):
    """With 0 failures nothing cools but for what the vendor asks for, and nobody has to probe after that."""
    it = breaker(OFF)
    assert fail(it, 100, kind=kind) is None
    assert it.enter(0.0)
    assert it.failed(error(kind, 7.0), 0.0).for_s == 7.0
    assert not it.enter(6.9)
    assert it.enter(7.0)
    assert it.enter(7.0)


def test_calls_under_way_do_not_lengthen_it():
    """A hundred calls that began before it opened may fail at any time: it stays as it is, and so after a probe."""
    it = breaker()
    fail(it, 5, 10.0)
    for n in range(50):
        assert it.failed(error(), 10.0 + n / 100, 9.0) is None
    assert it.enter(11.0)
    assert it.failed(error(), 11.1, 9.0) is None
    it.answered(11.1, 9.0)
    assert it.is_probing
    it.answered(11.2, 11.0)
    for _ in range(50):
        assert it.failed(error(), 11.3, 9.0) is None
    assert it.enter(11.3)


def test_something_worse_under_way_takes_over_once():
    """A refused key counts also from a call that began before, but not for every such call."""
    it = breaker()
    fail(it, 5, 10.0)
    assert it.failed(error(ProviderAuthFailed), 10.1, 9.0).for_s == 5.0
    assert it.failed(error(ProviderAuthFailed), 10.2, 9.0) is None
    assert it.failed(error(), 10.3, 9.0) is None
    assert it.cooling(10.3).code == "provider_auth_failed"


def test_a_hint_from_a_call_under_way_is_kept():
    """What the vendor asks for counts whenever it comes, and a probe's success does not undo it."""
    it = breaker()
    fail(it, 5, 10.0)
    assert it.enter(11.0)
    assert it.failed(error(ProviderRateLimited, 20.0), 11.1, 9.0).for_s == 20.0
    it.answered(11.2, 11.0)
    assert not it.enter(31.0)
    assert it.enter(31.1)


def test_a_small_hint_does_not_make_it_less_bad():
    """A refused key with a hint from another call: the next refusal is its second, not a first one."""
    it = breaker()
    assert it.failed(error(ProviderAuthFailed), 10.0).for_s == 5.0
    assert it.failed(error(ProviderRateLimited, 8.0), 10.1, 9.0).for_s == 8.0
    assert it.failed(error(ProviderAuthFailed), 10.2, 9.0) is None
    assert it.enter(18.1)
    assert it.failed(error(ProviderAuthFailed), 18.1, 18.1).for_s == 10.0


def test_what_is_heard_goes_on_from_what_is_known():
    """The doubling goes on where others tell of the same trouble."""
    it = opened()
    assert it.enter(1.0)
    assert it.failed(error(), 1.0, 1.0).for_s == 2.0
    it.hear(Cooling(for_s=3.0, code="provider_timeout", message="elsewhere"), 1.0)
    assert it.enter(4.0)
    assert it.failed(error(), 4.0, 4.0).for_s == 4.0


def test_another_process_is_heard():
    """What others tell is taken over where it lasts longer; its end needs a probe."""
    it = breaker()
    it.hear(Cooling(for_s=3.0, code="rate_limit_exceeded", message="elsewhere", status=429), 0.0)
    assert it.cooling(1.0) == Cooling(for_s=2.0, code="rate_limit_exceeded", message="elsewhere", status=429)
    it.hear(Cooling(for_s=1.0, code="provider_unavailable", message="shorter"), 1.0)
    assert it.cooling(1.0).message == "elsewhere"
    it.hear(Cooling(for_s=9.0, code="provider_unavailable", message="longer"), 1.0)
    assert it.cooling(1.0) == Cooling(for_s=9.0, code="provider_unavailable", message="longer")
    assert it.enter(10.0)
    assert not it.enter(10.0)


def test_the_echo_of_its_own_cooldown_does_not_open_it_again():
    """What comes back a little late after a probe's success is not news."""
    it = opened()
    assert it.enter(1.0)
    it.answered(1.05, 1.0)
    it.hear(Cooling(for_s=0.1, code="provider_unavailable", message="echo"), 1.06)
    assert it.enter(1.07)
    assert it.enter(1.07)


EVENTS = st.tuples(
    st.sampled_from(["enter", "answered", "left", "failed", "hinted", "hinted", "heard"]),
    st.floats(0.0, 30.0),
    st.sampled_from([*PASSING, *BROKEN, *HARMLESS, ProviderRateLimited]),
    st.floats(0.001, 200_000.0),
    st.integers(0, 3),
)


@property_of()
@given(st.lists(EVENTS, max_size=60), st.floats(0.0, 1.0), st.booleans(), st.booleans())
def test_what_a_vendor_asks_for_is_never_undercut(events, chance, is_known, is_off):
    """Whatever else happens, nobody is let in earlier than a vendor asked for (a day at most)."""
    it = breaker(OFF if is_off else None, chance)
    now_s, not_before_s, under_way = 1_000.0, 0.0, []
    for event, later_s, kind, hint_s, index in events:
        now_s += later_s
        if event == "enter":
            is_in = it.enter(now_s)
            assert not is_in or now_s >= not_before_s
            if is_in:
                under_way.append(now_s)
            continue
        if event == "heard":
            it.hear(Cooling(for_s=hint_s, code=kind.code, message="elsewhere"), now_s)
            continue
        began_s = under_way.pop(index % len(under_way)) if under_way else 0.0
        began_s = began_s if is_known else None
        if event == "answered":
            it.answered(now_s, began_s)
        elif event == "left":
            it.left(now_s, began_s)
        elif event == "failed":
            it.failed(error(kind), now_s, began_s)
        else:
            it.failed(error(kind, hint_s), now_s, began_s)
            if kind not in HARMLESS:
                not_before_s = max(not_before_s, now_s + min(hint_s, LONGEST_WISH_S))
        if now_s < not_before_s:
            assert it.cooling(now_s).for_s >= not_before_s - now_s - 1e-6


@property_of()
@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=80), st.floats(0.0, 1.0))
def test_it_always_lets_somebody_in_again(events, chance):
    """However calls fail, somebody is let in within the longest cooldown after the last failure."""
    it = breaker(chance=chance)
    now_s = 0.0
    for later_s, is_good in events:
        now_s += later_s
        if it.enter(now_s):
            if is_good:
                it.answered(now_s, now_s)
            else:
                it.failed(error(), now_s, now_s)
    assert it.enter(now_s + 4.0 * (1 + JITTER) + 0.001)
