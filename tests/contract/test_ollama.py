"""Contract of the outbound Ollama dialect: golden cases of our own, recorded traffic, split streams."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_gate.dialects._ndjson import MAX_LINE_BYTES, LineTooLargeError, NdjsonParser
from llm_gate.dialects.ollama import provider
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContextTooLong,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderError,
    ProviderModelGone,
    ProviderRateLimited,
    ProviderRejected,
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
TOOL = Tool(name="weather", description="Tells it", parameters=Raw(b'{"type":"object","properties":{}}'))


def target(*abilities, model="model-test"):
    return make_target(
        provider="ollama",
        codecs=provider,
        base_url="http://vendor.test:11434",
        model=model,
        abilities=frozenset(abilities),
    )


def ask(*messages, **fields):
    return ChatRequest(
        model="model-test", conversation=Conversation(lambda: tuple(messages) or HELLO), **fields
    )


def user(*parts):
    return Message(role="user", parts=parts)


def sent(*messages, to=None, **fields):
    return json.loads(provider.chat.encode(ask(*messages, **fields), to or target()).request.body)


def dropped(*messages, to=None, **fields):
    return provider.chat.encode(ask(*messages, **fields), to or target()).dropped


def refused(*messages, **fields):
    with pytest.raises(InvalidRequest) as caught:
        provider.chat.encode(ask(*messages, **fields), target())
    return caught.value.param


def read(body, request=None):
    return provider.chat.decode(make_reply(body), request or ask(), target())


def answer(message=None, **fields):
    return {
        "model": "model-test:latest",
        "created_at": "2026-11-20T12:00:00.123456789Z",
        "message": {"role": "assistant", "content": "", **(message or {})},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 8,
        "eval_count": 9,
        **fields,
    }


def call(name, arguments, **fields):
    return {"function": {"name": name, "arguments": arguments}, **fields}


# Requests


def test_plain_request_as_sent():
    """A plain question becomes exactly the documented request, which says that it wants no stream."""
    encoded = provider.chat.encode(ask(), target())
    assert encoded.dropped == ()
    assert encoded.request.method == "POST"
    assert encoded.request.url == "http://vendor.test:11434/api/chat"
    assert encoded.request.headers == {"content-type": "application/json"}
    assert json.loads(encoded.request.body) == {
        "model": "model-test",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
    }


def test_parameters_as_sent():
    """Each parameter travels among the options, under the vendor's name for it."""
    body = sent(
        stream=True,
        max_output_tokens=5,
        temperature=0.0,
        top_p=0.5,
        top_k=7,
        frequency_penalty=0.1,
        presence_penalty=-0.2,
        stop=("a", "b"),
        seed=3,
    )
    assert body["stream"] is True
    assert body["options"] == {
        "num_predict": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.2,
        "stop": ["a", "b"],
        "seed": 3,
    }


def test_tool_conversation_as_sent():
    """Arguments go out as objects, and each tool's answer names its tool."""
    body = sent(
        Message(role="system", parts=(TextPart(text="Be brief."),)),
        user(TextPart(text="Weather"), TextPart(text="and time?")),
        Message(
            role="assistant",
            parts=(
                ThinkingPart(text="I will ask."),
                ToolCallPart(id="c1", name="weather", arguments='{"city": "Rome"}'),
                ToolCallPart(id="c2", name="time", arguments=""),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="c1", content=(TextPart(text="sunny"),)),
                ToolResultPart(tool_call_id="c2", content=()),
                ToolResultPart(tool_call_id="c9", content=(), name="other"),
            ),
        ),
        tools=(TOOL, Tool(name="time")),
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather\n\nand time?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "I will ask.",
            "tool_calls": [
                {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}},
                {"id": "c2", "function": {"name": "time", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "sunny", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "tool", "content": "", "tool_name": "time", "tool_call_id": "c2"},
        {"role": "tool", "content": "", "tool_name": "other", "tool_call_id": "c9"},
    ]
    empty = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": empty}},
        {"type": "function", "function": {"name": "time", "parameters": empty}},
    ]


