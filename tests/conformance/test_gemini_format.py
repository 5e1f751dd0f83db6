"""Recorded traffic of Gemini: what an OpenAI-format request becomes, and what its answers become."""

import json
from typing import Any

import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    CHAT,
    NATIVE_CHAT,
    NATIVE_STREAM,
    assert_arrived,
    data_of,
    gemini_told,
    is_stream,
    native_chat,
    native_stream_told,
    native_told,
    openai_stream_told,
    openai_told,
    plain_chat,
    replay,
    wire_model,
)

UNARY_FOLDERS = (
    "generate",
    "tools",
    "json-schema",
    "image-output",
    "audio-input",
    "video-input",
    "errors",
)
SETTINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "seed": "seed",
}
MODES = {"ANY": "required", "AUTO": "auto", "NONE": "none"}
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


def answers(*operations: str, streamed: bool) -> list[Any]:
    return [
        pytest.param(interaction, id=f"{recording.id.removesuffix('.json')}-{number}")
        for recording in recordings("gemini", *operations)
        for number, interaction in enumerate(recording.interactions)
        if interaction.status == 200 and is_stream(interaction) == streamed
    ]


UNARY = answers(*UNARY_FOLDERS, streamed=False)
STREAMS = answers("stream", "json-schema", streamed=True)


def model_of(interaction: Interaction) -> str:
    """Return the recorded model; one that now makes pictures only stands for a chat model."""
    name = interaction.request["url"].rpartition("/")[2].partition(":")[0]
    return "gemini-3.8-flash" if "image" in name else name


def path_of(interaction: Interaction, method: str) -> str:
    return f"/models/{wire_model('gemini', model_of(interaction))}:{method}"


def chunks_of(interaction: Interaction) -> list[Any]:
    return data_of(interaction.body) if is_stream(interaction) else [interaction.json]


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def in_form(body: dict[str, Any]) -> dict[str, Any]:
    """Write a recorded request in the spelling that the vendor documents, without what says the default."""
    written = {camel(name): value for name, value in body.items()}
    written["contents"] = [
        {"role": turn.get("role", "user"), "parts": [named(part) for part in turn["parts"]]}
        for turn in written["contents"]
    ]
    if "tools" in written:
        written["tools"] = [named(tool) for tool in written["tools"]]
        for tool in written["tools"]:
            if isinstance(tool.get("functionDeclarations"), list):
                tool["functionDeclarations"] = [named(each) for each in tool["functionDeclarations"]]
    if "systemInstruction" in written:
        written["systemInstruction"] = {"parts": written["systemInstruction"]["parts"]}
    if "generationConfig" in written:
        settings = {camel(name): value for name, value in written.pop("generationConfig").items()}
        if not settings.get("stopSequences", True):
            del settings["stopSequences"]
        if settings.get("responseModalities") == ["TEXT"]:
            del settings["responseModalities"]
        if settings:
            written["generationConfig"] = settings
    return written


def named(record: dict[str, Any]) -> dict[str, Any]:
    return {
        camel(name): named(value) if name in {"inline_data", "inlineData"} else value
        for name, value in record.items()
    }


