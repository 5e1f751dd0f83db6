"""The Anthropic surface against the sandbox and a scripted provider, with Anthropic's own client as the caller."""

import json

import anthropic
import openai
import pytest
from anthropic import Anthropic

from support.upstream import Answer
from support.web import call

WEATHER_TOOL = {
    "name": "get_weather",
    "description": "Tell the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    },
}
VERSION = {"anthropic-version": "2023-06-01"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = {"model": "sandbox/chat", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hi", "future": 1}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1000, "cache_read_input_tokens": 1000, "output_tokens": 100},
}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


@pytest.fixture(scope="module")
def client(gateway):
    """Make the official client, pointed at the gateway."""
    with Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def fronted_client(fronted):
    """Make the official client, pointed at the gateway in front of the scripted provider."""
    with Anthropic(base_url=fronted.url, api_key="any", max_retries=0) as made:
        yield made


def ask(text="Hello"):
    return [{"role": "user", "content": text}]


def events_of(answer):
    """Return name and data of each event, which must agree."""
    found = []
    for block in answer.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in found)
    return [data for _, data in found]


def test_plain_message(client):
    """A plain call gets a text, with usage in Anthropic's terms and a cost of exactly zero."""
    answer = client.messages.create(model="sandbox/chat", max_tokens=100, messages=ask())

    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert "You said: Hello" in answer.content[0].text
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.usage.cost == 0


def test_headers_say_who_answered(client):
    """The headers of every surface are there, and the request id where Anthropic has it."""
    raw = client.messages.with_raw_response.create(model="default", max_tokens=100, messages=ask())

    assert raw.headers["x-llm-gate-provider"] == "sandbox"
    assert raw.headers["x-llm-gate-cost-usd"] == "0"
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.parse()._request_id == raw.headers["request-id"]


def test_stream(client):
    """A stream gives the text in pieces that make up the final message."""
    with client.messages.stream(model="sandbox/chat", max_tokens=100, messages=ask()) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()

    assert len(pieces) > 1
    assert "".join(pieces) == final.content[0].text
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 0


def test_stream_events_come_in_order(gateway):
    """The events of a stream are Anthropic's, in its order, with the cost in the last usage."""
    events = events_of(call(gateway.url, "/v1/messages", {**HELLO, "stream": True}, VERSION))

    kinds = [event["type"] for event in events]
    deltas = len(kinds) - 5
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["usage"]["output_tokens"] == 0
    assert events[-2]["usage"]["cost"] == 0
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_tools_over_two_turns(client):
    """The model asks for a tool with fitting input, and answers once it has the result."""
    first = client.messages.create(model="sandbox/chat", max_tokens=100, messages=ask(), tools=[WEATHER_TOOL])
    tool_use = first.content[-1]
    assert first.stop_reason == "tool_use"
    assert (tool_use.type, tool_use.name, set(tool_use.input)) == (
        "tool_use",
        "get_weather",
        {"city", "days"},
    )

    result = {
        "type": "tool_result",
        "tool_use_id": tool_use.id,
        "content": [{"type": "text", "text": "sunny"}],
    }
    turns = [*ask(), first.to_param(), {"role": "user", "content": [result]}]
    second = client.messages.create(
        model="sandbox/chat", max_tokens=100, messages=turns, tools=[WEATHER_TOOL]
    )

    assert second.stop_reason == "end_turn"
    assert "sunny" in second.content[0].text


def test_streamed_tool_use(client):
    """A streamed tool call comes in pieces of JSON that make up its input."""
    with client.messages.stream(
        model="sandbox/chat", max_tokens=100, messages=ask(), tools=[WEATHER_TOOL]
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()

    assert "input_json" in kinds
    assert final.content[-1].name == "get_weather"
    assert "city" in final.content[-1].input
    assert final.stop_reason == "tool_use"


def test_images_and_system(fronted_client, upstream):
    """Pictures and instructions reach a vendor of another dialect in its own form."""
    upstream.will(Answer.json(COMPLETION))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    answer = fronted_client.messages.create(
        model="openai/gpt-4o-mini",
        max_tokens=100,
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        messages=[{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}],
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
    )

    assert answer.content[0].text == "Hi"
    assert answer.model == "gpt-4o-mini-2024"
    assert answer.usage.cost is not None
    assert upstream.only.json == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {"type": "text", "text": "What is it?"},
                ],
            },
        ],
        "max_completion_tokens": 100,
        "stop": ["END"],
        "user": "u1",
    }


