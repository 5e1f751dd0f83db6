"""Promises of the built-in provider without a vendor, asked through its own codecs."""

import json

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_embeddings import decode_embedding_request, encode_embedding_result
from llm_gate.domain.errors import (
    BadProviderResponse,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.events import Ended, Finished, TextDelta, ToolCallDelta, UsageReported
from llm_gate.domain.messages import TextPart, ToolCallPart
from llm_gate.domain.provider import HttpReply
from llm_gate.providers.sandbox import GREETING, provider, read_control
from llm_gate.providers.sandbox.made_up import synthesise
from support.targets import make_target

NOW_S = 1_800_000_000.5
HI = {"role": "user", "content": "Hi there"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def target(control=None):
    return make_target(provider="sandbox", codecs=provider, model="chat", control=control)


def respond(*messages, control=None, neutral=False, **fields):
    body = {"model": "sandbox/chat", "messages": list(messages) or [HI], **fields}
    request = decode_chat_request(json.dumps(body).encode())
    request = structs.replace(request, wire=None) if neutral else request
    encoded = provider.chat.encode(request, target(control))
    return request, provider.respond(encoded.request, NOW_S)


def ask(*messages, **fields):
    request, local = respond(*messages, **fields)
    reply = HttpReply(status=local.status, headers=local.headers, body=b"".join(local.chunks))
    if reply.status != 200:
        raise provider.decode_error(reply, target())
    return provider.chat.decode(reply, request, target())


def said(*messages, **fields):
    (choice,) = ask(*messages, **fields).choices
    assert all(isinstance(part, TextPart) for part in choice.parts)
    return "".join(part.text for part in choice.parts), choice.finish_reason


def called(*messages, **fields):
    (choice,) = ask(*messages, **fields).choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.parts
    assert isinstance(call, ToolCallPart)
    return call.name, json.loads(call.arguments)


def refused(*messages, **fields):
    with pytest.raises(ProviderRejected) as caught:
        ask(*messages, **fields)
    return caught.value.param


def embed(given, **fields):
    body = {"model": "sandbox/embedding", "input": given, **fields}
    request = decode_embedding_request(json.dumps(body).encode())
    local = provider.respond(provider.embedding.encode(request, target()).request, NOW_S)
    reply = HttpReply(status=local.status, headers=local.headers, body=b"".join(local.chunks))
    if reply.status != 200:
        raise provider.decode_error(reply, target())
    return request, provider.embedding.decode(reply, request, target())


@pytest.mark.parametrize("neutral", [False, True])
def test_plain_answer(neutral):
    """The answer says that it is synthetic, repeats the question, and counts tokens."""
    result = ask(neutral=neutral)
    (choice,) = result.choices
    assert choice.parts == (TextPart(text=f"{GREETING} You said: Hi there"),)
    assert (choice.finish_reason, result.created_s, result.model) == ("stop", 1_800_000_000, "chat")
    assert result.usage.input_tokens > 0
    assert result.usage.output_tokens == len(choice.parts[0].text.split(" "))
    assert "synthetic" in GREETING


def test_the_same_question_gets_the_same_answer():
    """Two equal requests get equal answers; another request gets another id."""
    assert ask().wire.fields == ask().wire.fields
    assert ask().id != ask({"role": "user", "content": "Ho"}).id


@pytest.mark.parametrize("neutral", [False, True])
def test_streamed_answer(neutral):
    """The streamed words join to the plain answer, one finish reason, then usage, then the end."""
    request, local = respond(stream=True, stream_options={"include_usage": True})
    request = structs.replace(request, wire=None) if neutral else request
    reader = provider.chat.open_stream(request, target())
    events = [event for chunk in local.chunks for event in reader.feed(chunk)] + list(reader.close())
    assert (local.status, local.headers["content-type"]) == (200, "text/event-stream")
    assert events[-1] == Ended()
    if neutral:
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == f"{GREETING} You said: Hi there"
        assert [event for event in events if isinstance(event, Finished)] == [Finished(reason="stop")]
        (report,) = (event for event in events if isinstance(event, UsageReported))
        assert report.usage.output_tokens == len(text.split(" "))


def test_every_event_of_a_stream_says_synthetic():
    """Each event of a stream carries the mark, the one with the usage included."""
    _, local = respond(stream=True, tools=[WEATHER], n=2)
    events = [chunk for chunk in local.chunks if chunk != b"data: [DONE]\n\n"]
    assert len(events) > 4
    assert all(json.loads(event[6:])["synthetic"] is True for event in events)


def test_every_other_answer_says_synthetic():
    """Plain answers, vectors, refusals and asked-for failures say that they are made up."""
    bodies = [respond()[1], respond(logprobs=True)[1], respond(control="fail=503")[1]]
    bodies += [respond(tools=[WEATHER])[1], respond(response_format={"type": "json_object"})[1]]
    assert all(b"synthetic" in b"".join(local.chunks) for local in bodies)
    assert bytes(embed("x")[1].wire.fields["synthetic"]) == b"true"


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (None, "weather"),
        ("auto", "weather"),
        ("required", "weather"),
        ({"type": "function", "function": {"name": "clock"}}, "clock"),
    ],
)
def test_tools_are_called(choice, name, neutral):
    """An offered tool is called: the first, or the one that was named, with arguments that fit."""
    arguments = {"city": "synthetic"} if name == "weather" else {}
    assert called(tools=[WEATHER, CLOCK], tool_choice=choice, neutral=neutral) == (name, arguments)


