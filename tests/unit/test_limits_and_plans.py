"""Limits by their names, and what plans, subscriptions and standings make of them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.limits import BUCKETS, MOST, limit_named, read_limit
from llm_gate.domain.plans import Limits, Plan, Subscription, quotas_of, standing_of
from llm_gate.domain.windows import milliseconds, window_of
from support.figures import property_of


def ms(text):
    return milliseconds(datetime.fromisoformat(text))


def limit(name):
    found = limit_named(name)
    return (found.meter, found.window, found.bucket, found.provider)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((f"{bucket}_calls", ("calls", "period", bucket, None)) for bucket in BUCKETS),
        ("gemini_calls", ("calls", "period", None, "gemini")),
        ("gemini_tokens", ("tokens", "period", None, "gemini")),
        ("azure_openai_tokens", ("tokens", "period", None, "azure_openai")),
        ("text_tokens", ("tokens", "period", None, "text")),
        ("monthly_cost_usd", ("cost", "period", None, None)),
        ("parallel_jobs", ("jobs", "open", None, None)),
        *((f"requests_per_{w}", ("requests", w, None, None)) for w in ("minute", "hour", "day", "month")),
        *((f"tokens_per_{w}", ("tokens", w, None, None)) for w in ("minute", "hour", "day", "month")),
        *((f"cost_usd_per_{w}", ("cost", w, None, None)) for w in ("minute", "hour", "day", "month")),
    ],
)
def test_every_name_has_one_meaning(name, meant):
    """A name says what is counted, over which window, of which calls."""
    assert limit(name) == meant
    assert limit_named(name).is_money == (meant[0] == "cost")


@pytest.mark.parametrize(
    "name",
    ["", "calls", "_calls", "requests_per_year", "requests_per_", "monthly_cost", "Gemini_calls", "a b_calls",
     "gemini_call", "gemini_calls ", "gemini_calls\n", "parallel_job", "ünicode_calls"],
)  # fmt: skip
def test_other_names_are_refused(name):
    """What is no limit's name is refused, and named."""
    with pytest.raises(InvalidRequest, match="no limit called") as caught:
        limit_named(name)

    assert (caught.value.param, caught.value.code) == (name, "unknown_limit")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text_calls", "50", 50),
        ("text_calls", " 0 ", 0),
        ("text_calls", "unlimited", None),
        ("text_calls", "NULL", None),
        ("text_calls", str(MOST), MOST),
        ("monthly_cost_usd", "0.05", 50_000_000),
        ("monthly_cost_usd", "500", 500 * 10**9),
        ("monthly_cost_usd", "0.000000001", 1),
        ("cost_usd_per_day", "none", None),
    ],
)
def test_values_are_read_as_people_write_them(name, text, value):
    """Counts are whole numbers, money is in dollars and kept in nano-dollars, and there may be no limit."""
    assert read_limit(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text_calls", "-1"),
        ("text_calls", "1.5"),
        ("text_calls", "1e3"),
        ("text_calls", "²"),
        ("text_calls", "٣"),
        ("text_calls", ""),
        ("text_calls", "1_000"),
        ("text_calls", str(MOST + 1)),
        ("text_calls", "9" * 5_000),
        ("monthly_cost_usd", "-0.01"),
        ("monthly_cost_usd", "0.0000000001"),
        ("monthly_cost_usd", "NaN"),
        ("monthly_cost_usd", "Infinity"),
        ("monthly_cost_usd", "1e99"),
        ("monthly_cost_usd", "5 USD"),
        ("monthly_cost_usd", "3000000000"),
    ],
)
def test_other_values_are_refused(name, text):
    """What is no whole number, no amount, too much, or finer than a nano-dollar is refused with the name."""
    with pytest.raises(InvalidRequest) as caught:
        read_limit(name, text)

    assert caught.value.param == name


VALUES = st.one_of(st.none(), st.integers(0, MOST))
CHANGES = st.lists(
    st.dictionaries(st.sampled_from(["text_calls", "image_calls", "monthly_cost_usd"]), VALUES), max_size=8
)