def test_dropped_hints_have_this_surfaces_names(fronted_client, upstream):
    """What a vendor of another dialect cannot take is named as the caller wrote it."""
    upstream.will(Answer.json(COMPLETION))
    raw = fronted_client.messages.with_raw_response.create(
        model="openai/gpt-4o-mini",
        max_tokens=2000,
        extra_body={"top_k": 5},
        thinking={"type": "enabled", "budget_tokens": 1024},
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=ask(),
    )

    dropped = set(raw.headers["x-llm-gate-dropped"].split(", "))
    assert dropped == {"top_k", "thinking", "system[].cache_control"}


def test_what_cannot_be_carried_over_is_refused_by_its_wire_name(fronted_client, upstream):
    """A server tool, or a picture in a tool's answer, is refused for a vendor that has no such thing."""
    upstream.will(Answer.json(COMPLETION))
    search = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]\.type: cannot be carried over"):
        fronted_client.messages.create(
            model="openai/gpt-4o-mini", max_tokens=100, messages=ask(), tools=[search]
        )
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    turns = [
        *ask(),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See:"},
                {"type": "tool_result", "tool_use_id": "a", "content": [image]},
            ],
        },
    ]
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[2\]\.content: media"):
        fronted_client.messages.create(
            model="openai/gpt-4o-mini", max_tokens=100, system="Be brief.", messages=turns
        )
    assert upstream.seen == []


def test_pass_through_to_the_vendor_of_the_format(fronted_client, upstream):
    """An Anthropic vendor gets the body as it came, with the beta header and the gateway's own key."""
    upstream.will(Answer.json(ANSWER))
    answer = fronted_client.messages.create(
        model="anthropic/claude-haiku-4-5",
        max_tokens=100,
        messages=ask(),
        extra_body={"future_field": {"a": [1]}},
        extra_headers={"anthropic-beta": "a-beta,b-beta", "anthropic-other": "no"},
    )

    assert upstream.only.json == {
        "model": "claude-haiku-4-5",
        "max_tokens": 100,
        "messages": ask(),
        "future_field": {"a": [1]},
    }
    assert upstream.only.headers["anthropic-beta"] == "a-beta,b-beta"
    assert upstream.only.headers["anthropic-version"] == "2023-06-01"
    assert upstream.only.headers["x-api-key"] == "sk-ant-fake-0123456789"
    assert "anthropic-other" not in upstream.only.headers
    assert answer.content[0].future == 1
    assert answer.usage.cost == pytest.approx(0.0016)


def test_the_beta_header_goes_nowhere_else(fronted_client, upstream):
    """A vendor of another dialect never sees the headers of this one."""
    upstream.will(Answer.json(COMPLETION))
    fronted_client.messages.create(
        model="openai/gpt-4o-mini",
        max_tokens=100,
        messages=ask(),
        extra_headers={"anthropic-beta": "a-beta"},
    )

    assert not [name for name in upstream.only.headers if name.startswith("anthropic")]


def test_pings_while_the_vendor_is_silent(fronted, upstream):
    """Until the first event comes, the caller gets pings of the format."""
    events = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":1,'
        b'"output_tokens":1}}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":'
        b'{"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    upstream.will(Answer.events(events, delay_s=1.0))
    body = {**HELLO, "model": "anthropic/claude-haiku-4-5", "stream": True}
    kinds = [event["type"] for event in events_of(call(fronted.url, "/v1/messages", body))]

    assert kinds[:2] == ["ping", "ping"]
    assert kinds[-3:] == ["message_start", "message_delta", "message_stop"]


def test_the_vendors_own_pings_do_not_hide_its_silence(fronted, upstream):
    """A vendor that sends nothing but pings is given up after the idle deadline."""
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":1,'
        b'"output_tokens":1}}}\n\n'
    )
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    upstream.will(Answer.events(start, *[ping] * 40, pause_s=0.1))
    body = {**HELLO, "model": "anthropic/claude-haiku-4-5", "stream": True}
    events = events_of(call(fronted.url, "/v1/messages", body))

    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "timeout_error"
    assert {event["type"] for event in events[1:-1]} == {"ping"}


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (401, anthropic.InternalServerError, "api_error"),
    ],
)
def test_vendor_failures_in_anthropics_form(client, status, kind, word):
    """A failing vendor becomes an error of the format, whole and streamed; its 401 is never the caller's."""
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            client.messages.create(
                model="sandbox/chat",
                max_tokens=100,
                messages=ask(),
                stream=stream,
                extra_headers={"x-llm-gate-sandbox": f"fail={status}"},
            )
        assert caught.value.body["type"] == "error"
        assert caught.value.body["error"]["type"] == word
        assert caught.value.body["request_id"] == caught.value.request_id


def test_an_unavailable_vendor_is_overloaded(gateway):
    """A vendor that is down is a 503, of the type that clients try again."""
    answer = call(gateway.url, "/v1/messages", HELLO, {"x-llm-gate-sandbox": "fail=500"})

    assert answer.status == 503
    assert answer.json["error"]["type"] == "overloaded_error"


