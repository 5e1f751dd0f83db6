"""The subscription API at the real gateway: payloads field by field, who sees what, alerts once each and delivered."""

import hmac
import time
from hashlib import sha256

import pytest

from support.gateway import running_gateway
from support.office import Desk, bearer
from support.upstream import Answer, fake_upstream
from support.web import call

PREFIX = "/api/subscription"
SECRET = "a secret of the receiver's"
TOML = """
    [plans.custom.small]
    label = "Small"
    tier = "basic"
    price_monthly_usd = "9.99"
    features = ["some"]
    limits = {{ text_calls = 5, monthly_cost_usd = "1.50", image_calls = 0, huggingface_tokens = 1000 }}

    [alerts]
    webhook_url = "{hook}/alerts"

    [providers.second]
    dialect = "openai"
    base_url = "{upstream}/v1"
    auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
    ]
"""
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
CHAT = {"model": "second/m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}


@pytest.fixture(scope="module")
def hook():
    """Run what receives alerts; the first one is not accepted at once."""
    with fake_upstream() as receiver:
        receiver.will(Answer(status=500), Answer(status=204))
        yield receiver


@pytest.fixture(scope="module")
def gate(hook):
    """Run a gateway with a priced provider, a small plan and a webhook."""
    with fake_upstream() as upstream:
        upstream.will(Answer.json(ANSWER))
        environment = {"SECOND_API_KEY": "second-fake-0123456789", "LLM_GATE_WEBHOOK_SECRET": SECRET}
        toml = TOML.format(hook=hook.url, upstream=upstream.url)
        with running_gateway(environment, toml=toml) as running:
            running.upstream = upstream
            yield running


@pytest.fixture(scope="module")
def desk(gate):
    """Make the first key."""
    return Desk(gate)


@pytest.fixture(scope="module")
def ann(gate, desk):
    """Give ann a small plan and a key, and make her use it up; return her way to the API."""
    key = desk.key_for(user="ann")
    asked = call(
        gate.url,
        f"{PREFIX}/subscribe/ann",
        {"plan_id": "small"},
        bearer(desk.key),
    )
    assert asked.status == 200, asked.body

    def ask(path, **more):
        return call(gate.url, f"{PREFIX}{path}", headers=bearer(key), **more)

    desk.until(lambda: ask("/status/ann").json["data"]["plan"] == "small")
    for _ in range(5):
        assert call(gate.url, "/v1/chat/completions", CHAT, bearer(key)).status == 200
    assert call(gate.url, "/v1/chat/completions", CHAT, bearer(key)).status == 429

    return ask


def test_without_keys_the_header_says_who_calls():
    """On one's own machine X-User-Id is enough, is needed, and shows nobody else; administration needs a key."""
    with running_gateway() as gate:
        mine = {"X-User-Id": "ann"}

        assert call(gate.url, f"{PREFIX}/usage/ann", headers=mine).json["data"]["total_calls"] == 0
        assert call(gate.url, f"{PREFIX}/usage/ann").status == 401
        assert call(gate.url, f"{PREFIX}/usage/bob", headers=mine).status == 403
        for refused in (
            call(gate.url, "/llm-gate/admin/v1/keys", headers=mine),
            call(gate.url, f"{PREFIX}/subscribe/ann", {"plan_id": "pro"}, mine),
        ):
            assert refused.status == 401
            assert b"llm-gate keys create --admin" in refused.body


def test_usage_has_every_documented_field(ann):
    """A period's sums are exact, its limits are spelt as documented, percentages say how far each is used."""
    answer = ann("/usage/ann")
    data = answer.json["data"]

    assert answer.json["success"] is True
    assert (data["total_calls"], data["total_tokens"], data["usage_status"]) == (5, 5500, "limit_reached")
    assert b'"total_cost":0.00105,' in answer.body
    assert data["error_rate"] == 0
    assert data["avg_response_time"] >= 0
    assert data["limits"]["plan_name"] == "Small"
    assert data["limits"]["features"] == ["some"]
    limits = data["limits"]["limits"]
    assert (limits["ai_text_generation_calls"], limits["monthly_cost"], limits["mistral_tokens"]) == (
        5,
        1.5,
        1000,
    )
    assert (limits["stability_calls"], limits["gemini_calls"]) == (0, None)
    meanings = limits["_zero_means"]
    assert (meanings["monthly_cost"], meanings["stability_calls"], meanings["gemini_calls"]) == (
        "limited",
        "disabled",
        "unlimited",
    )
    assert data["provider_breakdown"]["second"] == {"calls": 5, "tokens": 5500, "cost": 0.00105}
    assert data["provider_breakdown"]["huggingface"] == {"calls": 0, "tokens": 0, "cost": 0}
    assert data["usage_percentages"]["ai_text_generation_calls"] == 100
    assert data["usage_percentages"]["cost"] == 0.07
    assert {"billing_period", "last_updated", "period_start", "period_end"} <= data.keys()
    assert len(data["alerts"]) == 3
    assert set(data["alerts"][0]) == {"id", "type", "title", "message", "severity", "created_at"}


def test_a_period_is_named_by_the_month_it_begins_in(ann):
    """This period by its name is the same; another month is empty; a month that is none is refused."""
    month = ann("/usage/ann").json["data"]["billing_period"]

    assert ann(f"/usage/ann?billing_period={month}").json["data"]["total_calls"] == 5
    assert ann("/usage/ann?billing_period=2020-02").json["data"]["total_calls"] == 0
    for wrong in ("2026-13", "soon", "0000-01", "9999-12"):
        refused = ann(f"/usage/ann?billing_period={wrong}")
        assert refused.status == 400
        assert refused.json["param"] == "billing_period"


def test_trends_are_calendar_months(ann):
    """So many months, this one last, each with a number in every list."""
    data = ann("/usage/ann/trends?months=14").json["data"]

    assert len(data["periods"]) == len(set(data["periods"])) == 14
    assert data["periods"] == sorted(data["periods"])
    assert data["total_calls"] == [0] * 13 + [5]
    assert data["provider_trends"]["second"]["tokens"] == [0] * 13 + [5500]
    assert ann("/usage/ann/trends?months=25").status == 400


def test_logs_come_in_pages_without_an_envelope(ann):
    """The newest first, with the documented fields; filters narrow them; an unknown provider is an empty page."""
    page = ann("/usage-logs?limit=2").json
    line = page["logs"][0]

    assert (page["total_count"], page["limit"], page["offset"], page["has_more"]) == (5, 2, 0, True)
    assert ann("/usage-logs?limit=2&offset=4").json["has_more"] is False
    assert (line["provider"], line["actual_provider_name"], line["model_used"]) == ("second", "second", "m")
    assert (line["tokens_input"], line["tokens_output"], line["tokens_total"]) == (1000, 100, 1100)
    assert (line["cost_total"], line["status_code"], line["status"]) == (0.00021, 200, "success")
    assert (line["endpoint"], line["method"], line["retry_count"]) == ("/v1/chat/completions", "POST", 0)
    assert ann("/usage-logs?provider=second&status_code=200").json["total_count"] == 5
    assert ann("/usage-logs?provider=nobody").json["logs"] == []
    assert ann("/usage-logs?status_code=504").json["total_count"] == 0
    assert ann("/usage-logs?limit=5001").status == 400


def test_alerts_are_there_once_each_and_can_be_read(gate, desk, ann):
    """At 80, 90 and 100 percent, most urgent last; reading one takes it off the count."""
    data = ann("/alerts/ann").json["data"]
    shown = {line["threshold_percentage"]: line for line in data["alerts"]}

    assert sorted(shown) == [80, 90, 100]
    assert (shown[80]["severity"], shown[90]["severity"], shown[100]["severity"]) == (
        "info",
        "warning",
        "error",
    )
    assert (shown[80]["type"], shown[100]["type"]) == ("usage_warning", "limit_reached")
    assert "ai_text_generation_calls" in shown[90]["title"]
    assert (data["total"], data["unread_count"]) == (3, 3)

    bob = bearer(desk.key_for(user="bob"))
    path = f"{PREFIX}/alerts/{shown[80]['id']}/mark-read"
    assert call(gate.url, path, headers=bob, method="POST").status == 403
    assert call(gate.url, path, headers=bearer(desk.key_for("two", user="ann")), method="POST").status == 404
    assert ann("/alerts/nope/mark-read", method="POST").status == 404
    assert ann(f"/alerts/{shown[80]['id']}/mark-read", method="POST").json["success"] is True
    unread = ann("/alerts/ann?unread_only=true&limit=1").json["data"]
    assert (len(unread["alerts"]), unread["total"], unread["unread_count"]) == (1, 2, 2)


def test_alerts_are_delivered_signed_and_once(hook, ann):
    """Each alert is accepted once, the refused one after another try; the signature is that of the secret."""
    deadline = time.monotonic() + 30
    while len(hook.seen) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)

    assert len(hook.seen) == 4
    bodies = [seen.json for seen in hook.seen]
    assert {body["threshold_percent"] for body in bodies[1:]} == {80, 90, 100}
    assert bodies[0]["id"] in {body["id"] for body in bodies[1:]}
    for seen in hook.seen:
        time_part, _, signed = seen.headers["x-llm-gate-signature"].partition(",v1=")
        text = time_part.removeprefix("t=").encode() + b"." + seen.body
        assert hmac.compare_digest(signed, hmac.digest(SECRET.encode(), text, sha256).hex())
        assert seen.headers["x-llm-gate-alert"] == seen.json["id"]
        assert seen.json["user"] == "ann"
    assert all(line["is_sent"] and line["sent_at"] for line in ann("/alerts/ann").json["data"]["alerts"])


