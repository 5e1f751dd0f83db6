"""The admin API at the real gateway: what is made takes effect, errors are problem details, tenants never meet."""

import itertools
import json
import random

import openai
import pytest

from support.figures import full, proved
from support.gateway import NATIVE_HEADERS, running_gateway
from support.office import ADMIN, Desk, bearer, command
from support.web import call

CHAT = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hi"}]}
TALK = {"operation": "chat", "provider": {"name": "sandbox"}, "inputTokens": 20, "maxTokens": 20}
PROBES = full(300, 100_000)


@pytest.fixture(scope="module")
def gate():
    """Run a gateway."""
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def desk(gate):
    """Make the first key."""
    return Desk(gate)


def chat(gate, key):
    """Make a call and return its status."""
    return call(gate.url, "/v1/chat/completions", CHAT, bearer(key)).status


def test_keys_are_made_rotated_and_revoked(gate, desk):
    """A key is shown once; a rotated one works on for its overlap; a revoked one ends within a second."""
    made = desk.do("/keys", {"client_id": "shop", "name": "Till", "limits": {"requests_per_minute": "60"}})
    entry = made["entry"]

    assert made["key"].startswith(entry["prefix"])
    assert (entry["client_id"], entry["tenant"], entry["status"]) == ("shop", "default", "active")
    assert entry["limits"] == {"requests_per_minute": 60}
    assert made["key"] not in json.dumps(desk.do(f"/keys/{entry['id']}"))
    assert chat(gate, made["key"]) == 200

    new = desk.do(f"/keys/{entry['id']}/rotate", {"overlap_s": 3600})
    assert desk.do(f"/keys/{entry['id']}")["status"] == "retiring"
    assert desk.ask(f"/keys/{entry['id']}/rotate", {}).status == 409
    assert chat(gate, made["key"]) == chat(gate, new["key"]) == 200

    assert desk.ask(f"/keys/{new['entry']['id']}/revoke", method="POST").json["status"] == "ended"
    desk.until(lambda: chat(gate, new["key"]) == 401)


def test_digests_and_secrets_never_leave(desk):
    """No answer has a field for them, the audit neither."""
    desk.key_for()
    for path in ("/keys?limit=1000", "/audit?limit=1000"):
        text = json.dumps(desk.do(path))

        assert "digest" not in text
        assert "sealed" not in text


def test_lists_come_in_pages(desk):
    """A cursor leads from page to page, each row once; another list's is refused."""
    for number in range(5):
        desk.do(f"/applications/app-{number}", {"label": f"Number {number}"})
    found, cursor = [], ""
    while cursor is not None:
        page = desk.do(f"/applications?limit=2{cursor}")
        found += [row["client_id"] for row in page["data"]]
        cursor = None if page["next_cursor"] is None else f"&cursor={page['next_cursor']}"

    assert found == sorted(set(found))
    assert {f"app-{number}" for number in range(5)} <= set(found)
    whole = [row["number"] for row in desk.do("/audit?limit=1000")["data"]]
    assert whole == sorted(whole, reverse=True)
    audit = desk.do("/audit?limit=1")["next_cursor"]
    for wrong in (audit, "x", "", "%00", "WzFd"):
        refused = desk.ask(f"/applications?cursor={wrong}")
        assert refused.status == (200 if wrong == "" else 400)
    for wrong in ("limit=0", "limit=1001", "limit=x", "other=1"):
        assert desk.ask(f"/applications?{wrong}").status == 400


def test_errors_are_problem_details(gate, desk):
    """The form of RFC 9457, with a pointer to each fault; a path that is none gets it, too."""
    refused = desk.ask("/keys", {"client_id": "", "digest": "x", "scopes": ["everything"]})

    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status, refused.json["status"], refused.json["title"]) == (400, 400, "Bad Request")
    pointers = [error["pointer"] for error in refused.json["errors"]]
    assert sorted(pointers) == ["/client_id", "/digest", "/scopes/0"]
    assert refused.json["request_id"] == refused.headers["x-request-id"]
    for path in (
        "/nothing",
        "/keys/nope",
        "/plans/nope",
        "/calls/nope",
        "/tenants/nope",
        "/subscriptions/nope",
    ):
        missing = desk.ask(path)
        assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    assert desk.ask("/keys", method="DELETE").status == 405
    plain = call(gate.url, f"{ADMIN}/keys", headers=bearer(desk.key_for()))
    assert (plain.status, plain.json["code"]) == (403, "scope_missing")
    assert call(gate.url, f"{ADMIN}/keys").status == 401
    assert desk.ask("/keys", b"{", method="POST").status in {400, 415}


