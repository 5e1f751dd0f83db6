"""Cohere and Ollama through a real gateway: what arrives there, and what their answers become on both surfaces."""

import json
from collections.abc import Iterator

import pytest

from llm_gate.bootstrap import load_directory
from llm_gate.settings import load_settings
from support.gateway import RunningGateway, running_gateway
from support.recorded import REASON, recorded_root, recordings
from support.replay import (
    CALLER_TOKEN,
    CHAT,
    EMBEDDINGS,
    NATIVE_CHAT,
    NATIVE_EMBEDDINGS,
    NATIVE_STREAM,
    OWN_FORMATS,
    Caller,
    anthropic_stream_told,
    anthropic_told,
    cohere_stream_told,
    cohere_told,
    cut,
    native_chat,
    native_stream_told,
    native_told,
    ollama_told,
    openai_stream_told,
    openai_told,
    plain_chat,
    replay,
)
from support.small_answers import EMBEDDINGS as EMBEDDED
from support.small_answers import ROME, answer, pieces, streamed
from support.upstream import Answer, FakeUpstream

PROVIDERS = ("cohere", "ollama")
KEYS = {name: vendor.key for name, vendor in OWN_FORMATS.items()}
PATHS = {
    "cohere": {"chat": "/co/v2/chat", "embed": "/co/v2/embed"},
    "ollama": {"chat": "/ol/api/chat", "embed": "/ol/api/embed"},
}
MODELS = {"cohere": "command-a-03-2025", "ollama": "llama3.2"}
EMBEDDERS = {"cohere": "embed-v4.0", "ollama": "nomic-embed-text"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
MESSAGES, VERSION = "/v1/messages", {"anthropic-version": "2023-06-01"}
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(scope="module")
def gateway(upstream) -> Iterator[RunningGateway]:
    variables = {
        "COHERE_API_KEY": KEYS["cohere"],
        "LLM_GATE_COHERE_BASE_URL": f"{upstream.url}/co",
        "OLLAMA_API_KEY": KEYS["ollama"],
        # As its own tools have it: without a scheme.
        "OLLAMA_HOST": f"{upstream.url}/ol/".removeprefix("http://"),
    }
    with running_gateway(variables) as running:
        yield running
    log = "".join(running.log)
    assert all(key not in log for key in KEYS.values())


@pytest.fixture(scope="module")
def caller(gateway) -> Iterator[Caller]:
    caller = Caller(gateway.url)
    yield caller
    caller.close()


def assert_arrived(upstream: FakeUpstream, provider: str, operation: str) -> None:
    """Check method, path, content type and the one credential of the one request."""
    seen = upstream.only
    assert (seen.method, seen.path) == ("POST", PATHS[provider][operation])
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["authorization"] == f"Bearer {KEYS[provider]}"
    text = f"{seen.path} {seen.headers} {seen.body!r}"
    assert text.count(KEYS[provider]) == 1
    assert CALLER_TOKEN not in text
    assert not {"x-user-id", "client_id", "x-correlation-id"} & seen.headers.keys()


@each_provider
def test_plain_question(provider, upstream, caller):
    """The vendor's own request arrives at its own path, and its text, reason and counts come back."""
    upstream.will(answer(provider))
    got = caller.post(CHAT, plain_chat(provider, MODELS[provider], max_tokens=9, temperature=0.5, seed=1))
    assert got.status == 200, got.body
    told = openai_told(got.json)
    assert (told.choices, told.usage) == ((("Ciao", (), "stop"),), (5, 2))
    assert got.headers["x-llm-gate-provider"] == provider
    assert_arrived(upstream, provider, "chat")
    head = {
        "model": MODELS[provider],
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
    }
    settings = {
        "cohere": {"max_tokens": 9, "temperature": 0.5, "seed": 1},
        "ollama": {"options": {"num_predict": 9, "temperature": 0.5, "seed": 1}},
    }
    assert upstream.only.json == head | settings[provider]


@each_provider
def test_native_question(provider, upstream, caller):
    """The native surface reaches the vendor as well."""
    upstream.will(answer(provider))
    got = caller.post(NATIVE_CHAT, native_chat(provider, MODELS[provider]))
    assert got.status == 200, got.body
    told = native_told(got.json)
    assert (told.choices, told.usage) == ((("Ciao", (), "stop"),), (5, 2))
    assert_arrived(upstream, provider, "chat")


@each_provider
def test_tools_there_and_back(provider, upstream, caller):
    """A call comes back with its reasoning apart, and its answer goes out in the vendor's form."""
    upstream.will(answer(provider, calls=True))
    question = plain_chat(provider, MODELS[provider], tools=[TOOL])
    got = caller.post(CHAT, question)
    assert got.status == 200, got.body
    (choice,) = got.json["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert not message["content"]
    assert message["reasoning_content"] == "I will ask."
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ROME
    assert upstream.only.json["tools"] == [TOOL]

    upstream.will(answer(provider))
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    got = caller.post(CHAT, {**question, "messages": [*question["messages"], message, result]})
    assert got.status == 200, got.body
    written = {
        "cohere": [
            {"role": "assistant", "tool_plan": "I will ask.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "ollama": [
            {
                "role": "assistant",
                "content": "",
                "thinking": "I will ask.",
                "tool_calls": [{"id": "call_0", "function": {"name": "weather", "arguments": ROME}}],
            },
            {"role": "tool", "content": "sunny", "tool_name": "weather", "tool_call_id": "call_0"},
        ],
    }
    assert upstream.only.json["messages"][1:] == written[provider]


@each_provider
def test_stream(provider, upstream, caller):
    """A stream comes back as chunks, with usage and the end mark, on both surfaces."""
    body = b"".join(pieces(provider))
    upstream.will(streamed(provider, *cut(body)))
    options = {"include_usage": True}
    got = caller.post(CHAT, plain_chat(provider, MODELS[provider], stream=True, stream_options=options))
    assert got.status == 200, got.body
    assert got.events[-1] == "[DONE]"
    told = openai_stream_told(got.events)
    assert (told.choices, told.usage) == ((("Ciao", (), "stop"),), (5, 2))
    shown = [choice["delta"] for chunk in got.events[:-1] for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in shown) == "Hm."
    assert_arrived(upstream, provider, "chat")
    assert upstream.only.json["stream"] is True
    upstream.will(streamed(provider, *cut(body)))
    got = caller.post(NATIVE_STREAM, native_chat(provider, MODELS[provider]))
    told = native_stream_told(got.events)
    assert (told.choices, told.usage) == ((("Ciao", (), "stop"),), (5, 2))


@each_provider
@pytest.mark.parametrize("what", ["cut", "ended", "error"])
def test_stream_that_breaks(provider, what, upstream, caller):
    """A stream without its own end, or with an error in it, never seems complete."""
    *parts, _ = pieces(provider)
    failure = {
        "cohere": b'event: error\ndata: {"message": "busy"}\n\n',
        "ollama": b'{"error": "busy"}\n',
    }
    if what == "error":
        parts.append(failure[provider])
    upstream.will(streamed(provider, *parts, pause_s=0.01, cut=what == "cut"))
    got = caller.post(CHAT, plain_chat(provider, MODELS[provider], stream=True))
    assert got.status == 200
    assert b"[DONE]" not in got.body
    # What the transport sees break is told by the transport.
    expected = "bad_provider_response" if what == "ended" else "provider_unavailable"
    assert got.events[-1]["error"]["code"] == expected


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("192.168.1.5", "http://192.168.1.5:11434"),
        ("192.168.1.5:8000", "http://192.168.1.5:8000"),
        ("http://192.168.1.5", "http://192.168.1.5"),
        ("https://ollama.example/", "https://ollama.example"),
        ("[::1]", "http://[::1]:11434"),
    ],
)
def test_the_usual_port_of_a_bare_host(given, address, tmp_path):
    """A host as Ollama's own tools have it, without scheme and port, means the port it listens on."""
    file = tmp_path / "llm-gate.toml"
    file.write_text("", encoding="utf-8")
    directory = load_directory(load_settings({"OLLAMA_HOST": given}, config_file=file))
    assert [place.base_url for place in directory.deployments["ollama"]] == [address]


@each_provider
def test_embeddings(provider, upstream, caller):
    """Vectors come back on both surfaces; texts go out in the vendor's form."""
    bodies = {
        "cohere": {
            "model": "embed-v4.0",
            "texts": ["a", "b"],
            "input_type": "search_document",
            "embedding_types": ["float"],
        },
        "ollama": {"model": "nomic-embed-text", "input": ["a", "b"]},
    }
    upstream.will(Answer.json(EMBEDDED[provider]))
    got = caller.post(EMBEDDINGS, {"model": f"{provider}/{EMBEDDERS[provider]}", "input": ["a", "b"]})
    assert got.status == 200, got.body
    assert [item["embedding"] for item in got.json["data"]] == [[0.5, 0.25], [1.0, 2.0]]
    assert got.json["usage"]["prompt_tokens"] == 3
    assert_arrived(upstream, provider, "embed")
    assert upstream.only.json == bodies[provider]
    upstream.will(Answer.json(EMBEDDED[provider]))
    named = {"name": provider, "model": {"name": EMBEDDERS[provider]}}
    got = caller.post(NATIVE_EMBEDDINGS, {"content": {"texts": ["a", "b"]}, "provider": named})
    assert got.status == 200, got.body
    assert got.json["data"] == [[0.5, 0.25], [1.0, 2.0]]


def test_what_the_embedding_vendor_cannot_take(upstream, caller):
    """More texts than the vendor takes, and token ids, are refused before anything is sent."""
    upstream.will()
    for given in (["x"] * 97, [[1, 2], [3]]):
        got = caller.post(EMBEDDINGS, {"model": "cohere/embed-v4.0", "input": given})
        assert (got.status, got.json["error"]["param"]) == (400, "input")
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_cannot_be_carried_over(more, param, upstream, caller):
    """What would change the answer is refused, and nothing is sent."""
    upstream.will()
    got = caller.post(CHAT, plain_chat("ollama", MODELS["ollama"], **more))
    assert (got.status, got.json["error"]["param"]) == (400, param)
    assert upstream.seen == []


FAILURES = [
    (400, 400, "provider_rejected", "ERROR_001"),
    (401, 502, "provider_auth_failed", "ERROR_502"),
    (404, 502, "provider_model_not_found", "ERROR_502"),
    (429, 429, "rate_limit_exceeded", "ERROR_003"),
    (498, 502, "provider_auth_failed", "ERROR_502"),
    (500, 503, "provider_unavailable", "ERROR_503"),
]


@each_provider
@pytest.mark.parametrize(("upstream_status", "status", "code", "native_code"), FAILURES)
def test_failures(provider, upstream_status, status, code, native_code, upstream, caller):
    """Each failure has its class, status and body on both surfaces, and never the credential."""
    text = f"no {KEYS[provider]}"
    body = {"message": text} if provider == "cohere" else {"error": text}
    for path, request in (
        (CHAT, plain_chat(provider, MODELS[provider])),
        (CHAT, plain_chat(provider, MODELS[provider], stream=True)),
        (EMBEDDINGS, {"model": f"{provider}/{EMBEDDERS[provider]}", "input": "x"}),
        (NATIVE_CHAT, native_chat(provider, MODELS[provider])),
    ):
        upstream.will(Answer.json(body, upstream_status, retry_after="1.5"))
        got = caller.post(path, request)
        assert got.status == status, got.body
        assert KEYS[provider] not in f"{got.headers} {got.body.decode()}"
        if path == NATIVE_CHAT:
            assert [each["statusCode"] for each in got.json["errorDetails"]] == [native_code]
        else:
            assert got.json["error"]["code"] == code
        if status == 429:
            assert got.headers["retry-after"] == "2"


@each_provider
@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"{}"])
def test_successes_that_are_none(provider, body, upstream, caller):
    """A page, nothing, or an empty object with status 200 is a bad answer, whole or streamed."""
    for stream in (False, True):
        upstream.will(Answer(headers={"content-type": "text/html"}, body=body))
        got = caller.post(CHAT, plain_chat(provider, MODELS[provider], stream=stream))
        assert (got.status, got.json["error"]["code"]) == (502, "bad_provider_response")


