"""Recorded traffic through the Anthropic surface: Anthropic's own byte for byte, other vendors' in its form."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    CALLER_TOKEN,
    OPENAI_SPEAKERS,
    Told,
    anthropic_stream_told,
    anthropic_told,
    assert_arrived,
    data_of,
    gemini_told,
    is_stream,
    openai_stream_told,
    openai_told,
    replay,
    wire_model,
)

MESSAGES = "/v1/messages"
VERSION = {"anthropic-version": "2023-06-01"}
FOREIGN_UNARY = {
    "openai": ("chat", "chat-tools", "json-schema"),
    "gemini": ("generate", "tools", "json-schema"),
}
FOREIGN_STREAMS = {"openai": ("chat-stream",), "gemini": ("stream", "tools", "json-schema")}
pytestmark = pytest.mark.skipif(recorded_root() is None, reason=REASON)


@pytest.fixture(scope="session")
def messages_client(gateway) -> Iterator[anthropic.Anthropic]:
    """Make the official client, pointed at the gateway."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=CALLER_TOKEN, max_retries=0) as client:
        yield client


def own(operation: str) -> list[Any]:
    """Return the recorded calls of Anthropic."""
    return [
        pytest.param(interaction, id=f"{recording.id.removesuffix('.json')}-{number}")
        for recording in recordings("anthropic", operation)
        for number, interaction in enumerate(recording.interactions)
    ]


def foreign(operations: dict[str, tuple[str, ...]], *, streamed: bool) -> list[Any]:
    """Return the recorded chat calls of other vendors that succeeded."""
    found = []
    names = dict.fromkeys(OPENAI_SPEAKERS, operations["openai"]) | {"gemini": operations["gemini"]}
    for provider, each in names.items():
        for recording in recordings(provider, *each):
            for number, interaction in enumerate(recording.interactions):
                if is_chat(provider, interaction) and is_stream(interaction) == streamed:
                    name = f"{recording.id.removesuffix('.json')}-{number}"
                    found.append(pytest.param(provider, interaction, id=name))
    return found


def is_chat(provider: str, interaction: Interaction) -> bool:
    if interaction.request is None or interaction.status != 200:
        return False
    url = interaction.request["url"]
    is_known = "enerateContent" in url if provider == "gemini" else "/chat/completions" in url
    is_answer = is_stream(interaction) or (
        isinstance(interaction.json, dict) and "error" not in interaction.json
    )
    return is_known and is_answer and not has_own_tools(provider, interaction)


def request_of(interaction: Interaction) -> dict[str, Any]:
    """Return the recorded request, or a plain one for answers that were kept without theirs."""
    if interaction.request:
        return dict(interaction.request["body"])
    return {**question("claude-haiku-4-5"), "stream": True}


def question(model: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": 4000, "messages": [{"role": "user", "content": "Hello"}]}


def addressed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "model": f"anthropic/{body['model']}"}


def without_cost(usage: dict[str, Any]) -> dict[str, Any]:
    assert "cost" in usage
    return {name: value for name, value in usage.items() if name != "cost"}


@pytest.mark.parametrize("interaction", own("messages"))
def test_own_unary(interaction, upstream, caller):
    """A recorded request arrives with every field, and its answer comes back with every field and the cost."""
    upstream.will(replay(interaction))
    body = request_of(interaction)
    beta = {"anthropic-beta": interaction.request["headers"].get("anthropic-beta", "none")}
    got = caller.post(MESSAGES, addressed(body), {**VERSION, **beta})
    assert got.status == 200, got.body
    assert {**got.json, "usage": without_cost(got.json["usage"])} == interaction.json
    assert_arrived(upstream.only, "anthropic", MESSAGES)
    assert upstream.only.headers["anthropic-beta"] == beta["anthropic-beta"]
    assert upstream.only.json == {**body, "model": wire_model("anthropic", body["model"])}


@pytest.mark.parametrize("interaction", own("messages-stream"))
def test_own_stream(interaction, upstream, caller):
    """A recorded stream, of every kind of block, comes back byte for byte but for the cost and the last event."""
    upstream.will(replay(interaction))
    body = request_of(interaction)
    got = caller.post(MESSAGES, addressed(body), VERSION)
    assert got.status == 200, got.body
    assert_arrived(upstream.only, "anthropic", MESSAGES)
    assert upstream.only.json == {**body, "model": wire_model("anthropic", body["model"])}
    recorded, came = blocks_of(interaction.body), blocks_of(got.body)
    assert len(came) == len(recorded)
    for then, now in zip(recorded, came, strict=True):
        if then.startswith((b"event: message_delta", b"event: message_stop")):
            document = json.loads(now.partition(b"data: ")[2])
            if "usage" in document:
                document["usage"] = without_cost(document["usage"])
            assert document == json.loads(then.partition(b"data:")[2])
        else:
            assert now == then
    assert came[-1] == b'event: message_stop\ndata: {"type":"message_stop"}'