def test_no_tool_is_called_where_none_is_wanted():
    """With choice none, or without tools, the answer is text."""
    assert said(tools=[WEATHER], tool_choice="none")[1] == "stop"
    assert said(tools=[])[1] == "stop"


@pytest.mark.parametrize("choice", [None, "auto"])
def test_after_a_tools_answer_comes_text(choice):
    """When the tool has answered, the sandbox answers in text instead of calling it for ever."""
    turns = [
        HI,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "4 degrees"},
    ]
    assert said(*turns, tools=[WEATHER], tool_choice=choice) == (
        f"{GREETING} The tool said: 4 degrees",
        "stop",
    )
    assert called(*turns, tools=[WEATHER], tool_choice="required") == ("weather", {"city": "synthetic"})


def test_an_unknown_tool_is_refused():
    """A choice that names no offered tool is refused, naming the field."""
    assert (
        refused(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "x"}}) == "tool_choice"
    )


def test_streamed_tool_call():
    """A streamed call brings its id and name once and its arguments in pieces."""
    request, local = respond(stream=True, tools=[WEATHER])
    reader = provider.chat.open_stream(structs.replace(request, wire=None), target())
    events = [event for chunk in local.chunks for event in reader.feed(chunk)] + list(reader.close())
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [call.name for call in calls if call.name] == ["weather"]
    assert json.loads("".join(call.arguments for call in calls)) == {"city": "synthetic"}
    assert Finished(reason="tool_calls") in events


@pytest.mark.parametrize("parameters", [None, {}, [], 5, "x", {"type": "string"}, {"type": ["x"]}])
def test_arguments_are_always_an_object(parameters):
    """Whatever stands for the parameters of a tool, the arguments are a JSON object."""
    tool = {"type": "function", "function": {"name": "t", "parameters": parameters}}
    assert called(tools=[tool]) == ("t", {})


SCHEMAS = [
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
        "required": ["a"],
    },
    {"type": "object", "required": ["loose"]},
    {"type": "object", "properties": {}, "required": ["n"], "additionalProperties": {"type": "integer"}},
    {
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "id": {"type": "string", "format": "uuid"},
        }
    },
    {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
        "minItems": 3,
    },
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "array", "items": {"type": "integer"}, "minItems": 4, "uniqueItems": True},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": {"type": "boolean"}},
    {"type": "integer", "minimum": 0.5},
    {"type": "integer", "exclusiveMinimum": 10},
    {"type": "integer", "minimum": 3, "maximum": 3},
    {"type": "integer", "maximum": -4},
    {"type": "integer", "multipleOf": 7, "minimum": 10},
    {"type": "integer", "exclusiveMaximum": 0},
    {"type": "number", "minimum": 0.1, "maximum": 0.2},
    {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1.5},
    {"type": "string", "minLength": 30},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 2, "maxLength": 2},
    {"type": ["null", "string"]},
    {"type": "boolean"},
    {"const": {"a": [1]}},
    {"enum": [None, 1]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {}}, "required": ["b"]}]},
    {
        "allOf": [{"$ref": "#/$defs/p"}],
        "properties": {"q": {"type": "null"}},
        "$defs": {"p": {"required": ["z"]}},
    },
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "integer"}}},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}, "name": {"type": "string"}},
        "required": ["children", "name"],
        "additionalProperties": False,
    },
    {},
    True,
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_made_up_values_fit_their_schema(schema):
    """A value made up for a schema validates against it."""
    jsonschema_rs.validate(schema, synthesise(schema))


