"""What a call holds on a caller's quotas, and what a refusal tells the caller."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from llm_gate.domain.errors import NotAllowed, PriceUnknown, QuotaExceeded
from llm_gate.domain.ledger import Refused, Shortage
from llm_gate.domain.limits import limit_named
from llm_gate.domain.plans import Limits, Plan, quotas_of, standing_of
from llm_gate.domain.windows import milliseconds, window_of
from llm_gate.engine.holds import Holds, check_included, check_model, refusal

NOON = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
AT_MS = milliseconds(NOON)
ANCHOR_MS = milliseconds(datetime(2026, 1, 31, 8, 0, tzinfo=UTC))
ALL = {
    "text_calls": 50,
    "image_calls": 5,
    "gemini_calls": 100,
    "gemini_tokens": 1000,
    "openai_tokens": 500,
    "monthly_cost_usd": 2_000_000_000,
    "requests_per_minute": 60,
    "tokens_per_day": 9000,
    "parallel_jobs": 1,
}


def plan(name="free", *, price=0, active=True, **limits):
    return Plan(
        name=name,
        label=name,
        price_monthly_nanos=price,
        is_active=active,
        limits=Limits(values=limits),
    )


def standing(held=None, *, scope="user", allowed=(), lapsed=None, zone=UTC, **limits):
    held = held or plan(**limits)
    quotas = quotas_of(scope, "default", "u1", Limits(values=limits or held.limits.values), ANCHOR_MS)
    return standing_of(
        held, quotas, anchor_ms=ANCHOR_MS, allowed_models=allowed, lapsed_at_ms=lapsed, zone=zone
    )


def amounts(holds):
    return {hold.name: hold.amount for hold in holds}


def call(bound, *, bucket="text", provider="gemini", count=1, tokens=120, cost=7, at_ms=AT_MS):
    return Holds(bound).of(
        bucket=bucket, provider=provider, count=count, tokens=tokens, cost_nanos=cost, at_ms=at_ms
    )


def shortage(bound, name, *, used=0, held=0, wanted=1, at_ms=AT_MS, **options):
    holds = {
        hold.name: hold
        for hold in call(bound, count=wanted, tokens=wanted, cost=wanted, at_ms=at_ms, **options)
    }
    return Shortage(hold=holds[name], used=used, held=held)


def test_every_quota_that_counts_a_call_is_held_by_its_own_measure():
    assert amounts(call(standing(**ALL))) == {
        "gemini_tokens": 120,
        "monthly_cost_usd": 7,
        "requests_per_minute": 1,
        "text_calls": 1,
        "tokens_per_day": 120,
    }


def test_pictures_count_by_their_number_and_at_their_provider():
    held = amounts(call(standing(**ALL), bucket="image", count=3, tokens=0))
    assert held == {"gemini_calls": 3, "image_calls": 3, "monthly_cost_usd": 7, "requests_per_minute": 1}


def test_jobs_count_where_the_work_outlives_its_request():
    assert amounts(call(standing(**ALL), bucket="video", provider="sandbox"))["parallel_jobs"] == 1
    assert "parallel_jobs" not in amounts(call(standing(**ALL), bucket="audio"))


def test_what_comes_to_nothing_is_not_held():
    assert amounts(call(standing(**ALL), tokens=0, cost=0)) == {"requests_per_minute": 1, "text_calls": 1}


def test_without_limits_nothing_is_held():
    assert call(standing(plan("unlimited"))) == ()


def test_an_unknown_cost_is_refused_where_money_is_limited_and_nowhere_else():
    with pytest.raises(PriceUnknown, match="monthly_cost_usd"):
        call(standing(**ALL), cost=None)
    assert amounts(call(standing(text_calls=1), cost=None)) == {"text_calls": 1}


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("America/New_York")])
def test_remembered_windows_are_those_of_the_instant(zone):
    bound = standing(zone=zone, **ALL)
    remembering = Holds(bound)
    for step in [0, 1, 29_499, 29_500, 86_400_000, 40 * 86_400_000, -60_000, 15 * 60_000]:
        at_ms = AT_MS + step
        found = remembering.of(bucket="text", provider="gemini", count=1, tokens=2, cost_nanos=3, at_ms=at_ms)
        assert found
        for hold in found:
            window = window_of(limit_named(hold.name).window, at_ms, anchor_ms=ANCHOR_MS, zone=zone)
            assert (hold.start_ms, hold.end_ms) == (window.start_ms, window.end_ms)


def test_a_refusal_names_the_limit_its_use_the_reset_and_a_plan_that_has_room():
    bound = standing(**ALL)
    plans = [plan("staff", active=False), plan("basic", price=29, text_calls=52), plan("pro", price=79)]
    error = refusal(
        Refused(shortages=(shortage(bound, "text_calls", used=48, held=2),)),
        bound,
        provider="gemini",
        operation="chat",
        at_ms=AT_MS,
        plans=plans,
    )
    assert error.message == (
        "text_calls of plan 'free' leaves no room: 48 of 50 used, 2 held by calls under way, 1 needed; "
        "it resets at 2026-11-30T08:00:00Z, or move to plan 'basic'"
    )
    assert (error.facts.used, error.facts.held, error.facts.cap, error.facts.wanted) == (48, 2, 50, 1)
    assert error.facts.resets_at == datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
    assert error.retry_after_s == (error.facts.resets_at - NOON).total_seconds()
    assert (error.facts.upgrade_to, error.facts.heals) == ("basic", True)


def test_the_way_up_has_room_for_all_that_is_needed():
    bound = standing(**ALL)
    error = refusal(
        shortage(bound, "text_calls", used=50),
        bound,
        provider=None,
        operation=None,
        at_ms=AT_MS,
        plans=[plan("basic", price=29, text_calls=50), plan("pro", price=79, text_calls=51)],
    )
    assert error.facts.upgrade_to == "pro"


def test_nobody_is_told_to_move_to_a_cheaper_plan_or_to_the_one_of_those_without():
    bound = standing(plan("basic", price=29, text_calls=1))
    error = refusal(
        shortage(bound, "text_calls", used=1),
        bound,
        provider=None,
        operation=None,
        at_ms=AT_MS,
        plans=[plan("unlimited"), plan("staff"), plan("basic", price=29)],
    )
    assert error.facts.upgrade_to is None
    assert error.message.endswith("it resets at 2026-11-30T08:00:00Z")


def test_money_is_told_in_dollars():
    bound = standing(**ALL)
    found = shortage(bound, "monthly_cost_usd", used=1_990_000_000, wanted=20_000_001)
    error = refusal(found, bound, provider="gemini", operation="chat", at_ms=AT_MS)
    assert "1.99 USD of 2 USD used, 0.020000001 USD needed" in error.message
    assert error.facts.is_money


def test_waiting_does_not_help_a_call_that_is_larger_than_the_limit():
    bound = standing(**ALL)
    later = shortage(bound, "text_calls", used=50)
    never = shortage(bound, "gemini_tokens", wanted=1001)
    error = refusal(
        Refused(shortages=(later, never)), bound, provider="gemini", operation="chat", at_ms=AT_MS
    )
    assert (error.facts.limit_name, error.facts.heals, error.retry_after_s) == ("gemini_tokens", False, None)
    assert "ask for less" in error.message


def test_a_job_makes_room_when_it_ends():
    bound = standing(**ALL)
    found = shortage(bound, "parallel_jobs", held=1, bucket="video")
    error = refusal(found, bound, provider="gemini", operation="video", at_ms=AT_MS)
    assert (error.facts.resets_at, error.retry_after_s, error.facts.heals) == (None, None, True)
    assert "when a job ends" in error.message


@pytest.mark.parametrize(("scope", "whose"), [("tenant", "the tenant"), ("key", "the key")])
def test_limits_of_others_are_not_the_plans(scope, whose):
    bound = standing(scope=scope, text_calls=1)
    error = refusal(
        shortage(bound, "text_calls", used=1),
        bound,
        provider="gemini",
        operation="chat",
        at_ms=AT_MS,
        plans=[plan("pro", price=79)],
    )
    assert error.message.startswith(f"text_calls of {whose} leaves no room")
    assert error.message.endswith("ask the operator for more")
    assert error.facts.upgrade_to is None


def check(bound, *, bucket="text", provider="openai", operation="chat", plans=(), at_ms=AT_MS):
    check_included(bound, bucket=bucket, provider=provider, operation=operation, at_ms=at_ms, plans=plans)


def test_what_a_plan_does_not_include_is_refused_and_never_heals():
    bound = standing(openai_calls=0, video_calls=0, text_calls=5)
    with pytest.raises(QuotaExceeded) as refused:
        check(bound, plans=[plan("basic", price=29, openai_calls=500)])
    assert refused.value.message == (
        "plan 'free' does not include provider 'openai' (openai_calls is 0), or move to plan 'basic'"
    )
    assert (refused.value.facts.heals, refused.value.retry_after_s) == (False, None)
    with pytest.raises(QuotaExceeded, match=r"does not include video calls \(video_calls is 0\)"):
        check(bound, bucket="video", provider="gemini", operation="video")
    check(bound, provider="gemini")


def test_a_subscription_that_ran_out_is_refused_from_that_instant_on():
    bound = standing(lapsed=AT_MS, text_calls=5)
    check(bound, at_ms=AT_MS - 1)
    with pytest.raises(QuotaExceeded, match="ended at 2026-11-20T12:00:30Z") as refused:
        check(bound)
    assert (refused.value.facts.expired_at, refused.value.facts.heals) == (NOON, False)


def test_a_model_must_be_allowed_by_everyone_who_says_something():
    bound = standing(allowed=(("openai/*", "gemini/gemini-2.5-flash"), ("fast", "openai/gpt-4o-mini")))
    check_model(bound, ("openai/gpt-4o-mini", "gpt-4o-mini"))
    check_model(bound, ("fast", "openai/gpt-4o"))
    with pytest.raises(NotAllowed, match="openai/gpt-4o"):
        check_model(bound, ("openai/gpt-4o",))
    with pytest.raises(NotAllowed, match="fast"):
        check_model(bound, ("fast", "groq/llama"))
    check_model(standing(text_calls=1), ("anything",))