@pytest.mark.parametrize(("mode", "offered"), [("auto", True), ("none", False)])
def test_tool_choice_as_sent(mode, offered):
    """A model that may choose is offered the tools; one that must not use any never sees them."""
    body = sent(tools=(TOOL,), tool_choice=ToolChoice(mode=mode))
    assert ("tools" in body) is offered
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (ResponseFormat(kind="json_object"), "json"),
        (
            ResponseFormat(kind="json_schema", name="x", schema=Raw(b'{"type":"object"}')),
            {"type": "object"},
        ),
        (ResponseFormat(kind="text"), None),
    ],
)
def test_response_format_as_sent(wanted, written):
    """A JSON answer is asked for by the word or by the schema itself."""
    assert sent(response_format=wanted).get("format") == written


def test_images_as_sent():
    """Pictures go out as bare base64 beside the text."""
    body = sent(
        user(TextPart(text="What is it?"), MediaPart(kind="image", data="QUJD", media_type="image/png"))
    )
    assert body["messages"] == [{"role": "user", "content": "What is it?", "images": ["QUJD"]}]


@pytest.mark.parametrize(
    ("model", "abilities", "effort", "think"),
    [
        ("qwen3", ("thinking",), "none", False),
        ("qwen3", ("thinking",), "low", True),
        ("qwen3", ("thinking",), "high", True),
        ("llama3", (), "high", None),
        ("llama3", (), "none", None),
        ("gpt-oss:20b", ("thinking",), "low", "low"),
        ("gpt-oss:120b-cloud", (), "high", "high"),
        ("someone/gpt-oss", (), "medium", "medium"),
        ("gpt-oss:20b", ("thinking",), "none", None),
        ("gpt-oss:20b", ("thinking",), "xhigh", None),
    ],
)
def test_reasoning_effort_as_sent(model, abilities, effort, think):
    """Thinking is a switch, or a level for the one family that has them; otherwise the wish is dropped."""
    to = target(*abilities, model=model)
    assert sent(to=to, reasoning_effort=effort).get("think") == think
    assert dropped(to=to, reasoning_effort=effort) == (() if think is not None else ("reasoning_effort",))