def test_plans_change_field_by_field(desk):
    """What is not named stays; amounts are exact as numbers and as text; what cannot be is refused."""
    made = desk.do("/plans/gold", {"limits": {"monthly_cost_usd": 0.1, "text_calls": 5}, "tier": "pro"})
    assert (made["limits"], made["tier"], made["origin"]) == (
        {"monthly_cost_usd": 0.1, "text_calls": 5},
        "pro",
        "operator",
    )
    changed = desk.do(
        "/plans/gold", {"limits": {"text_calls": None}, "price_monthly_usd": "9.99", "mode": "strict"}
    )
    assert changed["limits"] == {"monthly_cost_usd": 0.1, "text_calls": None}
    assert (changed["price_monthly_usd"], changed["mode"], changed["tier"]) == (9.99, "strict", "pro")
    for wrong in (
        {"limits": {"nobody_calls": 1}},
        {"limits": {"text_calls": -1}},
        {"limits": {"text_calls": 1.5}},
        {"limits": {"text_calls": True}},
        {"limits": {"text_calls": {}}},
        {"limits": {"monthly_cost_usd": "1e-3"}},
        {"price_monthly_usd": "much"},
        {"origin": "shipped"},
        {"mode": "loose"},
    ):
        assert desk.ask("/plans/gold", wrong).status == 400, wrong
    assert desk.ask("/plans/Wrong Name".replace(" ", "%20"), {}).status == 400
    assert desk.ask("/plans/unlimited", {"limits": {"text_calls": 1}}).status == 409


def test_a_user_is_put_on_a_plan_and_held_to_it(gate, desk):
    """A subscription takes effect within a second; it can be told not to renew itself."""
    desk.do("/plans/two", {"limits": {"text_calls": 1}})
    key = desk.key_for(user="una")
    held = desk.do("/subscriptions/una", {"plan": "two"})

    assert (held["plan"], held["cycle"], held["auto_renew"], held["status"]) == (
        "two",
        "monthly",
        True,
        "active",
    )
    desk.until(lambda: chat(gate, key) == 429)
    assert desk.do("/subscriptions/una", {"auto_renew": False})["auto_renew"] is False
    assert desk.do("/subscriptions/una")["id"] == held["id"]
    assert desk.ask("/subscriptions/una", {"cycle": "yearly"}).status == 400
    assert desk.ask("/subscriptions/una", {"plan": "none"}).status == 404
    assert "una" in [row["user"] for row in desk.do("/subscriptions?limit=1000")["data"]]


