"""Vendors that quote the gateway's own credential, whole or masked: nothing of it comes out. Needs no recordings."""

import json
import re

import pytest

from support.gateway import running_gateway
from support.replay import (
    CHAT,
    EMBEDDINGS,
    NATIVE_CHAT,
    NATIVE_STREAM,
    VENDORS,
    Caller,
    assert_arrived,
    assert_no_credential,
    environment,
    native_chat,
    plain_chat,
)
from support.upstream import Answer, fake_upstream

MODEL = "some-model"

# How vendors are known, or may be feared, to quote a key. Each shows at most 13 first and 6 last characters.
QUOTES = {
    "whole": lambda key: key,
    "stars": lambda key: f"{key[:8]}{'*' * 20}{key[-4:]}",
    "few stars": lambda key: f"{key[:4]}**{key[-4:]}",
    "last four": lambda key: f"****{key[-4:]}",
    "last six": lambda key: f"***{key[-6:]}",
    "dots": lambda key: f"{key[:12]}...{key[-6:]}",
    "ellipsis": lambda key: f"{key[:13]}…{key[-6:]}",
    "bullets": lambda key: f"{key[:6]}••••••{key[-6:]}",
    "crosses": lambda key: f"{key[:6]}XXXXXXXX{key[-6:]}",
    "first part": lambda key: f"{key[:13]}",
    "first half": lambda key: key[: len(key) // 2 + 2],
    "in quotes": lambda key: f"'{key}'",
    "as a header": lambda key: f"Authorization: Bearer {key}",
    "in a query": lambda key: f"https://vendor.test/v1?key={key}&alt=sse",
    "in brackets": lambda key: f"<{key[:9]}****{key[-6:]}>",
}
STATUSES = (400, 401, 403, 404, 422, 429, 500, 503)


def assert_hidden(text, key):
    """Check that neither the key nor a first or last part of it is in a text."""
    assert_no_credential(text)
    # A random id may hold any four digits.
    text = re.sub(r"(?:req|chatcmpl-req|resp|msg)_[0-9a-f]{32}", "", text)
    for piece in (key, key[:10], key[-4:]):
        assert piece not in text, text[:500]


def errors(provider, said):
    """Return the bodies in which a vendor of this format can say something."""
    if provider == "gemini":
        return [{"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}]
    if provider == "anthropic":
        return [{"type": "error", "error": {"type": "invalid_request_error", "message": said}}]
    return [
        {"error": {"message": said, "type": "invalid_request_error", "param": said, "code": said}},
        {"error": said},
        {"detail": [{"loc": ["header", said], "msg": said}]},
    ]


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize("quote", QUOTES)
def test_errors_that_quote_the_key(provider, quote, upstream, caller, gateway):
    """No error of any status, on any surface, shows what a vendor quoted of the key; nor does the log."""
    key = VENDORS[provider].key
    said = f"Incorrect key provided: {QUOTES[quote](key)}. Look it up."
    logged = len(gateway.log)
    for number, status in enumerate(STATUSES):
        choices = [*(json.dumps(body).encode() for body in errors(provider, said)), said.encode()]
        upstream.will(Answer(status=status, body=choices[number % len(choices)]))
        path = (CHAT, NATIVE_CHAT, NATIVE_STREAM)[number % 3]
        named = native_chat(provider, MODEL)
        got = caller.post(path, plain_chat(provider, MODEL) if path == CHAT else named)
        assert got.status >= 400
        assert_hidden(f"{got.headers} {got.body.decode()}", key)
    assert_hidden("".join(gateway.log[logged:]), key)


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize("quote", QUOTES)
def test_successes_that_are_errors(provider, quote, upstream, caller):
    """Neither an error in a 200 answer nor one in a stream shows what was quoted."""
    key = VENDORS[provider].key
    said = f"Incorrect key provided: {QUOTES[quote](key)}"
    for body in errors(provider, said):
        upstream.will(Answer.json(body))
        got = caller.post(CHAT, plain_chat(provider, MODEL))
        assert got.status >= 400
        assert_hidden(got.body.decode(), key)
        upstream.will(Answer.events(b"data: " + json.dumps(body).encode() + b"\n\n"))
        for path, request in {
            CHAT: plain_chat(provider, MODEL, stream=True),
            NATIVE_STREAM: native_chat(provider, MODEL),
        }.items():
            got = caller.post(path, request)
            assert got.status >= 400
            assert_hidden(got.body.decode(), key)


@pytest.mark.parametrize("provider", VENDORS)
def test_headers_of_a_vendor_stay_inside(provider, upstream, caller):
    """Nothing that a vendor writes into its headers reaches the caller."""
    key = VENDORS[provider].key
    upstream.will(
        Answer.json({"error": {"message": "no"}}, 401, set_cookie=f"k={key}", x_key=key, location=key)
    )
    got = caller.post(CHAT, plain_chat(provider, MODEL))
    assert got.status == 502
    assert "set-cookie" not in got.headers
    assert_hidden(str(got.headers), key)


@pytest.mark.parametrize("provider", VENDORS)
def test_only_the_vendors_own_credential_travels(provider, upstream, caller):
    """The caller's keys, cookies and names stay here; the vendor's key travels in its header and nowhere else."""
    upstream.will(Answer.json({"error": {"message": "no"}}, 500))
    own = {
        "x-api-key": "caller-key",
        "api-key": "caller-key",
        "x-goog-api-key": "caller-key",
        "cookie": "session=caller",
        "openai-organization": "caller-organisation",
        "X-User-Id": "caller-user",
        "client_id": "caller-client",
        "x-forwarded-for": "192.0.2.7",
    }
    caller.post(CHAT, plain_chat(provider, MODEL), own)
    seen = upstream.only
    path = {
        "anthropic": "/v1/messages",
        "gemini": f"/models/{MODEL}:generateContent",
        "azure_openai": f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21",
    }
    assert_arrived(seen, provider, path.get(provider, "/chat/completions"))
    assert "caller" not in f"{seen.headers} {seen.body!r}".replace("llm-gate", "")
    assert "192.0.2.7" not in str(seen.headers)


def test_regions():
    """Each region of Azure is called with its own key; the next is tried when one fails."""
    with fake_upstream() as upstream:
        keys = {"EAST_US": "east-key-0123456789abcdef", "WEST_US": "west-key-0123456789abcdef"}
        variables = {f"AZURE_OPENAI_{region}_API_KEY": key for region, key in keys.items()}
        variables |= {f"AZURE_OPENAI_{region}_ENDPOINT": f"{upstream.url}/{region}/" for region in keys} | {
            "OPENAI_API_VERSION": "2025-01-01-preview"
        }
        with running_gateway(variables) as gateway:
            caller = Caller(gateway.url)
            answer = {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": "gpt-4o",
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
                ],
            }
            upstream.will(
                Answer.json({"error": {"code": "429", "message": "busy"}}, 429), Answer.json(answer)
            )
            got = caller.post(CHAT, plain_chat("azure_openai", "gpt-4o"))
            assert (got.status, got.headers["x-llm-gate-attempts"]) == (200, "2")
            tail = "openai/deployments/gpt-4o/chat/completions?api-version=2025-01-01-preview"
            assert [(seen.path, seen.headers["api-key"]) for seen in upstream.seen] == [
                (f"/{region}/{tail}", key) for region, key in keys.items()
            ]
            upstream.will(Answer.json({"error": {"code": "401", "message": "no"}}, 401))
            got = caller.post(CHAT, plain_chat("azure_openai", "gpt-4o"))
            assert (got.status, got.json["error"]["code"]) == (502, "provider_auth_failed")
            assert got.headers["x-should-retry"] == "false"
            assert all(key not in got.body.decode() for key in keys.values())
            upstream.will(
                Answer.json({"error": {"message": "busy"}}, 429, retry_after="30"),
                Answer.json({"error": {"message": "busy"}}, 429, retry_after="4.5"),
            )
            got = caller.post(CHAT, plain_chat("azure_openai", "gpt-4o"))
            assert (got.status, got.json["error"]["code"]) == (429, "rate_limit_exceeded")
            assert got.headers["retry-after"] == "5"
            caller.close()


def test_the_newer_api_of_azure():
    """With api version "v1" the address has no deployment and no date, and the body names the deployment."""
    with fake_upstream() as upstream:
        variables = {**environment(upstream), "OPENAI_API_VERSION": "v1"}
        with running_gateway(variables) as gateway:
            caller = Caller(gateway.url)
            upstream.will(Answer.json({"error": {"message": "no"}}, 500))
            caller.post(CHAT, plain_chat("azure_openai", "my-deployment"))
            assert_arrived(upstream.only, "azure_openai", "/openai/v1/chat/completions")
            assert upstream.only.json["model"] == "my-deployment"
            upstream.will(Answer.json({"error": {"message": "no"}}, 500))
            caller.post(EMBEDDINGS, {"model": "azure/my-vectors", "input": "Hello"})
            assert_arrived(upstream.only, "azure_openai", "/openai/v1/embeddings")
            caller.close()


def test_the_log_holds_no_key(gateway):
    """After all that vendors said, no key is in the log, neither whole nor by its ends."""
    assert gateway.log
    assert_no_credential("".join(gateway.log))
