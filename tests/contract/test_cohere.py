"""Contract of the outbound Cohere dialect: golden cases of our own, recorded traffic, split streams."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_gate.dialects.cohere import provider
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContextTooLong,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.events import (
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_gate.domain.messages import (
    Conversation,
    MediaPart,
    Message,
    ResponseFormat,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.usage import Usage
from support.figures import property_of
from support.recorded import parametrize, recordings
from support.targets import CREDENTIAL, make_reply, make_target

HELLO = (Message(role="user", parts=(TextPart(text="Hello"),)),)
SCHEMA = Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}')
TOOL = Tool(name="weather", description="Tells it", parameters=SCHEMA)


def target(*abilities):
    return make_target(
        provider="cohere",
        codecs=provider,
        base_url="https://vendor.test",
        model="command-test",
        abilities=frozenset(abilities),
    )


def ask(*messages, **fields):
    return ChatRequest(
        model="command-test", conversation=Conversation(lambda: tuple(messages) or HELLO), **fields
    )


def user(*parts):
    return Message(role="user", parts=parts)


def answered(*parts):
    return Message(role="assistant", parts=parts)


def sent(*messages, abilities=(), **fields):
    return json.loads(provider.chat.encode(ask(*messages, **fields), target(*abilities)).request.body)


def dropped(*messages, abilities=(), **fields):
    return provider.chat.encode(ask(*messages, **fields), target(*abilities)).dropped


def refused(*messages, **fields):
    with pytest.raises(InvalidRequest) as caught:
        provider.chat.encode(ask(*messages, **fields), target())
    return caught.value.param


def read(body, status=200):
    return provider.chat.decode(make_reply(body, status), ask(), target())


def answer(finish_reason="COMPLETE", **message):
    return {
        "id": "a1",
        "message": {"role": "assistant", **message},
        "finish_reason": finish_reason,
        "usage": {
            "billed_units": {"input_tokens": 8, "output_tokens": 9.0},
            "tokens": {"input_tokens": 503, "output_tokens": 30, "reasoning_tokens": 4},
            "cached_tokens": 448,
        },
    }


# Requests


def test_plain_request_as_sent():
    """A plain question becomes exactly the documented request, without a credential."""
    encoded = provider.chat.encode(ask(), target())
    assert encoded.dropped == ()
    assert encoded.request.method == "POST"
    assert encoded.request.url == "https://vendor.test/v2/chat"
    assert encoded.request.headers == {"content-type": "application/json"}
    assert json.loads(encoded.request.body) == {
        "model": "command-test",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
    }


def test_parameters_as_sent():
    """Each parameter travels under the vendor's name for it."""
    body = sent(
        stream=True,
        max_output_tokens=5,
        temperature=0.4,
        top_p=0.5,
        top_k=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        stop=("a", "b"),
        seed=3,
    )
    del body["messages"], body["model"]
    assert body == {
        "stream": True,
        "max_tokens": 5,
        "temperature": 0.4,
        "p": 0.5,
        "k": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "stop_sequences": ["a", "b"],
        "seed": 3,
    }


@pytest.mark.parametrize(("asked", "written"), [(1.0, 0.99), (0.0, 0.01), (0.9, 0.9)])
def test_top_p_stays_in_the_vendors_range(asked, written):
    """The usual bounds of nucleus sampling become the vendor's own."""
    assert sent(top_p=asked)["p"] == written


def test_tool_conversation_as_sent():
    """Tools, calls with their plan, and each tool's answer as a message of its own."""
    body = sent(
        Message(role="system", parts=(TextPart(text="Be brief."),)),
        user(TextPart(text="Weather and time?")),
        answered(
            ThinkingPart(text="I will ask."),
            ToolCallPart(id="c1", name="weather", arguments='{"city":"Rome"}'),
            ToolCallPart(id="c2", name="time", arguments=""),
        ),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="c1", content=(TextPart(text="sunny"),)),
                ToolResultPart(tool_call_id="c2", content=()),
            ),
        ),
        tools=(TOOL, Tool(name="time")),
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather and time?"},
        {
            "role": "assistant",
            "tool_plan": "I will ask.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Tells it",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        },
        {
            "type": "function",
            "function": {"name": "time", "parameters": {"type": "object", "properties": {}}},
        },
    ]


