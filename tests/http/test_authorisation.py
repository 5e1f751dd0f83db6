"""Who may do what, at the real gateway: every row of the route table with every kind of key, in every mode."""

import time
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from llm_gate.bootstrap import build
from llm_gate.configuration import Source
from llm_gate.http.server import make_application
from llm_gate.storage.schema import usage_record
from support.gateway import NATIVE_HEADERS, running_gateway
from support.issued import call_from, issuer_at, mistyped, places
from support.office import bearer
from support.pictures import form, in_base64, picture, recording
from support.web import call

OPERATORS = "operators-own-key-0123456789"
SCOPES = {"inference", "usage:read", "metrics:read", "admin"}
MODES = {
    "open": {},
    "keys": {},
    "elsewhere": {
        "environment": {"LLM_GATE_API_KEY": OPERATORS},
        "arguments": ("--host", "0.0.0.0"),
    },
}
NOBODY = ("none", "garbage", "mistyped", "revoked", "expired", "retired")
# A medium is open to whoever has its signed link.
OPEN_PATHS = {"/healthz", "/readyz", "/llm-gate/health", "/llm-gate/v1/blobs/{id}"}
place = places()


@pytest.fixture(scope="session")
def routes(tmp_path_factory):
    """Return the rows of the real application."""
    source = Source(overrides={"data_dir": str(tmp_path_factory.mktemp("routes"))})
    settings = source.read()
    gateway = build(settings)
    try:
        return make_application(settings, gateway, source).router.routes
    finally:
        gateway.stores.opened.close()


def credentials(issuer):
    """Return a key of every kind; "the scope …" and "all but …" by the scope a row may ask for."""
    everything = ("inference", "usage:read", "metrics:read", "admin", "operator")
    whole = issuer.issue(*everything)
    revoked = issuer.issue(*everything)
    issuer.revoke(revoked)
    found = {
        "none": None,
        "garbage": "sk-garbage-0123456789",
        "mistyped": mistyped(whole.text.reveal()),
        "revoked": revoked.text.reveal(),
        "expired": issuer.expired(*everything),
        "retired": issuer.rotated(*everything, overlap_s=0)[0],
        "operator's": OPERATORS,
        "administrator's": whole.text.reveal(),
    }
    for scope in SCOPES:
        found[f"the scope {scope}"] = issuer.key(scope)
        found[f"all but {scope}"] = issuer.key(*SCOPES - {scope})
    return found


def expected(route, kind, mode):
    """Return what the door says: 200 for "come in", whatever the endpoint then answers."""
    if route.policy == "open":
        return 200
    if mode == "open":
        return 401 if route.scope == "admin" else 200
    if kind in NOBODY:
        return 401
    if kind == "operator's":
        if mode == "keys":
            return 401
        return 403 if route.scope == "admin" else 200
    if kind.startswith("the scope "):
        return 200 if route.scope in {None, kind.removeprefix("the scope ")} else 403
    if kind.startswith("all but "):
        return 403 if route.scope == kind.removeprefix("all but ") else 200
    return 200


def found_at(answer):
    """Return what the door said, from an answer."""
    if answer.status == 401:
        return 401
    return 403 if answer.status == 403 and b"lacks the scope" in answer.body else 200


def has_form_of(route, answer):
    """Tell whether a refusal is written as its surface writes errors."""
    body = answer.json
    code = "invalid_api_key" if answer.status == 401 else "scope_missing"
    match type(route.surface).__name__:
        case "OpenAISurface":
            return body["error"]["code"] == code
        case "AnthropicSurface":
            kinds = {401: "authentication_error", 403: "permission_error"}
            return (body["type"], body["error"]["type"]) == ("error", kinds[answer.status])
        case "NativeSurface":
            (detail,) = body["errorDetails"]
            return (detail["statusCode"], detail["details"]) == (f"ERROR_{answer.status}", code)
        case "SubscriptionSurface":
            return body["code"] == code and "error" in body
        case _:
            return (answer.headers["content-type"], body["status"], body["code"]) == (
                "application/problem+json",
                answer.status,
                code,
            )


