"""A refusal says on every surface which limit it is, how far it is used, when it resets, and what would help."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from llm_gate.domain.errors import NotAllowed, QuotaExceeded, QuotaFacts, StoreUnavailable
from llm_gate.http.anthropic import AnthropicSurface
from llm_gate.http.failures import failure_of
from llm_gate.http.native import NativeSurface
from llm_gate.http.openai import OpenAISurface
from llm_gate.http.subscription_errors import SubscriptionSurface

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
USD = 10**9
SURFACES = {
    "native": NativeSurface(),
    "openai": OpenAISurface(),
    "anthropic": AnthropicSurface(),
    "api": SubscriptionSurface(),
}


def refused(limit="monthly_cost_usd", *, wait_s=864_000.0, **more):
    facts = QuotaFacts(
        **{
            "limit_name": limit,
            "plan": "free",
            "provider": "gemini",
            "operation": "chat",
            "used": 1_500_000_001,
            "held": 250_000_000,
            "cap": 2 * USD,
            "wanted": 300_000_000,
            "is_money": limit == "monthly_cost_usd",
            "resets_at": None if wait_s is None else NOW + timedelta(seconds=wait_s),
            "upgrade_to": "basic",
            **more,
        }
    )
    return QuotaExceeded("it leaves no room", facts, retry_after_s=wait_s if facts.heals else None)


MINUTE = refused("requests_per_minute", wait_s=29.2, used=60, held=0, cap=60, wanted=1)
LAPSED = refused("subscription", wait_s=None, expired_at=NOW, heals=False, cap=None, used=0, held=0, wanted=0)
CLOSED = refused("video_calls", wait_s=None, cap=0, used=0, held=0, wanted=1, heals=False)
TOO_MUCH = refused(heals=False, wanted=3 * USD)
JOBS = refused("parallel_jobs", wait_s=None, used=0, held=2, cap=2, wanted=1)


def wire(surface, error):
    failure = failure_of(error, request_id="req_1")
    return failure.status, dict(failure.headers), json.loads(SURFACES[surface].error(failure))


def info_in(surface, body):
    return {
        "native": lambda: body["usageInfo"],
        "openai": lambda: body["error"]["usage_info"],
        "anthropic": lambda: body["error"]["usage_info"],
        "api": lambda: body["usage_info"],
    }[surface]()


@pytest.mark.parametrize(
    ("error", "status", "retry_after", "should_retry"),
    [
        (refused(), 429, "864000", "false"),
        (refused(wait_s=61.0), 429, "61", "false"),
        (refused(wait_s=60.0), 429, "60", None),
        (MINUTE, 429, "30", None),
        (TOO_MUCH, 429, None, "false"),
        (LAPSED, 429, None, "false"),
        (CLOSED, 403, None, "false"),
        (JOBS, 429, None, None),
        (NotAllowed("model 'x' is not among those allowed here: y"), 403, None, None),
        (StoreUnavailable("the store is away"), 503, "2", None),
    ],
)
def test_statuses_and_waits(error, status, retry_after, should_retry):
    """429 with the wait to the reset, 403 for what is not included; clients are told not to wait for long."""
    failure = failure_of(error)

    assert failure.status == status
    assert failure.headers.get("retry-after") == retry_after
    assert failure.headers.get("x-should-retry") == should_retry


@pytest.mark.parametrize("surface", SURFACES)
def test_what_stands_behind_a_refusal_of_money(surface):
    """Money is in dollars, exact to the nano-dollar; what calls under way hold counts as used."""
    _, _, body = wire(surface, refused())
    info = info_in(surface, body)
    if surface == "native":
        info = {_snake(name): value for name, value in info.items()}

    assert info == {
        "type": "monthly_cost" if surface == "api" else "monthly_cost_usd",
        "limit": 2,
        "provider": "gemini",
        "operation_type": "chat",
        "current_cost": 1.750000001,
        "requested": 0.3,
        "held": 0.25,
        "remaining": 0.249999999,
        "usage_percentage": 87.5,
        "scope": "user",
        "plan": "free",
        "resets_at": "2026-11-30T12:00:30Z",
        "upgrade_to": "basic",
    }


def _snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("error", "name", "current"),
    [
        (MINUTE, "current_calls", 60),
        (refused("gemini_tokens", used=900, held=50, cap=1_000, wanted=100), "current_tokens", 950),
        (JOBS, "current_jobs", 2),
    ],
)
def test_what_is_counted_names_the_field(surface, error, name, current):
    """Calls, tokens and jobs each have a field of their own."""
    info = info_in(surface, wire(surface, error)[2])
    info = {_snake(field): value for field, value in info.items()} if surface == "native" else info

    assert info[name] == current
    assert not {"current_calls", "current_tokens", "current_jobs", "current_cost"} - {name} & info.keys()


@pytest.mark.parametrize("surface", SURFACES)
def test_a_lapsed_subscription_says_when_it_ended(surface):
    """A subscription that has run out is told by `expired`, and by when that was."""
    status, _, body = wire(surface, LAPSED)
    info = info_in(surface, body)

    assert status == 429
    assert info["expired"] is True
    assert info["periodEnd" if surface == "native" else "period_end"] == "2026-11-20T12:00:30Z"
    assert info["type"] == "subscription_expired"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused(), "insufficient_quota"),
        (TOO_MUCH, "insufficient_quota"),
        (LAPSED, "insufficient_quota"),
        (CLOSED, "insufficient_quota"),
        (MINUTE, "rate_limit_exceeded"),
        (JOBS, "rate_limit_exceeded"),
    ],
)
def test_the_form_of_openai(error, kind):
    """Clients of OpenAI's API tell a short wait from an empty account by the type."""
    body = wire("openai", error)[2]

    assert body.keys() == {"error"}
    assert {name: body["error"][name] for name in ("message", "type", "param", "code")} == {
        "message": "it leaves no room",
        "type": kind,
        "param": None,
        "code": "quota_exceeded",
    }


