"""Web pages of origins that the operator lists may call and read; all others stay out."""

import socket
from urllib.parse import urlsplit

import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.web import call

CHAT = "/v1/chat/completions"
ASK = {"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hello"}]}
APP = "https://app.example.com"
EVIL = "https://evil.example"
ALLOWED = (
    "authorization, content-type, x-api-key, x-client-id, client_id, idempotency-key, x-correlation-id, x-request-id, "
    "x-user-id, cache-control, x-llm-gate-batch, x-llm-gate-cache-threshold, x-llm-gate-count, x-llm-gate-fallbacks, "
    "x-llm-gate-quote, x-llm-gate-repair, x-llm-gate-sticky, x-llm-gate-timeout-ms, "
    "x-llm-gate-sandbox"
)


@pytest.fixture(scope="module")
def shared():
    """Run a gateway that lists one origin, as a person might write it."""
    with running_gateway(toml='[server]\nallowed_origins = ["https://App.example.com/"]\n') as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    """Run a gateway that lists every origin and asks for a key."""
    environment = {"LLM_GATE_API_KEY": "lg-very-secret-key"}
    with running_gateway(environment, toml='[server]\nallowed_origins = ["*"]\n') as running:
        yield running


def preflight(url, path, origin=APP, method="POST", headers=None):
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    return call(url, path, headers=asked, method="OPTIONS")


def cors_headers(answer):
    return {
        name: value
        for name, value in answer.headers.items()
        if name == "vary" or name.startswith("access-control-")
    }


def test_a_preflight_of_a_listed_origin_is_answered(shared):
    """A listed page learns which methods and headers it may use on a path, with nothing in the body."""
    answer = preflight(shared.url, CHAT, headers="Authorization, X-Stainless-Lang,x-evil , x-stainless-os")

    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == f"{ALLOWED}, x-stainless-lang, x-stainless-os"
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"] == "origin"
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/models", "GET"), ("/v1/models/sandbox/chat", "GET"), ("/llm-gate/v1/chat", "POST")],
)
def test_a_preflight_names_the_methods_of_its_path(shared, path, methods):
    """The methods are those of the path's own routes."""
    assert preflight(shared.url, path).headers["access-control-allow-methods"] == methods


def test_a_preflight_to_nowhere_is_404(shared):
    """A preflight for a path that does not exist is told so."""
    assert preflight(shared.url, "/v1/nothing").status == 404


def test_a_connection_serves_on_after_a_preflight(shared):
    """The request follows its preflight on the same connection."""
    parts = urlsplit(shared.url)
    asked = (
        f"OPTIONS {CHAT} HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {APP}\r\n"
        "Access-Control-Request-Method: POST\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(asked.encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = connection.recv(4096)
                assert piece
                head += piece
            assert head.startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("stream", [False, True])
def test_answers_can_be_read_by_a_listed_page(shared, stream):
    """Whole and streamed answers carry the origin, and every header of the gateway's own is exposed."""
    answer = call(shared.url, CHAT, {**ASK, "stream": stream}, {"Origin": APP})

    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["vary"] == "origin"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    own = {name for name in answer.headers if name.startswith("x-llm-gate-")}
    assert own >= {"x-llm-gate-provider", "x-llm-gate-model", "x-llm-gate-attempts"}
    assert {*own, "x-request-id", "retry-after", "x-llm-gate-cost-usd", "x-llm-gate-dropped"} <= {*exposed}


def test_errors_can_be_read_by_a_listed_page(shared):
    """A page sees why its call failed, also where no route is found."""
    wrong = call(shared.url, CHAT, {**ASK, "messages": "x"}, {"Origin": APP})
    nowhere = call(shared.url, "/v1/nothing", headers={"Origin": APP})
    native = call(shared.url, "/llm-gate/v1/chat", {}, {**NATIVE_HEADERS, "Origin": APP})

    assert [answer.status for answer in (wrong, nowhere, native)] == [400, 404, 400]
    for answer in (wrong, nowhere, native):
        assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "", "http://[", "https://app.example.com.evil.example", "http://app.example.com"]
)
def test_other_origins_stay_out(shared, origin):
    """What is not listed gets 403 and no word that a browser would take for a permission."""
    for answer in (preflight(shared.url, CHAT, origin), call(shared.url, CHAT, ASK, {"Origin": origin})):
        assert answer.status == 403
        assert answer.json["error"]["code"] == "not_allowed"
        assert cors_headers(answer) == {}


def test_without_a_list_no_origin_is_let_in(gateway):
    """By default there is no CORS: a preflight is refused, and the gateway's own page needs none."""
    assert preflight(gateway.url, CHAT).status == 403
    own = call(gateway.url, CHAT, ASK, {"Origin": gateway.url})
    assert (own.status, cors_headers(own)) == (200, {})


def test_requests_that_no_page_sent_are_as_before(shared):
    """Without an Origin nothing is said of origins, and OPTIONS is no method of any path."""
    answer = call(shared.url, CHAT, ASK)
    plain = call(shared.url, CHAT, method="OPTIONS")

    assert (answer.status, cors_headers(answer)) == (200, {})
    assert (plain.status, plain.headers["allow"], cors_headers(plain)) == (405, "POST", {})


def test_a_foreign_host_name_gets_no_preflight(shared):
    """The Host header is checked before a preflight is answered."""
    asked = {"Host": "evil.example", "Origin": APP, "Access-Control-Request-Method": "POST"}

    assert call(shared.url, CHAT, headers=asked, method="OPTIONS").status == 400


def test_any_origin_may_call_where_the_operator_says_so(locked):
    """With "*" the asking origin is named back; the key is asked for all the same, but not by the preflight."""
    asked = preflight(locked.url, CHAT, EVIL)
    refused = call(locked.url, CHAT, ASK, {"Origin": EVIL})
    served = call(locked.url, CHAT, ASK, {"Origin": EVIL, "Authorization": "Bearer lg-very-secret-key"})

    assert [answer.status for answer in (asked, refused, served)] == [204, 401, 200]
    for answer in (asked, refused, served):
        assert answer.headers["access-control-allow-origin"] == EVIL
        assert answer.headers["vary"] == "origin"