def knock(url, route, key, *, header, origin):
    """Ask for a row with an empty body, which no endpoint that wants one takes for an order."""
    path = route.path.partition("{")[0] + "nobodys" + route.path.partition("}")[2]
    headers = {"X-User-Id": "nobodys"}
    if route.header is not None:
        headers[route.header] = "2023-06-01"
    if route.reads_json:
        headers["content-type"] = "application/json"
    if key is not None:
        headers |= {"x-api-key": key} if header == "x-api-key" else bearer(key)
    body = b"{" if route.reads_json else None
    return call_from(origin, url, route.method, path if "{" in route.path else route.path, headers, body)


def has_keys(url):
    """Tell whether a gateway has noticed that keys are needed."""
    return call_from(place(), url, "GET", "/v1/models", {}).status == 401


def until(holds, patience_s=10.0):
    """Wait until something holds."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


@contextmanager
def locked_gateway(**options):
    """Run a gateway whose callers need keys, and yield it with whoever makes them."""
    with running_gateway(**options) as gateway, issuer_at(gateway.folder / "data") as issuer:
        issuer.key("inference")
        until(lambda: has_keys(gateway.url))
        yield gateway, issuer


@pytest.fixture(scope="module")
def locked():
    """Run one for the tests that only look."""
    with locked_gateway() as found:
        yield found


def test_the_table_declares_every_door(routes):
    """What is open is health alone; what reaches providers needs inference; what administers needs admin."""
    assert {route.path for route in routes if route.policy == "open"} == OPEN_PATHS
    for route in routes:
        if route.operation is not None:
            assert route.scope == "inference", route.path
        if "/admin/" in route.path or "/subscribe/" in route.path:
            assert route.scope == "admin", route.path
    assert {route.scope for route in routes} == {None, *SCOPES}


@pytest.mark.parametrize("mode", MODES)
def test_every_row_asks_for_what_it_declares(routes, mode):
    """Every row, with every kind of key, in either header."""
    wrong = []
    with running_gateway(**MODES[mode]) as gateway:
        if mode == "open":
            with issuer_at(gateway.folder / "other") as issuer:
                keys = credentials(issuer)
            _knock_everywhere(gateway.url, routes, keys, mode, wrong)
        else:
            with issuer_at(gateway.folder / "data") as issuer:
                keys = credentials(issuer)
                until(
                    lambda: (
                        call(gateway.url, "/v1/models", headers=bearer(keys["administrator's"])).status == 200
                    )
                )
                until(lambda: has_keys(gateway.url))
                _knock_everywhere(gateway.url, routes, keys, mode, wrong)
        log = "".join(gateway.log)
    assert wrong == []
    shown = [kind for kind, key in keys.items() if key is not None and key in log]
    assert shown == []


def _knock_everywhere(url, routes, keys, mode, wrong):
    for route in routes:
        for kind, key in keys.items():
            for header in ("authorization", "x-api-key"):
                # From a new place each time, since places whose keys are not accepted are soon shut out.
                answer = knock(url, route, key, header=header, origin=place())
                wanted, found = expected(route, kind, mode), found_at(answer)
                good = found == wanted and answer.status not in {429, 500}
                if good and wanted != 200:
                    good = has_form_of(route, answer)
                if good and wanted == 401:
                    good = answer.headers.get("www-authenticate") == "Bearer"
                if not good:
                    wrong.append(
                        (route.method, route.path, kind, header, wanted, answer.status, answer.body[:200])
                    )


# --- On whose behalf

HELLO = [{"role": "user", "content": "Hi"}]
PICTURE = in_base64(picture())
QUOTED = {"operation": "chat", "provider": {"name": "sandbox"}, "inputTokens": 2, "maxTokens": 2}
ASKED = {"provider": "sandbox", "operation_type": "text_generation", "tokens_requested": 5}
BODIES = {
    "/llm-gate/v1/chat": {"prompt": {"messages": HELLO}},
    "/llm-gate/v1/chat/stream": {"prompt": {"messages": HELLO}},
    "/llm-gate/v1/embeddings": {"content": {"texts": ["a"]}},
    "/llm-gate/v1/quotes": {"operations": [QUOTED]},
    "/llm-gate/v1/research": {"question": "a", "search": {"maxResults": 1}},
    "/llm-gate/v1/routes/explain": {"model": "default"},
    "/v1/chat/completions": {"model": "sandbox/echo", "messages": HELLO},
    "/v1/embeddings": {"model": "sandbox/embedding", "input": "a"},
    "/v1/responses": {"model": "sandbox/echo", "input": "Hi"},
    "/v1/completions": {"model": "sandbox/echo", "prompt": "Hi"},
    "/v1/messages": {"model": "sandbox/echo", "max_tokens": 9, "messages": HELLO},
    "/v1/messages/count_tokens": {"model": "sandbox/echo", "messages": HELLO},
    "/llm-gate/v1/chat/count-tokens": {"prompt": {"messages": HELLO}},
    "/api/subscription/preflight-check": {"operations": [ASKED]},
    "/llm-gate/v1/images/generations": {"prompt": {"message": "a", "parameter": {"size": "64x64"}}},
    "/llm-gate/v1/images/edits": {"images": [PICTURE], "prompt": {"message": "a"}},
    "/llm-gate/v1/images/face-swaps": {"baseImage": PICTURE, "faceImage": PICTURE},
    "/llm-gate/v1/audio/speech": {"prompt": {"message": "a"}},
    "/llm-gate/v1/audio/transcriptions": {"audio": in_base64(recording())},
    "/llm-gate/v1/videos": {"prompt": {"message": "a"}},
    "/v1/images/generations": {"model": "sandbox/image", "prompt": "a", "size": "64x64"},
    "/v1/audio/speech": {"model": "sandbox/speech", "input": "a"},
    "/llm-gate/v1/search": {"query": "a"},
    "/v1/search": {"query": "a"},
    "/v1/search/{name}": {"query": "a"},
    "/v1/fine_tuning/jobs": {"model": "sandbox/chat", "training_file": "file-none"},
    "/v1/batches": {
        "input_file_id": "file-none",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    },
    "/llm-gate/v1/fine-tuning/jobs": {"trainingFile": "file-none"},
}
FORMS = {
    "/v1/files": {"purpose": "batch", "file": ("a.jsonl", "application/jsonl", b"{}")},
    "/v1/images/edits": {
        "model": "sandbox/image-edit", "prompt": "a", "image": ("a.png", "image/png", picture()),
    },
    "/v1/audio/transcriptions": {
        "model": "sandbox/transcription", "file": ("a.wav", "audio/wav", recording()),
    },
    "/v1/videos": {"model": "sandbox/video", "prompt": "a"},
}  # fmt: skip
"""What the surfaces with a body are asked."""

NAMING = {"/v1/batches", "/v1/fine_tuning/jobs", "/llm-gate/v1/fine-tuning/jobs", "/v1/search/{name}"}
"""Rows whose body names a file, or whose path a model, which is not there."""

FOR_NOBODY = {
    "/llm-gate/v1/providers",
    "/llm-gate/v1/status",
    "/llm/status",
    "/metrics",
    "/v1/models",
    "/v1/models/{id}",
    "/api/subscription/plans",
    "/api/subscription/pricing",
    "/api/subscription/alerts/{alert_id}/mark-read",
    "/llm-gate/docs",
    "/llm-gate/openapi.json",
    "/llm-gate/docs/assets/{name}",
}
"""Rows that act for no application and no user, and so read neither header; all of administration besides."""


def acting(routes):
    """Return the rows that act on somebody's behalf."""
    return [
        route
        for route in routes
        if route.policy != "open" and route.scope != "admin" and route.path not in FOR_NOBODY
    ]


