"""Preflight and quotes at the real gateway: what they promise, calls are given."""

import json
import time

import pytest

from support.forking import clean_environment, run_command
from support.gateway import NATIVE_HEADERS, running_gateway
from support.web import call

PREFLIGHT = "/api/subscription/preflight-check"
QUOTES = "/llm-gate/v1/quotes"
CHAT = {
    "prompt": {"messages": [{"role": "user", "content": "Hello"}], "parameter": {"maxTokens": 20}},
    "provider": {"name": "sandbox"},
}
TALK = {"operation": "chat", "provider": {"name": "sandbox"}, "inputTokens": 20, "maxTokens": 20}
IMAGE = {"provider": "stability", "operation_type": "image_generation", "model": "stable-diffusion"}


PLANS = """
    [plans]
    default = "small"

    [plans.custom.small.limits]
    text_calls = 2
    requests_per_hour = 100
    image_calls = 5
    video_calls = 0
    monthly_cost_usd = 1
"""


@pytest.fixture(scope="module")
def gate():
    """Run a gateway that gives everybody a small plan."""
    with running_gateway(toml=PLANS) as running:
        yield running


def preflight(gate, operations, user="u0"):
    return call(gate.url, PREFLIGHT, {"operations": operations}, {"X-User-Id": user})


def quote(gate, operations, user, **more):
    headers = {**NATIVE_HEADERS, "X-User-Id": user}
    return call(gate.url, QUOTES, {"operations": operations, **more}, headers)


def of_quote(gate, id_, user, method="GET"):
    return call(gate.url, f"{QUOTES}/{id_}", None, {**NATIVE_HEADERS, "X-User-Id": user}, method=method)


def chat(gate, user, **headers):
    return call(gate.url, "/llm-gate/v1/chat", CHAT, {**NATIVE_HEADERS, "X-User-Id": user, **headers})


def test_preflight_says_it_for_each_operation_and_in_order(gate):
    """Six pictures under a limit of five: the sixth may not, and the answer is a 200 all the same."""
    user = "painter"
    answer = preflight(gate, [IMAGE] * 6, user)

    assert answer.status == 200
    data = answer.json["data"]
    assert answer.json["success"] is True
    assert (data["can_proceed"], data["failed_operation_index"]) == (False, 5)
    assert [line["allowed"] for line in data["operations"]] == [True] * 5 + [False]
    assert data["total_cost"] == data["estimated_cost"] == 0.24
    assert data["usage_summary"]["image"] == {
        "current_calls": 0,
        "limit": 5,
        "remaining": 5,
        "projected_calls": 5,
    }
    assert data["usage_summary"]["cost"]["projected_cost"] == 0.2
    assert data["operations"][5]["limit_info"]["limit_type"] == "stability_calls"


def test_money_is_cumulative_and_exact(gate):
    """A dollar is enough for twenty-five pictures of four cents, counted one by one."""
    user = "saver"
    many = [{**IMAGE, "provider": "image_edit", "model": "flux-kontext-pro"}] * 26
    data = preflight(gate, many, user).json["data"]

    assert data["failed_operation_index"] == 25
    assert data["operations"][25]["limit_info"]["limit_type"] == "monthly_cost"
    assert data["operations"][25]["limit_info"]["remaining"] == 0


def test_what_a_plan_does_not_include_is_not_allowed(gate):
    """Nothing is left of nothing."""
    user = "reader"
    (line,) = preflight(gate, [{"provider": "video", "operation_type": "v"}], user).json["data"]["operations"]

    assert line["allowed"] is False
    assert (line["limit_info"]["limit"], line["limit_info"]["remaining"]) == (0, 0)
    assert "does not include video calls" in line["message"]


def test_preflight_needs_somebody_to_be_about(gate):
    """Without a user there is no answer."""
    answer = call(gate.url, PREFLIGHT, {"operations": [IMAGE]})

    assert answer.status == 401
    assert set(answer.json) >= {"error", "message", "provider", "usage_info"}
    assert answer.json["error"] == answer.json["message"]


@pytest.mark.parametrize(
    ("operations", "param"),
    [
        ([], "operations"),
        ([IMAGE, {"provider": "nobody", "operation_type": "x"}], "operations[1].provider"),
        ([{**IMAGE, "model": "no-such-model"}], "operations[0].model"),
        ([{"provider": "gemini"}], "operations[0].operation_type"),
    ],
)
def test_faulty_questions_get_the_flat_error(gate, operations, param):
    """What is wrong is said where it is wrong."""
    answer = preflight(gate, operations)

    assert answer.status in {400, 404}
    assert answer.json["param"] == param
    assert answer.json["usage_info"] is None


def test_unknown_paths_below_api_get_the_flat_error(gate):
    """The whole prefix speaks one form."""
    answer = call(gate.url, "/api/nothing/here")

    assert answer.status == 404
    assert answer.json["error"]


