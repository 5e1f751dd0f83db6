"""The status says who is asked, who answers and how they are doing; explain says who would be asked, and why."""

import time

import pytest

from support.gateway import running_gateway
from support.issued import issuer_at
from support.office import bearer
from support.upstream import Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
STATUS = "/llm-gate/v1/status"
SHORT = "/llm/status"
EXPLAIN = "/llm-gate/v1/routes/explain"
GOOD = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
DOWN = Answer.json({"error": {"message": "words of the first"}}, 500)
ENVIRONMENT = {
    "FIRST_API_KEY": "first-fake-0123456789",
    "SECOND_API_KEY": "second-fake-0123456789",
    "LLM_PRIMARY_PROVIDER": "first",
    "LLM_FALLBACK_PROVIDERS": "second,openai",
}
PROVIDER = """
    [providers.{name}]
    dialect = "openai"
    base_url = "{url}/{name}/v1"
    auth = {{ kind = "bearer", env = "{NAME}_API_KEY" }}
    defaults = {{ chat = "m" }}
    [[providers.{name}.models]]
    name = "m"
    operations = ["chat"]
"""


def ask(model="default"):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}]}


def toml_of(url):
    tables = [PROVIDER.format(name=name, NAME=name.upper(), url=url) for name in ("first", "second")]
    return "".join(tables) + '[aliases.best]\ntargets = ["first/m", "second/m"]\n'


@pytest.fixture
def vendor():
    """Run a provider for one test."""
    with fake_upstream() as running:
        yield running


@pytest.fixture
def fronted(vendor):
    """Run a gateway with a primary provider and two fallbacks, one of which has no key."""
    with running_gateway(ENVIRONMENT, toml=toml_of(vendor.url), resilient=True) as running:
        yield running


def provider(url, name, **headers):
    found = call(url, STATUS, headers=headers).json["providers"]
    return next(each for each in found if each["name"] == name)


def test_the_short_form_is_that_of_the_document(fronted, vendor):
    """Primary, fallbacks, and who answered last: exactly these three."""
    assert call(fronted.url, SHORT).json == {
        "primary": {"name": "first", "available": True},
        "fallbacks": [{"name": "second", "available": True}, {"name": "openai", "available": False}],
        "current": "first",
    }

    quota = {"error": {"message": "no credit", "type": "insufficient_quota", "code": "insufficient_quota"}}
    vendor.will(Answer.json(quota, 429), Answer.json(GOOD))
    assert call(fronted.url, CHAT, ask()).status == 200
    assert call(fronted.url, SHORT).json["current"] == "second"


def test_a_fresh_gateway_has_a_primary(gateway):
    """Where nobody is named, the preferred one is, and it has no fallbacks."""
    short = call(gateway.url, SHORT).json

    assert (short["primary"], short["fallbacks"]) == ({"name": "sandbox", "available": True}, [])
    assert short["current"] == "sandbox"


def test_every_provider_is_there_with_its_reason(fronted):
    """Those that can be used come first; the others say what to set."""
    status = call(fronted.url, STATUS).json

    assert (status["primary"]["name"], status["current"]) == ("first", "first")
    available = [each["available"] for each in status["providers"]]
    assert available == sorted(available, reverse=True)
    openai = next(each for each in status["providers"] if each["name"] == "openai")
    assert (openai["available"], openai["deployments"]) == (False, [])
    assert "OPENAI_API_KEY" in openai["reason"]
    first = provider(fronted.url, "first")
    assert (first["available"], "reason" in first) == (True, False)


def test_a_place_says_what_it_did(fronted, vendor):
    """Counts, success rate, latencies and the last errors, as numbers."""
    vendor.will(Answer.json({"error": {"message": "words of the first"}}, 500), Answer.json(GOOD))
    answer = call(fronted.url, CHAT, ask("best"), {"x-llm-gate-timeout-ms": "10000"})
    assert answer.status == 200

    [place] = provider(fronted.url, "first")["deployments"]
    [model] = place["models"]
    assert model["model"] == "m"
    assert model["requests"] >= 1
    assert model["failures"] >= 1
    assert 0 <= model["success_rate"] <= 1
    assert model["last_errors"][0]["code"] == "provider_unavailable"
    assert model["last_errors"][0]["status"] == 500
    assert model["last_errors"][0]["message"]
    assert (model["under_way"], model["waiting"]) == (0, 0)
    assert {"p50_ms", "p95_ms", "cooldown"} <= set(model)