@pytest.mark.parametrize(("mode", "written"), [("auto", None), ("none", "NONE"), ("required", "REQUIRED")])
def test_tool_choice_as_sent(mode, written):
    """Whether a tool must be used is said in the vendor's words; its default is to choose freely."""
    assert sent(tools=(TOOL,), tool_choice=ToolChoice(mode=mode)).get("tool_choice") == written


def test_a_named_tool_goes_out_alone():
    """A call of a certain tool is forced by offering no other."""
    body = sent(tools=(Tool(name="time"), TOOL), tool_choice=ToolChoice(mode="named", name="weather"))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]
    assert body["tool_choice"] == "REQUIRED"


def test_strict_tools_as_sent():
    """Strictness holds for all tools or for none."""
    strict = Tool(name="a", strict=True)
    assert sent(tools=(strict,))["strict_tools"] is True
    assert "strict_tools" not in sent(tools=(strict, TOOL))


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (ResponseFormat(kind="json_object"), {"type": "json_object"}),
        (
            ResponseFormat(kind="json_schema", name="x", schema=Raw(b'{"type":"object"}')),
            {"type": "json_object", "json_schema": {"type": "object"}},
        ),
        (ResponseFormat(kind="text"), None),
    ],
)
def test_response_format_as_sent(wanted, written):
    """A JSON answer, with or without a schema."""
    assert sent(response_format=wanted).get("response_format") == written


def test_images_as_sent():
    """Pictures go out as links or data URLs beside the text."""
    body = sent(
        user(
            TextPart(text="What is it?"),
            MediaPart(kind="image", data="QUJD", media_type="image/png"),
            MediaPart(kind="image", url="https://pictures.test/a.jpg", detail="low"),
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://pictures.test/a.jpg", "detail": "low"}},
    ]


def test_reasoning_travels_where_the_model_thinks():
    """Earlier reasoning goes back to a model that thinks; without calls another one has no place for it."""
    turns = (*HELLO, answered(ThinkingPart(text="Hm."), TextPart(text="Hi")), *HELLO)
    assert sent(*turns, abilities=("thinking",))["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Hi"},
    ]
    assert sent(*turns)["messages"][1] == {"role": "assistant", "content": "Hi"}
    assert dropped(*turns) == ("messages[].reasoning_content",)


def test_reasoning_effort_as_sent():
    """Thinking is switched on or off where the model can, else the wish is dropped."""
    assert sent(reasoning_effort="high", abilities=("thinking",))["thinking"] == {"type": "enabled"}
    assert sent(reasoning_effort="none", abilities=("thinking",))["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent(reasoning_effort="high")
    assert dropped(reasoning_effort="high") == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("budget_tokens", "thinking"),
    [(500, {"type": "enabled", "token_budget": 500}), (0, {"type": "disabled"})],
)
def test_thinking_budget_as_sent(budget_tokens, thinking):
    """A budget travels as it is where the model can think, else the wish is dropped."""
    assert sent(thinking_budget_tokens=budget_tokens, abilities=("thinking",))["thinking"] == thinking
    assert dropped(thinking_budget_tokens=budget_tokens) == ("thinking",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ("audio",)}, "modalities"),
        ({"binding": ("web_search_options",)}, "web_search_options"),
        ({"tool_choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="named", name="other")}, "tool_choice"),
        (
            {"response_format": ResponseFormat(kind="json_schema")},
            "response_format.json_schema.schema",
        ),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"presence_penalty": 1.5}, "presence_penalty"),
        (
            {"tools": (Tool(name="t", parameters=Raw(b"[1]")),)},
            "tools[0].function.parameters",
        ),
    ],
)
def test_what_changes_the_meaning_is_refused(fields, param):
    """What this format cannot say, and what would change the answer, is refused by name."""
    assert refused(**fields) == param


@pytest.mark.parametrize(
    "message",
    [
        user(MediaPart(kind="audio", data="QUJD", media_type="audio/wav")),
        user(MediaPart(kind="image", data="QUJD")),
        Message(role="system", parts=(MediaPart(kind="image", url="https://pictures.test/a"),)),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="c", content=(MediaPart(kind="image", url="https://a.test"),)),
            ),
        ),
    ],
)
def test_parts_that_cannot_be_carried_are_refused(message):
    """Sound, and pictures where the vendor takes none, are refused with their place."""
    assert refused(message) == "messages[0].content[0]"