def test_the_dashboard_projects_and_sums_up(ann):
    """Usage, trends, limits, alerts, and what thirty days would cost going by the first."""
    data = ann("/dashboard/ann").json["data"]

    assert set(data) == {"current_usage", "trends", "limits", "alerts", "projections", "summary"}
    assert data["projections"] == {
        "projected_monthly_cost": 0.04,
        "cost_limit": 1.5,
        "projected_usage_percentage": 2.1,
    }
    assert data["summary"]["total_api_calls_this_month"] == 5
    assert data["summary"]["usage_status"] == "limit_reached"
    assert len(data["trends"]["periods"]) == 6
    assert len(data["alerts"]) <= 5


def test_a_subscription_and_its_history(gate, desk, ann):
    """What was subscribed to is shown with its plan; each change adds a line with what was used until then."""
    data = ann("/user/ann/subscription").json["data"]

    assert "status" not in data
    assert (data["subscription"]["status"], data["subscription"]["billing_cycle"]) == ("active", "monthly")
    assert data["plan"]["price_monthly"] == 9.99
    assert data["plan"]["is_free"] is False
    status = ann("/status/ann").json["data"]
    assert (status["active"], status["plan"], status["tier"], status["can_use_api"]) == (
        True,
        "small",
        "basic",
        True,
    )

    carl = bearer(desk.key_for(user="carl"))
    for plan in ("free", "pro", "basic"):
        body = {"plan_id": plan, "billing_cycle": "yearly"}
        made = call(gate.url, f"{PREFIX}/subscribe/carl", body, bearer(desk.key))
        assert made.json["data"]["limits"]["_zero_means"]
    history = call(gate.url, f"{PREFIX}/renewal-history/carl?limit=2", headers=carl).json["data"]
    assert [line["renewal_type"] for line in history["renewals"]] == ["downgrade", "upgrade"]
    assert [line["renewal_count"] for line in history["renewals"]] == [2, 1]
    assert history["renewals"][0]["payment_amount"] == 290
    assert history["renewals"][0]["usage_before_renewal"]["requests"] == 0
    assert (history["total_count"], history["has_more"]) == (3, True)
    ages = call(gate.url, f"{PREFIX}/renewal-history/carl/retention-stats", headers=carl).json["data"]
    assert (ages["total_records"], ages["records_0_12_months"]) == (3, 3)


