"""Recorded chat answers of three formats, given out as OpenAI's Responses: text, calls, ending, counts, in form."""

import json
import re
from typing import Any

import pytest

from support.described import assert_events, assert_response
from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    OPENAI_SPEAKERS,
    Told,
    anthropic_stream_told,
    anthropic_told,
    data_of,
    gemini_told,
    is_stream,
    openai_stream_told,
    openai_told,
    replay,
)

RESPONSES = "/v1/responses"
INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
ENDS = {"length": "length", "content_filter": "content_filter"}
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


def parameter(recording: Any, number: int, *values: Any) -> Any:
    return pytest.param(*values, id=f"{recording.id.removesuffix('.json')}-{number}")


def found(provider: str, *operations: str, streamed: bool) -> list[Any]:
    return [
        (recording, number, interaction)
        for recording in recordings(provider, *operations)
        for number, interaction in enumerate(recording.interactions)
        if interaction.status == 200 and is_stream(interaction) is streamed
    ]


def openai_cases(*, streamed: bool) -> list[Any]:
    return [
        parameter(recording, number, f"{provider}/{one.request['body']['model']}", one, told)
        for provider in OPENAI_SPEAKERS
        for recording, number, one in found(
            provider, "chat", "chat-tools", "json-schema", "chat-stream", streamed=streamed
        )
        if "/chat/completions" in one.request["url"]
        and not (isinstance(one.json, dict) and "error" in one.json)
        for told in [openai_stream_told(data_of(one.body)) if streamed else openai_told(one.json)]
    ]


def anthropic_cases(*, streamed: bool) -> list[Any]:
    return [
        parameter(
            recording,
            number,
            f"anthropic/{one.request['body']['model'] if one.request else 'claude-haiku-4-5'}",
            one,
            anthropic_stream_told(data_of(one.body)) if streamed else anthropic_told(one.json),
        )
        for recording, number, one in found("anthropic", "messages", "messages-stream", streamed=streamed)
    ]


def gemini_cases(*, streamed: bool) -> list[Any]:
    return [
        parameter(recording, number, f"gemini/{gemini_model(one)}", one, gemini_told(chunks))
        for recording, number, one in found(
            "gemini", "generate", "tools", "json-schema", "stream", streamed=streamed
        )
        for chunks in [data_of(one.body) if streamed else [one.json]]
    ]


def gemini_model(interaction: Interaction) -> str:
    return interaction.request["url"].rpartition("/")[2].partition(":")[0]


def cases(*, streamed: bool) -> list[Any]:
    if recorded_root() is None:
        return []
    return [
        make for each in (openai_cases, anthropic_cases, gemini_cases) for make in each(streamed=streamed)
    ]


def plain(told: Told) -> Told:
    """Say in this format's terms what an answer comes to: its first choice, complete or cut short."""
    (text, calls, end), usage = told.choices[0], told.usage
    return Told(((text, calls, ENDS.get(end or "", "complete")),), usage)


def told_by(response: Any) -> Told:
    """Read a response object."""
    output = response["output"]
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    calls = tuple(
        (item["name"], arguments(item["arguments"])) for item in output if item["type"] == "function_call"
    )
    end = "complete"
    if response["status"] == "incomplete":
        end = INCOMPLETE[response["incomplete_details"]["reason"]]
    usage = response["usage"]
    counts = None if usage is None else (usage["input_tokens"], usage["output_tokens"])
    return Told(((text, calls, end),), counts)


def arguments(text: str) -> Any:
    """Parse the arguments of a call; those that were cut short stay text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def deltas(events: list[Any], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == kind)


@needs_recordings
@pytest.mark.parametrize(("model", "interaction", "told"), cases(streamed=False))
def test_unary(model, interaction, told, upstream, caller):
    """A recorded answer comes back as a response object that follows OpenAI's description."""
    upstream.will(replay(interaction))
    got = caller.post(RESPONSES, {"model": model, "input": "Hello"})

    assert got.status == 200, got.body
    assert_response(got.json)
    assert told_by(got.json) == plain(told)
    assert "cost" in (got.json["usage"] or {"cost": None})


@needs_recordings
@pytest.mark.parametrize(("model", "interaction", "told"), cases(streamed=True))
def test_stream(model, interaction, told, upstream, caller):
    """A recorded stream comes back as events that follow the description, and the last holds the whole answer."""
    upstream.will(replay(interaction))
    got = caller.post(RESPONSES, {"model": model, "input": "Hello", "stream": True})

    assert got.status == 200, got.body
    assert_events(got.events)
    final = got.events[-1]
    assert final["type"] in {"response.completed", "response.incomplete"}
    assert told_by(final["response"]) == plain(told)
    assert deltas(got.events, "response.output_text.delta") == told.choices[0][0]
    done = {e["output_index"]: e["item"] for e in got.events if e["type"] == "response.output_item.done"}
    assert [done[index] for index in range(len(done))] == final["response"]["output"]


