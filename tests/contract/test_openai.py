"""Contract of the OpenAI dialect: chat requests, read from callers and written to providers."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from llm_gate.dialects import openai
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_messages import read_messages, write_messages
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import (
    InvalidRequest,
)
from llm_gate.domain.messages import (
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
from support.targets import CREDENTIAL, make_target
from support.texts import CHARACTERS

HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"b": {}, "a": {"type": "string"}}, "x-unknown": 1}
FULL = {
    "model": "vendor/model-a",
    "messages": [HI],
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "max_completion_tokens": 7,
    "temperature": 0.5,
    "top_p": 0.9,
    "frequency_penalty": -1,
    "presence_penalty": 1.5,
    "stop": ["END", "STOP"],
    "n": 2,
    "seed": 42,
    "tools": [
        {
            "type": "function",
            "function": {"name": "t", "description": "d", "parameters": SCHEMA, "strict": True},
        },
        {"type": "function", "function": {"name": "bare"}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "t"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
    },
    "reasoning_effort": "low",
    "logprobs": True,
    "top_logprobs": 3,
    "modalities": ["text"],
    "user": "u1",
    "service_tier": "flex",
}


def read(body=None, **fields):
    return decode_chat_request(json.dumps(body or {"model": "m", "messages": [HI], **fields}).encode())


def raw_request(text):
    return decode_chat_request(text.encode())


def sent(request, **target):
    return json.loads(openai.provider.chat.encode(request, make_target(**target)).request.body)


def neutral(request):
    return structs.replace(request, wire=None)


def fault(body=None, **fields):
    with pytest.raises(InvalidRequest) as caught:
        read(body, **fields)
    return caught.value.param


# Requests, read


def test_every_parameter_is_read():
    """Every documented parameter arrives in its neutral field."""
    request = read(FULL)
    assert request.model == "vendor/model-a"
    assert request.conversation.messages == (Message(role="user", parts=(TextPart(text="Hi"),)),)
    assert (request.stream, request.include_usage, request.max_output_tokens) == (True, True, 7)
    assert (request.temperature, request.top_p, request.n, request.seed) == (0.5, 0.9, 2, 42)
    assert (request.frequency_penalty, request.presence_penalty) == (-1.0, 1.5)
    assert (request.stop, request.user, request.service_tier) == (("END", "STOP"), "u1", "flex")
    assert (request.logprobs, request.top_logprobs, request.modalities) == (True, 3, ("text",))
    assert (request.reasoning_effort, request.parallel_tool_calls) == ("low", False)
    assert request.tool_choice == ToolChoice(mode="named", name="t")
    first, second = request.tools
    assert (first.name, first.description, first.strict) == ("t", "d", True)
    assert json.loads(bytes(first.parameters)) == SCHEMA
    assert second == Tool(name="bare")
    assert isinstance(request.response_format, ResponseFormat)
    assert (request.response_format.kind, request.response_format.name) == ("json_schema", "n")
    assert json.loads(bytes(request.response_format.schema)) == SCHEMA
    assert request.needs == {"tools", "json_schema"}
    assert (request.extra, request.binding) == ({}, ())


def test_defaults_are_not_invented():
    """What the caller did not say, or said as null, stays unsaid."""
    nulls = dict.fromkeys(key for key in FULL if key not in {"model", "messages"})
    for request in (read(), read(**nulls)):
        bare = structs.replace(request, wire=None, conversation=None)
        assert bare == structs.replace(read(), wire=None, conversation=None)
        assert (bare.stream, bare.include_usage, bare.needs, bare.extra) == (False, False, frozenset(), {})


def test_older_names_are_read():
    """The older limit and a single stop word are read; the newer limit wins."""
    assert read(max_tokens=5, stop="END").stop == ("END",)
    assert read(max_tokens=5).max_output_tokens == 5
    assert read(max_tokens=5, max_completion_tokens=6).max_output_tokens == 6


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": "x"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [HI, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages[0].content"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].name"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stop": [1]}, "stop[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_faults_name_the_field(fields, param):
    """A malformed request is refused with the wire path of the fault."""
    assert fault({"model": "m", "messages": [HI], **fields}) == param


def test_required_fields():
    """Model and messages must be there."""
    assert fault({"messages": [HI]}) == "model"
    assert fault({"model": "m"}) == "messages"


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}}
CALL = {"id": "a", "type": "function", "function": {"name": "t", "arguments": '{"x": 1}'}}


def test_messages_become_neutral():
    """Every role and every kind of part has its neutral form."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "See"},
                PICTURE,
                {"type": "image_url", "image_url": "https://pictures.test/a.png"},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
                },
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "4"}]},
        {"role": "assistant", "refusal": "No."},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "5"},
    ]
    request = read(messages=turns)
    assert request.needs == {"images", "audio", "files"}
    assert request.conversation.messages == (
        Message(role="system", parts=(TextPart(text="Be brief."),)),
        Message(role="system", parts=(TextPart(text="Be kind."),)),
        Message(
            role="user",
            name="ann",
            parts=(
                TextPart(text="See"),
                MediaPart(kind="image", data="QUJD", media_type="image/png", detail="low"),
                MediaPart(kind="image", url="https://pictures.test/a.png"),
                MediaPart(kind="audio", data="QUJD", media_type="audio/mp3"),
                MediaPart(kind="file", data="QUJD", media_type="application/pdf", filename="a.pdf"),
            ),
        ),
        Message(
            role="assistant",
            parts=(ThinkingPart(text="hm"), ToolCallPart(id="a", name="t", arguments='{"x": 1}')),
        ),
        Message(role="tool", parts=(ToolResultPart(tool_call_id="a", content=(TextPart(text="4"),)),)),
        Message(role="assistant", parts=(TextPart(text="No.", refusal=True),)),
        Message(role="assistant", parts=(ToolCallPart(id="f", name="f", arguments="{}"),)),
        Message(
            role="tool", parts=(ToolResultPart(tool_call_id="f", name="f", content=(TextPart(text="5"),)),)
        ),
    )


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ({"role": "user", "content": [{"type": "video_url"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "messages[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "c"}}]},
            "messages[0].tool_calls[0]",
        ),
        ({"role": "assistant", "audio": {"id": "x"}}, "messages[0].audio"),
    ],
)
def test_what_has_no_neutral_form_stays_in_the_dialect(turn, param):
    """Such a message passes to the same dialect as it is, and is refused, naming it, for any other."""
    request = read(messages=[turn])
    assert sent(request)["messages"] == [turn]
    with pytest.raises(InvalidRequest) as caught:
        _ = request.conversation.messages
    assert (caught.value.param, caught.value.code[:11]) == (
        param,
        "unsupported" if "url.url" not in param else "invalid_req",
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
    ],
)
def test_binding_fields_are_named(fields, param):
    """What changes the answer and has no neutral form passes in the dialect and is refused elsewhere."""
    request = read(**fields)
    assert request.binding == (param,)
    assert {key: sent(request)[key] for key in fields} == fields
    with pytest.raises(InvalidRequest) as caught:
        sent(neutral(request))
    assert caught.value.param == param


