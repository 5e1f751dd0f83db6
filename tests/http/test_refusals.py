"""A caller whose plan leaves no room is told so in the form of each surface, before any vendor hears of it."""

import anthropic
import openai
import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.office import command
from support.upstream import Answer, fake_upstream
from support.web import call

TOML = """
    [providers.second]
    dialect = "openai"
    base_url = "{url}/second/v1"
    auth = {{ kind = "none" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat", "embedding"]
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
    ]
    [[providers.second.models]]
    name = "unpriced"

    [plans.custom.money.limits]
    monthly_cost_usd = "0.001"
    [plans.custom.minute.limits]
    requests_per_minute = 1
    [plans.custom.closed.limits]
    second_calls = 0
    [plans.custom.narrow]
    allowed_models = ["elsewhere/*"]
"""
PLANS = ("money", "minute", "closed", "narrow")
HELLO = [{"role": "user", "content": "Hello"}]
OPENAI = {"model": "second/m", "messages": HELLO}
ANTHROPIC = {"model": "second/m", "max_tokens": 1_000, "messages": HELLO}
NATIVE = {"provider": {"name": "second", "model": {"name": "m"}}, "prompt": {"messages": HELLO}}
REQUESTS = {
    "native": ("/llm-gate/v1/chat", NATIVE),
    "native stream": ("/llm-gate/v1/chat/stream", NATIVE),
    "openai": ("/v1/chat/completions", OPENAI),
    "openai stream": ("/v1/chat/completions", {**OPENAI, "stream": True}),
    "completions": ("/v1/completions", {"model": "second/m", "prompt": "Hello"}),
    "responses": ("/v1/responses", {"model": "second/m", "input": "Hello"}),
    "responses stream": ("/v1/responses", {"model": "second/m", "input": "Hello", "stream": True}),
    "anthropic": ("/v1/messages", ANTHROPIC),
    "anthropic stream": ("/v1/messages", {**ANTHROPIC, "stream": True}),
}
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 2_000, "total_tokens": 3_000}
SAYS = Answer.json(
    {
        "id": "c",
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream):
    """Run a gateway with a user on each plan; those who may call at all have done so once."""
    with running_gateway(toml=TOML.format(url=upstream.url)) as running:
        for plan in PLANS:
            done = command(running, "users", "subscribe", plan, "--plan", plan, "--json")
            assert done.returncode == 0, done.stderr
        upstream.will(SAYS)
        for user in ("money", "minute"):
            first = call(running.url, "/v1/chat/completions", OPENAI, {"X-User-Id": user})
            assert first.status == 200, first.body
        upstream.will(SAYS)
        yield running


def ask(gateway, request, user):
    path, body = REQUESTS[request]
    return call(gateway.url, path, body, {**NATIVE_HEADERS, "X-User-Id": user})


def info_in(answer):
    body = answer.json
    if "errorDetails" in body:
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in k): v for k, v in body["usageInfo"].items()
        }
    return body["error"]["usage_info"]


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_empty_purse(gateway, upstream, request_):
    """Money that is used up: 429 with the time to the reset, not to be tried again soon, and what would help."""
    answer = ask(gateway, request_, "money")
    info = info_in(answer)

    assert answer.status == 429, answer.body
    assert answer.headers["x-should-retry"] == "false"
    assert int(answer.headers["retry-after"]) > 86_400
    assert answer.headers["content-type"] == "application/json"
    assert info["type"] == "monthly_cost_usd"
    assert (info["limit"], info["current_cost"]) == (0.001, 0.00135)
    assert info["plan"] == "money"
    assert info["resets_at"].endswith("Z")
    assert info["upgrade_to"]
    assert upstream.seen == []


@pytest.mark.parametrize("request_", REQUESTS)
def test_too_many_in_a_minute(gateway, upstream, request_):
    """A short window: 429 with a wait that clients keep by themselves."""
    while (answer := ask(gateway, request_, "minute")).status == 200:
        upstream.will(SAYS)  # a new minute has begun

    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "x-should-retry" not in answer.headers
    assert info_in(answer)["current_calls"] == 1
    assert upstream.seen == []


@pytest.mark.parametrize("request_", REQUESTS)
def test_what_the_plan_does_not_include(gateway, upstream, request_):
    """A provider that the plan leaves out is forbidden, and so is a model that it does not allow."""
    closed, narrow = ask(gateway, request_, "closed"), ask(gateway, request_, "narrow")

    assert (closed.status, narrow.status) == (403, 403)
    assert info_in(closed)["limit"] == 0
    assert closed.headers["x-should-retry"] == "false"
    assert "retry-after" not in closed.headers
    assert b"elsewhere/*" in narrow.body
    assert upstream.seen == []


def test_official_clients_read_the_facts(gateway, upstream):
    """The clients raise their own errors, try nothing again, and hand the facts on."""
    asked = []
    hooks = {"request": [asked.append]}
    with (
        openai.DefaultHttpxClient(event_hooks=hooks) as http,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", http_client=http) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(**OPENAI, extra_headers={"X-User-Id": "money"})
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "quota_exceeded")
    assert caught.value.body["usage_info"]["plan"] == "money"
    assert len(asked) == 1

    with (
        anthropic.DefaultHttpxClient(event_hooks=hooks) as http,
        anthropic.Anthropic(base_url=gateway.url, api_key="none", http_client=http) as client,
        pytest.raises(anthropic.RateLimitError) as other,
    ):
        client.messages.create(**ANTHROPIC, extra_headers={"X-User-Id": "money"})
    assert other.value.body["error"]["usage_info"]["plan"] == "money"
    assert len(asked) == 2
    assert upstream.seen == []


def test_a_model_without_a_price_is_not_free(gateway, upstream):
    """Where money is limited, what nobody knows the price of is refused."""
    body = {**OPENAI, "model": "second/unpriced"}
    answer = call(gateway.url, "/v1/chat/completions", body, {"X-User-Id": "money"})

    assert (answer.status, answer.json["error"]["code"]) == (403, "price_unknown")
    assert upstream.seen == []
