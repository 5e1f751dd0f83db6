"""Counting tokens over HTTP: who counts, that it costs nothing, and that a count acts for its caller like a call."""

import anthropic
import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.office import Desk, bearer
from support.upstream import Answer
from support.web import call

SECRET = "sk-counting-canary-0123456789"
HELLO = [{"role": "user", "content": "Hello, how are you?"}]
NATIVE = "/llm-gate/v1/chat/count-tokens"
MESSAGES = "/v1/messages/count_tokens"
VENDORS = {
    "anthropic/claude-haiku-5-5": ("/v1/messages/count_tokens", {"input_tokens": 321}),
    "gemini/gemini-3.8-flash": ("/v1beta/models/gemini-3.8-flash:countTokens", {"totalTokens": 321}),
    "openai/gpt-4o": ("/v1/responses/input_tokens", {"object": "response.input_tokens", "input_tokens": 321}),
}


@pytest.fixture(scope="module")
def place(upstream):
    """Run a gateway whose vendors are the scripted one, and yield it with its operator's desk."""
    environment = {
        "OPENAI_API_KEY": SECRET,
        "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
        "ANTHROPIC_API_KEY": SECRET,
        "LLM_GATE_ANTHROPIC_BASE_URL": upstream.url,
        "GEMINI_API_KEY": SECRET,
        "LLM_GATE_GEMINI_BASE_URL": f"{upstream.url}/v1beta",
        "MISTRAL_API_KEY": SECRET,
        "LLM_GATE_MISTRAL_BASE_URL": f"{upstream.url}/v1",
    }
    with running_gateway(environment) as gateway:
        yield gateway, Desk(gateway)
    assert SECRET not in "".join(gateway.log)


@pytest.fixture(scope="module")
def key(place):
    """Return a key that may do everything."""
    gateway, desk = place
    made = desk.key_for(client="shop", user="ann")
    Desk.until(lambda: call(gateway.url, "/v1/models", headers=bearer(made)).status == 200)
    return made


def native(gateway, key, model, *, source=None, **more):
    """Ask the native surface for a count."""
    provider, _, name = model.partition("/")
    body = {
        "prompt": {"messages": HELLO},
        "provider": {"name": provider, **({"model": {"name": name}} if name else {})},
        **({} if source is None else {"source": source}),
        **more,
    }
    headers = {**NATIVE_HEADERS, "X-User-Id": "ann", "client_id": "shop"}
    return call(gateway.url, NATIVE, body, bearer(key, **headers))


def messages(gateway, key, model, **headers):
    """Ask Anthropic's surface for a count."""
    return call(gateway.url, MESSAGES, {"model": model, "messages": HELLO}, bearer(key, **headers))


def rows(desk, user="ann"):
    """Return the user's calls, the newest first."""
    return desk.do(f"/calls?user={user}&client_id=shop")["data"]


@pytest.mark.parametrize("model", VENDORS)
def test_a_vendor_is_asked_where_the_caller_wants_it(place, key, upstream, model):
    """With the operator's key, at the vendor's own endpoint; the answer is the vendor's number, and says so."""
    gateway, _ = place
    path, answer = VENDORS[model]
    upstream.will(Answer.json(answer))

    found = native(gateway, key, model, source="vendor")

    provider, _, name = model.partition("/")
    assert (found.status, found.json) == (
        200,
        {
            "inputTokens": 321,
            "leastTokens": 321,
            "mostTokens": 321,
            "source": "vendor",
            "provider": {"name": provider, "model": {"name": name}},
        },
    )
    assert upstream.only.path.partition("?")[0] == path
    assert SECRET in " ".join(upstream.only.headers.values())
    assert (found.headers["x-llm-gate-count"], found.headers["x-llm-gate-cost-usd"]) == ("vendor", "0")
    assert "x-llm-gate-estimated" not in found.headers


def test_the_official_client_counts_at_any_vendor(place, key, upstream):
    """A header on Anthropic's surface asks for the vendor's count, whoever the vendor is."""
    gateway, _ = place
    client = anthropic.Anthropic(base_url=gateway.url, auth_token=key, api_key=None, max_retries=0)
    for model, (_, answer) in VENDORS.items():
        upstream.will(Answer.json(answer))
        raw = client.messages.with_raw_response.count_tokens(
            model=model, messages=HELLO, extra_headers={"x-llm-gate-count": "vendor"}
        )
        assert (raw.parse().input_tokens, raw.headers["x-llm-gate-provider"]) == (
            321,
            model.partition("/")[0],
        )
    client.close()