def blocks_of(body: bytes) -> list[bytes]:
    """Return the events of a stream as they stand."""
    return [block for block in body.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n\n") if block.strip()]


@pytest.mark.parametrize("interaction", own("messages-stream"))
def test_own_stream_through_the_official_client(interaction, upstream, messages_client):
    """The official client puts every recorded stream together to the message that was recorded."""
    upstream.will(replay(interaction))
    body = addressed(request_of(interaction))
    named = {"model", "max_tokens", "messages"}
    with messages_client.messages.stream(
        **{name: body[name] for name in named},
        extra_body={name: value for name, value in body.items() if name not in {*named, "stream"}},
    ) as stream:
        final = stream.get_final_message().model_dump(warnings=False)
    recorded = anthropic_stream_told(data_of(interaction.body))
    assert readable(anthropic_told(final)) == readable(recorded)


def readable(told: Told) -> Told:
    """Leave the input out of a call that the length limit cut off: the client makes up its end."""
    ((text, calls, end),) = told.choices
    return Told(((text, tuple(name for name, _ in calls) if end == "length" else calls, end),), told.usage)


@pytest.mark.parametrize("interaction", own("messages-stream"))
def test_own_stream_without_its_end(interaction, upstream, caller):
    """A recorded stream that loses its last event is an error in band, not an answer."""
    body = interaction.body.rpartition(b"event: message_stop")[0]
    upstream.will(replay(Interaction(None, 200, interaction.headers, body, None)))
    got = caller.post(MESSAGES, addressed(request_of(interaction)), VERSION)
    assert "message_stop" not in [event["type"] for event in got.events]
    assert got.events[-1]["error"]["type"] == "api_error"


def expected(told: Told) -> Told:
    """Say what a vendor told as the format has it: one choice, and a call as the reason to stop."""
    ends = {None: "stop", "function_call": "tool_calls", "eos": "stop"}
    (text, calls, end), *_ = told.choices
    end = ends.get(end, end)
    return Told(((text, calls, "tool_calls" if calls and end == "stop" else end),), told.usage)


def with_counts(document: dict[str, Any]) -> Told:
    """Read an answer whose counts may be unknown."""
    if document["usage"]["input_tokens"] is not None:
        return anthropic_told(document)
    zero = {"input_tokens": 0, "output_tokens": 0}
    return Told(anthropic_told({**document, "usage": zero}).choices, None)


def model_of(provider: str, interaction: Interaction) -> str:
    if provider != "gemini":
        return f"{provider}/{interaction.request['body']['model']}"
    return f"gemini/{interaction.request['url'].partition('/models/')[2].partition(':')[0]}"


def has_own_tools(provider: str, interaction: Interaction) -> bool:
    """Tell whether a recording answers with a call that is no function, which no other format has."""
    tools = interaction.request["body"].get("tools") or () if provider != "gemini" else ()
    return any(tool.get("type") != "function" for tool in tools)


@pytest.mark.parametrize(("provider", "interaction"), foreign(FOREIGN_UNARY, streamed=False))
def test_other_vendors_unary(provider, interaction, upstream, caller):
    """A recorded answer of another vendor comes out with its text, calls, stop reason and counts, and the cost."""
    upstream.will(replay(interaction))
    got = caller.post(MESSAGES, question(model_of(provider, interaction)), VERSION)
    assert got.status == 200, got.body
    told = gemini_told([interaction.json]) if provider == "gemini" else openai_told(interaction.json)
    assert with_counts(got.json) == expected(told)
    assert got.json["id"].startswith("msg_")
    assert got.json["type"] == "message"
    assert "cost" in got.json["usage"]


@pytest.mark.parametrize(("provider", "interaction"), foreign(FOREIGN_STREAMS, streamed=True))
def test_other_vendors_stream(provider, interaction, upstream, caller, messages_client):
    """A recorded stream of another vendor comes out in the order of the format, and the official client reads it."""
    upstream.will(replay(interaction))
    body = question(model_of(provider, interaction))
    got = caller.post(MESSAGES, {**body, "stream": True}, VERSION)
    assert got.status == 200, got.body
    assert_ordered(got.events)
    recorded = data_of(interaction.body)
    told = expected(gemini_told(recorded) if provider == "gemini" else openai_stream_told(recorded))
    if told.usage is None:
        assert got.events[-2]["usage"]["output_tokens"] is None
    else:
        assert anthropic_stream_told(got.events) == told
    upstream.will(replay(interaction))
    with messages_client.messages.stream(**body) as stream:
        final = stream.get_final_message().model_dump(warnings=False)
    assert with_counts(final).choices == told.choices


def assert_ordered(events: list[Any]) -> None:
    """Check the one order that the format has."""
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    open_index, next_index = None, 0
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert (open_index, event["index"]) == (None, next_index)
                open_index, next_index = next_index, next_index + 1
            case "content_block_delta":
                assert event["index"] == open_index
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
    assert open_index is None


def test_thinking_and_tools_over_two_turns(upstream, caller):
    """A recorded chain of thinking and tools goes on with the blocks as they were given out, signature included."""
    (chain,) = (
        each for each in recordings("anthropic", "messages-stream") if "thinking-tool-chain" in each.id
    )
    first, second = chain.interactions
    upstream.will(replay(first))
    got = caller.post(MESSAGES, addressed(request_of(first)), VERSION)
    given = [event for event in got.events if event["type"] == "content_block_delta"]
    signature = "".join(event["delta"].get("signature", "") for event in given)
    upstream.will(replay(second))
    caller.post(MESSAGES, addressed(request_of(second)), VERSION)
    sent = [block for turn in upstream.only.json["messages"] for block in turn["content"]]
    assert signature
    assert [block["signature"] for block in sent if block["type"] == "thinking"] == [signature]


@pytest.mark.parametrize("interaction", own("errors"))
def test_own_errors(interaction, upstream, caller):
    """A recorded failure comes out in the format, with the gateway's own status and request id."""
    upstream.will(replay(interaction))
    got = caller.post(MESSAGES, question("anthropic/claude-haiku-4-5"), VERSION)
    assert got.status == {400: 400, 401: 502, 404: 502}[interaction.status]
    assert got.json["type"] == "error"
    assert got.json["error"]["type"] == ("invalid_request_error" if got.status == 400 else "api_error")
    assert got.json["request_id"] == got.headers["request-id"]