def test_an_empty_conversation_is_refused():
    """There must be something to answer."""
    assert refused(answered()) == "messages"


def test_hints_are_dropped_and_listed():
    """Hints without a counterpart are left out and named."""
    assert dropped(
        Message(role="user", parts=(TextPart(text="Hello"),), name="anna"),
        user="u",
        parallel_tool_calls=False,
        service_tier="flex",
        extra={"store": Raw(b"true")},
    ) == ("parallel_tool_calls", "user", "service_tier", "store", "messages[].name")


# Answers


def test_answer_is_read():
    """Text, reasoning, finish reason, id and the billed counts."""
    result = read(
        answer(content=[{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Four."}])
    )
    (choice,) = result.choices
    assert choice.parts == (ThinkingPart(text="Hm."), TextPart(text="Four."))
    assert choice.finish_reason == "stop"
    assert result.id == "a1"
    assert result.usage == Usage(input_tokens=8, output_tokens=9, reasoning_tokens=4)
    assert result.notices == {}


def test_tool_plan_is_reasoning():
    """What the model means to do with its tools is never content."""
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": ""}}
    result = read(answer("TOOL_CALL", tool_plan="I will ask.", tool_calls=[call], content=None))
    assert result.choices[0].parts == (
        ThinkingPart(text="I will ask."),
        ToolCallPart(id="c1", name="time", arguments="{}"),
    )
    assert result.choices[0].finish_reason == "tool_calls"


def test_citations_are_kept_as_a_notice():
    """Citations stand beside the answer as the vendor wrote them."""
    result = read(answer(content=[{"type": "text", "text": "Four."}], citations=[{"start": 0}]))
    assert {name: json.loads(bytes(raw)) for name, raw in result.notices.items()} == {
        "citations": [{"start": 0}]
    }


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_finish_reasons(word, reason):
    """The vendor's finish reasons in neutral words."""
    assert read(answer(word, content=[])).choices[0].finish_reason == reason


@pytest.mark.parametrize(("word", "kind"), [("ERROR", ProviderUnavailable), ("TIMEOUT", ProviderTimeout)])
def test_a_failed_generation_is_no_answer(word, kind):
    """A success whose finish reason says that it failed is a failure."""
    with pytest.raises(kind):
        read(answer(word, content=[{"type": "text", "text": "Fo"}]))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"tokens": {"input_tokens": 5, "output_tokens": 2}}, Usage(input_tokens=5, output_tokens=2)),
        (
            {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 5, "output_tokens": 2}},
            Usage(input_tokens=5, output_tokens=2),
        ),
        ({"billed_units": {"input_tokens": 1}}, None),
        ({"billed_units": {"input_tokens": -1, "output_tokens": 2}}, None),
        ("much", None),
        (None, None),
    ],
)
def test_usage_without_billed_units(usage, expected):
    """Tokens stand in for missing billed units; what cannot be read is unknown, never zero."""
    assert read({**answer(content=[]), "usage": usage}).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b'{"id": "a"}',
        b'{"message": {"content": [{"text": "x"}]}, "finish_reason": "COMPLETE"}',
        b'{"message": {"content": []}}',
        b'{"message": {"tool_calls": [{"id": "", "function": {"name": "x"}}]}, "finish_reason": "COMPLETE"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_answers_outside_the_contract(body):
    """Whatever is no answer of this format is a bad answer, not a crash."""
    with pytest.raises(BadProviderResponse):
        read(body)


def test_an_error_inside_a_success():
    """An error that comes with status 200 is an error."""
    with pytest.raises(ProviderUnavailable, match="busy"):
        read({"id": "x", "message": "busy"})