@pytest.mark.parametrize(
    ("model", "source", "by", "tokens"),
    [
        ("openai/gpt-4o", None, "tokenizer", (13, 11, 15)),
        ("openai/gpt-4o", "tokenizer", "tokenizer", (13, 11, 15)),
        ("openai/gpt-4o", "estimate", "estimate", (12, 9, 17)),
        ("anthropic/claude-haiku-5-5", None, "estimate", (12, 9, 17)),
        ("anthropic/claude-haiku-5-5", "tokenizer", "estimate", (12, 9, 17)),
        ("mistral/mistral-medium-latest", "vendor", "estimate", (9, 7, 13)),
        ("sandbox/chat", "vendor", "estimate", (12, 9, 17)),
    ],
)
def test_nobody_is_asked_where_it_is_counted_here(place, key, upstream, model, source, by, tokens):
    """The tokenizer where it is public, else an estimate; and so where the vendor offers no counting."""
    gateway, desk = place
    upstream.will()
    before = len(rows(desk))

    found = native(gateway, key, model, source=source)

    assert found.status == 200, found.body
    assert (found.json["inputTokens"], found.json["leastTokens"], found.json["mostTokens"]) == tokens
    assert (found.json["source"], found.headers["x-llm-gate-estimated"]) == (by, "true")
    assert upstream.seen == []
    assert len(rows(desk)) == before


def test_a_vendors_count_is_a_call_without_cost(place, key, upstream):
    """It stands in the records with no tokens and no cost, under the endpoint's name, and counts as one call."""
    gateway, desk = place
    upstream.will(Answer.json({"input_tokens": 5}))
    answer = messages(gateway, key, "openai/gpt-4o", **{"x-llm-gate-count": "vendor"})
    assert answer.status == 200, answer.body

    newest = rows(desk)[0]

    assert (newest["endpoint"], newest["status"], newest["model"]) == (MESSAGES, "ok", "gpt-4o")
    assert (newest["input_tokens"], newest["output_tokens"], newest["cost_nanos"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer.json({"error": {"message": "overloaded"}}, 503), 503),
        (Answer.json({"error": {"message": "bad key"}}, 401), 502),
        (Answer.json({"error": {"message": "slow down"}}, 429), 429),
        (Answer.json({"error": {"message": "no such model", "code": "model_not_found"}}, 404), 502),
        (Answer.json({"input_tokens": "many"}), 502),
        (Answer(cut=True, body=b""), 502),
    ],
    ids=["away", "key", "limited", "gone", "unreadable", "cut"],
)
def test_a_vendor_that_fails_is_not_replaced_by_a_guess(place, key, upstream, answer, status):
    """Whoever wants the vendor's own count gets its failure, in the form of the surface, and pays nothing."""
    gateway, desk = place
    upstream.will(answer)

    found = native(gateway, key, "openai/gpt-4o", source="vendor")
    newest = rows(desk)[0]

    assert found.status == status, found.body
    assert found.json["errorDetails"]
    assert (newest["status"], newest["input_tokens"], newest["cost_nanos"]) == ("failed", 0, 0)


def test_counting_is_bound_like_a_call(place, upstream):
    """The plan's models bind every count, its calls those that ask a vendor."""
    gateway, desk = place
    upstream.will(Answer.json({"input_tokens": 5}))
    desk.do("/plans/few", {"allowed_models": ["openai/gpt-4o"], "limits": {"text_calls": 2}})
    desk.do("/subscriptions/bob", {"plan": "few"})
    key = desk.key_for(client="shop", user="bob")
    Desk.until(lambda: messages(gateway, key, "openai/gpt-4o").status == 200)
    vendor = {"x-llm-gate-count": "vendor"}

    assert messages(gateway, key, "openai/gpt-4.1").status == 403
    assert messages(gateway, key, "anthropic/claude-haiku-5-5", **vendor).status == 403
    assert [messages(gateway, key, "openai/gpt-4o", **vendor).status for _ in range(3)] == [200, 200, 429]
    assert messages(gateway, key, "openai/gpt-4o").status == 200
    assert len(upstream.seen) == 2


def test_a_count_acts_for_its_own_caller_alone(place, key):
    """Another application, another user, or a key without the right to ask models is refused, on both surfaces."""
    gateway, desk = place
    reader = desk.key_for(client="shop", user="ann", scopes=["usage:read"])
    Desk.until(lambda: messages(gateway, reader, "sandbox/chat").status == 403)

    assert messages(gateway, key, "sandbox/chat", client_id="other").status == 403
    assert messages(gateway, key, "sandbox/chat", **{"X-User-Id": "eve"}).status == 403
    assert messages(gateway, key, "sandbox/chat", client_id="shop", **{"X-User-Id": "ann"}).status == 200
    foreign = {**NATIVE_HEADERS, "client_id": "other"}
    assert call(gateway.url, NATIVE, {"prompt": {"messages": HELLO}}, bearer(key, **foreign)).status == 403


def test_all_faults_are_named_at_once(place, key):
    """A wrong source stands beside what is wrong with the chat; a wrong header is a 400 of its own."""
    gateway, _ = place
    found = native(gateway, key, "sandbox/chat", source="oracle", prompt={"messages": [{"role": "judge"}]})
    header = messages(gateway, key, "sandbox/chat", **{"x-llm-gate-count": "oracle"})

    assert found.status == 400
    assert {"source", "prompt.messages[0].role"} <= {each["details"] for each in found.json["errorDetails"]}
    assert header.status == 400
    assert header.json["error"]["message"] == "x-llm-gate-count: must be one of vendor, tokenizer, estimate"