# Requests, written


def test_a_request_of_the_dialect_goes_out_as_it_came():
    """Only model and stream options change: every other field keeps its very bytes, unknown ones included."""
    text = (
        '{"model": "vendor/model-a", "messages": [ {"role":"user","content":"\\u00e9 \\/", "x":1.10} ],'
        ' "temperature": 1.0, "metadata": {"b":1, "a":2, "a":3}, "future": [1e2, 12345678901234567890123],'
        ' "max_completion_tokens": 5, "store": null}'
    )
    encoded = openai.provider.chat.encode(raw_request(text), make_target(deployment="wire"))
    assert encoded.dropped == ()
    assert encoded.request.body == (
        b'{"model":"wire","messages":[ {"role":"user","content":"\\u00e9 \\/", "x":1.10} ],'
        b'"temperature":1.0,"metadata":{"b":1, "a":2, "a":3},"future":[1e2, 12345678901234567890123],'
        b'"max_completion_tokens":5,"store":null}'
    )
    assert (encoded.request.method, encoded.request.url) == (
        "POST",
        "https://vendor.test/v1/chat/completions",
    )
    assert encoded.request.headers == {"content-type": "application/json"}
    assert CREDENTIAL.encode() not in encoded.request.body


def test_usage_is_always_asked_for_in_streams():
    """A stream asks the vendor for usage whatever the caller said, and keeps the caller's other options."""
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(read(stream=True, stream_options=options))["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }
    assert sent(read(stream=True))["stream_options"] == {"include_usage": True}
    assert sent(neutral(read(stream=True)))["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(read(stream_options=options))
    without = ProviderSpec(dialect="openai", drop=("stream_options",))
    assert "stream_options" not in sent(read(stream=True), spec=without)


def test_a_crossing_request_says_the_same():
    """Translated to the neutral form and back, a request says what it said."""
    written = sent(neutral(read(FULL)))
    expected = {**FULL, "model": "model-a", "stream_options": {"include_usage": True}, "max_tokens": 7}
    del expected["max_completion_tokens"]
    assert written == expected
    newer = ProviderSpec(dialect="openai", max_tokens_field="max_completion_tokens")
    assert sent(neutral(read(FULL)), spec=newer)["max_completion_tokens"] == 7


def test_hints_are_dropped_and_named():
    """What the neutral form lacks is named as dropped when a request crosses, and only then."""
    request = read(metadata={"a": "b"}, store=True, top_k=5, future=None)
    assert openai.provider.chat.encode(request, make_target()).dropped == ()
    crossed = openai.provider.chat.encode(neutral(request), make_target())
    assert sorted(crossed.dropped) == ["metadata", "store", "top_k"]
    assert json.loads(crossed.request.body) == {"messages": [HI], "model": "model-a"}


def test_a_vendors_own_names():
    """Fields are renamed and dropped as the catalog says, in both ways out; an own name given stays."""
    spec = ProviderSpec(dialect="openai", rename={"seed": "random_seed"}, drop=("user",))
    for request in (read(seed=1, user="u"), neutral(read(seed=1, user="u"))):
        encoded = openai.provider.chat.encode(request, make_target(spec=spec))
        body = json.loads(encoded.request.body)
        assert (body["random_seed"], "seed" in body, "user" in body) == (1, False, False)
        assert encoded.dropped == ("user",)
    assert sent(read(seed=None, random_seed=2), spec=spec)["random_seed"] == 2
    assert openai.provider.chat.encode(read(user=None), make_target(spec=spec)).dropped == ()


@pytest.mark.parametrize("crossing", [False, True])
def test_meaning_is_never_dropped(crossing):
    """A parameter that changes the answer is refused where the vendor does not take it; its default is not."""
    spec = ProviderSpec(dialect="openai", drop=("n", "logprobs"))
    for fields in ({"n": 2}, {"logprobs": True}):
        request = neutral(read(**fields)) if crossing else read(**fields)
        with pytest.raises(InvalidRequest) as caught:
            sent(request, spec=spec)
        assert [caught.value.param] == list(fields)
    assert "logprobs" not in sent(read(n=1, logprobs=False), spec=spec)


TEXTS = st.text(CHARACTERS, min_size=1, max_size=8)
USER_PARTS = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, TEXTS) | st.just(PICTURE), min_size=2, max_size=4
)
ASSISTANT = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXTS},
    optional={
        "tool_calls": st.lists(
            st.builds(
                lambda one, name, args: {
                    "id": one,
                    "type": "function",
                    "function": {"name": name, "arguments": args},
                },
                TEXTS,
                TEXTS,
                TEXTS,
            ),
            min_size=1,
            max_size=2,
        ),
        "refusal": TEXTS,
        "name": TEXTS,
    },
)
TURN = (
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user"]), TEXTS)
    | st.builds(lambda parts: {"role": "user", "content": parts}, USER_PARTS)
    | ASSISTANT
    | st.builds(
        lambda one, text: {"role": "tool", "tool_call_id": one, "content": text},
        TEXTS,
        st.text(CHARACTERS, max_size=5),
    )
)