def openai_request(body: dict[str, Any]) -> dict[str, Any] | None:
    """Say a recorded request in the OpenAI format; None where it has what that format lacks."""
    settings = dict(body.get("generationConfig", {}))
    if not {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"}.issuperset(body):
        return None
    written: dict[str, Any] = {"messages": []}
    for part in body.get("systemInstruction", {}).get("parts", []):
        written["messages"].append({"role": "system", "content": part["text"]})
    for turn in body["contents"]:
        said = [openai_part(part) for part in turn["parts"]]
        if turn["role"] != "user" or None in said:
            return None
        written["messages"].append({"role": "user", "content": said})
    declared = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [{}])]
    if any("parametersJsonSchema" not in each or "response" in each for each in declared):
        return None
    if declared:
        renamed = {"parametersJsonSchema": "parameters"}
        written["tools"] = [
            {"type": "function", "function": {renamed.get(key, key): value for key, value in each.items()}}
            for each in declared
        ]
    if choice := body.get("toolConfig"):
        written["tool_choice"] = MODES[choice["functionCallingConfig"]["mode"]]
    schema = settings.pop("responseJsonSchema", None)
    if settings.pop("responseMimeType", None) is not None:
        if schema is None:
            return None
        written["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        }
    if not SETTINGS.keys() >= settings.keys():
        return None
    return written | {SETTINGS[name]: value for name, value in settings.items()}


def openai_part(part: dict[str, Any]) -> dict[str, Any] | None:
    match part:
        case {"text": text}:
            return {"type": "text", "text": text}
        case {"inlineData": {"mimeType": kind, "data": data}} if kind.startswith("image/"):
            return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"inlineData": {"mimeType": "audio/wav", "data": data}}:
            return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        case {"inlineData": {"mimeType": "application/pdf", "data": data}}:
            return {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{data}"}}
    return None


@needs_recordings
def test_how_much_is_translated():
    """Tools, schemas, settings, pictures and sound are among the recorded requests that can be said over."""
    found = [in_form(case.values[0].request["body"]) for case in UNARY]
    said = [body for body in found if openai_request(body) is not None]
    text = json.dumps(said)
    assert all(word in text for word in ("functionDeclarations", "responseJsonSchema", "image/", "audio/"))
    assert len(said) >= 12


@needs_recordings
@pytest.mark.parametrize("interaction", UNARY)
def test_unary(interaction, upstream, caller):
    """A recorded answer comes back as a chat completion; the request arrives as generateContent."""
    upstream.will(replay(interaction))
    recorded = in_form(interaction.request["body"])
    translated = openai_request(recorded)
    got = caller.post(CHAT, plain_chat("gemini", model_of(interaction), **(translated or {})))
    assert got.status == 200, got.body
    assert openai_told(got.json) == gemini_told([interaction.json])
    assert got.json["model"] == interaction.json["modelVersion"]
    assert_arrived(upstream.only, "gemini", path_of(interaction, "generateContent"))
    plain = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    assert upstream.only.json == (plain if translated is None else recorded)


@needs_recordings
@pytest.mark.parametrize("interaction", STREAMS)
def test_stream(interaction, upstream, caller):
    """A recorded stream, or the array in place of one, comes back as chunks."""
    upstream.will(replay(interaction))
    body = plain_chat("gemini", model_of(interaction), stream=True)
    got = caller.post(CHAT, {**body, "stream_options": {"include_usage": True}})
    assert got.status == 200, got.body
    assert got.events[-1] == "[DONE]"
    assert openai_stream_told(got.events) == gemini_told(chunks_of(interaction))
    assert_arrived(upstream.only, "gemini", path_of(interaction, "streamGenerateContent?alt=sse"))


@needs_recordings
@pytest.mark.parametrize("interaction", STREAMS)
def test_stream_through_the_official_client(interaction, upstream, client):
    """The official client reads every recorded stream, with text, calls, finish reason and usage."""
    upstream.will(replay(interaction))
    stream = client.chat.completions.create(
        **plain_chat("gemini", model_of(interaction)), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk.model_dump() for chunk in stream]
    assert openai_stream_told(chunks) == gemini_told(chunks_of(interaction))


@needs_recordings
@pytest.mark.parametrize("interaction", UNARY)
def test_native(interaction, upstream, caller):
    """The native surface gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(interaction))
    got = caller.post(NATIVE_CHAT, native_chat("gemini", model_of(interaction)))
    assert got.status == 200, got.body
    assert native_told(got.json) == gemini_told([interaction.json])
    assert_arrived(upstream.only, "gemini", path_of(interaction, "generateContent"))


@needs_recordings
@pytest.mark.parametrize("interaction", STREAMS)
def test_native_stream(interaction, upstream, caller):
    """The native stream gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(interaction))
    got = caller.post(NATIVE_STREAM, native_chat("gemini", model_of(interaction)))
    assert got.status == 200
    assert native_stream_told(got.events) == gemini_told(chunks_of(interaction))


@needs_recordings
@pytest.mark.parametrize("interaction", STREAMS)
def test_recorded_stream_without_its_end(interaction, upstream, caller):
    """A recorded stream that is cut before its finish reason is an error, not an answer."""
    body = interaction.body[: interaction.body.rindex(b'"finishReason"')]
    upstream.will(replay(Interaction(None, 200, interaction.headers, body, None)))
    got = caller.post(CHAT, plain_chat("gemini", model_of(interaction), stream=True))
    assert b"[DONE]" not in got.body
    error = got.events[-1] if got.status == 200 else got.json
    assert error["error"]["code"] == "bad_provider_response"
    assert got.status in {200, 502}
