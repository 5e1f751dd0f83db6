"""Recorded traffic of vendors that speak the OpenAI format: what is sent, and what comes back, on both surfaces."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import openai
import pytest

from support.recorded import Interaction, parametrize, recordings
from support.replay import (
    CHAT,
    FINISH_IS_END,
    NATIVE_CHAT,
    NATIVE_STREAM,
    OPENAI_SPEAKERS,
    Told,
    assert_arrived,
    data_of,
    is_stream,
    native_chat,
    native_stream_told,
    native_told,
    openai_stream_told,
    openai_told,
    replay,
    wire_model,
)


@dataclass(frozen=True)
class Case:
    """One recorded chat call of one vendor."""

    id: str
    provider: str
    interaction: Interaction

    @property
    def body(self) -> dict[str, Any]:
        """The recorded request, addressed to the gateway."""
        body = self.interaction.request["body"]
        return {**body, "model": f"{self.provider}/{body['model']}"}

    @property
    def model(self) -> str:
        """The name under which the vendor must be asked."""
        return wire_model(self.provider, self.interaction.request["body"]["model"])

    @property
    def path(self) -> str:
        """The address behind the vendor's own."""
        if self.provider != "azure_openai":
            return "/chat/completions"
        return f"/openai/deployments/{quote(self.model, safe='')}/chat/completions?api-version=2024-10-21"


def cases(*operations: str) -> list[Case]:
    return [
        Case(f"{recording.id.removesuffix('.json')}-{number}", provider, interaction)
        for provider in OPENAI_SPEAKERS
        for recording in recordings(provider, *operations)
        for number, interaction in enumerate(recording.interactions)
        if "/chat/completions" in interaction.request["url"] and interaction.status == 200
    ]


UNARY = [
    case
    for case in cases("chat", "chat-tools", "json-schema", "errors")
    if isinstance(case.interaction.json, dict) and "error" not in case.interaction.json
]
STREAMS = [case for case in cases("chat-stream") if is_stream(case.interaction)]
BROKEN_STREAMS = [case for case in cases("errors") if is_stream(case.interaction)]


def without_cost(usage: Any) -> Any:
    """Take our cost out of a usage, and put the vendor's own back in its place."""
    if usage is None:
        return None
    counts = {name: value for name, value in usage.items() if name not in {"cost", "vendor_cost"}}
    return {**counts, "cost": usage["vendor_cost"]} if "vendor_cost" in usage else counts


def in_form(choice: Any, key: str = "message") -> Any:
    """Write a recorded choice as clients rely on it: text as content, and an index on the pieces of a call."""
    said = choice.get(
        key, {"role": "assistant", "content": None, "refusal": None} if key == "message" else {}
    )
    if key == "delta" and any("index" not in call for call in said.get("tool_calls") or ()):
        calls = [{"type": "function", **call, "index": i} for i, call in enumerate(said["tool_calls"])]
        said = {**said, "tool_calls": calls}
    if isinstance(said.get("content"), list):
        parts = said["content"]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        thoughts = [each for part in parts if part["type"] == "thinking" for each in part["thinking"]]
        said = {**said, "content": text or None}
        if thoughts:
            said["reasoning_content"] = "".join(each["text"] for each in thoughts)
    return {**choice, key: said}


@parametrize("case", UNARY)
def test_unary(case, upstream, caller):
    """A recorded answer comes back with every field, and the recorded request arrives with every field."""
    upstream.will(replay(case.interaction))
    got = caller.post(CHAT, case.body)
    assert got.status == 200, got.body
    recorded = case.interaction.json
    assert openai_told(got.json) == openai_told(recorded)
    shown = {**got.json, "usage": without_cost(got.json.get("usage"))}
    assert shown == {"usage": None, **recorded, "choices": [in_form(each) for each in recorded["choices"]]}
    assert got.headers["x-llm-gate-provider"] == case.provider
    assert got.headers["x-llm-gate-model"] == case.model
    assert_arrived(upstream.only, case.provider, case.path)
    assert upstream.only.json == {**case.interaction.request["body"], "model": case.model}


@parametrize("case", STREAMS)
def test_stream(case, upstream, caller):
    """A recorded stream comes back chunk by chunk as recorded; the vendor is asked for usage in any case."""
    upstream.will(replay(case.interaction))
    body = {**case.body, "stream_options": {"include_usage": True}}
    got = caller.post(CHAT, body)
    assert got.status == 200, got.body
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    recorded = data_of(case.interaction.body)
    assert [shown(event) for event in got.events] == [shown(event) for event in recorded]
    assert openai_stream_told(got.events) == openai_stream_told(recorded)
    assert_arrived(upstream.only, case.provider, case.path)
    sent = {
        **case.interaction.request["body"],
        "model": case.model,
        "stream_options": {"include_usage": True},
    }
    assert upstream.only.json == sent