@property_of(200)
@given(CHANGES)
def test_a_limit_dates_from_when_there_was_none_before(changes):
    """`since_ms` moves when a limit comes to be after there was none, and at no other change."""
    limits, since, values = Limits(), {}, {}
    for at_ms, change in enumerate(changes, 1):
        limits = limits.changed(change, at_ms)
        for name, value in change.items():
            if value is not None and values.get(name) is None:
                since[name] = at_ms
            values[name] = value

    assert limits.values == values
    assert limits.since_ms == since


def test_changing_limits_leaves_the_old_ones_alone():
    """A change gives new limits; a lower one keeps its beginning, so that what was used before still counts."""
    before = Limits().changed({"text_calls": 10}, 5)
    lower, gone = before.changed({"text_calls": 3}, 9), before.changed({"text_calls": None}, 9)

    assert (before.values, before.since_ms) == ({"text_calls": 10}, {"text_calls": 5})
    assert (lower.values, lower.since_ms) == ({"text_calls": 3}, {"text_calls": 5})
    assert quotas_of("user", "t", "u", gone, 0) == ()
    assert gone.changed({"text_calls": 10}, 12).since_ms == {"text_calls": 12}


def subscription(*, start="2024-01-31T10:00:00+00:00", end=None, cycle="monthly", auto_renew=True):
    return Subscription(
        id="s1",
        tenant="default",
        user="u1",
        plan="pro",
        cycle=cycle,
        start_ms=ms(start),
        term_end_ms=ms(end or "2024-02-29T10:00:00+00:00"),
        auto_renew=auto_renew,
    )


@pytest.mark.parametrize(
    ("cycle", "at", "start", "end"),
    [
        ("monthly", "2024-01-31T10:00:00+00:00", "2024-01-31T10:00:00+00:00", "2024-02-29T10:00:00+00:00"),
        ("monthly", "2024-02-29T09:59:59+00:00", "2024-01-31T10:00:00+00:00", "2024-02-29T10:00:00+00:00"),
        ("monthly", "2024-02-29T10:00:00+00:00", "2024-02-29T10:00:00+00:00", "2024-03-31T10:00:00+00:00"),
        ("monthly", "2026-02-28T11:00:00+00:00", "2026-02-28T10:00:00+00:00", "2026-03-31T10:00:00+00:00"),
        ("yearly", "2024-12-31T10:00:00+00:00", "2024-01-31T10:00:00+00:00", "2025-01-31T10:00:00+00:00"),
        ("yearly", "2025-01-31T10:00:00+00:00", "2025-01-31T10:00:00+00:00", "2026-01-31T10:00:00+00:00"),
    ],
)
def test_terms_follow_each_other_while_a_subscription_renews_itself(cycle, at, start, end):
    """A term is a month or a year from the start; a yearly one has monthly windows all the same."""
    held = subscription(cycle=cycle)

    assert held.term_at(ms(at)) == (ms(start), ms(end))
    window = window_of("period", ms(at), anchor_ms=held.start_ms)
    assert window.start_ms >= ms(start)
    assert window.end_ms <= ms(end)


def test_a_term_that_is_over_stays_the_last_one():
    """Where nothing renews it, the first term is the only one, and at its end the subscription has lapsed."""
    held = subscription(auto_renew=False)
    end_ms = held.term_end_ms

    assert held.term_at(ms("2026-01-01T00:00:00+00:00")) == (held.start_ms, end_ms)
    assert not held.has_lapsed(end_ms - 1)
    assert held.has_lapsed(end_ms)
    assert not subscription().has_lapsed(end_ms + 10**12)


@pytest.mark.parametrize("zone", ["America/Havana", "Europe/Berlin"])
def test_windows_divide_a_year_into_twelve(zone):
    """The monthly windows of a yearly term tile it, wherever it is and whenever it began."""
    tz = ZoneInfo(zone)
    held = subscription(start="2026-11-01T00:30:00-05:00", cycle="yearly")
    for year in range(2027, 2060):
        start_ms, end_ms = held.term_at(ms(f"{year}-06-15T00:00:00+00:00"), tz)
        at_ms, seen = start_ms, 0
        while at_ms < end_ms:
            at_ms, seen = window_of("period", at_ms, anchor_ms=held.start_ms, zone=tz).end_ms, seen + 1

        assert (at_ms, seen) == (end_ms, 12)


