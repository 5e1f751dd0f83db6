"""What no vendor should answer but some do: pages, silence, redirects, cut and broken streams. Needs no recordings."""

import json
import socket

import openai
import pytest

from support.gateway import running_gateway
from support.replay import (
    CHAT,
    EMBEDDINGS,
    NATIVE_CHAT,
    NATIVE_EMBEDDINGS,
    NATIVE_STREAM,
    VENDORS,
    Caller,
    environment,
    native_chat,
    plain_chat,
)
from support.upstream import Answer

PAGE = b"<!DOCTYPE html><html><head><title>502</title></head><body>Bad gateway</body></html>"
HTML = {"content-type": "text/html; charset=utf-8"}
JSON = {"content-type": "application/json"}
MODEL = "some-model"
PROVIDERS = ("openai", "azure_openai", "anthropic", "gemini", "mistral", "huggingface")

# One small stream for each format: what goes out before the end, and what must then follow.
OPENAI_HEAD = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}\n\n'
)
ANTHROPIC_HEAD = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","type":"message",'
    b'"role":"assistant","content":[],"model":"m","stop_reason":null,'
    b'"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hel"}}\n\n'
)
GEMINI_HEAD = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"},"index":0}]}\r\n\r\n'
)
HEADS = {
    "openai": OPENAI_HEAD,
    "azure_openai": OPENAI_HEAD,
    "mistral": OPENAI_HEAD,
    "huggingface": OPENAI_HEAD,
    "anthropic": ANTHROPIC_HEAD,
    "gemini": GEMINI_HEAD,
}
# Each vendor's own way to say in the middle of a stream that it is overloaded.
FAILING_EVENTS = {
    "openai": b'data: {"error":{"message":"overloaded","type":"server_error","param":null,"code":null}}\n\n',
    "azure_openai": b'event: error\ndata: {"error":{"message":"overloaded","code":"server_error"}}\n\n',
    "mistral": b'data: {"object":"error","message":"overloaded","type":"server_error","code":"503"}\n\n',
    "huggingface": b'data: {"error":"overloaded","error_type":"overloaded"}\n\n',
    "anthropic": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n',
    "gemini": b'data: {"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}\r\n\r\n',
}
BARE_ERRORS = {
    "openai": b'{"error":{"message":"overloaded","type":"server_error","param":null,"code":null}}',
    "azure_openai": b'{"error":{"message":"overloaded","code":"server_error"}}',
    "mistral": b'{"object":"error","message":"overloaded","type":"server_error","code":"503"}',
    "huggingface": b'{"error":"overloaded","error_type":"overloaded"}',
    "anthropic": b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}',
    "gemini": b'{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}',
}


def routes(provider):
    """Return a request for each unary route of a provider."""
    named = native_chat(provider, MODEL)
    found = {CHAT: plain_chat(provider, MODEL), NATIVE_CHAT: named}
    if provider != "anthropic":
        found[EMBEDDINGS] = {"model": f"{provider}/{MODEL}", "input": "Hello"}
        found[NATIVE_EMBEDDINGS] = {"content": {"texts": ["Hello"]}, "provider": named["provider"]}
    return found


def streams(provider):
    """Return a request for each streaming route of a provider."""
    return {CHAT: plain_chat(provider, MODEL, stream=True), NATIVE_STREAM: native_chat(provider, MODEL)}


def code_of(document):
    """Return the code of an error on the OpenAI surface; native ones name the status only."""
    return document["error"]["code"] if "error" in document else document["errorDetails"][0]["statusCode"]


