"""OpenAI's Responses against the sandbox and a scripted provider, with OpenAI's own client as the caller."""

import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from support.described import assert_described, assert_events, assert_response, needs_description
from support.upstream import Answer
from support.web import call

PATH = "/v1/responses"
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER_TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Tell the weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def client(gateway):
    """Make the official client, pointed at the gateway."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def message(text, role="user"):
    return {"type": "message", "role": role, "content": text}


def ask(gateway, headers=None, **fields):
    """Call the surface; check what it answers against OpenAI's description."""
    answer = call(gateway.url, PATH, {"model": "sandbox/chat", **fields}, headers or {})
    if answer.status != 200:
        return answer
    if fields.get("stream"):
        assert_events(answer.events)
    else:
        assert_response(answer.json)
    return answer


def types(events):
    """Return the types of events, each run of one type once."""
    found = [event["type"] for event in events]
    return [kind for index, kind in enumerate(found) if index == 0 or found[index - 1] != kind]


# The official client


def test_plain(client):
    """A plain call gets a text that says it is synthetic, with usage and a cost of exactly zero."""
    answer = client.responses.create(model="sandbox/chat", input="Hello", instructions="Be brief.")

    assert answer.output_text.endswith("You said: Hello")
    assert "synthetic" in answer.output_text
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.cost == 0
    assert answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    assert answer.synthetic is True


def test_the_headers_say_who_answered(client):
    """The answer's headers name provider, model, cost and what was dropped."""
    raw = client.responses.with_raw_response.create(
        model="default", input="Hello", truncation="auto", metadata={"a": "b"}, user="me", store=False
    )

    assert raw.headers["x-llm-gate-provider"] == "sandbox"
    assert raw.headers["x-llm-gate-cost-usd"] == "0"
    assert raw.headers["x-llm-gate-dropped"] == "metadata, truncation"
    assert raw.parse().metadata == {"a": "b"}


def test_the_request_is_repeated(gateway):
    """An answer repeats its request: instructions, limits, tools, tool choice, form of the text, metadata."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    answer = ask(
        gateway,
        input="Hello",
        instructions="Be brief.",
        max_output_tokens=500,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        tools=[WEATHER_TOOL],
        tool_choice={"type": "function", "name": "get_weather"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
        reasoning={"effort": "low"},
        metadata={"k": "v"},
        user="me",
    ).json

    assert answer["instructions"] == "Be brief."
    assert (answer["max_output_tokens"], answer["temperature"], answer["top_p"]) == (500, 0.5, 0.9)
    assert answer["parallel_tool_calls"] is False
    assert answer["tools"] == [{**WEATHER_TOOL, "strict": None}]
    assert answer["tool_choice"] == {"type": "function", "name": "get_weather"}
    assert answer["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    }
    assert answer["reasoning"] == {"effort": "low", "summary": None}
    assert (answer["metadata"], answer["user"]) == ({"k": "v"}, "me")
    assert (answer["previous_response_id"], answer["store"], answer["background"]) == (None, False, False)


def test_stream(client):
    """The client's stream gathers the same text that a complete answer has."""
    with client.responses.stream(model="sandbox/chat", input="Hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()

    assert text.endswith("You said: Hello")
    assert final.output_text == text
    assert final.synthetic is True
    assert final.status == "completed"
    assert final.usage.cost == 0


def test_tools_over_two_turns(client):
    """The model asks for a tool with fitting arguments, and answers once it has the result."""
    turns = [message("How is the weather?")]
    first = client.responses.create(model="sandbox/chat", input=turns, tools=[WEATHER_TOOL])
    made = first.output[0]
    assert (made.type, made.name, made.status) == ("function_call", "get_weather", "completed")
    assert set(json.loads(made.arguments)) == {"city", "days"}

    turns += [item.model_dump(exclude_none=True) for item in first.output]
    turns.append({"type": "function_call_output", "call_id": made.call_id, "output": "sunny"})
    second = client.responses.create(model="sandbox/chat", input=turns, tools=[WEATHER_TOOL])

    assert second.output_text.endswith("The tool said: sunny")


def test_streamed_tool_call(client):
    """A streamed tool call comes in pieces that make up JSON, under the place of its item."""
    with client.responses.stream(model="sandbox/chat", input="Hello", tools=[WEATHER_TOOL]) as stream:
        pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()

    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == json.loads(final.output[0].arguments)


class City(BaseModel):
    """What a structured answer is read into."""

    name: str
    inhabitants: int
    rivers: list[str]


def test_structured_text(client):
    """A structured answer fits its schema, whole and streamed."""
    parsed = client.responses.parse(model="sandbox/chat", input="Hello", text_format=City)
    assert isinstance(parsed.output_parsed, City)

    with client.responses.stream(model="sandbox/chat", input="Hello", text_format=City) as stream:
        assert isinstance(stream.get_final_response().output_parsed, City)


def test_images(client):
    """A picture in the input reaches the model."""
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
    ]
    answer = client.responses.create(model="sandbox/chat", input=[{"role": "user", "content": content}])

    assert "1 media part" in answer.output_text