# Failures


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"message": "invalid request: k is too large"}, ProviderRejected),
        (400, {"message": "too many tokens: size limit exceeded by 3 tokens"}, ContextTooLong),
        (400, {"message": "no", "error_type": "TOO_MANY_TOKENS"}, ContextTooLong),
        (401, {"message": "no api key supplied"}, ProviderAuthFailed),
        (402, {"message": "Please add or update your payment method"}, ProviderQuotaExhausted),
        (403, {"message": "forbidden"}, ProviderAuthFailed),
        (404, {"message": "model 'x' not found"}, ProviderModelGone),
        (422, {"message": "unprocessable"}, ProviderRejected),
        (429, {"message": "limited to 20 API calls / minute"}, ProviderRateLimited),
        (429, {"message": "limited to 1000 API calls / month"}, ProviderQuotaExhausted),
        (498, {"message": "invalid token"}, ProviderAuthFailed),
        (499, {"message": "request cancelled"}, ProviderUnavailable),
        (500, {"message": "internal"}, ProviderUnavailable),
        (501, {"message": "not implemented"}, ProviderUnavailable),
        (503, b"<html>down</html>", ProviderUnavailable),
        (504, b"", ProviderTimeout),
        (502, {"error": {"message": "a proxy's word"}}, ProviderUnavailable),
    ],
)
def test_error_classes(status, body, kind):
    """Each status the vendor documents leads to the class that says what can be done."""
    error = provider.decode_error(make_reply(body, status, retry_after="3"), target())
    assert type(error) is kind
    assert (error.status, error.retry_after_s) == (status, 3.0)


def test_credentials_never_travel_on():
    """A message that quotes the key loses it."""
    error = provider.decode_error(make_reply({"message": f"bad key {CREDENTIAL}"}, 400), target())
    assert CREDENTIAL not in f"{error.message} {error.detail}"


# Streams


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


def said(**message):
    return {"delta": {"message": message}}


STREAM = "".join(
    (
        event("message-start", id="s1", **said(role="assistant", content=[], tool_calls=[])),
        event("tool-plan-delta", **said(tool_plan="I will ask. 🌦")),
        event("content-start", index=0, **said(content={"type": "thinking", "thinking": ""})),
        event("content-delta", index=0, **said(content={"thinking": "Hm."})),
        event("content-end", index=0),
        event("content-start", index=1, **said(content={"type": "text", "text": "Grüß"})),
        event("content-delta", index=1, **said(content={"text": " dich"})),
        event("citation-start", index=0, **said(citations={"start": 1})),
        event("citation-end", index=0),
        event("content-end", index=1),
        event(
            "tool-call-start",
            index=0,
            **said(tool_calls={"id": "c1", "type": "function", "function": {"name": "w", "arguments": ""}}),
        ),
        event("tool-call-delta", index=0, **said(tool_calls={"function": {"arguments": '{"city":'}})),
        event("tool-call-delta", index=0, **said(tool_calls={"function": {"arguments": '"Köln"}'}})),
        event("tool-call-end", index=0),
        event("tool-call-start", index=1, **said(tool_calls={"id": "c2", "function": {"name": "t"}})),
        event("tool-call-end", index=1),
        event(
            "message-end",
            delta={
                "finish_reason": "TOOL_CALL",
                "usage": {"billed_units": {"input_tokens": 3, "output_tokens": 4}},
            },
        ),
        "data: [DONE]\n\n",
    )
)
EVENTS = [
    Started(id="s1"),
    ThinkingDelta(text="I will ask. 🌦"),
    ThinkingDelta(text="Hm."),
    TextDelta(text="Grüß"),
    TextDelta(text=" dich"),
    ToolCallDelta(call=0, id="c1", name="w"),
    ToolCallDelta(call=0, arguments='{"city":'),
    ToolCallDelta(call=0, arguments='"Köln"}'),
    ToolCallDelta(call=1, id="c2", name="t"),
    ToolCallDelta(call=1, arguments="{}"),
    Finished(reason="tool_calls"),
    UsageReported(usage=Usage(input_tokens=3, output_tokens=4)),
    Ended(),
]


def listen(*portions):
    stream = provider.chat.open_stream(ask(stream=True), target())
    found = [each for portion in portions for each in stream.feed(portion)]
    return found + list(stream.close())


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_split_gives_the_same_events(line_end):
    """Wherever two portions meet, the events are the same."""
    data = STREAM.replace("\n", line_end).encode()
    for place in range(len(data) + 1):
        assert listen(data[:place], data[place:]) == EVENTS


@property_of()
@given(cuts=st.lists(st.integers(min_value=0, max_value=len(STREAM.encode())), max_size=30))
def test_any_portions_give_the_same_events(cuts):
    """However the bytes are cut, the events are the same."""
    data = STREAM.encode()
    edges = [0, *sorted(cuts), len(data)]
    assert listen(*(data[a:b] for a, b in itertools.pairwise(edges))) == EVENTS