@pytest.mark.parametrize(
    ("model", "abilities", "budget_tokens", "think"),
    [
        ("qwen3", ("thinking",), 0, False),
        ("qwen3", ("thinking",), 2000, True),
        ("llama3", (), 2000, None),
        ("gpt-oss:20b", ("thinking",), 2000, None),
    ],
)
def test_thinking_budget_as_sent(model, abilities, budget_tokens, think):
    """A budget switches thinking on or off where there is a switch; otherwise the wish is dropped."""
    to = target(*abilities, model=model)
    assert sent(to=to, thinking_budget_tokens=budget_tokens).get("think") == think
    lost = dropped(to=to, thinking_budget_tokens=budget_tokens)
    assert lost == (() if think is not None else ("thinking",))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ("audio",)}, "modalities"),
        ({"binding": ("web_search_options",)}, "web_search_options"),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"tools": (TOOL,), "tool_choice": ToolChoice(mode="named", name="weather")}, "tool_choice"),
        (
            {"response_format": ResponseFormat(kind="json_schema")},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_changes_the_meaning_is_refused(fields, param):
    """What this format cannot say, and what would change the answer, is refused by name."""
    assert refused(**fields) == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(MediaPart(kind="image", url="https://pictures.test/a.png")), "messages[0].content[0]"),
        (user(MediaPart(kind="audio", data="QUJD", media_type="audio/wav")), "messages[0].content[0]"),
        (
            Message(role="system", parts=(MediaPart(kind="image", data="QUJD"),)),
            "messages[0].content[0]",
        ),
        (
            Message(
                role="tool",
                parts=(ToolResultPart(tool_call_id="c", content=(MediaPart(kind="image", data="QUJD"),)),),
            ),
            "messages[0].content[0]",
        ),
        (
            Message(role="assistant", parts=(ToolCallPart(id="c", name="t", arguments="[1]"),)),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_parts_that_cannot_be_carried_are_refused(message, param):
    """Links, sound, pictures in wrong turns and arguments that are no object are refused with their place."""
    assert refused(message) == param


def test_hints_are_dropped_and_listed():
    """Hints without a counterpart are left out and named."""
    assert dropped(
        Message(role="user", parts=(TextPart(text="Hello"),), name="anna"),
        user="u",
        parallel_tool_calls=False,
        extra={"store": Raw(b"true")},
    ) == ("parallel_tool_calls", "user", "store", "messages[].name")
    sealed = Message(role="assistant", parts=(ThinkingPart(redacted="x"), TextPart(text="Hi")))
    assert dropped(*HELLO, sealed) == ("messages[].reasoning_content",)


# Answers


def test_answer_is_read():
    """Text, reasoning, finish reason, the model that ran, its time and the counts."""
    result = read(answer({"content": "Four.", "thinking": "Hm."}, prompt_eval_cached_count=5))
    (choice,) = result.choices
    assert choice.parts == (ThinkingPart(text="Hm."), TextPart(text="Four."))
    assert choice.finish_reason == "stop"
    assert (result.model, result.created_s) == ("model-test:latest", 1_795_176_000)
    assert result.usage == Usage(input_tokens=8, cached_input_tokens=5, output_tokens=9)


def test_tool_calls_are_read():
    """Arguments become JSON text; a call without an id is named by its number in the conversation."""
    calls = [call("weather", {"city": "Rome"}), call("time", {}, id="call_x")]
    parts = (
        ToolCallPart(id="call_0", name="weather", arguments='{"city":"Rome"}'),
        ToolCallPart(id="call_x", name="time", arguments="{}"),
    )
    result = read(answer({"tool_calls": calls}))
    assert result.choices[0].parts == parts
    assert result.choices[0].finish_reason == "tool_calls"
    later = ask(*HELLO, Message(role="assistant", parts=parts))
    assert read(answer({"tool_calls": calls[:1]}), later).choices[0].parts[0].id == "call_2"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"done_reason": "length"}, "length"),
        ({"done_reason": "load"}, "stop"),
        ({"done_reason": None}, "stop"),
    ],
)
def test_finish_reasons(fields, reason):
    """The vendor's reasons in neutral words."""
    assert read(answer(**fields)).choices[0].finish_reason == reason


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"prompt_eval_count": None}, None),
        ({"prompt_eval_count": -1}, None),
        ({"eval_count": "many"}, None),
        ({"prompt_eval_cached_count": 99}, Usage(input_tokens=8, cached_input_tokens=8, output_tokens=9)),
    ],
)
def test_usage_that_is_not_known(fields, usage):
    """A prompt's count that is missing, or any that cannot be read, leaves the usage unknown, never zero."""
    assert read(answer(**fields)).usage == usage
    without = answer()
    del without["prompt_eval_count"]
    assert read(without).usage is None


def test_no_output_counts_as_none():
    """A count of the output that is left out means zero."""
    body = answer()
    del body["eval_count"]
    assert read(body).usage == Usage(input_tokens=8)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"Ollama is running",
        b'{"model": "m", "response": "Hi", "done": true}',
        b'{"message": {"content": "Hi"}, "done": false}',
        b'{"message": {"content": "Hi"}}',
        b'{"message": {"tool_calls": [{"function": {"name": ""}}]}, "done": true}',
        b'{"message": {"tool_calls": [{"function": {"name": "x", "arguments": "{}"}}]}, "done": true}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_answers_outside_the_contract(body):
    """Whatever is no complete answer of this format is a bad answer, not a crash."""
    with pytest.raises(BadProviderResponse):
        read(body)


def test_an_error_inside_a_success():
    """An error that comes with status 200 is an error, whatever stands beside it."""
    with pytest.raises(ProviderUnavailable, match="busy"):
        read({"error": "busy"})
    with pytest.raises(ProviderUnavailable, match="busy"):
        read(answer(error="busy"))