NOT_ANSWERS = {
    "page": (200, HTML, PAGE),
    "page as JSON": (200, JSON, PAGE),
    "nothing": (200, JSON, b""),
    "null": (200, JSON, b"null"),
    "empty object": (200, JSON, b"{}"),
    "list": (200, JSON, b"[]"),
    "number": (200, JSON, b"7"),
    "half": (200, JSON, b'{"choices":[{"index":0,"mess'),
    "deep": (200, JSON, b"[" * 5000),
    "not UTF-8": (200, JSON, b'{"choices":"\xff\xfe"}'),
    "no content": (204, {}, b""),
    "moved": (301, {"location": "http://127.0.0.1:9/elsewhere"}, b""),
    "found": (302, {"location": "/elsewhere"}, b""),
    "repeat elsewhere": (307, {"location": "/elsewhere"}, b""),
    "not modified": (304, {}, b""),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("what", NOT_ANSWERS)
def test_what_is_no_answer(provider, what, upstream, caller):
    """A 2xx or 3xx that is no answer is a 502 on every route, asked for once; a redirect is not followed."""
    status, headers, body = NOT_ANSWERS[what]
    for path, request in {**routes(provider), "stream": plain_chat(provider, MODEL, stream=True)}.items():
        upstream.will(Answer(status=status, headers=headers, body=body))
        got = caller.post(CHAT if path == "stream" else path, request)
        assert got.status == 502, (path, got.body)
        assert code_of(got.json) in {"bad_provider_response", "ERROR_502"}
        assert b"DOCTYPE" not in got.body
        assert len(upstream.seen) == 1


FAILURES = {
    "page with 502": (502, HTML, PAGE, 503, "provider_unavailable"),
    "page with 404": (404, HTML, PAGE, 502, "provider_model_not_found"),
    "page with 403": (403, HTML, PAGE, 502, "provider_auth_failed"),
    "nothing with 500": (500, {}, b"", 503, "provider_unavailable"),
    "nothing with 400": (400, {}, b"", 400, "provider_rejected"),
    "overloaded": (529, JSON, b"{}", 503, "provider_unavailable"),
    "gateway timeout": (504, {}, b"upstream timed out", 504, "provider_timeout"),
    "request timeout": (408, {}, b"", 504, "provider_timeout"),
    "conflict": (409, {}, b"", 503, "provider_unavailable"),
    "unprocessable": (422, JSON, b'{"detail":[{"loc":["body"],"msg":"bad"}]}', 400, "provider_rejected"),
    "too large": (413, {}, b"too large", 400, "provider_rejected"),
    "no money": (402, JSON, b'{"error":"credits exhausted"}', 429, "insufficient_quota"),
    "null with 503": (503, JSON, b"null", 503, "provider_unavailable"),
    "number with 503": (503, JSON, b'{"error":7}', 503, "provider_unavailable"),
    "list with 400": (400, JSON, b'[{"error":{"message":"bad"}}]', 400, "provider_rejected"),
    "deep with 400": (400, JSON, b"[" * 5000, 400, "provider_rejected"),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("what", FAILURES)
def test_failures_in_any_form(provider, what, upstream, caller):
    """The status decides where the body says nothing; no page and no brackets come out."""
    status, headers, body, expected, code = FAILURES[what]
    for path, request in routes(provider).items():
        upstream.will(Answer(status=status, headers=headers, body=body))
        got = caller.post(path, request)
        assert got.status == expected, (path, got.body)
        assert code_of(got.json) in {code, f"ERROR_{expected}", "ERROR_001", "ERROR_003"}
        assert b"<" not in got.body
        assert len(got.body) < 2000


WAITS = [
    ({"retry-after": "7"}, "7"),
    ({"retry-after": "0.2"}, "1"),
    ({"retry-after": "20.01"}, "21"),
    ({"retry-after-ms": "1500"}, "2"),
    ({"retry-after-ms": "250", "retry-after": "3"}, "3"),
    ({"date": "Fri, 20 Nov 2026 10:00:00 GMT", "retry-after": "Fri, 20 Nov 2026 10:00:41 GMT"}, "41"),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({}, None),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("headers", "wanted"), WAITS)
def test_retry_after(provider, headers, wanted, upstream, caller):
    """A vendor's wish for patience is passed on in whole seconds, rounded up; nonsense is not."""
    for path, request in {**routes(provider), NATIVE_STREAM: native_chat(provider, MODEL)}.items():
        upstream.will(Answer.json({"error": {"message": "slow down"}}, 429, **headers))
        got = caller.post(path, request)
        assert (got.status, got.headers.get("retry-after")) == (429, wanted)


@pytest.mark.parametrize(("delay", "wanted"), [("48.939935699s", "49"), ("48s", "48"), ("0.3s", "1")])
def test_retry_info(delay, wanted, upstream, caller):
    """Gemini says in the body how long to wait."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    error = {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    upstream.will(Answer.json({"error": error}, 429))
    got = caller.post(CHAT, plain_chat("gemini", MODEL))
    assert (got.status, got.headers["retry-after"]) == (429, wanted)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_an_exhausted_account(code, upstream, caller):
    """A 429 that no waiting heals is said to be so, and stock clients are told not to try again."""
    error = {"message": "You exceeded your quota", "type": code, "param": None, "code": code}
    upstream.will(Answer.json({"error": error}, 429))
    got = caller.post(CHAT, plain_chat("openai", MODEL))
    assert (got.status, got.headers["x-should-retry"]) == (429, "false")
    assert got.json["error"]["type"] == got.json["error"]["code"] == "insufficient_quota"


# ---- broken connections


@pytest.mark.parametrize("provider", PROVIDERS)
def test_truncated_answer(provider, upstream, caller):
    """An answer that is cut off is never taken for complete."""
    body = json.dumps({"choices": [], "content": [], "candidates": [], "data": [], "x": "y" * 500}).encode()
    for path, request in routes(provider).items():
        upstream.will(Answer(headers=JSON, body=body, cut=True))
        got = caller.post(path, request)
        assert got.status in {502, 503}, (path, got.body)


@pytest.fixture(scope="module")
def unreachable():
    """A gateway whose vendors are not there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        upstream = type("Nobody", (), {"url": f"http://127.0.0.1:{closed.getsockname()[1]}"})()
        with running_gateway(environment(upstream)) as running:
            caller = Caller(running.url)
            yield caller
            caller.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_connection_refused(provider, unreachable):
    """A vendor that cannot be reached is a 503 that names it, on every route."""
    for path, request in {**routes(provider), NATIVE_STREAM: native_chat(provider, MODEL)}.items():
        got = unreachable.post(path, request)
        assert got.status == 503
        assert code_of(got.json) in {"provider_unavailable", "ERROR_503"}
        assert provider.encode() in got.body


# ---- streams


def is_end(event):
    """Tell whether an event ends a complete stream on one of the surfaces."""
    return event == "[DONE]" or "finishReason" in event


BEFORE_THE_FIRST_EVENT = {
    "closed": Answer.events(b"", cut=True),
    "ended": Answer.events(b""),
    "comment only": Answer.events(b": keep-alive\n\n"),
    "half an event": Answer.events(b'data: {"id":"x","cho', cut=True),
    "a page": Answer(headers=HTML, body=PAGE),
    "a page in pieces": Answer.events(PAGE[:20], PAGE[20:]),
    "no JSON": Answer.events(b"data: hello\n\n"),
    "done at once": Answer.events(b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("what", BEFORE_THE_FIRST_EVENT)
def test_stream_that_fails_before_its_first_event(provider, what, upstream, caller):
    """What fails before anything was sent keeps a status of its own."""
    for path, request in streams(provider).items():
        upstream.will(BEFORE_THE_FIRST_EVENT[what])
        got = caller.post(path, request)
        assert got.status in {502, 503}, (path, got.status, got.body)
        assert got.headers["content-type"] == "application/json"
        assert code_of(got.json) in {
            "bad_provider_response",
            "provider_unavailable",
            "ERROR_502",
            "ERROR_503",
        }


AFTER = {
    "closed": ((), True),
    "ended": ((), False),
    "half an event": ((b'data: {"id":"x","cho',), True),
    "a page": ((b"\n\n", PAGE), False),
    "no JSON": ((b"data: hello\n\n",), False),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("what", AFTER)
def test_stream_that_breaks(provider, what, upstream, caller):
    """A stream that breaks after its first event ends with an error in band and no end mark."""
    for path, request in streams(provider).items():
        more, cut = AFTER[what]
        upstream.will(Answer.events(HEADS[provider], *more, cut=cut, pause_s=0.02))
        got = caller.post(path, request)
        assert got.status == 200
        *before, last = got.events
        assert code_of(last) in {"bad_provider_response", "provider_unavailable", "ERROR_502", "ERROR_503"}
        assert "Hel" in json.dumps(before)
        assert not any(is_end(event) for event in got.events)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_error_event_inside_a_stream(provider, upstream, caller, client):
    """A vendor's own error event after text becomes the surface's, and stock clients raise."""
    answer = Answer.events(HEADS[provider], FAILING_EVENTS[provider], pause_s=0.02)
    for path, request in streams(provider).items():
        upstream.will(answer)
        got = caller.post(path, request)
        assert got.status == 200
        *before, last = got.events
        assert code_of(last) in {"provider_unavailable", "ERROR_503"}
        assert "Hel" in json.dumps(before)
        assert not any(is_end(event) for event in got.events)
    upstream.will(answer)
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**plain_chat(provider, MODEL, stream=True)))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("where", ["first", "later"])
def test_bare_error_inside_a_stream(provider, where, upstream, caller):
    """A failure that comes as plain JSON in a 200 stream is recognised, first or later."""
    pieces = [BARE_ERRORS[provider]] if where == "first" else [HEADS[provider], BARE_ERRORS[provider]]
    for path, request in streams(provider).items():
        upstream.will(Answer.events(*pieces, pause_s=0.02))
        got = caller.post(path, request)
        last = got.events[-1] if got.status == 200 else got.json
        assert got.status == (503 if where == "first" else 200)
        assert code_of(last) in {"provider_unavailable", "ERROR_503"}
        assert b"[DONE]" not in got.body


def test_cut_stream_through_the_official_client(upstream, client):
    """The official client raises on a cut stream, after it has handed out what came."""
    upstream.will(Answer.events(HEADS["openai"], pause_s=0.02, cut=True))
    stream = client.chat.completions.create(**plain_chat("openai", MODEL, stream=True))
    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError):
        next(stream)


def test_vendors_are_all_here():
    """Every provider of these tests has an address and a key."""
    assert VENDORS.keys() >= set(PROVIDERS)