@pytest.mark.parametrize("neutral", [False, True])
def test_structured_answers(neutral):
    """An answer to a schema is one JSON text that validates; one to json_object is an object."""
    schema = SCHEMAS[0]
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    text, reason = said(response_format=wanted, neutral=neutral)
    jsonschema_rs.validate(schema, json.loads(text))
    assert reason == "stop"
    loose = json.loads(said(response_format={"type": "json_object"}, neutral=neutral)[0])
    assert loose == {"synthetic": True, "answer": GREETING, "you_said": "Hi there"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9, "items": True},
        {"type": "string", "minLength": 10**12},
        {
            "$defs": {"a": {"required": ["x", "y"], "additionalProperties": {"$ref": "#/$defs/a"}}},
            "$ref": "#/$defs/a",
        },
        {"type": "array", "minItems": 50, "items": {"type": "array", "minItems": 50, "items": {}}},
    ],
)
def test_schemas_that_ask_for_too_much_are_refused(schema):
    """A schema whose smallest value is huge or endless is refused as the caller's mistake."""
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    with pytest.raises(ProviderRejected, match="can be made up"):
        ask(response_format=wanted)


KEYWORDS = ["type", "enum", "const", "properties", "required", "items", "prefixItems", "minItems", "maxItems"]
KEYWORDS += [
    "minimum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "format",
]
KEYWORDS += ["$ref", "anyOf", "allOf", "oneOf", "default", "additionalProperties", "uniqueItems"]
NONSENSE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["object", "array", "integer", "number", "string", "null", "#", "#/properties/a", "date", ""]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(schema=NONSENSE)
def test_nonsense_in_a_schema_never_breaks_the_sandbox(schema):
    """Any JSON in the place of a schema gives some JSON value or a refusal."""
    try:
        made = synthesise(schema)
    except InvalidRequest:
        return
    assert msgspec.json.decode(msgspec.json.encode(made)) is not ...


@pytest.mark.parametrize("neutral", [False, True])
def test_several_choices(neutral):
    """As many choices come as were asked for, plain and streamed, and all of them are counted."""
    result = ask(n=3, neutral=neutral)
    assert [choice.index for choice in result.choices] == [0, 1, 2]
    assert result.usage.output_tokens == 3 * ask().usage.output_tokens
    request, local = respond(n=3, stream=True, neutral=neutral)
    reader = provider.chat.open_stream(structs.replace(request, wire=None), target())
    events = [event for chunk in local.chunks for event in reader.feed(chunk)] + list(reader.close())
    assert [event.index for event in events if isinstance(event, Finished)] == [0, 1, 2]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_limits_cut_the_answer(field):
    """A limit on tokens cuts the answer and says so; one that is not reached changes nothing."""
    assert said(**{field: 3}) == ("This is a", "length")
    assert said(**{field: 1000})[1] == "stop"
    assert ask(**{field: 3}).usage.output_tokens == 3


@pytest.mark.parametrize(
    ("stop", "text"), [("synthetic", "This is a "), (["no model", "You"], GREETING[:54])]
)
def test_stop_words_end_the_answer(stop, text):
    """The answer ends before the first stop word."""
    assert said(stop=stop) == (text, "stop")


def test_pictures_are_counted_not_seen():
    """Media parts are mentioned, since nobody looked at them."""
    picture = {"type": "image_url", "image_url": {"url": "https://pictures.test/a.png"}}
    text, _ = said({"role": "user", "content": [{"type": "text", "text": "See"}, picture]})
    assert text == f"{GREETING} You said: See It came with 1 media part(s), which nobody looked at."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "v"}}, "audio"),
    ],
)
def test_what_the_sandbox_cannot_do_is_refused(fields, param):
    """Parameters that would change the answer and cannot be honoured are refused."""
    assert refused(**fields) == param


# Embeddings


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors(encoding):
    """Each text gets a unit vector; equal texts get equal ones, related texts closer ones than others."""
    texts = ["the red cat", "the red cat", "the red dog", "quarterly figures"]
    _, result = embed(texts, encoding_format=encoding)
    same, again, related, other = result.vectors
    assert (len(same), same == again) == (256, True)
    assert sum(value * value for value in same) == pytest.approx(1, abs=1e-3)
    assert _dot(same, related) > _dot(same, other)
    assert result.usage.input_tokens == 14
    assert result.usage.output_tokens == 0