def ask_as(url, route, key, **names):
    """Ask a row for something that it does."""
    path = (
        route.path
        if "{" not in route.path
        else route.path.partition("{")[0] + "ann" + route.path.partition("}")[2]
    )
    headers = {**bearer(key), **NATIVE_HEADERS, **names}
    body = BODIES[route.path] if route.reads_json else None
    if route.reads_form:
        body, headers["content-type"] = form(FORMS[route.path])
    return call(url, path, body, headers, method=route.method)


def test_a_key_acts_for_its_own_application_and_user_alone(routes, locked):
    """Another client_id is 403 in every form, and so is another X-User-Id where the key is bound; its own pass."""
    gateway, issuer = locked
    free = issuer.key("inference", "usage:read", application="a")
    bound = issuer.key("inference", "usage:read", application="a", user="ann")
    rows = acting(routes)
    assert {route.path for route in rows if route.reads_json} == set(BODIES)
    until(lambda: call(gateway.url, "/v1/models", headers=bearer(bound)).status == 200)
    for route in rows:
        for key, names, code in (
            (free, {"client_id": "b"}, b"belongs to another application"),
            (bound, {"client_id": "a", "X-User-Id": "bob"}, b"belongs to another user"),
        ):
            refused = ask_as(gateway.url, route, key, **names)
            assert (refused.status, code in refused.body) == (403, True), (route.path, refused.body)
            assert refused.headers["content-type"] == route.surface.content_type
        for key in (free, bound):
            passed = ask_as(gateway.url, route, key, client_id="a", **{"X-User-Id": "ann"})
            assert passed.status in {200, 202, 404}, (route.path, passed.body)
            assert passed.status in {200, 202} or "/{id}" in route.path or route.path in NAMING


