"""One small answer of each wire format, whole and streamed, with text, a tool call and cached input."""

import json
from typing import Any

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
from support.upstream import Answer

MODEL = "some-model"
ARGUMENTS = {"city": "Zürich", "days": 2}
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
OPENAI_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
}
OPENAI_CALL = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
GEMINI_USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 2,
}


def openai_chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": choices, **more}


UNARY: dict[str, Any] = {
    "openai": {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Grüezi 👋",
                    "tool_calls": [{"id": "t1", "type": "function", "function": OPENAI_CALL}],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": OPENAI_USAGE,
    },
    "anthropic": {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "Grüezi 👋"},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": ARGUMENTS},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 8, "cache_read_input_tokens": 4, "output_tokens": 7},
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Grüezi 👋"},
                        {"functionCall": {"name": "weather", "args": ARGUMENTS}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": GEMINI_USAGE,
        "modelVersion": "m",
        "responseId": "g1",
    },
}


def openai_stream() -> list[Any]:
    call = {"index": 0, "id": "t1", "type": "function"}
    arguments = OPENAI_CALL["arguments"]
    return [
        openai_chunk({"role": "assistant", "content": "Grüezi"}),
        openai_chunk({"content": " 👋"}),
        openai_chunk({"tool_calls": [{**call, "function": {"name": "weather", "arguments": ""}}]}),
        openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[:9]}}]}),
        openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[9:]}}]}),
        openai_chunk({}, "tool_calls"),
        openai_chunk({}, usage=OPENAI_USAGE, choices=[]),
    ]


def anthropic_stream() -> list[Any]:
    message = {**UNARY["anthropic"], "content": [], "stop_reason": None}
    message["usage"] = {**message["usage"], "output_tokens": 1}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    arguments = OPENAI_CALL["arguments"]
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüezi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " 👋"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in (arguments[:9], arguments[9:])
        ),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]


def gemini_stream() -> list[Any]:
    (candidate,) = UNARY["gemini"]["candidates"]
    _, call = candidate["content"]["parts"]
    pieces = ([{"text": "Grüezi"}], [{"text": " 👋"}], [call])
    chunks = [
        {
            **UNARY["gemini"],
            "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
        }
        for parts in pieces
    ]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    return chunks


STREAMS = {"openai": openai_stream(), "anthropic": anthropic_stream(), "gemini": gemini_stream()}


def as_events(wire: str, end: str) -> bytes:
    """Write a stream with one of the three line ends."""
    written = []
    for event in STREAMS[wire]:
        name = [f"event: {event['type']}"] if wire == "anthropic" else []
        written.append(end.join([*name, f"data: {json.dumps(event, ensure_ascii=False)}", "", ""]))
    closing = f"data: [DONE]{end}{end}" if wire == "openai" else ""
    return f"{''.join(written)}{closing}".encode()


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
