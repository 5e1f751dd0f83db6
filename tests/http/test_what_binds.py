"""What binds a call besides the plan: models it may reach, limits of key, application, tenant, and whose secret."""

import json
import uuid

import pytest

from support.forking import clean_environment, run_command
from support.gateway import NATIVE_HEADERS, running_gateway
from support.issued import issuer_at
from support.office import Desk, bearer, command
from support.upstream import Answer
from support.web import call

HELLO = [{"role": "user", "content": "Hi"}]
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}
OURS = "sk-environment-canary-0123456789"
THEIRS = "sk-tenant-canary-9876543210"
THEIR_ANTHROPIC = "sk-ant-tenant-canary-55555"
CANARIES = (OURS, THEIRS, THEIR_ANTHROPIC)
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


@pytest.fixture(scope="module")
def place(upstream):
    """Run a gateway with one credential in its environment; yield it with its operator's desk."""
    environment = {
        "OPENAI_API_KEY": OURS,
        "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
        "LLM_GATE_ANTHROPIC_BASE_URL": upstream.url,
    }
    toml = """
        [aliases.good]
        targets = ["openai/gpt-4o-mini", "sandbox/echo"]
    """
    with running_gateway(environment, toml=toml) as gateway:
        yield gateway, Desk(gateway)


def ask(gateway, key, model="openai/gpt-4o-mini", **headers):
    """Make a call and return its answer."""
    body = {"model": model, "max_tokens": 5, "messages": HELLO}
    return call(gateway.url, "/v1/chat/completions", body, bearer(key, **headers))


def takes_effect(holds):
    """Wait for what must be so within a second."""
    Desk.until(holds)


@pytest.mark.parametrize(
    ("allowed", "passing", "refused"),
    [
        (["openai/gpt-4o-mini"], ["openai/gpt-4o-mini", "gpt-4o-mini"], ["openai/gpt-4o", "sandbox/echo"]),
        (["openai/*"], ["openai/gpt-4o-mini", "openai/gpt-4o"], ["sandbox/echo"]),
        (["gpt-4o*"], ["openai/gpt-4o", "gpt-4o-mini"], ["openai/gpt-4.1", "sandbox/chat"]),
        (["good"], ["good"], ["openai/gpt-4o-mini", "sandbox/echo"]),
        (["sandbox/echo"], ["good", "sandbox/echo"], ["openai/gpt-4o-mini", "sandbox/chat"]),
        (["*"], ["openai/gpt-4o", "sandbox/echo", "good"], []),
    ],
)
def test_a_key_calls_the_models_it_may(place, upstream, allowed, passing, refused):
    """By any name, with `*` for any rest; of an alias, the targets that are allowed. Nothing else is sent."""
    gateway, desk = place
    upstream.will(Answer.json(COMPLETION))
    key = desk.key_for(allowed_models=allowed)
    takes_effect(lambda: ask(gateway, key, passing[0]).status == 200)
    assert [ask(gateway, key, model).status for model in passing] == [200] * len(passing)
    seen = len(upstream.seen)
    for model in refused:
        answer = ask(gateway, key, model)
        assert (answer.status, "allowed here" in answer.json["error"]["message"]) == (403, True), model
    assert len(upstream.seen) == seen


def test_plan_application_and_key_must_all_allow_a_model(place, upstream):
    """What one of them leaves out is out."""
    gateway, desk = place
    upstream.will(Answer.json(COMPLETION))
    desk.do("/plans/two", {"allowed_models": ["openai/gpt-4o-mini", "sandbox/*"]})
    desk.do("/subscriptions/modest", {"plan": "two"})
    desk.do("/applications/narrow", {"allowed_models": ["openai/*", "sandbox/echo"]})
    key = desk.key_for(client="narrow", user="modest")
    models = ["openai/gpt-4o-mini", "sandbox/echo", "openai/gpt-4o", "sandbox/chat"]
    takes_effect(lambda: [ask(gateway, key, model).status for model in models] == [200, 200, 403, 403])


def used_up(gateway, key, most, **headers):
    """Call until a limit says no; return its name."""
    for _ in range(most):
        answer = ask(gateway, key, "sandbox/echo", **headers)
        assert answer.status == 200, answer.body
    refused = call(
        gateway.url,
        "/llm-gate/v1/chat",
        {"prompt": {"messages": HELLO}, "provider": {"name": "sandbox", "model": {"name": "echo"}}},
        {**bearer(key), "X-Correlation-Id": NATIVE_HEADERS["X-Correlation-Id"]} | headers,
    )
    assert refused.status == 429, refused.body
    return refused.json