def test_a_body_names_the_user_where_nothing_better_does(locked):
    """The key's own user goes first, the header second, the body's third, the application last."""
    gateway, issuer = locked
    free, bound = (
        issuer.key("inference", application="a"),
        issuer.key("inference", application="a", user="ann"),
    )
    until(lambda: call(gateway.url, "/v1/models", headers=bearer(bound)).status == 200)
    said = {
        "/v1/chat/completions": {"user": "body"},
        "/v1/embeddings": {"user": "body"},
        "/v1/responses": {"user": "body"},
        "/v1/completions": {"user": "body"},
        "/v1/search": {"user": "body"},
        "/v1/messages": {"metadata": {"user_id": "body"}},
    }
    wanted = []
    for path, naming in said.items():
        for key, header, body, user in (
            (bound, None, naming, "ann"),
            (bound, "ann", naming, "ann"),
            (free, "head", naming, "head"),
            (free, None, naming, "body"),
            (free, None, {}, "a"),
        ):
            name = f"req-{len(wanted)}"
            headers = bearer(key, **{"X-Request-Id": name}) | ({"X-User-Id": header} if header else {})
            answer = call(gateway.url, path, {**BODIES[path], **body}, headers)
            assert answer.status == 200, answer.body
            wanted.append((name, "a", user))
    query = select(usage_record.c.request_id, usage_record.c.application, usage_record.c.user_id)
    query = query.where(usage_record.c.request_id.startswith("req-"))
    rows = issuer.store.database.ask(lambda connection: connection.execute(query).all())

    assert sorted(tuple(row) for row in rows if row.request_id in {name for name, *_ in wanted}) == sorted(
        wanted
    )


# --- From where, and how often


def test_places_whose_keys_fail_are_shut_out(locked):
    """The 21st wrong key of a minute is 429; good keys pass all the while, also new ones, and after any change."""
    gateway, issuer = locked
    known = issuer.key("inference")
    bad, good = place(), place()

    def status(key, origin=bad):
        return call_from(origin, gateway.url, "GET", "/v1/models", bearer(key)).status

    until(lambda: status(known, origin=place()) == 200)
    wrong = [mistyped(known), "sk-garbage", known[:-1], known.swapcase()]
    assert [status(wrong[number % 4]) for number in range(20)] == [401] * 20
    refused = call_from(bad, gateway.url, "POST", "/v1/chat/completions", bearer("sk-garbage"))
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json["error"]["code"] == "too_many_failed_authentications"
    assert [status(known), status("sk-garbage", good), status(known, good)] == [200, 401, 200]
    assert call_from(bad, gateway.url, "GET", "/healthz", {}).status == 200

    # Whatever the operator changes makes the gateway forget the keys it had looked up.
    for _ in range(3):
        new = issuer.key("inference")
        time.sleep(0.6)
        assert [status(key) for key in (known, new, "sk-garbage", mistyped(new))] == [200, 200, 429, 429]


def test_nobody_is_shut_out_for_having_no_key(locked):
    """Only keys are counted, not their absence: probes and people who forgot go on being told what is missing."""
    gateway, _ = locked
    origin = place()
    found = {call_from(origin, gateway.url, "GET", "/v1/models", {}).status for _ in range(30)}

    assert found == {401}