def test_subscribing_is_an_act_of_the_administrator(gate, desk, ann):
    """Users cannot give themselves a plan; the plan must be named, and exist."""
    own = bearer(desk.key_for(user="eve"))

    assert call(gate.url, f"{PREFIX}/subscribe/eve", {"plan_id": "enterprise"}, own).status == 403
    missing = call(gate.url, f"{PREFIX}/subscribe/eve", {}, bearer(desk.key))
    assert (missing.status, missing.json["param"]) == (400, "plan_id")
    assert call(gate.url, f"{PREFIX}/subscribe/eve", {"plan_id": "none"}, bearer(desk.key)).status == 404
    mine = call(gate.url, f"{PREFIX}/user/eve/subscription", headers=own).json["data"]
    assert (mine["subscription"], mine["status"]) == (None, "free")


def test_plans_and_prices_are_listed(gate, ann):
    """The plans to choose, the cheapest first; prices of one token, exactly."""
    plans = ann("/plans").json["data"]

    assert [plan["id"] for plan in plans["plans"]] == ["free", "small", "basic", "pro", "enterprise"]
    assert plans["total"] == 5
    rows = ann("/pricing?provider=SECOND").json["data"]["pricing"]
    assert [(row["model_name"], row["cost_per_input_token"]) for row in rows] == [("m", 0.00000015)]
    assert b'"cost_per_input_token":0.00000015' in ann("/pricing?provider=second").body
    assert ann("/pricing?provider=nobody").status == 400


def test_who_sees_whom(gate, desk, ann):
    """A key needs the scope, shows its user, or those the application names; the administrator sees the tenant's."""
    blind = desk.key_for(user="ann", scopes=["inference"])
    shop, other = desk.key_for(), desk.key_for("two")

    assert call(gate.url, f"{PREFIX}/usage/ann").status == 401
    assert call(gate.url, f"{PREFIX}/plans").status == 401
    assert call(gate.url, f"{PREFIX}/usage/ann", headers=bearer(blind)).status == 403
    assert ann("/usage/bob").status == 403
    as_ann = bearer(shop, **{"X-User-Id": "ann"})
    assert call(gate.url, f"{PREFIX}/usage/ann", headers=as_ann).json["data"]["total_calls"] == 5
    assert call(gate.url, f"{PREFIX}/usage/bob", headers=as_ann).status == 403
    assert call(gate.url, f"{PREFIX}/usage/ann", headers=bearer(shop)).status == 401
    elsewhere = bearer(other, **{"X-User-Id": "ann"})
    assert call(gate.url, f"{PREFIX}/usage/ann", headers=elsewhere).json["data"]["total_calls"] == 0
    assert call(gate.url, f"{PREFIX}/usage-logs", headers=elsewhere).json["total_count"] == 0
    assert call(gate.url, f"{PREFIX}/alerts/ann", headers=elsewhere).json["data"]["total"] == 0
    theirs = call(gate.url, f"{PREFIX}/usage/ann", headers=bearer(desk.key)).json["data"]
    assert theirs["total_calls"] == 5