def test_quotas_are_accounts_of_their_own():
    """Each scope, tenant, subject, limit and beginning has its own account; no limit makes no quota."""
    limits = Limits(
        values={"text_calls": 5, "image_calls": None, "search_calls": 0}, since_ms={"text_calls": 7}
    )
    quotas = quotas_of("user", "t1", "u1", limits, 3)
    later = Limits(values=limits.values, since_ms={"text_calls": 8})
    accounts = [
        quota.account
        for made in (
            quotas,
            quotas_of("user", "t2", "u1", limits, 3),
            quotas_of("user", "t1", "u2", limits, 3),
            quotas_of("key", "t1", "u1", limits, 3),
        )
        for quota in made
    ]

    assert [(quota.limit.name, quota.value, quota.since_ms, quota.anchor_ms) for quota in quotas] == [
        ("search_calls", 0, 0, 3),
        ("text_calls", 5, 7, 3),
    ]
    assert len(set(accounts)) == 8
    assert quotas_of("user", "t1", "u1", later, 3)[1].account != quotas[1].account


NAMES = st.text(st.sampled_from("ab|/:"), min_size=1, max_size=4)


@property_of(300)
@given(one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES))
@example(one=("a", "b/c"), other=("a/b", "c"))
@example(one=("a%2Fb", "c"), other=("a/b", "c"))
def test_no_two_users_share_an_account(one, other):
    """Whatever separators ids hold, users of different tenants never count on the same account."""
    limits = Limits(values={"text_calls": 5})
    accounts = [quotas_of("user", tenant, user, limits, 0)[0].account for tenant, user in (one, other)]

    assert (accounts[0] == accounts[1]) == (one == other)


def standing(limits, **more):
    plan = Plan(name="pro", label="Pro", limits=Limits(values=limits), **more.pop("plan", {}))
    return standing_of(plan, quotas_of("user", "t", "u", plan.limits, 0), anchor_ms=0, **more)


def test_zero_shuts_out_what_it_is_about():
    """0 calls of a bucket close it, 0 calls to a provider exclude it; 0 money and tokens just leave no room."""
    found = standing(
        {"video_calls": 0, "openai_calls": 0, "gemini_tokens": 0, "monthly_cost_usd": 0, "text_calls": 1}
    )

    assert found.closed == {"video"}
    assert found.excluded == {"openai"}
    assert len(found.quotas) == 5


def test_a_standing_joins_what_plan_key_and_application_allow():
    """Every list of models must name a model; an empty list says nothing."""
    found = standing({}, plan={"allowed_models": ("a*",)}, allowed_models=((), ("b",)))

    assert found.allowed_models == (("a*",), ("b",))
    assert not found.is_capped
    assert found.zone is UTC
    assert not found.is_strict
    assert standing({"text_calls": 1}, plan={"mode": "strict"}).is_strict


@pytest.mark.parametrize(
    ("name", "bucket", "provider", "counts"),
    [
        ("text_calls", "text", "openai", True),
        ("text_calls", "image", "openai", False),
        ("openai_calls", "text", "openai", False),  # the bucket's limit governs text, whoever answers
        ("openai_calls", "image", "openai", True),
        ("openai_calls", "image", "gemini", False),
        ("openai_tokens", "text", "openai", True),
        ("openai_tokens", "text", "gemini", False),
        ("monthly_cost_usd", "video", "anyone", True),
        ("requests_per_minute", "search", "anyone", True),
    ],
)
def test_quotas_count_the_calls_they_are_about(name, bucket, provider, counts):
    """A quota counts the calls of its bucket or provider, or all."""
    (quota,) = quotas_of("user", "t", "u", Limits(values={name: 1}), 0)

    assert quota.counts(bucket, provider) is counts