def test_a_keys_own_limit_binds_that_key(place):
    """Made by the command; another key of the same application and user goes on."""
    gateway, desk = place
    made = command(
        gateway, "keys", "create", "--client", "k", "--user", "kate", "--limit", "text_calls=2", "--json"
    )
    key, other = json.loads(made.stdout)["key"], desk.key_for(client="k", user="kate")
    takes_effect(lambda: call(gateway.url, "/v1/models", headers=bearer(other)).status == 200)
    used_up(gateway, key, 2, client_id="k", **{"X-User-Id": "kate"})
    assert ask(gateway, other, "sandbox/echo").status == 200


def test_an_applications_limit_binds_all_its_keys_and_users(place):
    """Two keys, three users, one sum; another application goes on."""
    gateway, desk = place
    desk.do("/applications/limited", {"limits": {"text_calls": 3}})
    first, second = desk.key_for(client="limited"), desk.key_for(client="limited")
    takes_effect(lambda: call(gateway.url, "/v1/models", headers=bearer(second)).status == 200)
    for key, user in ((first, "x"), (second, "y")):
        assert ask(gateway, key, "sandbox/echo", **{"X-User-Id": user}).status == 200
    used_up(gateway, first, 1, client_id="limited", **{"X-User-Id": "z"})
    assert ask(gateway, second, "sandbox/echo").status == 429
    assert ask(gateway, desk.key_for(client="unlimited"), "sandbox/echo").status == 200


def test_a_tenants_limits_and_plan_bind_everything_in_it(place):
    """More generous limits further down help nobody; the same application and user of another tenant goes on."""
    gateway, desk = place
    tenant = f"t{uuid.uuid4().hex[:8]}"
    desk.do("/plans/small", {"limits": {"text_calls": 4}})
    desk.do("/plans/large", {"limits": {"text_calls": 1000}})
    desk.do(f"/tenants/{tenant}", {"plan": "small", "limits": {"text_calls": 3}})
    desk.do(f"/applications/shop?tenant={tenant}", {"limits": {"text_calls": 1000}})
    desk.do(f"/subscriptions/ann?tenant={tenant}", {"plan": "large"})
    keys = [desk.key_for(tenant, limits={"text_calls": "1000"}) for _ in range(2)]
    elsewhere = desk.key_for()
    takes_effect(lambda: call(gateway.url, "/v1/models", headers=bearer(elsewhere)).status == 200)
    ann = {"client_id": "shop", "X-User-Id": "ann"}
    for key in keys:
        assert ask(gateway, key, "sandbox/echo", **ann).status == 200
    used_up(gateway, keys[0], 1, client_id="shop", **{"X-User-Id": "bob"})
    assert ask(gateway, keys[1], "sandbox/echo", **ann).status == 429
    assert ask(gateway, elsewhere, "sandbox/echo", **ann).status == 200

    desk.do(f"/tenants/{tenant}", {"limits": {"text_calls": "unlimited"}})
    takes_effect(lambda: ask(gateway, keys[1], "sandbox/echo", **ann).status == 200)
    # Now its plan decides.
    used_up(gateway, keys[0], 0, **ann)
    desk.do(f"/tenants/{tenant}", {"plan": None, "is_active": False})
    takes_effect(lambda: ask(gateway, keys[0], "sandbox/echo", **ann).status == 403)