def test_a_quote_tells_costs_and_what_binds(gate):
    """Every line has its range and prices; the tightest limit is shown with what is left of it."""
    user = "planner"
    answer = quote(
        gate,
        [
            {"operation": "image", "provider": {"name": "stability"}, "count": 2, "label": "cover"},
            {
                "operation": "chat",
                "provider": {"name": "openai", "model": {"name": "gpt-4o"}},
                "tokens": 1000,
            },
        ],
        user,
    )

    assert answer.status == 200
    assert answer.json["canProceed"] is True
    assert "quoteId" not in answer.json
    first, second = answer.json["operations"]
    assert (first["label"], first["provider"], first["configured"]) == ("cover", "stability", False)
    assert first["limit"]["name"] == "image_calls"
    assert (first["limit"]["wanted"], first["limit"]["remaining"], first["limit"]["limit"]) == (2, 5, 5)
    assert second["limit"]["name"] == "text_calls"
    for line in (first, second):
        assert 0 < line["cost"]["min"] <= line["cost"]["expected"] <= line["cost"]["max"]
        assert line["priceIds"]
    assert answer.json["cost"]["max"] == pytest.approx(first["cost"]["max"] + second["cost"]["max"])


def test_what_a_quote_holds_only_its_calls_can_spend(gate):
    """Others find nothing left; calls that name the quote find what it holds; the rest is free when it ends."""
    user = "holder"
    held = quote(gate, [TALK, TALK], user, reserve=True, expiresInS=600).json
    id_ = held["quoteId"]

    assert held["expiresAt"]
    assert chat(gate, user).status == 429
    assert {each["limit"]: each["amount"] for each in of_quote(gate, id_, user).json["holds"]} == {
        "text_calls": 2
    }
    assert chat(gate, user, **{"x-llm-gate-quote": id_}).status == 200
    assert {each["limit"]: each["amount"] for each in of_quote(gate, id_, user).json["holds"]} == {
        "text_calls": 1
    }
    assert chat(gate, user).status == 429
    released = of_quote(gate, id_, user, "DELETE")
    assert (released.status, released.json["holds"][0]["amount"]) == (200, 1)
    assert chat(gate, user).status == 200
    assert chat(gate, user).status == 429
    assert chat(gate, user, **{"x-llm-gate-quote": id_}).status == 404


def test_a_quote_that_may_not_is_not_held(gate):
    """Where one operation finds no room, nothing is held for the others."""
    user = "greedy"
    answer = quote(gate, [TALK, TALK, TALK], user, reserve=True)

    assert (answer.status, answer.json["canProceed"], answer.json["failedOperationIndex"]) == (200, False, 2)
    assert "quoteId" not in answer.json
    assert answer.json["operations"][2]["code"] == "quota_exceeded"
    assert chat(gate, user).status == 200


def test_quotes_of_others_are_as_if_they_were_not(gate):
    """A foreign id and an unknown one get the same answer, whatever is asked of them."""
    owner, other = "owner", "somebody-else"
    id_ = quote(gate, [TALK], owner, reserve=True).json["quoteId"]

    for method in ("GET", "DELETE"):
        foreign = of_quote(gate, id_, other, method)
        unknown = of_quote(gate, "0" * len(id_), other, method)
        assert foreign.status == unknown.status == 404
        assert foreign.body.replace(id_.encode(), b"0" * len(id_)) == unknown.body
    assert chat(gate, other, **{"x-llm-gate-quote": id_}).status == 404
    assert of_quote(gate, id_, owner).status == 200


def test_a_quote_ends_by_itself(gate):
    """After its time what it held is free again, without anybody's doing."""
    user = "forgetful"
    id_ = quote(gate, [TALK, TALK], user, reserve=True, expiresInS=1).json["quoteId"]
    assert chat(gate, user).status == 429

    deadline = time.monotonic() + 30
    while chat(gate, user).status != 200:
        assert time.monotonic() < deadline, "the quote never ended"
        time.sleep(0.2)
    assert of_quote(gate, id_, user).status == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"operations": []}, "operations"),
        ({"operations": [TALK], "expiresInS": 4000}, "expiresInS"),
        ({"operations": [{**TALK, "tokens": 3}]}, "operations[0].tokens"),
        ({"operations": [{**TALK, "provider": {"name": "nobody"}}]}, "operations[0].provider.name"),
        ({"operations": [{"operation": "chat"}]}, "operations[0].inputTokens"),
        (
            {"operations": [{**TALK, "provider": {"name": "openai", "model": {"name": "tts-1"}}}]},
            "operations[0].provider.model.name",
        ),
        ({"operations": [{"operation": "dance"}]}, "operations[0].operation"),
        ({"operations": [{**TALK, "unknown": 1}]}, "operations[0]"),
    ],
)
def test_faulty_quotes_get_the_native_error(gate, body, where):
    """What is wrong is named in the native form."""
    answer = call(gate.url, QUOTES, body, NATIVE_HEADERS)

    assert answer.status == 400
    assert answer.json["errorDetails"][0]["details"] == where


@pytest.mark.parametrize(
    ("operations", "code"), [([TALK, TALK], 0), ([TALK, TALK, TALK], 1), ([{**TALK, "provider": {}}], 0)]
)
def test_the_command_says_the_same(gate, operations, code):
    """`llm-gate preflight` answers as the route does, beside the running gateway, and its exit code is the verdict."""
    asked = run_command(
        "preflight",
        "-",
        "--user",
        "someone",
        "--json",
        "--data-dir",
        f"{gate.folder}/data",
        folder=gate.folder,
        environment=clean_environment(),
        text=json.dumps({"operations": operations}),
    )

    assert asked.returncode == code, asked.stderr
    assert json.loads(asked.stdout) == quote(gate, operations, "someone").json


def test_quotes_need_the_three_headers(gate):
    """As on every native route."""
    answer = call(gate.url, QUOTES, {"operations": [TALK]})

    assert answer.status == 400
    assert len(answer.json["errorDetails"]) == 3