def _dot(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("given", [[1, 2, 3], [[1, 2], [3]], "text", ["a"]])
def test_inputs_of_every_shape(given):
    """Texts and token ids, alone or in lists, get one vector each."""
    count = len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
    assert len(embed(given)[1].vectors) == count


def test_wanted_dimensions():
    """The vectors have the dimensions asked for, within bounds."""
    assert [len(vector) for vector in embed(["a", "b"], dimensions=3)[1].vectors] == [3, 3]
    with pytest.raises(ProviderRejected) as caught:
        embed("a", dimensions=5000)
    assert caught.value.param == "dimensions"


def test_vectors_come_as_asked_for():
    """A caller who asked for base64 gets base64."""
    request, result = embed("a", encoding_format="base64", dimensions=2)
    body = json.loads(encode_embedding_result(result, request, model="m", cost=None))
    assert len(body["data"][0]["embedding"]) == 12


# The control header


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ProviderRejected),
        (401, ProviderAuthFailed),
        (402, ProviderQuotaExhausted),
        (404, ProviderModelGone),
        (408, ProviderTimeout),
        (422, ProviderRejected),
        (429, ProviderRateLimited),
        (500, ProviderUnavailable),
        (503, ProviderUnavailable),
        (504, ProviderTimeout),
        (599, ProviderUnavailable),
    ],
)
def test_asked_for_failures(status, expected):
    """The sandbox fails with the status it is told, and the failure is classified like a vendor's."""
    request, local = respond(control=f"fail={status}")
    assert (local.status, local.broken) == (status, False)
    reply = HttpReply(status=status, headers=local.headers, body=b"".join(local.chunks))
    found = provider.decode_error(reply, target())
    assert type(found) is expected
    assert found.retry_after_s == (1.0 if status in {429, 503} else None)
    assert request.model == "sandbox/chat"


def test_asked_for_delay():
    """The answer, and a failure, wait as long as they are told."""
    assert respond(control="delay_ms=250")[1].delay_s == 0.25
    assert respond(control=" delay_ms = 250 ; fail=500 ; ")[1].delay_s == 0.25
    assert respond()[1].delay_s == 0.0


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_asked_for_break_in_a_stream(pieces):
    """A stream breaks off after so many pieces, and never counts as complete."""
    request, local = respond(control=f"cut_after={pieces}", stream=True)
    chunks = list(local.chunks)
    assert (len(chunks), local.broken) == (pieces, True)
    for one in (request, structs.replace(request, wire=None)):
        reader = provider.chat.open_stream(one, target())
        for chunk in chunks:
            reader.feed(chunk)
        with pytest.raises(BadProviderResponse):
            reader.close()


def test_a_break_after_the_end_is_none():
    """A stream with fewer pieces than told comes through whole."""
    _, local = respond(control="cut_after=1000", stream=True)
    assert (list(local.chunks)[-1], local.broken) == (b"data: [DONE]\n\n", False)


def test_asked_for_break_in_a_plain_answer():
    """A plain answer breaks off in the middle."""
    request, local = respond(control="cut_after=1")
    reply = HttpReply(status=200, headers=local.headers, body=b"".join(local.chunks))
    assert local.broken
    with pytest.raises(BadProviderResponse):
        provider.chat.decode(reply, request, target())


@pytest.mark.parametrize(
    "text",
    [
        "boom",
        "fail",
        "fail=",
        "fail=x",
        "fail=-1",
        "fail=399",
        "fail=600",
        "fail=\xb2",
        "fail=4\u06629",
        "delay_ms=60001",
        "delay_ms=1.5",
        "delay_ms=" + "9" * 5000,
        "cut_after=a",
        "speed=1",
        "fail=429,500",
    ],
)
def test_a_control_header_that_cannot_be_read_is_refused(text):
    """An unknown word or a bad number is the caller's mistake, found before anything is answered."""
    with pytest.raises(InvalidRequest) as caught:
        read_control(text)
    assert caught.value.param == "x-llm-gate-sandbox"
    with pytest.raises(InvalidRequest):
        respond(control=text)


def test_an_unreadable_control_header_at_the_sandbox_itself():
    """The sandbox answers 400 to a control header it cannot read, like any server."""
    request = provider.chat.encode(
        decode_chat_request(json.dumps({"model": "m", "messages": [HI]}).encode()), target()
    )
    bad = structs.replace(request.request, headers={"x-llm-gate-sandbox": "boom"})
    assert provider.respond(bad, NOW_S).status == 400


@pytest.mark.parametrize("text", [None, "", " ; ", "fail=400;delay_ms=60000;cut_after=0"])
def test_control_headers_that_can_be_read(text):
    """Nothing, blanks and the documented words within their bounds are taken."""
    assert read_control(text).fail == (400 if text and "fail" in text else None)