def test_nobody_grants_more_than_he_has(place):
    """Over the admin API a key makes no key that outgrows it, in any respect."""
    _, desk = place
    tenant = f"t{uuid.uuid4().hex[:8]}"
    desk.do(f"/tenants/{tenant}", {})
    parent = desk.key_for(
        tenant,
        scopes=["admin", "inference"],
        allowed_models=["openai/gpt-4o*"],
        limits={"text_calls": "5"},
    )
    takes_effect(lambda: desk.ask("/keys", key=parent).status == 200)
    asked = {
        "client_id": "shop",
        "tenant": tenant,
        "scopes": ["inference"],
        "allowed_models": ["openai/gpt-4o-mini"],
        "limits": {"text_calls": "5"},
    }
    for more in (
        {"scopes": ["inference", "usage:read"]},
        {"scopes": ["admin", "operator"]},
        {"allowed_models": []},
        {"allowed_models": ["*"]},
        {"allowed_models": ["openai/*"]},
        {"limits": {}},
        {"limits": {"text_calls": "6"}},
        {"limits": {"text_calls": "unlimited"}},
        {"tenant": "default"},
    ):
        refused = desk.ask("/keys", {**asked, **more}, key=parent)
        assert refused.status in {403, 404}, (more, refused.body)
    assert desk.ask("/keys", asked, key=parent).status == 200
    for path, body in (
        (f"/tenants/{tenant}", {"limits": {"text_calls": "9"}}),
        ("/plans/small", {"limits": {}}),
        ("/tenants/default", {}),
    ):
        assert desk.ask(path, body, key=parent).status in {403, 404}, path


# --- Vendors' credentials of a tenant


def set_credential(gateway, provider, tenant, secret):
    """Store a credential as an operator does."""
    done = run_command(
        "credentials",
        "set",
        provider,
        "--tenant",
        tenant,
        *("--data-dir", str(gateway.folder / "data"), "--no-env-file", "--json"),
        folder=gateway.folder,
        environment=clean_environment(),
        text=secret,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_tenants_credential_is_used_for_that_tenant_alone(place, upstream):
    """From its storing on, within a second, and until it is removed; nobody reads it again."""
    gateway, desk = place
    tenant = f"t{uuid.uuid4().hex[:8]}"
    with issuer_at(gateway.folder / "data") as issuer:
        theirs, ours = issuer.key("inference", tenant=tenant), issuer.key("inference")
    takes_effect(lambda: call(gateway.url, "/v1/models", headers=bearer(ours)).status == 200)
    said = []

    def secret_of(key, header="authorization"):
        upstream.will(Answer.json(COMPLETION))
        answer = ask(gateway, key)
        said.append(answer.body + str(answer.headers).encode())
        return upstream.only.headers[header].removeprefix("Bearer ")

    assert secret_of(theirs) == secret_of(ours) == OURS
    printed = set_credential(gateway, "openai", tenant, THEIRS)
    takes_effect(lambda: secret_of(theirs) == THEIRS)
    assert secret_of(ours) == OURS

    # A vendor for whom the environment has none.
    message = {"model": "anthropic/claude-haiku-4-5", "max_tokens": 5, "messages": HELLO}
    assert call(gateway.url, "/v1/messages", message, bearer(theirs)).status in {400, 404}
    printed += set_credential(gateway, "anthropic", tenant, THEIR_ANTHROPIC)
    upstream.will(Answer.json(MESSAGE))
    takes_effect(lambda: call(gateway.url, "/v1/messages", message, bearer(theirs)).status == 200)
    assert upstream.seen[-1].headers["x-api-key"] == THEIR_ANTHROPIC
    seen = len(upstream.seen)
    assert call(gateway.url, "/v1/messages", message, bearer(ours)).status in {400, 404}
    assert len(upstream.seen) == seen
    lists = [call(gateway.url, "/v1/models", headers=bearer(key)) for key in (theirs, ours)]
    assert ["anthropic/" in each.body.decode() for each in lists] == [True, False]

    # What fails upstream shows the vendor's words, and these may hold the secret.
    upstream.will(Answer.json({"error": {"message": f"Incorrect API key provided: {THEIRS}"}}, 401))
    said += [ask(gateway, theirs).body, *(each.body for each in lists)]
    for words in (("credentials", "list", "--json"), ("keys", "list", "--json", "--all-tenants")):
        done = command(gateway, *words)
        said.append((done.stdout + done.stderr).encode())
        assert done.returncode == 0
    for path in ("/audit?limit=1000", f"/tenants/{tenant}", "/calls?tenant=" + tenant):
        said.append(desk.ask(path).body)
    said += [printed.encode(), "".join(gateway.log).encode()]
    said += [path.read_bytes() for path in (gateway.folder / "data").rglob("*") if path.is_file()]
    for canary in CANARIES:
        assert not any(canary.encode() in each for each in said), canary

    removed = command(gateway, "credentials", "remove", "openai", "--tenant", tenant)
    assert removed.returncode == 0
    takes_effect(lambda: secret_of(theirs) == OURS)