def test_a_cut_stream_never_looks_complete(client):
    """A stream that breaks off ends with an error event, which the official client raises."""
    stream = client.messages.create(
        model="sandbox/chat",
        max_tokens=100,
        messages=ask(),
        stream=True,
        extra_headers={"x-llm-gate-sandbox": "cut_after=3"},
    )
    received = []
    with pytest.raises(anthropic.APIStatusError, match="broke"):
        received.extend(stream)

    assert "message_stop" not in [event.type for event in received]
    assert received[0].type == "message_start"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "default", "messages": []}, "max_tokens: required field is missing"),
        ({**HELLO, "max_tokens": 0}, "max_tokens"),
        ({**HELLO, "temperature": 1.5}, "temperature"),
        ({**HELLO, "messages": []}, "messages: must hold"),
        (b"{", "not valid JSON"),
    ],
)
def test_malformed_requests(gateway, body, words):
    """A malformed body is a 400 that names what is wrong."""
    answer = call(gateway.url, "/v1/messages", body)

    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert words in answer.json["error"]["message"]
    assert answer.json["request_id"] == answer.headers["request-id"]


def test_unknown_paths_answer_in_the_callers_form(gateway):
    """Below /v1 the error has Anthropic's form for its callers, and OpenAI's for all others."""
    theirs = call(gateway.url, "/v1/nothing", headers=VERSION)
    others = call(gateway.url, "/v1/nothing")
    wrong_method = call(gateway.url, "/v1/messages")

    assert theirs.status == others.status == 404
    assert theirs.json["error"]["type"] == "not_found_error"
    assert theirs.headers["request-id"] == theirs.json["request_id"]
    assert "param" in others.json["error"]
    assert "request-id" not in others.headers
    assert wrong_method.status == 405
    assert wrong_method.json["type"] == "error"


def test_an_unknown_model_is_404(client):
    """A name nobody knows is a 404, for messages, counts and the list."""
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="no-such-model", max_tokens=1, messages=ask())
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="no-such-model", messages=ask())
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("sandbox/no-such-model")


def test_count_tokens_is_an_estimate_and_says_so(client):
    """The count goes by the characters of all texts, with a constant for a picture, marked as an estimate."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    raw = client.messages.with_raw_response.count_tokens(
        model="sandbox/chat",
        system="12345678",
        messages=[{"role": "user", "content": [{"type": "text", "text": "äöü"}, image]}],
    )

    assert raw.headers["x-llm-gate-estimated"] == "true"
    assert raw.headers["x-llm-gate-count"] == "estimate"
    assert raw.parse().input_tokens == 20 + 1600
    plain = client.messages.count_tokens(model="sandbox/chat", messages=ask("1234"))
    with_tools = client.messages.count_tokens(
        model="sandbox/chat", messages=ask("1234"), tools=[WEATHER_TOOL]
    )
    assert plain.input_tokens == 11
    assert with_tools.input_tokens == 45


def test_models_by_version_header(client, gateway):
    """The same path lists models in the form of whoever asks."""
    listed = list(client.models.list())
    with OpenAI_at(gateway) as other:
        others = [model.id for model in other.models.list()]

    assert [model.id for model in listed] == ["sandbox/chat"]
    assert (listed[0].type, listed[0].max_input_tokens) == ("model", 128_000)
    assert others[:2] == ["sandbox/chat", "sandbox/embedding"]
    assert {"sandbox/image", "sandbox/video", "sandbox/speech"} <= set(others)
    assert client.models.retrieve("sandbox/chat").display_name == listed[0].display_name


def OpenAI_at(gateway):  # noqa: N802 (named after the client it makes)
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0)


def test_models_in_pages(fronted_client, fronted):
    """Cursors lead through the whole list in both directions, and every page says whether more follows."""
    everything = [model.id for model in fronted_client.models.list(limit=1000)]
    assert [model.id for model in fronted_client.models.list(limit=3)] == everything
    first = fronted_client.models.list(limit=2)
    assert (first.first_id, first.last_id, first.has_more) == (everything[0], everything[1], True)
    back = fronted_client.models.list(limit=2, before_id=everything[4])
    assert [model.id for model in back.data] == everything[2:4]
    assert back.has_more is True
    last = fronted_client.models.list(after_id=everything[-1])
    assert (last.data, last.has_more, last.first_id) == ([], False, None)
    for query in ("limit=0", "limit=x", "after_id=nobody", "after_id=a&before_id=b"):
        answer = call(fronted.url, f"/v1/models?{query}", headers=VERSION)
        assert answer.status == 400
        assert answer.json["error"]["type"] == "invalid_request_error"
