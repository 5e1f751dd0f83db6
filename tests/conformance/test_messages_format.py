"""Recorded traffic of Anthropic: what an OpenAI-format request becomes, and what its answers become."""

import json
from typing import Any

import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    CHAT,
    NATIVE_CHAT,
    NATIVE_STREAM,
    anthropic_stream_told,
    anthropic_told,
    assert_arrived,
    data_of,
    native_chat,
    native_stream_told,
    native_told,
    openai_stream_told,
    openai_told,
    plain_chat,
    replay,
    wire_model,
)

SIMPLE = {
    "model",
    "max_tokens",
    "messages",
    "stream",
    "system",
    "temperature",
    "stop_sequences",
    "tools",
    "tool_choice",
    "output_format",
}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


def interactions(operation: str) -> list[Any]:
    return [
        pytest.param(interaction, id=f"{recording.id.removesuffix('.json')}-{number}")
        for recording in recordings("anthropic", operation)
        for number, interaction in enumerate(recording.interactions)
    ]


def model_of(interaction: Interaction) -> str:
    return interaction.request["body"]["model"] if interaction.request else "claude-haiku-4-5"


def openai_request(body: dict[str, Any]) -> dict[str, Any] | None:
    """Say a recorded request in the OpenAI format; None where it has what that format lacks."""
    tools = body.get("tools", [])
    system = body.get("system", "")
    if not SIMPLE.issuperset(body) or any("input_schema" not in tool for tool in tools):
        return None
    if not isinstance(system, str):
        return None
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in body["messages"]:
        said = openai_messages(message)
        if said is None:
            return None
        messages += said
    written: dict[str, Any] = {"messages": messages, "max_tokens": body["max_tokens"]}
    if "temperature" in body:
        written["temperature"] = body["temperature"]
    if "stop_sequences" in body:
        written["stop"] = body["stop_sequences"]
    if tools:
        written["tools"] = [openai_tool(tool) for tool in tools]
    if choice := body.get("tool_choice"):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        written["tool_choice"] = CHOICES.get(choice["type"], named)
    if form := body.get("output_format"):
        written["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": form["schema"]},
        }
    return written


def openai_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if "description" in tool:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def openai_messages(message: dict[str, Any]) -> list[dict[str, Any]] | None:
    content = message["content"]
    if isinstance(content, str):
        return [{"role": message["role"], "content": content}]
    results, parts, calls = [], [], []
    for block in content:
        if block.keys() & {"cache_control", "citations", "is_error"}:
            return None
        match block:
            case {"type": "text", "text": text}:
                parts.append({"type": "text", "text": text})
            case {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}:
                parts.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}})
            case {"type": "tool_use", "id": call_id, "name": name, "input": given}:
                calls.append(
                    {
                        "id": call_id,
                        "type": "function",
                        "function": {"name": name, "arguments": json.dumps(given)},
                    }
                )
            case {"type": "tool_result", "tool_use_id": call_id, "content": str(text)}:
                results.append({"role": "tool", "tool_call_id": call_id, "content": text})
            case _:
                return None
    if not (parts or calls):
        return results
    said: dict[str, Any] = {"role": message["role"], "content": parts or None}
    if calls:
        said["tool_calls"] = calls
    return [*results, said]


def as_blocks(body: dict[str, Any]) -> dict[str, Any]:
    """Write a request of the Messages format in the longer of its equivalent forms."""
    written = {name: value for name, value in body.items() if name not in {"model", "output_format"}}
    written["messages"] = [
        {"role": message["role"], "content": blocks_of(message["content"])} for message in body["messages"]
    ]
    if "output_format" in body:
        written["output_config"] = {"format": body["output_format"]}
    if not written.get("stream"):
        written.pop("stream", None)
    return written


def blocks_of(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {**block, "content": blocks_of(block["content"])} if block["type"] == "tool_result" else block
        for block in content
    ]


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages"))
def test_unary(interaction, upstream, caller):
    """A recorded answer comes back as a chat completion; the request arrives in the Messages format."""
    upstream.will(replay(interaction))
    recorded = interaction.request["body"]
    translated = openai_request(recorded)
    body = plain_chat("anthropic", recorded["model"], **(translated or {}))
    got = caller.post(CHAT, body)
    assert got.status == 200, got.body
    assert openai_told(got.json) == anthropic_told(interaction.json)
    assert got.json["id"] == interaction.json["id"]
    assert got.json["model"] == interaction.json["model"]
    assert got.json["object"] == "chat.completion"
    assert_arrived(upstream.only, "anthropic", "/v1/messages")
    assert upstream.only.headers["anthropic-version"] == "2023-06-01"
    assert upstream.only.json["model"] == wire_model("anthropic", recorded["model"])
    if translated is not None:
        assert as_blocks(upstream.only.json) == as_blocks(recorded)


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages-stream"))
def test_stream(interaction, upstream, caller):
    """A recorded stream comes back as chunks; the request asks for a stream."""
    upstream.will(replay(interaction))
    recorded = interaction.request["body"] if interaction.request else {"thinking": "unknown"}
    translated = openai_request(recorded)
    body = plain_chat("anthropic", model_of(interaction), **(translated or {}))
    got = caller.post(CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert got.status == 200, got.body
    assert got.events[-1] == "[DONE]"
    assert openai_stream_told(got.events) == anthropic_stream_told(data_of(interaction.body))
    assert_arrived(upstream.only, "anthropic", "/v1/messages")
    assert upstream.only.json["stream"] is True
    if translated is not None:
        assert as_blocks(upstream.only.json) == as_blocks(recorded)


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages-stream"))
def test_stream_through_the_official_client(interaction, upstream, client):
    """The official client reads every recorded stream, with text, calls, finish reason and usage."""
    upstream.will(replay(interaction))
    stream = client.chat.completions.create(
        **plain_chat("anthropic", model_of(interaction)), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk.model_dump() for chunk in stream]
    assert openai_stream_told(chunks) == anthropic_stream_told(data_of(interaction.body))


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages"))
def test_native(interaction, upstream, caller):
    """The native surface gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(interaction))
    model = model_of(interaction)
    got = caller.post(NATIVE_CHAT, native_chat("anthropic", model))
    assert got.status == 200, got.body
    assert native_told(got.json) == anthropic_told(interaction.json)
    named = {"name": "anthropic", "model": {"name": wire_model("anthropic", model)}}
    assert got.json["provider"] == named
    assert_arrived(upstream.only, "anthropic", "/v1/messages")


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages-stream"))
def test_native_stream(interaction, upstream, caller):
    """The native stream gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(interaction))
    got = caller.post(NATIVE_STREAM, native_chat("anthropic", model_of(interaction)))
    assert got.status == 200
    assert native_stream_told(got.events) == anthropic_stream_told(data_of(interaction.body))


@needs_recordings
@pytest.mark.parametrize("interaction", interactions("messages-stream"))
def test_recorded_stream_without_its_end(interaction, upstream, caller):
    """A recorded stream that loses its last event is an error in band, not an answer."""
    body = interaction.body.rpartition(b"event: message_stop")[0]
    upstream.will(replay(Interaction(None, 200, interaction.headers, body, None)))
    got = caller.post(CHAT, plain_chat("anthropic", model_of(interaction), stream=True))
    assert "[DONE]" not in got.events
    assert got.events[-1]["error"]["code"] == "bad_provider_response"