@needs_recordings
@pytest.mark.parametrize(("model", "interaction", "told"), cases(streamed=True))
def test_stream_through_the_official_client(model, interaction, told, upstream, client):
    """The official client gathers every recorded stream to the same answer, or says that it is incomplete."""
    upstream.will(replay(interaction))
    with client.responses.stream(model=model, input="Hello") as stream:
        final = list(stream)[-1].response

    assert told_by(final.model_dump()) == plain(told)


@needs_recordings
@pytest.mark.parametrize(("model", "interaction", "told"), anthropic_cases(streamed=True))
def test_recorded_stream_without_its_end(model, interaction, told, upstream, caller):
    """A recorded stream that loses its last event is a failed response, not an answer."""
    body = interaction.body.rpartition(b"event: message_stop")[0]
    upstream.will(replay(Interaction(None, 200, interaction.headers, body, None)))
    got = caller.post(RESPONSES, {"model": model, "input": "Hello", "stream": True})

    assert_events(got.events)
    assert [event["type"] for event in got.events[-2:]] == ["response.failed", "error"]
    assert got.events[-1]["code"] == "bad_provider_response"


def with_calls(found_cases: list[Any]) -> list[Any]:
    return [
        case
        for case in found_cases
        if case.values[2].choices[0][1] and plain(case.values[2]).choices[0][2] == "complete"
    ]


def signatures(interaction: Interaction) -> set[str]:
    """Return the signatures of thoughts and calls in a recorded answer, put together where they came in pieces."""
    text = interaction.body.decode()
    return {found for found in re.findall(r'"(?:signature|thoughtSignature)"\s*:\s*"([^"]+)"', text) if found}


@needs_recordings
@pytest.mark.parametrize(
    ("model", "interaction", "told"),
    with_calls([make for streamed in (False, True) for make in cases(streamed=streamed)]),
)
def test_two_turns(model, interaction, told, upstream, caller):
    """The items of an answer, sent back with what the tools said, reach the vendor with every call and signature."""
    upstream.will(replay(interaction))
    tools = [
        {"type": "function", "name": name, "parameters": None} for name, _ in dict(told.choices[0][1]).items()
    ]
    body = {"model": model, "input": [{"role": "user", "content": "Hello"}], "tools": tools}
    streamed = is_stream(interaction)
    got = caller.post(RESPONSES, {**body, "stream": streamed})
    assert got.status == 200, got.body
    response = got.events[-1]["response"] if streamed else got.json
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": f"result {index}"}
        for index, item in enumerate(item for item in response["output"] if item["type"] == "function_call")
    ]
    upstream.will(replay(interaction))
    got = caller.post(
        RESPONSES, {**body, "input": [*body["input"], *response["output"], *results], "stream": streamed}
    )

    assert got.status == 200, got.body
    sent = upstream.only.body.decode()
    assert [f"result {index}" in sent for index in range(len(results))] == [True] * len(results)
    assert all(name in sent for name, _ in told.choices[0][1])
    if model.startswith(("anthropic/", "gemini/")):
        assert {each for each in signatures(interaction) if each not in sent} == set()


@needs_recordings
@pytest.mark.parametrize(
    "interaction",
    [
        parameter(recording, number, one)
        for recording, number, one in found("openai", "completions", streamed=False)
    ],
)
def test_text_completions(interaction, upstream, caller):
    """A recorded request for a text completion reaches a chat model, whose text comes back in that format."""
    body = interaction.request["body"]
    choices = [
        {
            "index": choice["index"],
            "message": {"role": "assistant", "content": choice["text"]},
            "finish_reason": choice["finish_reason"],
        }
        for choice in interaction.json["choices"]
    ]
    chat = {**interaction.json, "object": "chat.completion", "choices": choices}
    upstream.will(replay(Interaction(None, 200, {}, json.dumps(chat).encode(), chat)))
    got = caller.post("/v1/completions", {**body, "model": "openai/gpt-4o-mini"})

    assert got.status == 200, got.body
    shown = [{name: one[name] for name in ("text", "index", "finish_reason")} for one in got.json["choices"]]
    assert shown == [
        {name: one[name] for name in ("text", "index", "finish_reason")}
        for one in interaction.json["choices"]
    ]
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert {n: got.json["usage"][n] for n in counts} == {n: interaction.json["usage"][n] for n in counts}
    assert upstream.only.json["messages"] == [{"role": "user", "content": body["prompt"]}]