def test_usage_and_calls_agree_with_the_command_line(gate, desk):
    """The sums, the calls one by one, and what `llm-gate usage` prints are the same."""
    key = desk.key_for("three", user="tom", client="web")
    for _ in range(3):
        assert chat(gate, key) == 200
    (row,) = desk.do("/usage?tenant=three&by=provider,user")["data"]
    calls = desk.do("/calls?tenant=three&user=tom&limit=2")
    rest = desk.do(f"/calls?tenant=three&user=tom&limit=2&cursor={calls['next_cursor']}")

    assert row["group"] == {"provider": "sandbox", "user": "tom"}
    assert (row["requests"], row["attempts"], row["failures"]) == (3, 3, 0)
    assert len(calls["data"]) + len(rest["data"]) == 3
    assert rest["next_cursor"] is None
    one = desk.do(f"/calls/{calls['data'][0]['id']}?tenant=three")
    assert one["call"] == calls["data"][0]
    assert one["attempts"][0]["units"]["input_tokens"] == one["call"]["input_tokens"]
    assert desk.do("/usage?tenant=three")["data"][0]["requests"] == 3
    assert desk.do("/usage?tenant=three&until=2020-01-01")["data"][0]["requests"] == 0
    for wrong in ("by=colour", "by=user,user", "since=soon", "user=tom&cursor=WyJhIl0&by=user,day"):
        assert desk.ask(f"/usage?{wrong}").status == 400

    printed = json.loads(command(gate, "usage", "--tenant", "three", "--user", "tom", "--json").stdout)
    assert (printed["user"], printed["requests"], printed["attempts"]) == ("tom", 3, 3)
    assert printed["cost_nanos"] == row["cost_nanos"]
    assert printed["by_provider"]["sandbox"]["requests"] == 3
    checked = command(gate, "ledger", "check", "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert desk.do("/ledger/check")["drift_nanos"] == json.loads(checked.stdout)["drift_nanos"] == 0


def test_the_examples_of_the_document_work(gate, desk):
    """Every example body can be sent as it stands, by the operator."""
    document = call(gate.url, "/llm-gate/openapi.json", headers=bearer(desk.key)).json
    names = {"name": "shown", "client_id": "shown", "user": "shown", "user_id": "shown"}
    sent = 0
    for path, operations in document["paths"].items():
        if "requestBody" not in operations.get("post", {}) or not (
            "/admin/" in path or "/subscribe/" in path
        ):
            continue
        ids = (
            {**names, "id": desk.do("/keys", {"client_id": "shown"})["entry"]["id"]}
            if "/keys/" in path
            else names
        )
        example = operations["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = call(gate.url, path.format(**{"id": "shown"} | ids), example, bearer(desk.key))
        assert answer.status == 200, (path, answer.body)
        sent += 1

    assert sent == 7


def test_an_administrator_of_a_tenant_stays_in_it(desk):
    """It grants no more than it has, changes neither plans nor tenants, and acts on its own tenant alone."""
    key = desk.key_for("four", client="desk", scopes=["admin", "inference", "usage:read"])

    assert desk.ask("/keys", {"client_id": "a", "tenant": "one"}, key=key).status == 403
    assert desk.ask("/keys", {"client_id": "a", "scopes": ["admin", "operator"]}, key=key).status == 403
    assert desk.ask("/keys", {"client_id": "a"}, key=key).json["entry"]["tenant"] == "four"
    assert desk.ask("/plans/four", {}, key=key).status == 403
    assert desk.ask("/tenants/four", {"limits": {"text_calls": 9}}, key=key).status == 403
    assert desk.ask("/ledger/check", key=key).status == 403
    assert {row["tenant"] for row in desk.ask("/keys", key=key).json["data"]} == {"four"}
    assert [row["id"] for row in desk.ask("/tenants", key=key).json["data"]] == ["four"]
    assert {row["tenant"] for row in desk.ask("/audit", key=key).json["data"]} == {"four"}
    for path in ("/keys", "/applications", "/subscriptions", "/usage", "/calls"):
        assert desk.ask(f"{path}?tenant=default&user=x".replace("&user=x", ""), key=key).status == 404


# Where ids stand in paths, which ids are meant, and what is sent. Every id-bearing route is here, or below.
PROBED = {
    ("GET", f"{ADMIN}/keys/{{id}}"): ("key", None),
    ("POST", f"{ADMIN}/keys/{{id}}/rotate"): ("key", {}),
    ("POST", f"{ADMIN}/keys/{{id}}/revoke"): ("key", None),
    ("GET", f"{ADMIN}/tenants/{{id}}"): ("tenant", None),
    ("POST", f"{ADMIN}/tenants/{{id}}"): ("tenant", {"label": "x"}),
    ("GET", f"{ADMIN}/applications/{{client_id}}"): ("application", None),
    ("GET", f"{ADMIN}/subscriptions/{{user}}"): ("user", None),
    ("POST", f"{ADMIN}/subscriptions/{{user}}"): ("user", {"auto_renew": False}),
    ("GET", f"{ADMIN}/calls/{{id}}"): ("call", None),
    ("GET", "/api/subscription/usage/{user_id}"): ("user", None),
    ("GET", "/api/subscription/usage/{user_id}/trends"): ("user", None),
    ("GET", "/api/subscription/dashboard/{user_id}"): ("user", None),
    ("GET", "/api/subscription/alerts/{user_id}"): ("user", None),
    ("POST", "/api/subscription/alerts/{alert_id}/mark-read"): ("alert", None),
    ("GET", "/api/subscription/user/{user_id}/subscription"): ("user", None),
    ("GET", "/api/subscription/status/{user_id}"): ("user", None),
    ("GET", "/api/subscription/renewal-history/{user_id}"): ("user", None),
    ("GET", "/api/subscription/renewal-history/{user_id}/retention-stats"): ("user", None),
    ("GET", "/llm-gate/v1/quotes/{id}"): ("quote", None),
    ("DELETE", "/llm-gate/v1/quotes/{id}"): ("quote", None),
    **{
        (method, f"/llm-gate/v1/jobs/{{id}}{rest}"): ("job", None)
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/content"))
    },
    ("GET", "/v1/videos/{id}"): ("job", None),
    ("DELETE", "/v1/videos/{id}"): ("job", None),
    ("GET", "/v1/videos/{id}/content"): ("job", None),
    ("GET", "/llm-gate/v1/blobs/{id}"): ("blob", None),
    ("GET", "/v1/files/{id}"): ("file", None),
    ("GET", "/v1/files/{id}/content"): ("file", None),
    ("DELETE", "/v1/files/{id}"): ("file", None),
    ("GET", "/v1/batches/{id}"): ("batch", None),
    ("POST", "/v1/batches/{id}/cancel"): ("batch", None),
    ("GET", "/v1/fine_tuning/jobs/{id}"): ("training", None),
    ("GET", "/v1/fine_tuning/jobs/{id}/events"): ("training", None),
    ("GET", "/v1/fine_tuning/jobs/{id}/checkpoints"): ("training", None),
    ("POST", "/v1/fine_tuning/jobs/{id}/cancel"): ("training", None),
    ("POST", "/v1/fine_tuning/jobs/{id}/pause"): ("training", None),
    ("POST", "/v1/fine_tuning/jobs/{id}/resume"): ("training", None),
}
# Plans and models belong to all. The two others write something of the caller's own under whatever name they are given.
SHARED = {
    ("GET", f"{ADMIN}/plans/{{name}}"),
    ("POST", f"{ADMIN}/plans/{{name}}"),
    ("GET", "/v1/models/{id}"),
    ("POST", "/v1/search/{name}"),
    ("POST", f"{ADMIN}/applications/{{client_id}}"),
    ("POST", "/api/subscription/subscribe/{user_id}"),
}


@pytest.fixture(scope="module")
def twins(gate, desk):
    """Fill two tenants with the same kinds of things; return their administrators' keys and the ids in each."""
    desk.do("/plans/tiny", {"limits": {"text_calls": 1}})
    found = {}
    for tenant in ("east", "west"):
        admin = desk.key_for(tenant, client="desk", scopes=["admin", "inference", "usage:read"])
        user, client = f"user-of-{tenant}", f"app-of-{tenant}"
        entry = desk.do("/keys", {"client_id": client, "tenant": tenant, "user": user})
        desk.do(f"/applications/{client}?tenant={tenant}", {"label": "mine"})
        desk.do(f"/subscriptions/{user}?tenant={tenant}", {"plan": "tiny"})
        api = bearer(entry["key"])
        desk.until(lambda api=api: _plan(gate, api) == "tiny")
        assert chat(gate, entry["key"]) == 200
        alerts = call(gate.url, f"/api/subscription/alerts/{user}", headers=api).json["data"]["alerts"]
        calls = desk.do(f"/calls?tenant={tenant}&user={user}")["data"]
        quote = call(
            gate.url,
            "/llm-gate/v1/quotes",
            {"operations": [TALK], "reserve": True},
            {**NATIVE_HEADERS, **admin_headers(admin, tenant)},
        )
        assert quote.status == 200, quote.body
        mine = {**NATIVE_HEADERS, **admin_headers(admin, tenant)}
        film = call(gate.url, "/llm-gate/v1/videos", {"prompt": {"message": "a"}}, mine).json
        films = f"/llm-gate/v1/jobs/{film['id']}"
        # Its record would show up in the middle of the probes.
        desk.until(lambda films=films, mine=mine: "endedAt" in call(gate.url, films, headers=mine).json)
        drawn = {"prompt": {"message": "a", "parameter": {"size": "64x64"}}}
        kept = call(gate.url, "/llm-gate/v1/images/generations", drawn, mine).json["data"][0]["url"]
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=admin) as official:
            file = official.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
            line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings"}
            line["body"] = {"model": "sandbox/embedding", "input": "a"}
            lines = official.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
            batch = official.batches.create(
                input_file_id=lines.id, endpoint="/v1/embeddings", completion_window="24h"
            )
            asked = {"hyperparameters": {"sandbox_takes_s": 3_600}}
            training = official.fine_tuning.jobs.create(
                model="sandbox/chat",
                training_file=file.id,
                method={"type": "supervised", "supervised": asked},
            )
            # Its records would show up in the middle of the probes.
            desk.until(lambda c=official, b=batch: c.batches.retrieve(b.id).status == "completed")
        found[tenant] = {
            "admin": admin,
            "user": [user],
            "application": [client],
            "tenant": [tenant],
            "key": [entry["entry"]["id"]],
            "call": [line["id"] for line in calls],
            "alert": [line["id"] for line in alerts],
            "quote": [quote.json["quoteId"]],
            "job": [film["id"]],
            "blob": [kept.partition("/blobs/")[2].partition("?")[0]],
            "file": [file.id],
            "batch": [batch.id],
            "training": [training.id],
        }
    return found


def admin_headers(key, tenant):
    """Return the headers of an administrator who asks about quotes."""
    return bearer(key, **{"client_id": "desk", "X-User-Id": f"desk-of-{tenant}"})


def _plan(gate, headers):
    user = call(gate.url, "/api/subscription/usage-logs?limit=1", headers=headers)
    assert user.status == 200
    for tenant in ("east", "west"):
        answer = call(gate.url, f"/api/subscription/status/user-of-{tenant}", headers=headers)
        if answer.status == 200:
            return answer.json["data"]["plan"]
    return None


def test_every_id_bearing_route_is_probed(gate, desk):
    """The published document lists no route with an id that the probes do not know."""
    document = call(gate.url, "/llm-gate/openapi.json", headers=bearer(desk.key)).json
    listed = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if "{" in path
    }

    assert listed == PROBED.keys() | SHARED


