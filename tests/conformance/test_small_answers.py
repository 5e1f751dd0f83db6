"""One small answer of each wire format, whole and streamed, with text, a tool call and cached input."""

import json

import pytest

from support.replay import (
    CHAT,
    NATIVE_CHAT,
    NATIVE_STREAM,
    VENDORS,
    Told,
    assert_arrived,
    cut,
    native_chat,
    native_stream_told,
    native_told,
    openai_stream_told,
    openai_told,
    plain_chat,
)
from support.small_answers import ARGUMENTS, OPENAI_CALL, OPENAI_USAGE, UNARY, as_events, openai_chunk
from support.upstream import Answer

MODEL = "some-model"
TOLD = Told((("Grüezi 👋", (("weather", ARGUMENTS),), "tool_calls"),), (12, 7))
FORMATS = {"anthropic": "anthropic", "gemini": "gemini"}
PATHS = {
    "anthropic": ("/v1/messages", "/v1/messages"),
    "gemini": (
        f"/models/{MODEL}:generateContent",
        f"/models/{MODEL}:streamGenerateContent?alt=sse",
    ),
    "azure_openai": (f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21",) * 2,
}

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def format_of(provider: str) -> str:
    return FORMATS.get(provider, "openai")


@pytest.mark.parametrize("provider", VENDORS)
def test_unary(provider, upstream, caller):
    """Text, tool call, finish reason and counts come back on both surfaces, cached input inside the prompt's."""
    body = plain_chat(provider, MODEL, tools=[TOOL])
    upstream.will(Answer.json(UNARY[format_of(provider)]))
    got = caller.post(CHAT, body)
    assert got.status == 200, got.body
    assert openai_told(got.json) == TOLD
    assert got.json["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert got.json["usage"]["total_tokens"] == 19
    assert_arrived(upstream.only, provider, PATHS.get(provider, ("/chat/completions",))[0])
    native = caller.post(NATIVE_CHAT, native_chat(provider, MODEL))
    assert native_told(native.json) == TOLD
    assert native.json["usage"]["totalTokens"] == 19


@pytest.mark.parametrize("provider", VENDORS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_stream(provider, end, upstream, caller):
    """The same as a stream, with any line end, cut anywhere, also inside a character."""
    wire = as_events(format_of(provider), end)
    body = plain_chat(provider, MODEL, tools=[TOOL], stream=True, stream_options={"include_usage": True})
    for pieces in ([wire], cut(wire, 40), [wire[i : i + 7] for i in range(0, len(wire), 7)]):
        upstream.will(Answer.events(*pieces))
        got = caller.post(CHAT, body)
        assert got.events[-1] == "[DONE]"
        assert openai_stream_told(got.events) == TOLD
        assert_arrived(upstream.only, provider, PATHS.get(provider, ("/chat/completions",))[-1])
        native = caller.post(NATIVE_STREAM, native_chat(provider, MODEL))
        assert native_stream_told(native.events) == TOLD


@pytest.mark.parametrize("provider", VENDORS)
def test_official_client(provider, upstream, client):
    """The official client gets the same, whole and streamed."""
    upstream.will(Answer.json(UNARY[format_of(provider)]))
    body = plain_chat(provider, MODEL, tools=[TOOL])
    assert openai_told(client.chat.completions.create(**body).model_dump()) == TOLD
    upstream.will(Answer.events(*cut(as_events(format_of(provider), "\n"))))
    stream = client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
    assert openai_stream_told(chunk.model_dump() for chunk in stream) == TOLD


def test_arguments_as_an_object(upstream, caller):
    """A call whose arguments come as an object instead of text gets them as text, whole and streamed."""
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    answer = json.loads(json.dumps(UNARY["openai"]))
    answer["choices"][0]["message"]["tool_calls"] = [call]
    body = plain_chat("huggingface", MODEL, tools=[TOOL])
    for path, request in {CHAT: body, NATIVE_CHAT: native_chat("huggingface", MODEL)}.items():
        upstream.will(Answer.json(answer))
        got = caller.post(path, request)
        assert (openai_told if path == CHAT else native_told)(got.json) == TOLD
    chunks = [
        openai_chunk({"role": "assistant", "content": "Grüezi 👋"}),
        openai_chunk({"tool_calls": {"index": 0, **call}}),
        openai_chunk({}, "tool_calls", usage=OPENAI_USAGE),
    ]
    wire = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()
    upstream.will(Answer.events(wire))
    got = caller.post(CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert openai_stream_told(got.events) == TOLD
    native = caller.post(NATIVE_STREAM, native_chat("huggingface", MODEL))
    assert native_stream_told(native.events) == TOLD


def test_function_call_of_old(upstream, caller):
    """A streamed call in the form before tools reaches a native caller as a tool call."""
    arguments = OPENAI_CALL["arguments"]
    chunks = [
        openai_chunk({"role": "assistant", "content": "Grüezi 👋"}),
        openai_chunk({"function_call": {"name": "weather", "arguments": ""}}),
        openai_chunk({"function_call": {"arguments": arguments[:5]}}),
        openai_chunk({"function_call": {"arguments": arguments[5:]}}),
        openai_chunk({}, "function_call"),
        openai_chunk({}, usage=OPENAI_USAGE, choices=[]),
    ]
    wire = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    upstream.will(Answer.events(wire.encode()))
    got = caller.post(NATIVE_STREAM, native_chat("openai", MODEL))
    assert native_stream_told(got.events) == TOLD
