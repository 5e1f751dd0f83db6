"""What a stranger, a web page or a broken client can send: a clear 4xx in the surface's own form, never more."""

import json
import socket
import subprocess
from urllib.parse import urlsplit

import pytest

from support.gateway import COMMAND, NATIVE_HEADERS, clean_environment, running_gateway
from support.upstream import Answer
from support.web import call

CHAT = "/v1/chat/completions"
NATIVE_CHAT = "/llm-gate/v1/chat"
ASK = {"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hello"}]}
DEEP = b"[" * 5_000 + b"]" * 5_000

MALFORMED = {
    "nothing": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "a 5,000-deep array": DEEP,
    "a 5,000-deep array inside": b'{"model":"m","messages":' + DEEP + b"}",
    "a deep object": b'{"model":"m","messages":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
    "messages is a text": b'{"model":"sandbox/chat","messages":"x"}',
    "no messages": b'{"model":"sandbox/chat","messages":[]}',
    "an unknown role": b'{"model":"sandbox/chat","messages":[{"role":"king","content":"x"}]}',
    "duplicate keys": b'{"model":"sandbox/chat","model":"b","messages":[{"role":"user","content":"x"}]}',
    "a lone surrogate": b'{"model":"sandbox/chat","messages":[{"role":"user","content":"\\ud800"}]}',
    "invalid UTF-8": b'{"model":"sandbox/chat","messages":[{"role":"user","content":"\xff"}]}',
    "NaN": b'{"model":"sandbox/chat","temperature":NaN,"messages":[{"role":"user","content":"x"}]}',
    "a huge number": b'{"model":"sandbox/chat","n":1'
    + b"0" * 400
    + b',"messages":[{"role":"user","content":"x"}]}',
    "temperature as text": b'{"model":"sandbox/chat","temperature":"1","messages":[{"role":"user","content":"x"}]}',
    "content is a number": b'{"model":"sandbox/chat","messages":[{"role":"user","content":7}]}',
    "trailing garbage": b'{"model":"sandbox/chat","messages":[{"role":"user","content":"x"}]} x',
    "a null byte": b"\x00",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_on_the_openai_surface(gateway, name):
    """A malformed body is a 400 in OpenAI's form."""
    answer = call(gateway.url, CHAT, MALFORMED[name], {"Content-Type": "application/json"})

    assert answer.status == 400
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/stream", "/v1/embeddings"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_on_the_native_surface(gateway, name, path):
    """A malformed body is a 400 with errorDetails."""
    headers = {"Content-Type": "application/json", **NATIVE_HEADERS}
    answer = call(gateway.url, f"/llm-gate{path}", MALFORMED[name], headers)

    assert answer.status == 400
    assert answer.json["errorDetails"]
    assert all(fault["statusCode"] == "ERROR_001" for fault in answer.json["errorDetails"])


def test_malformed_requests_reach_no_provider(fronted, upstream):
    """Nothing of a malformed request is forwarded."""
    upstream.will(Answer.json({}))
    for body in MALFORMED.values():
        sent = body.replace(b"sandbox/chat", b"openai/gpt-4o-mini")
        assert call(fronted.url, CHAT, sent, {"Content-Type": "application/json"}).status == 400

    assert upstream.seen == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_only_json_is_read(gateway, content_type):
    """A body that does not say it is JSON is a 415, so that no web form can be read as a call."""
    answer = call(gateway.url, CHAT, json.dumps(ASK).encode(), {"Content-Type": content_type})

    assert answer.status == 415
    assert answer.json["error"]["code"] == "unsupported_media_type"


def test_a_foreign_host_name_is_refused(gateway):
    """A name of somebody else's that leads here gets no answer, so that no web page can reach in by DNS."""
    answer = call(gateway.url, CHAT, ASK, {"Host": "evil.example"})

    assert answer.status == 400
    assert answer.json["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_foreign_web_page_is_refused(gateway, headers):
    """A web page of another origin cannot drive a local gateway."""
    answer = call(gateway.url, CHAT, ASK, headers)

    assert answer.status == 403
    assert answer.json["error"]["code"] == "not_allowed"


def test_the_gateways_own_page_may_call(gateway):
    """A page of the gateway's own origin is let through."""
    assert call(gateway.url, CHAT, ASK, {"Origin": gateway.url}).status == 200


def test_unknown_paths_and_methods(gateway):
    """An unknown path is 404 and a wrong method 405 with Allow, each in its surface's form."""
    assert call(gateway.url, "/v1/nothing").json["error"]["code"] == "not_found"
    assert call(gateway.url, "/llm-gate/v1/nothing").json["errorDetails"][0]["statusCode"] == "ERROR_004"
    wrong = call(gateway.url, CHAT)
    assert wrong.status == 405
    assert wrong.headers["allow"] == "POST"


def test_a_body_over_the_limit_is_refused_before_it_is_read(gateway):
    """A declared length over the limit is a 413 at once."""
    parts = urlsplit(gateway.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 33554433\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert b" 413 " in answer
    assert b"request_too_large" in answer


def test_a_chunked_body_over_the_limit_is_refused():
    """A body without a declared length is cut off at the limit."""
    with running_gateway(toml="[server]\nmax_body_bytes = 1000\n") as small:
        parts = urlsplit(small.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(3):
                connection.sendall(b"1f4\r\n" + b" " * 500 + b"\r\n")
            head = connection.recv(4096)

        assert b" 413 " in head


def test_a_loop_is_noticed():
    """A gateway whose provider is itself answers 508 instead of calling itself for ever."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"OPENAI_API_KEY": "k", "LLM_GATE_OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    with running_gateway(environment, arguments=("--port", str(port))) as looped:
        answer = call(looped.url, CHAT, {**ASK, "model": "openai/gpt-4o-mini"})

    assert answer.status == 508
    assert answer.json["error"]["code"] == "loop_detected"


def test_a_request_that_came_through_us_is_508(gateway, fronted, upstream):
    """A request that carries this gateway's own mark is refused with 508."""
    upstream.will(Answer.json({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}))
    call(fronted.url, CHAT, {**ASK, "model": "openai/gpt-4o-mini"})
    mark = upstream.only.headers["x-llm-gate-hop"]
    answer = call(fronted.url, CHAT, ASK, {"x-llm-gate-hop": mark})

    assert answer.status == 508
    assert call(gateway.url, CHAT, ASK, {"x-llm-gate-hop": mark}).status == 200


def test_other_addresses_need_a_key():
    """Listening beyond this machine without a key exits with 2 and names the remedy."""
    done = subprocess.run(
        [COMMAND, "serve", "--host", "0.0.0.0", "--port", "0", "--no-env-file"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 2
    assert "LLM_GATE_API_KEY" in done.stderr


def test_with_a_key_only_its_bearer_is_served():
    """Where a key is set, every route but health asks for it, as a bearer or as x-api-key."""
    environment = {"LLM_GATE_API_KEY": "lg-very-secret-key"}
    with running_gateway(environment, arguments=("--host", "0.0.0.0")) as locked:
        url = locked.url
        good = {"Authorization": "Bearer lg-very-secret-key"}

        assert call(url, "/healthz").status == 200
        assert call(url, "/llm-gate/health").status == 200
        for path in ("/v1/models", "/llm-gate/docs", "/llm-gate/openapi.json"):
            assert call(url, path).status == 401
            assert call(url, path, headers={"Authorization": "Bearer wrong"}).status == 401
            assert call(url, path, headers=good).status == 200
            assert call(url, path, headers={"x-api-key": "lg-very-secret-key"}).status == 200
        refused = call(url, CHAT, ASK)
        assert refused.json["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
        native = call(url, NATIVE_CHAT, {}, NATIVE_HEADERS)
        assert native.json["errorDetails"][0]["statusCode"] == "ERROR_401"
        assert "lg-very-secret-key" not in "".join(locked.log)


def test_a_request_leaves_one_line_in_the_log_without_its_prompt(gateway):
    """The log says who, what and how long; never what was said."""
    headers = {**NATIVE_HEADERS, "X-Request-Id": "req-log-test"}
    body = {"prompt": {"messages": [{"role": "user", "content": "my very private words"}]}}
    call(gateway.url, NATIVE_CHAT, body, headers)
    line = json.loads(gateway.logged("req-log-test"))

    expected = {
        "request_id": "req-log-test",
        "correlation_id": NATIVE_HEADERS["X-Correlation-Id"],
        "user": "someone",
        "client": "tests",
        "provider": "sandbox",
        "model": "chat",
        "status": 200,
        "cost_usd": "0",
        "attempts": 1,
    }
    assert expected == {name: line[name] for name in expected}
    assert {"input_tokens", "output_tokens", "total_ms", "upstream_ms"} <= set(line)
    assert "private" not in "".join(gateway.log)


def test_header_injection_is_impossible(gateway):
    """Ids of callers are echoed only when they are plain text."""
    answer = call(gateway.url, "/healthz", headers={"X-Request-Id": "ä" * 10, "X-Correlation-Id": "x" * 500})

    assert answer.headers["x-request-id"].startswith("req_")
    assert "x-correlation-id" not in answer.headers


def test_a_web_socket_is_refused(gateway):
    """An upgrade request is turned away without harm."""
    answer = call(
        gateway.url,
        "/v1/realtime",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )

    assert 400 <= answer.status < 500
