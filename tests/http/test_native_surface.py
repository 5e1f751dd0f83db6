"""The native surface against the sandbox."""

import pytest

from support.gateway import NATIVE_HEADERS
from support.web import call

CHAT = {"prompt": {"messages": [{"role": "user", "content": "Hello, how are you?"}]}}
NAMED = {"provider": {"name": "sandbox", "model": {"name": "chat"}}, **CHAT}


def native(gateway, path, body=None, headers=NATIVE_HEADERS):
    return call(gateway.url, f"/llm-gate{path}", body, headers)


@pytest.mark.parametrize("body", [CHAT, NAMED])
def test_chat(gateway, body):
    """A chat gets one assistant message, usage of exactly three keys, and its cost beside it."""
    answer = native(gateway, "/v1/chat", body)

    assert answer.status == 200
    assert set(answer.json["usage"]) == {"completionTokens", "promptTokens", "totalTokens"}
    assert len(answer.json["messages"]) == 1
    assert set(answer.json["messages"][0]) == {"role", "content"}
    assert answer.json["messages"][0]["role"] == "assistant"
    assert answer.json["cost"]["token"]["total"] == 0
    assert answer.headers["x-correlation-id"] == NATIVE_HEADERS["X-Correlation-Id"]
    assert answer.headers["x-llm-gate-provider"] == "sandbox"


def test_chat_stream(gateway):
    """A streamed chat is framed as server-sent events, with usage and cost in the last one."""
    answer = native(gateway, "/v1/chat/stream", CHAT)

    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = answer.events
    assert "You said: Hello" in "".join(piece["message"]["content"] for piece in pieces)
    assert set(last["usage"]) == {"completionTokens", "promptTokens", "totalTokens"}
    assert last["cost"]["token"]["total"] == 0


def test_a_cut_stream_ends_with_an_error_event(gateway):
    """A stream that breaks off ends with errorDetails and never with usage."""
    headers = {**NATIVE_HEADERS, "x-llm-gate-sandbox": "cut_after=3"}
    answer = native(gateway, "/v1/chat/stream", CHAT, headers)

    assert "errorDetails" in answer.events[-1]
    assert all("usage" not in event for event in answer.events)


def test_embeddings(gateway):
    """Embeddings come as plain lists in the order of the texts."""
    answer = native(gateway, "/v1/embeddings", {"content": {"texts": ["a", "b"]}})

    assert answer.status == 200
    assert len(answer.json["data"]) == 2
    assert all(isinstance(number, float) for number in answer.json["data"][0])
    assert set(answer.json["usage"]) == {"promptTokens", "totalTokens"}


def test_providers(gateway):
    """Every catalogued provider is listed; only the sandbox is enabled without keys."""
    providers = {entry["name"]: entry for entry in native(gateway, "/v1/providers").json["data"]}

    assert {"openai", "azure_openai", "anthropic", "gemini", "huggingface", "cohere", "ollama"} <= set(
        providers
    )
    assert [name for name, entry in providers.items() if entry["enabled"]] == ["sandbox"]
    gpt_4 = next(model for model in providers["azure_openai"]["model"] if model["name"] == "gpt-4")
    assert gpt_4["contextWindow"] == 8192
    assert gpt_4["tranningData"] == "Sep 2021"
    assert gpt_4["price"][0]["token"] == {"inputValue": 30.0, "outputValue": 60.0}


def test_health_needs_nothing(gateway):
    """Health answers without headers and without a key."""
    assert native(gateway, "/health", headers={}).json == {"status": "Healthy"}
    assert call(gateway.url, "/healthz").status == 200
    assert call(gateway.url, "/readyz").status == 200


@pytest.mark.parametrize("missing", sorted(NATIVE_HEADERS))
def test_each_missing_header_is_named(gateway, missing):
    """A missing header is one fault that names it."""
    headers = {name: value for name, value in NATIVE_HEADERS.items() if name != missing}
    answer = native(gateway, "/v1/chat", CHAT, headers)

    assert answer.status == 400
    assert [missing in fault["message"] for fault in answer.json["errorDetails"]] == [True]
    assert answer.json["errorDetails"][0]["statusCode"] == "ERROR_001"


def test_all_missing_headers_are_named_together(gateway):
    """Three missing headers are three faults in one answer."""
    answer = native(gateway, "/v1/providers", headers={})

    assert answer.status == 400
    assert len(answer.json["errorDetails"]) == 3


def test_the_client_id_may_come_without_its_underscore(gateway):
    """X-Client-Id stands in for client_id, which proxies drop."""
    headers = {**NATIVE_HEADERS, "X-Client-Id": NATIVE_HEADERS["client_id"]}
    del headers["client_id"]

    assert native(gateway, "/v1/chat", CHAT, headers).status == 200


def test_a_correlation_id_must_be_a_uuid(gateway):
    """A correlation id of another form is refused."""
    answer = native(gateway, "/v1/chat", CHAT, {**NATIVE_HEADERS, "X-Correlation-Id": "42"})

    assert answer.status == 400
    assert "UUID" in answer.json["errorDetails"][0]["message"]


def test_every_fault_of_a_body_is_listed(gateway):
    """An unknown field, a wrong type and a missing field are three faults."""
    body = {"prompt": {"parameter": {"temperature": "hot"}, "messages": [{"role": "user"}]}, "colour": 1}
    answer = native(gateway, "/v1/chat", body)

    assert answer.status == 400
    assert len(answer.json["errorDetails"]) == 3


@pytest.mark.parametrize(
    ("provider", "status", "code"),
    [
        ({"name": "nobody"}, 404, "ERROR_004"),
        ({"name": "openai", "model": {"name": "gpt-4o"}}, 404, "ERROR_004"),
        ({"name": "sandbox", "model": {"name": "embedding"}}, 400, "ERROR_001"),
    ],
)
def test_what_cannot_be_used_is_named(gateway, provider, status, code):
    """An unknown or unconfigured provider is a 404, a model of another kind a 400."""
    answer = native(gateway, "/v1/chat", {**CHAT, "provider": provider})

    assert answer.status == status
    assert answer.json["errorDetails"][0]["statusCode"] == code
    assert provider["name"] in answer.json["errorDetails"][0]["message"]


def test_more_tokens_than_the_window_are_refused(gateway):
    """MaxTokens above the context window is a 400."""
    body = {"prompt": {**CHAT["prompt"], "parameter": {"maxTokens": 128_001}}}

    assert native(gateway, "/v1/chat", body).status == 400


def test_tools(gateway):
    """A tool call comes back as a message of its own."""
    tool = {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}}
    answer = native(gateway, "/v1/chat", {"prompt": {**CHAT["prompt"], "tools": [tool]}})

    assert answer.json["messages"][-1]["role"] == "tool"
    assert answer.json["messages"][-1]["tool"]["name"] == "look"
    assert answer.json["finishReason"] == "tool_calls"