def test_a_place_that_is_left_alone_says_until_when(fronted, vendor):
    """A refused key puts a place aside at once."""
    vendor.will(
        Answer.json({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401), Answer.json(GOOD)
    )
    assert call(fronted.url, CHAT, ask("best")).status == 200

    [place] = provider(fronted.url, "first")["deployments"]
    cooldown = place["models"][0]["cooldown"]
    assert cooldown["reason"] == "provider_auth_failed"
    assert cooldown["until"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def test_the_answer_says_what_was_tried(fronted, vendor):
    """The header names each target that failed before, with its error, in whole answers and in streams."""
    vendor.will(Answer.json({"error": {"message": "bad key"}}, 401), Answer.json(GOOD))
    answer = call(fronted.url, CHAT, ask("best"))

    assert answer.headers["x-llm-gate-provider"] == "second"
    assert answer.headers["x-llm-gate-tried"] == "first/m (provider_auth_failed)"
    alone = call(fronted.url, CHAT, ask("second"))
    assert "x-llm-gate-tried" not in alone.headers


def test_a_call_brings_its_own_fallbacks(fronted, vendor):
    """Names of the header are tried in their order after the one that was asked for."""
    vendor.will(Answer.json({"error": {"message": "bad key"}}, 401), Answer.json(GOOD))
    answer = call(fronted.url, CHAT, ask("first/m"), {"x-llm-gate-fallbacks": "sandbox/chat, second/m"})

    assert (answer.status, answer.headers["x-llm-gate-provider"]) == (200, "sandbox")


def test_a_call_brings_its_own_deadline(fronted, vendor):
    """Beyond it the call ends as one that took too long."""
    vendor.will(Answer(delay_s=3.0))
    started = time.monotonic()
    answer = call(fronted.url, CHAT, ask("second/m"), {"x-llm-gate-timeout-ms": "300"})

    assert answer.status == 504
    assert time.monotonic() - started < 2.5


def test_what_vendors_said_is_for_the_operator(vendor):
    """A caller with a key of the gateway sees codes; its vendors' words may speak of others."""
    with running_gateway(ENVIRONMENT, toml=toml_of(vendor.url), resilient=True) as running:
        vendor.will(DOWN, Answer.json(GOOD))
        assert call(running.url, CHAT, ask("best")).status == 200
        with issuer_at(running.folder / "data") as issuer:
            key = issuer.key("inference")
            whole = issuer.key("admin", "operator")
        deadline = time.monotonic() + 5
        while call(running.url, SHORT).status != 401 and time.monotonic() < deadline:
            time.sleep(0.05)

        assert call(running.url, STATUS).status == 401
        seen = call(running.url, STATUS, headers=bearer(key))
        assert seen.status == 200
        assert b"words of the first" not in seen.body
        assert b'"code":"provider_unavailable"' in seen.body
        assert b"words of the first" in call(running.url, STATUS, headers=bearer(whole)).body


def test_explain_says_who_would_be_asked(fronted):
    """Targets in order with their reasons; what is left out with its own."""
    found = call(
        fronted.url, EXPLAIN, {"model": "best", "fallbacks": ["openai/gpt-4o-mini", "sandbox/chat"]}
    ).json

    assert (found["model"], found["strategy"]) == ("best", "ordered")
    assert [(each["position"], each["name"]) for each in found["targets"]] == [
        (1, "first/m"),
        (2, "second/m"),
        (3, "sandbox/chat"),
    ]
    first = found["targets"][0]
    assert (first["provider"], first["model"]) == ("first", "m")
    assert first["reason"]
    assert first["deployment"]
    [left] = found["left"]
    assert "openai" in left["name"]
    assert left["reason"]


def test_explain_refuses_what_makes_no_sense(fronted):
    """A name that leads nowhere is a 404, a question that is malformed a 400."""
    assert call(fronted.url, EXPLAIN, {"model": "nothing-like-it"}).status == 404
    assert call(fronted.url, EXPLAIN, {"model": "best", "needs": ["magic"]}).status == 400
    assert call(fronted.url, EXPLAIN, {"model": "best", "colour": "red"}).status == 400
    assert call(fronted.url, EXPLAIN, {"model": "best", "fallbacks": ["a"] * 9}).status == 400
    assert call(fronted.url, EXPLAIN, {}).status == 400