# Failures


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "model does not support tools"}, ProviderRejected),
        (400, {"error": "the input length exceeds the context length"}, ContextTooLong),
        (401, {"error": "unauthorized"}, ProviderAuthFailed),
        (404, {"error": "model 'x' not found"}, ProviderModelGone),
        (429, {"error": "too many requests"}, ProviderRateLimited),
        (500, {"error": "model requires more system memory"}, ProviderUnavailable),
        (503, {"error": {"message": "server busy"}}, ProviderUnavailable),
        (502, b"<html>down</html>", ProviderUnavailable),
        (500, b"", ProviderUnavailable),
        (404, b"404 page not found", ProviderModelGone),
    ],
)
def test_error_classes(status, body, kind):
    """Each status leads to the class that says what can be done."""
    error = provider.decode_error(make_reply(body, status, retry_after="3"), target())
    assert type(error) is kind
    assert (error.status, error.retry_after_s) == (status, 3.0)


def test_a_missing_model_is_named():
    """The error for a model that is not there names it."""
    error = provider.decode_error(make_reply({"error": "model 'model-test' not found"}, 404), target())
    assert "'model-test'" in error.message


def test_credentials_never_travel_on():
    """A message that quotes the key loses it."""
    error = provider.decode_error(make_reply({"error": f"bad key {CREDENTIAL}"}, 400), target())
    assert CREDENTIAL not in f"{error.message} {error.detail}"


# Streams


def line(message=None, **fields):
    body = {"model": "m", "message": {"role": "assistant", "content": "", **(message or {})}, "done": False}
    return json.dumps({**body, **fields}, ensure_ascii=False) + "\n"


STREAM = "".join(
    (
        line({"thinking": "Hm. 🌦"}, created_at="2026-11-20T12:00:00Z"),
        line({"content": "Grüß"}),
        line(),
        "\n",
        line({"content": " dich"}),
        line({"tool_calls": [call("w", {"city": "Köln"}), call("t", {})]}),
        line({"tool_calls": [call("t", {}, id="call_x")]}),
        line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=4),
    )
)
EVENTS = [
    Started(model="m", created_s=1_795_176_000),
    ThinkingDelta(text="Hm. 🌦"),
    TextDelta(text="Grüß"),
    TextDelta(text=" dich"),
    ToolCallDelta(call=0, id="call_0", name="w", arguments='{"city":"Köln"}'),
    ToolCallDelta(call=1, id="call_1", name="t", arguments="{}"),
    ToolCallDelta(call=2, id="call_x", name="t", arguments="{}"),
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
    """Wherever two portions meet, the events are the same, with and without an end of the last line."""
    data = STREAM.replace("\n", line_end).encode()
    for place in range(len(data) + 1):
        assert listen(data[:place], data[place:]) == EVENTS
    assert listen(data.rstrip()) == EVENTS


@property_of()
@given(cuts=st.lists(st.integers(min_value=0, max_value=len(STREAM.encode())), max_size=30))
def test_any_portions_give_the_same_events(cuts):
    """However the bytes are cut, the events are the same."""
    data = STREAM.encode()
    edges = [0, *sorted(cuts), len(data)]
    assert listen(*(data[a:b] for a, b in itertools.pairwise(edges))) == EVENTS


def test_nothing_but_done_is_the_end():
    """A stream that is cut anywhere before its last line is whole is an error."""
    whole = STREAM.encode().rstrip()
    for place in range(len(whole)):
        with pytest.raises(BadProviderResponse):
            listen(whole[:place])


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b'{"error": "busy"}\n', ProviderUnavailable),
        (b'{"error": "busy"}', ProviderUnavailable),
        (b'{"error": {"message": "busy"}}', ProviderUnavailable),
        (line(error="busy").encode(), ProviderUnavailable),
        (b'{"status": "pulling manifest"}\n', BadProviderResponse),
        (b"<html>\n", BadProviderResponse),
        (b"\xff\n", BadProviderResponse),
        (line({"tool_calls": [call("x", "{}")]}).encode(), BadProviderResponse),
        (b"x" * (MAX_LINE_BYTES + 1), BadProviderResponse),
    ],
)
def test_broken_streams(wire, kind):
    """An error line is an error, and what is no line of this format a bad answer; what came before is kept."""
    before = line({"content": "Hi"}).encode()
    with pytest.raises(ProviderError) as caught:
        listen(before + wire)
    assert type(caught.value) is kind
    if not wire.endswith(b"}"):
        assert caught.value.preceding == (Started(model="m"), TextDelta(text="Hi"))