def test_nothing_but_message_end_is_the_end():
    """A stream that is cut anywhere before its end is an error, also where the end marker of others came."""
    whole = STREAM.encode()
    for place in range(whole.index(b"event: message-end") + 1):
        with pytest.raises(BadProviderResponse):
            listen(whole[:place])
    with pytest.raises(BadProviderResponse, match="message-end"):
        listen(event("message-start").encode(), b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b'{"message": "busy"}', ProviderUnavailable),
        (b'data: {"message": "busy"}\n\n', ProviderUnavailable),
        (b'event: error\ndata: {"message": "busy"}\n\n', ProviderUnavailable),
        (b'event: error\ndata: {"error": "busy"}\n\n', ProviderUnavailable),
        (
            event("message-end", delta={"finish_reason": "ERROR", "error": "busy"}).encode(),
            ProviderUnavailable,
        ),
        (event("message-end", delta={"finish_reason": "TIMEOUT"}).encode(), ProviderTimeout),
        (event("message-end", delta={}).encode(), BadProviderResponse),
        (event("message-end").encode(), BadProviderResponse),
        (event("message-start").encode(), BadProviderResponse),
        (event("content-delta").encode(), BadProviderResponse),
        (event("tool-call-start", **said(tool_calls={"function": {}})).encode(), BadProviderResponse),
        (
            event("tool-call-delta", **said(tool_calls={"function": {"arguments": "x"}})).encode(),
            BadProviderResponse,
        ),
        (b"data: {not json}\n\n", BadProviderResponse),
        (b"data: \xff\n\n", BadProviderResponse),
        (b"data: " + b"x" * 1_100_000, BadProviderResponse),
    ],
)
def test_broken_streams(wire, kind):
    """An error inside a stream has its class, and what is no event of this format is a bad answer."""
    before = event("message-start", id="s") + event("content-delta", **said(content={"text": "Hi"}))
    with pytest.raises(ProviderError) as caught:
        listen(before.encode(), wire)
    assert type(caught.value) is kind


def test_what_came_before_a_failure_is_kept():
    """The events of the same read that came before a failure travel with it."""
    wire = event("message-start", id="s") + event("content-delta", **said(content={"text": "Hi"}))
    with pytest.raises(ProviderUnavailable) as caught:
        listen(wire.encode() + b'data: {"message": "busy"}\n\n')
    assert caught.value.preceding == (Started(id="s"), TextDelta(text="Hi"))


@pytest.mark.parametrize("wire", [b"", b"<html>busy</html>", b"data: [DONE]\n\n"])
def test_what_is_no_stream(wire):
    """A success without a stream is a bad answer."""
    with pytest.raises(BadProviderResponse):
        listen(wire)


# Embeddings


def embed(*inputs, **fields):
    return EmbeddingRequest(model="embed-test", inputs=inputs, **fields)


def test_embedding_request_as_sent():
    """Texts go out for documents that will be searched, unless the caller says otherwise."""
    encoded = provider.embedding.encode(embed("a", "b", dimensions=256, user="u"), target())
    assert encoded.request.url == "https://vendor.test/v2/embed"
    assert encoded.dropped == ("user",)
    assert json.loads(encoded.request.body) == {
        "model": "command-test",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
    }
    extra = {"input_type": Raw(b'"search_query"'), "other": Raw(b"1")}
    asked = provider.embedding.encode(embed("a", extra=extra), target())
    assert json.loads(asked.request.body)["input_type"] == "search_query"
    assert asked.dropped == ("other",)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (embed(*(["x"] * 97)), "input"),
        (embed((1, 2), (3,)), "input"),
        (embed("a", extra={"input_type": Raw(b'"image"')}), "input_type"),
    ],
)
def test_embedding_requests_that_are_refused(request_, param):
    """Too many texts, token ids and unknown purposes are refused before anything is sent."""
    with pytest.raises(InvalidRequest) as caught:
        provider.embedding.encode(request_, target())
    assert caught.value.param == param


def test_embeddings_are_read():
    """Vectors in the order of the texts, with the billed count; 96 texts are not too many."""
    provider.embedding.encode(embed(*(["x"] * 96)), target())
    body = {"embeddings": {"float": [[0.5, 1], [2, 3]]}, "meta": {"billed_units": {"input_tokens": 4}}}
    result = provider.embedding.decode(make_reply(body), embed("a", "b"), target())
    assert result.vectors == ((0.5, 1.0), (2.0, 3.0))
    assert result.usage == Usage(input_tokens=4)