@pytest.mark.parametrize(("error", "kind"), [(refused(), "rate_limit_error"), (CLOSED, "permission_error")])
def test_the_form_of_anthropic(error, kind):
    """The type follows from the status, and the facts stand beside it."""
    body = wire("anthropic", error)[2]

    assert body["type"] == "error"
    assert body["request_id"] == "req_1"
    assert body["error"].keys() == {"type", "message", "usage_info"}
    assert body["error"]["type"] == kind


def test_the_native_form():
    """The native form has its usual entry, and the facts beside the list."""
    body = wire("native", refused())[2]

    assert body["errorDetails"] == [
        {"statusCode": "ERROR_003", "message": "it leaves no room", "details": "quota_exceeded"}
    ]
    assert body.keys() == {"errorDetails", "usageInfo"}


@pytest.mark.parametrize("surface", ["native", "openai", "anthropic"])
def test_a_refusal_inside_a_stream_says_the_same(surface):
    """In a stream that has begun the same body comes as an event."""
    failure = failure_of(refused(), request_id="req_1")
    event = SURFACES[surface].stream_error(failure)
    data = next(line for line in event.split(b"\n") if line.startswith(b"data: "))

    assert json.loads(data.removeprefix(b"data: ")) == json.loads(SURFACES[surface].error(failure))
    assert event.endswith(b"\n\n")


@pytest.mark.parametrize("surface", SURFACES)
def test_other_errors_have_no_facts(surface):
    """What no limit is behind says nothing of limits, also where the store is away."""
    status, headers, body = wire(surface, StoreUnavailable("the store is away"))

    assert (status, headers["retry-after"]) == (503, "2")
    assert "usageInfo" not in json.dumps(body)
    assert body.get("usage_info") is None
    assert "usage_info" not in (body["error"] if isinstance(body.get("error"), dict) else ())