@given(turns=st.lists(TURN, min_size=1, max_size=5))
def test_conversations_survive_the_round_trip(turns):
    """Messages read, written and read again are the same conversation, and the same wire form."""
    _, conversation = read_messages(Raw(json.dumps(turns).encode()))
    written = write_messages(conversation.messages)
    assert written == turns
    _, again = read_messages(Raw(msgspec.json.encode(written)))
    assert again.messages == conversation.messages


@pytest.mark.parametrize(
    "message",
    [
        Message(role="assistant", parts=(MediaPart(kind="image", url="https://p.test/a.png"),)),
        Message(role="system", parts=(MediaPart(kind="image", url="https://p.test/a.png"),)),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="a", content=(MediaPart(kind="image", url="https://p.test"),)),
            ),
        ),
        Message(role="user", parts=(MediaPart(kind="video", url="https://p.test/a.mp4"),)),
        Message(role="user", parts=(MediaPart(kind="file", url="https://p.test/a.pdf"),)),
    ],
)
def test_media_that_cannot_be_written_is_refused(message):
    """A part without a place in this dialect is refused, never left out."""
    with pytest.raises(InvalidRequest, match="cannot be carried over") as caught:
        write_messages((message,))
    assert caught.value.param.startswith("messages[0].content")


def test_signatures_travel_with_their_call():
    """The signature of a thought rides on its call in both directions."""
    call = {**CALL, "extra_content": {"google": {"thought_signature": "sig"}}}
    request = read(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert request.conversation.messages[0].parts[0].signature == "sig"
    assert sent(neutral(request))["messages"][0]["tool_calls"] == [call]