# Recordings


def recorded(provider, folder, path):
    return [
        pytest.param(provider, interaction, id=f"{recording.id.removesuffix('.json')}-{number}")
        for recording in recordings(provider, folder)
        for number, interaction in enumerate(recording.interactions)
        if interaction.request["url"].endswith(path)
    ]


def told_by(provider, interaction):
    """Read a recorded answer, whole or streamed."""
    if provider == "ollama":
        return ollama_told([json.loads(each) for each in interaction.body.splitlines()])
    if interaction.json is not None:
        return cohere_told(interaction.json)
    lines = interaction.body.decode().splitlines()
    return cohere_stream_told(json.loads(each[6:]) for each in lines if each.startswith("data: {"))


RECORDED = recorded("cohere", "chat", "/v2/chat") + recorded("ollama", "chat", "/api/chat")
RECORDED_STREAMS = recorded("cohere", "chat-stream", "/v2/chat") + recorded(
    "ollama", "chat-stream", "/api/chat"
)


@needs_recordings
@pytest.mark.parametrize(("provider", "interaction"), RECORDED)
def test_recorded(provider, interaction, upstream, caller):
    """A recorded answer comes back on three surfaces with its text, calls, reason and counts."""
    told, model = told_by(provider, interaction), interaction.request["body"]["model"]
    upstream.will(replay(interaction))
    got = caller.post(CHAT, plain_chat(provider, model))
    assert openai_told(got.json) == told
    assert_arrived(upstream, provider, "chat")
    got = caller.post(NATIVE_CHAT, native_chat(provider, model))
    assert native_told(got.json) == told
    upstream.will(replay(interaction))
    got = caller.post(MESSAGES, {**plain_chat(provider, model), "max_tokens": 4000}, VERSION)
    assert anthropic_told(got.json) == told
    assert got.json["type"] == "message"
    assert "cost" in got.json["usage"]
    assert_arrived(upstream, provider, "chat")


@needs_recordings
@pytest.mark.parametrize(("provider", "interaction"), RECORDED_STREAMS)
def test_recorded_stream(provider, interaction, upstream, caller):
    """A recorded stream comes back on three surfaces with its text, calls, reason and counts."""
    told, model = told_by(provider, interaction), interaction.request["body"]["model"]
    upstream.will(streamed(provider, *cut(interaction.body)))
    body = plain_chat(provider, model, stream=True)
    got = caller.post(CHAT, {**body, "stream_options": {"include_usage": True}})
    assert got.events[-1] == "[DONE]"
    assert openai_stream_told(got.events) == told
    got = caller.post(NATIVE_STREAM, native_chat(provider, model))
    assert native_stream_told(got.events) == told
    upstream.will(streamed(provider, *cut(interaction.body)))
    got = caller.post(MESSAGES, {**body, "max_tokens": 4000}, VERSION)
    assert anthropic_stream_told(got.events) == told
    assert got.events[0]["type"] == "message_start"
    assert [event["type"] for event in got.events[-2:]] == ["message_delta", "message_stop"]
    assert_arrived(upstream, provider, "chat")