@pytest.mark.parametrize("wire", [b"", b"\n\n", b"<html>busy</html>", b"data: {}\n\n"])
def test_what_is_no_stream(wire):
    """A success without a stream of lines is a bad answer."""
    with pytest.raises(BadProviderResponse):
        listen(wire)


def test_a_length_limit_is_told_of_calls_too():
    """A stream that the limit ended says so, even after a call."""
    wire = line({"tool_calls": [call("x", {})]}) + line(done=True, done_reason="length")
    assert listen(wire.encode())[-2:] == [Finished(reason="length"), Ended()]


# Lines


@property_of()
@given(portions=st.lists(st.binary(max_size=40), max_size=20))
def test_random_bytes_are_cut_alike(portions):
    """Bytes are cut into the same lines however they are portioned, and nothing but line ends is lost."""

    def lines(pieces):
        parser = NdjsonParser()
        return [each for piece in pieces for each in parser.feed(piece)] + parser.flush()

    assert lines(portions) == lines([b"".join(portions)])


def test_a_byte_order_mark_is_skipped():
    """A mark before the first line is no part of it, wherever it is split."""
    for place in range(6):
        data = b"\xef\xbb\xbf{}\n{}"
        parser = NdjsonParser()
        assert parser.feed(data[:place]) + parser.feed(data[place:]) + parser.flush() == [b"{}", b"{}"]


def test_lines_are_bounded():
    """A line of the largest size passes, one byte more does not, and complete lines before it are kept."""
    largest = b"x" * MAX_LINE_BYTES
    assert NdjsonParser().feed(largest + b"\n") == [largest]
    parser = NdjsonParser()
    assert parser.feed(largest) == []
    with pytest.raises(LineTooLargeError):
        parser.feed(b"x")
    with pytest.raises(LineTooLargeError) as caught:
        NdjsonParser().feed(b"{}\n" + largest + b"x\n")
    assert caught.value.lines == (b"{}",)


# Embeddings


def embed(*inputs, **fields):
    return EmbeddingRequest(model="embed-test", inputs=inputs, **fields)


def test_embedding_request_as_sent():
    """All texts go out in one call."""
    extra = {"other": Raw(b"1")}
    encoded = provider.embedding.encode(embed("a", "b", dimensions=256, user="u", extra=extra), target())
    assert encoded.request.url == "http://vendor.test:11434/api/embed"
    assert encoded.dropped == ("user", "other")
    assert json.loads(encoded.request.body) == {"model": "model-test", "input": ["a", "b"], "dimensions": 256}


def test_token_ids_are_refused():
    """Token ids cannot be carried over."""
    with pytest.raises(InvalidRequest) as caught:
        provider.embedding.encode(embed((1, 2), (3,)), target())
    assert caught.value.param == "input"


def test_embeddings_are_read():
    """Vectors in the order of the texts, with the count where there is one."""
    body = {"model": "e", "embeddings": [[0.5, 1], [2, 3]], "prompt_eval_count": 4}
    result = provider.embedding.decode(make_reply(body), embed("a", "b"), target())
    assert (result.vectors, result.model) == (((0.5, 1.0), (2.0, 3.0)), "e")
    assert result.usage == Usage(input_tokens=4)
    del body["prompt_eval_count"]
    assert provider.embedding.decode(make_reply(body), embed("a", "b"), target()).usage is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"embeddings": [[1.0]]}, BadProviderResponse),
        ({"embeddings": [[1.0], []]}, BadProviderResponse),
        ({"embedding": [1.0]}, BadProviderResponse),
        (b"<html></html>", BadProviderResponse),
        (b"", BadProviderResponse),
        ({"error": "busy"}, ProviderUnavailable),
    ],
)
def test_embeddings_outside_the_contract(body, kind):
    """Missing or empty vectors are a bad answer, and an error is one."""
    with pytest.raises(kind):
        provider.embedding.decode(make_reply(body), embed("a", "b"), target())