def shown(event: Any) -> Any:
    """Bring a chunk into form, and take out of it what the gateway adds to its usage."""
    if event == "[DONE]":
        return event
    event = {**event, "choices": [in_form(choice, "delta") for choice in event["choices"]]}
    if not (event.get("usage") or event.get("x_groq", {}).get("usage")):
        return event
    return {name: value for name, value in event.items() if name != "usage"}


@parametrize("case", STREAMS)
def test_stream_without_usage(case, upstream, caller):
    """A caller who did not ask for usage gets none, though the vendor was asked for it."""
    upstream.will(replay(case.interaction))
    body = {name: value for name, value in case.body.items() if name != "stream_options"}
    got = caller.post(CHAT, body)
    assert got.status == 200
    chunks = [event for event in got.events if event != "[DONE]"]
    assert got.events[-1] == "[DONE]"
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == []
    recorded = openai_stream_told(data_of(case.interaction.body))
    assert openai_stream_told(got.events).choices == recorded.choices
    assert upstream.only.json["stream_options"] == {"include_usage": True}


@parametrize("case", STREAMS)
def test_stream_through_the_official_client(case, upstream, client):
    """The official client reads every recorded stream, with text, calls, finish reason and usage."""
    upstream.will(replay(case.interaction))
    named = {"model", "messages", "stream", "stream_options"}
    stream = client.chat.completions.create(
        model=case.body["model"],
        messages=case.body["messages"],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={name: value for name, value in case.body.items() if name not in named},
    )
    chunks = [chunk.model_dump() for chunk in stream]
    assert openai_stream_told(chunks) == openai_stream_told(data_of(case.interaction.body))


@parametrize("case", BROKEN_STREAMS)
def test_error_inside_a_stream(case, upstream, caller, client):
    """A recorded error inside a 200 stream comes after all that stood before it, as an error and not as an end."""
    upstream.will(replay(case.interaction))
    got = caller.post(CHAT, case.body)
    recorded = data_of(case.interaction.body)
    assert got.status == 200
    first = next((index for index, event in enumerate(recorded) if "error" in event), None)
    if first is None:
        assert got.events[-1] == "[DONE]"
        return
    assert [shown(event) for event in got.events[:-1]] == [shown(event) for event in recorded[:first]]
    error = got.events[-1]["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].startswith(f"provider '{case.provider}'")
    upstream.will(replay(case.interaction))
    stream = client.chat.completions.create(**case.body)
    with pytest.raises(openai.APIError):
        list(stream)


# The native surface has one choice and takes no part of the vendor's format: a plain question, the recorded answer.
def plain(told: Told) -> Told:
    ends = {None: "stop", "function_call": "tool_calls", "eos": "stop"}
    ((text, calls, end), *_), usage = told.choices, told.usage
    return Told(((text, calls, ends.get(end, end)),), usage)


def is_single(case: Case, told: Told) -> bool:
    custom = any(tool["type"] != "function" for tool in case.body.get("tools") or ())
    return len(told.choices) == 1 and not custom


@parametrize("case", [case for case in UNARY if is_single(case, openai_told(case.interaction.json))])
def test_native(case, upstream, caller):
    """The native surface gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(case.interaction))
    model = case.interaction.request["body"]["model"]
    got = caller.post(NATIVE_CHAT, native_chat(case.provider, model))
    assert got.status == 200, got.body
    assert native_told(got.json) == plain(openai_told(case.interaction.json))
    assert got.json["provider"] == {"name": case.provider, "model": {"name": case.model}}
    assert_arrived(upstream.only, case.provider, case.path)
    assert upstream.only.json == {
        "model": case.model,
        "messages": [{"role": "user", "content": "Hello"}],
    }


@parametrize(
    "case",
    [case for case in STREAMS if len(openai_stream_told(data_of(case.interaction.body)).choices) == 1],
)
def test_native_stream(case, upstream, caller):
    """The native stream gives the recorded text, calls, finish reason and counts."""
    upstream.will(replay(case.interaction))
    model = case.interaction.request["body"]["model"]
    got = caller.post(NATIVE_STREAM, native_chat(case.provider, model))
    assert got.status == 200
    assert native_stream_told(got.events) == plain(openai_stream_told(data_of(case.interaction.body)))
    assert upstream.only.json["stream_options"] == {"include_usage": True}


@parametrize("case", [case for case in STREAMS if case.provider not in FINISH_IS_END])
def test_recorded_stream_without_its_end(case, upstream, caller):
    """A recorded stream that loses its end marker is an error in band, not an answer."""
    body = case.interaction.body.rpartition(b"data: [DONE]")[0]
    interaction = Interaction(None, 200, case.interaction.headers, body, None)
    upstream.will(replay(interaction))
    got = caller.post(CHAT, case.body)
    assert "[DONE]" not in got.events
    assert got.events[-1]["error"]["code"] == "bad_provider_response"