def test_incomplete(client, gateway):
    """An answer cut short by the limit says so, whole and streamed."""
    answer = client.responses.create(model="sandbox/chat", input="Hello", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[0].status == "incomplete"

    events = ask(gateway, input="Hello", max_output_tokens=3, stream=True).events
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-2]["item"]["status"] == "incomplete"


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError), (400, openai.BadRequestError)],
)
def test_errors_before_the_first_event_keep_their_status(client, status, kind):
    """What fails before the answer begins is an error with its own status, streamed or not."""
    for stream in (False, True):
        with pytest.raises(kind) as caught:
            client.responses.create(
                model="sandbox/chat",
                input="Hello",
                stream=stream,
                extra_headers={"x-llm-gate-sandbox": f"fail={status}"},
            )
        assert caught.value.status_code == (503 if status == 500 else status)


def test_an_unknown_model_is_404(client):
    """A name nobody knows is a 404 in OpenAI's own form."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="no-such-model", input="Hello")

    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
def test_what_needs_a_state_or_another_tool_is_refused(gateway, fields, param):
    """What the gateway cannot do is refused with 400, which names the field."""
    answer = ask(gateway, **{"input": "Hello", **fields})

    assert answer.status == 400
    assert (answer.json["error"]["param"], answer.json["error"]["code"]) == (param, "unsupported_parameter")


def test_a_cut_stream_never_looks_complete(client, gateway):
    """A stream that breaks off ends with the failed response and an error, which the official client raises."""
    control = {"x-llm-gate-sandbox": "cut_after=3"}
    events = ask(gateway, control, input="Hello", stream=True).events
    assert types(events) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.failed",
        "error",
    ]
    assert events[-2]["response"]["status"] == "failed"
    assert events[-2]["response"]["error"]["code"] == "server_error"
    assert events[-2]["response"]["output"][0]["status"] == "incomplete"
    assert (events[-1]["code"], events[-1]["error"]["type"]) == ("provider_unavailable", "server_error")

    seen = []
    with pytest.raises(openai.APIError, match="broke"):
        seen.extend(
            client.responses.create(model="sandbox/chat", input="Hello", stream=True, extra_headers=control)
        )
    assert seen[-1].type == "response.failed"


def test_a_failure_after_a_heartbeat_is_a_failed_response(fronted, upstream):
    """When the provider fails after the answer has begun with a sign of life, the response is created and failed."""
    upstream.will(Answer(status=429, body=b'{"error": {"message": "busy"}}', delay_s=0.8))
    answer = call(fronted.url, PATH, {"model": "second/m", "input": "Hello", "stream": True})

    assert answer.status == 200
    assert answer.body.startswith(b": keep-alive\n\n")
    assert_events(answer.events)
    assert types(answer.events) == ["response.created", "response.in_progress", "response.failed", "error"]
    assert answer.events[-2]["response"]["error"]["code"] == "rate_limit_exceeded"
    assert answer.events[-1]["code"] == "rate_limit_exceeded"


def test_line_breaks_of_the_caller_do_not_break_events(gateway):
    """A request that is written over many lines is repeated in events of one line each."""
    body = json.dumps(
        {"model": "sandbox/chat", "input": "Hello", "stream": True, "tools": [WEATHER_TOOL]}, indent=4
    )
    answer = call(gateway.url, PATH, body.encode(), {"content-type": "application/json"})

    assert_events(answer.events)
    assert answer.events[0]["response"]["tools"] == [{**WEATHER_TOOL, "strict": None}]


def test_every_event_is_named(gateway):
    """Each event has a line with its type before its data, and no [DONE] follows the last."""
    text = ask(gateway, input="Hello", stream=True).body.decode()

    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert "[DONE]" not in text


@needs_description
def test_the_referee_is_awake(gateway):
    """The check against OpenAI's description finds what is missing."""
    answer = ask(gateway, input="Hello").json
    del answer["output"][0]["id"]

    with pytest.raises(AssertionError):
        assert_response(answer)
    with pytest.raises(AssertionError):
        assert_described({"type": "response.completed"}, "ResponseCompletedEvent")


# What reaches the provider