@pytest.mark.parametrize(
    "body",
    [
        {"embeddings": {"float": [[1.0]]}},
        {"embeddings": {"float": [[1.0], []]}},
        {"embeddings": {"int8": [[1], [2]]}},
        {"embeddings": [[1.0], [2.0]]},
        b"<html></html>",
        b"",
    ],
)
def test_embeddings_outside_the_contract(body):
    """Missing, empty or differently written vectors are a bad answer."""
    with pytest.raises(BadProviderResponse):
        provider.embedding.decode(make_reply(body), embed("a", "b"), target())


# Recordings


@parametrize("recording", recordings("cohere", "chat"))
def test_recorded_answers(recording):
    """Recorded answers come out with their text, reasoning, calls, finish reason and billed counts."""
    for interaction in recording.interactions:
        document, message = interaction.json, interaction.json["message"]
        result = read(interaction.body)
        (choice,) = result.choices
        blocks = message.get("content") or []
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
        plan = [message["tool_plan"]] if "tool_plan" in message else []
        assert [part.text for part in choice.parts if isinstance(part, TextPart)] == texts
        assert [part.text for part in choice.parts if isinstance(part, ThinkingPart)] == plan + thoughts
        assert [
            (part.id, part.name, part.arguments) for part in choice.parts if isinstance(part, ToolCallPart)
        ] == [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", [])
        ]
        billed = document["usage"]["billed_units"]
        assert (result.usage.input_tokens, result.usage.output_tokens) == (
            billed["input_tokens"],
            billed["output_tokens"],
        )
        assert (
            choice.finish_reason == {"COMPLETE": "stop", "TOOL_CALL": "tool_calls"}[document["finish_reason"]]
        )


@parametrize("recording", recordings("cohere", "chat-stream"))
def test_recorded_streams(recording):
    """Recorded streams say the same whole, byte by byte, and never seem complete when cut."""
    for interaction in recording.interactions:
        events = listen(interaction.body)
        assert events == listen(*(interaction.body[i : i + 1] for i in range(len(interaction.body))))
        lines = interaction.body.decode().splitlines()
        wire = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        deltas = [each["delta"]["message"] for each in wire if "message" in each.get("delta", {})]
        contents = [each["content"] for each in deltas if isinstance(each.get("content"), dict)]
        text = "".join(each.get("text", "") for each in contents)
        thought = "".join(each.get("tool_plan", "") for each in deltas)
        thought += "".join(each.get("thinking", "") for each in contents)
        calls = [each["tool_calls"] for each in deltas if isinstance(each.get("tool_calls"), dict)]
        assert "".join(each.text for each in events if isinstance(each, TextDelta)) == text
        assert "".join(each.text for each in events if isinstance(each, ThinkingDelta)) == thought
        assert "".join(each.arguments for each in events if isinstance(each, ToolCallDelta)) == "".join(
            call["function"]["arguments"] for call in calls
        )
        billed = wire[-1]["delta"]["usage"]["billed_units"]
        usage = next(each.usage for each in events if isinstance(each, UsageReported))
        assert (usage.input_tokens, usage.output_tokens) == (billed["input_tokens"], billed["output_tokens"])
        assert events[-1] == Ended()
        with pytest.raises(BadProviderResponse):
            listen(interaction.body[: interaction.body.index(b"event: message-end")])


@parametrize("recording", recordings("cohere", "embed"))
def test_recorded_embeddings(recording):
    """Recorded vectors come out as they are, with the billed count."""
    for interaction in recording.interactions:
        texts = interaction.request["body"]["texts"]
        result = provider.embedding.decode(make_reply(interaction.body), embed(*texts), target())
        assert [list(vector) for vector in result.vectors] == interaction.json["embeddings"]["float"]
        assert result.usage == Usage(input_tokens=interaction.json["meta"]["billed_units"]["input_tokens"])


@parametrize("recording", recordings("cohere", "errors"))
def test_recorded_errors(recording):
    """Recorded errors have the class that their status and code say."""
    expected = {
        "cohere/errors/400-context-length.json": ContextTooLong,
        "cohere/errors/401-key.json": ProviderAuthFailed,
        "cohere/errors/404-embed-model.json": ProviderModelGone,
    }
    (interaction,) = recording.interactions
    error = provider.decode_error(make_reply(interaction.body, interaction.status), target())
    assert type(error) is expected[recording.id]