# Recordings


def is_chat(interaction):
    return interaction.request["url"].endswith("/api/chat")


@parametrize("recording", recordings("ollama", "chat"))
def test_recorded_answers(recording):
    """Recorded answers come out with text, reasoning, calls and counts; those of another operation do not."""
    for interaction in recording.interactions:
        if not is_chat(interaction):
            with pytest.raises(BadProviderResponse):
                read(interaction.body)
            continue
        document, message = interaction.json, interaction.json["message"]
        result = read(interaction.body)
        (choice,) = result.choices
        assert "".join(part.text for part in choice.parts if isinstance(part, TextPart)) == message["content"]
        thoughts = "".join(part.text for part in choice.parts if isinstance(part, ThinkingPart))
        assert thoughts == message.get("thinking", "")
        calls = [(p.id, p.name, json.loads(p.arguments)) for p in choice.parts if isinstance(p, ToolCallPart)]
        assert calls == [
            (each["id"], each["function"]["name"], each["function"]["arguments"])
            for each in message.get("tool_calls", [])
        ]
        assert choice.finish_reason == ("tool_calls" if calls else "stop")
        assert result.model == document["model"]
        assert result.usage == Usage(
            input_tokens=document["prompt_eval_count"], output_tokens=document["eval_count"]
        )


@parametrize("recording", recordings("ollama", "chat-stream"))
def test_recorded_streams(recording):
    """Recorded streams say the same whole and byte by byte, and never seem complete when cut."""
    for interaction in recording.interactions:
        if not is_chat(interaction):
            with pytest.raises(BadProviderResponse):
                listen(interaction.body)
            continue
        events = listen(interaction.body)
        assert events == listen(*(interaction.body[i : i + 1] for i in range(len(interaction.body))))
        wire = [json.loads(each) for each in interaction.body.splitlines()]
        messages = [each["message"] for each in wire]
        text = "".join(each.text for each in events if isinstance(each, TextDelta))
        assert text == "".join(each["content"] for each in messages)
        thought = "".join(each.text for each in events if isinstance(each, ThinkingDelta))
        assert thought == "".join(each.get("thinking", "") for each in messages)
        counts = (wire[-1]["prompt_eval_count"], wire[-1]["eval_count"])
        assert events[-3:] == [
            Finished(reason=wire[-1]["done_reason"]),
            UsageReported(usage=Usage(input_tokens=counts[0], output_tokens=counts[1])),
            Ended(),
        ]
        with pytest.raises(BadProviderResponse):
            listen(interaction.body[: interaction.body.rindex(b'"done":true')])


@parametrize("recording", recordings("ollama", "embeddings"))
def test_recorded_embeddings(recording):
    """Recorded vectors come out as they are; those of the older operation do not."""
    for interaction in recording.interactions:
        reply = make_reply(interaction.body)
        if not interaction.request["url"].endswith("/api/embed"):
            with pytest.raises(BadProviderResponse):
                provider.embedding.decode(reply, embed("a"), target())
            continue
        result = provider.embedding.decode(reply, embed("a"), target())
        assert [list(vector) for vector in result.vectors] == interaction.json["embeddings"]
        assert result.usage == Usage(input_tokens=interaction.json["prompt_eval_count"])


@parametrize("recording", recordings("ollama", "errors"))
def test_recorded_errors(recording):
    """Recorded errors have the class that their status and message say."""
    expected = {
        "ollama/errors/400-context-length.json": ContextTooLong,
        "ollama/errors/401-cloud.json": ProviderAuthFailed,
        "ollama/errors/404-model.json": ProviderModelGone,
    }
    for interaction in recording.interactions:
        error = provider.decode_error(make_reply(interaction.body, interaction.status), target())
        assert type(error) is expected[recording.id]