def test_the_provider_gets_a_chat_request(fronted, upstream):
    """A conversation of items arrives at a provider as the messages it stands for."""
    reply = {"role": "assistant", "content": "Fine."}
    upstream.will(
        Answer.json(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "m-1",
                "choices": [{"index": 0, "message": reply, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
            }
        )
    )
    items = [
        message("Weather?"),
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look it up."}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city":"A"}'},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": '{"city":"B"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
    ]
    body = {"model": "second/m", "input": items, "instructions": "Be brief.", "max_output_tokens": 99}
    answer = call(fronted.url, PATH, {**body, "tools": [WEATHER_TOOL]})

    assert_response(answer.json)
    assert answer.headers["x-llm-gate-cost-usd"] == "0.0000027"
    assert (answer.json["created_at"], answer.json["model"]) == (1700000000, "m-1")
    assert answer.json["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
        "cost": 0.0000027,
    }
    sent = upstream.only.json
    assert upstream.only.path == "/second/v1/chat/completions"
    assert (sent["model"], sent["max_tokens"]) == ("m", 99)
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": f"c{n}",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
                }
                for n, city in ((1, "A"), (2, "B"))
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
    ]
    function = {name: WEATHER_TOOL[name] for name in ("name", "description", "parameters")}
    assert sent["tools"] == [{"type": "function", "function": function}]


def test_a_structured_answer_is_asked_for_again_on_demand(fronted, upstream):
    """An answer that misses its schema is an error, or asked for again where the caller wants it, at the whole cost."""

    def says(text):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
        return Answer.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    body = {"model": "second/m", "input": "Hello", "text": form}
    upstream.will(says("{}"), says('{"a": 1}'))
    refused = call(fronted.url, PATH, body)
    assert (refused.status, refused.json["error"]["code"]) == (502, "structured_output_invalid")

    upstream.will(says("{}"), says('{"a": 1}'))
    answer = call(fronted.url, PATH, body, {"x-llm-gate-repair": "1"})
    assert_response(answer.json)
    assert answer.json["output"][0]["content"][0]["text"] == '{"a": 1}'
    assert answer.json["usage"]["total_tokens"] == 6000
    assert answer.json["usage"]["cost"] == 0.0027


# The seven cases of the Open Responses compliance suite (github.com/openresponses/openresponses), in our words

COMPLIANCE = {
    "basic response": {"input": [message("Say hello in exactly 3 words.")]},
    "system prompt": {"input": [message("You are a pirate.", "system"), message("Say hello.")]},
    "image input": {
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What do you see in this image?"},
                    {"type": "input_image", "image_url": PIXEL},
                ],
            }
        ]
    },
    "multi-turn": {
        "input": [
            message("My name is Alice."),
            message("Hello Alice! How can I help you today?", "assistant"),
            message("What is my name?"),
        ]
    },
}
# What the suite asks of every response beyond OpenAI's own description: there, and not null.
NEVER_NULL = {
    "truncation",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "store",
    "background",
    "service_tier",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "metadata",
}
PERHAPS_NULL = {
    "completed_at",
    "incomplete_details",
    "previous_response_id",
    "instructions",
    "error",
    "reasoning",
    "user",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
}


def assert_compliant(response):
    """Check what the suite asks of the response object."""
    assert response.keys() >= NEVER_NULL | PERHAPS_NULL
    assert [name for name in NEVER_NULL if response[name] is None] == []
    assert (response["object"], response["status"]) == ("response", "completed")
    assert response["output"] != []


@pytest.mark.parametrize("name", COMPLIANCE)
def test_compliance(gateway, name):
    """A case without a stream gives a completed response with output."""
    answer = ask(gateway, stream=False, **COMPLIANCE[name])

    assert answer.status == 200
    assert_compliant(answer.json)


def test_compliance_streaming(gateway):
    """The streaming case gives events that follow the description, and a completed response last."""
    events = ask(gateway, input=[message("Count from 1 to 5.")], stream=True).events

    assert types(events) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert_compliant(events[-1]["response"])
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == events[-1][
        "response"
    ]["output"]


def test_compliance_tool_calling(gateway):
    """The tool case gives a function call."""
    answer = ask(gateway, input=[message("How is the weather?")], tools=[WEATHER_TOOL]).json

    assert_compliant(answer)
    assert [item["type"] for item in answer["output"]] == ["function_call"]


def test_compliance_tool_calling_streaming(gateway):
    """The streamed tool case adds a function call, fills its arguments, and closes it."""
    events = ask(gateway, input=[message("How is the weather?")], tools=[WEATHER_TOOL], stream=True).events

    assert types(events) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    added, done = (e["item"] for e in events if e["type"].startswith("response.output_item"))
    assert (added["type"], added["status"], added["arguments"]) == ("function_call", "in_progress", "")
    assert (done["type"], done["status"]) == ("function_call", "completed")
    assert_compliant(events[-1]["response"])