def told(answer, name):
    """Return an answer without the id that was asked for, and without what differs between any two answers."""
    body = answer.json
    if isinstance(body, dict):
        body.pop("request_id", None)
        (body.get("data") or {}).pop("last_updated", None) if isinstance(body.get("data"), dict) else None
        usage = (body.get("data") or {}).get("current_usage") if isinstance(body.get("data"), dict) else None
        if usage is not None:
            usage.pop("last_updated")
    return answer.status, json.dumps(body, sort_keys=True).replace(name, "NAME")


@proved
def test_tenants_never_meet(gate, twins):
    """Each route with another tenant's ids answers exactly as with ids that nobody has, whoever asks."""
    chance = random.Random(5)  # noqa: S311 - which probe comes when
    probes = list(itertools.product(("east", "west"), PROBED))
    chance.shuffle(probes)
    before = {tenant: snapshot(gate, twins, tenant) for tenant in twins}
    for number, (tenant, (method, path)) in zip(range(PROBES), itertools.cycle(probes), strict=False):
        kind, body = PROBED[method, path]
        other = twins["west" if tenant == "east" else "east"]
        foreign = chance.choice(other[kind])
        unknown = foreign[:-1] + ("x" if foreign[-1] != "x" else "y")
        headers = {**NATIVE_HEADERS, **admin_headers(twins[tenant]["admin"], tenant)}
        answers = [
            call(
                gate.url,
                path[: path.index("{")] + name + path[path.index("}") + 1 :],
                body,
                headers,
                method=method,
            )
            for name in (foreign, unknown)
        ]

        assert told(answers[0], foreign) == told(answers[1], unknown), (number, method, path)
        assert answers[0].status in {200, 403, 404}
        if kind != "user":
            assert answers[0].status in {403, 404}
    assert {tenant: snapshot(gate, twins, tenant) for tenant in twins} == before


def snapshot(gate, twins, tenant):
    """Return what a tenant's administrator sees, to find whether anybody changed it."""
    headers = bearer(twins[tenant]["admin"])
    paths = ("/keys", "/applications", "/subscriptions", "/tenants", "/usage?by=user,provider", "/audit")
    return [call(gate.url, f"{ADMIN}{path}", headers=headers).json for path in paths]
