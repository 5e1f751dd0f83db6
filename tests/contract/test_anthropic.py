"""Contract of the outbound Anthropic Messages dialect: golden cases of our own, recorded traffic, split streams."""

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_gate.dialects.anthropic_messages import provider
from llm_gate.domain.catalog import Model, ProviderSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
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
from llm_gate.domain.provider import Auth, Deployment, HttpReply, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.secret import Secret
from llm_gate.domain.usage import Usage
from support.figures import property_of
from support.recorded import parametrize, recordings

CREDENTIAL = "sk-ant-api03-doNotShowThis"
HELLO = (Message(role="user", parts=(TextPart(text="Hello"),)),)


def target(max_output_tokens=None, deployment=None):
    return Target(
        deployment=Deployment(
            provider="anthropic",
            base_url="https://vendor.test",
            auth=Auth(kind="header", header="x-api-key", secret=Secret(CREDENTIAL)),
            spec=ProviderSpec(),
            codecs=provider,
        ),
        model=Model(
            id="m",
            provider="anthropic",
            name="claude-test",
            label="",
            description="",
            operations=("chat",),
            max_output_tokens=max_output_tokens,
            deployment=deployment,
        ),
    )


def ask(*messages, **fields):
    return ChatRequest(
        model="claude-test", conversation=Conversation(lambda: tuple(messages) or HELLO), **fields
    )


def user(*parts, **fields):
    return Message(role="user", parts=parts, **fields)


def sent(*messages, **fields):
    encoded = provider.chat.encode(ask(*messages, **fields), target())
    return json.loads(encoded.request.body)


def dropped(*messages, **fields):
    return provider.chat.encode(ask(*messages, **fields), target()).dropped


def refused(*messages, **fields):
    with pytest.raises(InvalidRequest) as caught:
        provider.chat.encode(ask(*messages, **fields), target())
    return caught.value.param


def reply(body, status=200, headers=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status=status, headers=headers or {}, body=raw)


def read(body, status=200):
    return provider.chat.decode(reply(body, status), ask(), target())


def message(*content, **fields):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": list(content),
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
        **fields,
    }


# Requests


def test_plain_request_as_sent():
    """A plain question becomes exactly the documented request, without a credential."""
    encoded = provider.chat.encode(ask(), target(deployment="claude-test-20260101"))
    assert encoded.request.method == "POST"
    assert encoded.request.url == "https://vendor.test/v1/messages"
    assert encoded.request.headers == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    }
    assert json.loads(encoded.request.body) == {
        "model": "claude-test-20260101",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    assert encoded.dropped == ()


@pytest.mark.parametrize(
    ("asked", "largest", "sent_limit"), [(7, 100, 7), (None, 100, 100), (None, 64000, 8192)]
)
def test_limit_is_always_sent(asked, largest, sent_limit):
    """The required max_tokens is the caller's, else the model's largest within reason."""
    encoded = provider.chat.encode(ask(max_output_tokens=asked), target(largest))
    assert json.loads(encoded.request.body)["max_tokens"] == sent_limit


def test_system_messages_move_to_the_top():
    """System messages become the one system text, in their order, wherever they stood."""
    body = sent(
        Message(role="system", parts=(TextPart(text="Be brief."),)),
        *HELLO,
        Message(role="system", parts=(TextPart(text="Be kind."),)),
    )
    assert body["system"] == "Be brief.\n\nBe kind."
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_tool_conversation_as_sent():
    """Calls and results become blocks; results stand first in one user turn, before the text that follows."""
    body = sent(
        user(TextPart(text="Weather?")),
        Message(
            role="assistant",
            parts=(
                ThinkingPart(text="hm", signature="sig"),
                ThinkingPart(redacted="opaque"),
                ThinkingPart(text="unsigned"),
                TextPart(text="Looking."),
                ToolCallPart(id="a", name="weather", arguments='{"city": "Köln"}'),
                ToolCallPart(id="functions.time:1", name="time", arguments=""),
            ),
        ),
        Message(role="tool", parts=(ToolResultPart(tool_call_id="a", content=(TextPart(text="4 °C"),)),)),
        user(TextPart(text="And now?")),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="functions.time:1", content=(TextPart(text=""),), is_error=True),
            ),
        ),
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Köln"}},
                {"type": "tool_use", "id": "functions_time_1", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "4 °C"}]},
                {"type": "tool_result", "tool_use_id": "functions_time_1", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]


@pytest.mark.parametrize("arguments", ["[1]", "null", '"x"', "{", "12"])
def test_arguments_must_be_an_object(arguments):
    """Tool arguments that are no JSON object are refused, naming the field."""
    call = ToolCallPart(id="a", name="t", arguments=arguments)
    assert refused(*HELLO, Message(role="assistant", parts=(call,))) == "messages[1].tool_calls"


def test_same_roles_are_merged_and_empty_texts_left_out():
    """Turns alternate, and no block without visible text is sent."""
    body = sent(
        user(TextPart(text="a")),
        Message(role="assistant", parts=(TextPart(text=" \n"),)),
        user(TextPart(text=""), TextPart(text="b")),
    )
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]
    assert refused(user(TextPart(text=""))) == "messages"


def test_media_as_sent():
    """Pictures and documents travel as links or as base64 data with their media type."""
    body = sent(
        user(
            TextPart(text="See"),
            MediaPart(kind="image", url="https://pictures.test/a.png"),
            MediaPart(kind="image", data="QUJD", media_type="image/png", detail="low"),
            MediaPart(kind="image", url="data:image/webp;base64,QUJD"),
            MediaPart(kind="file", data="QUJD", media_type="application/pdf", filename="a.pdf"),
            MediaPart(kind="file", data="w7xiZXI=", media_type="text/plain"),
            MediaPart(kind="file", url="https://files.test/b.pdf"),
        )
    )
    assert body["messages"][0]["content"][1:] == [
        {"type": "image", "source": {"type": "url", "url": "https://pictures.test/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "QUJD"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "über"}},
        {"type": "document", "source": {"type": "url", "url": "https://files.test/b.pdf"}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        MediaPart(kind="audio", data="QUJD", media_type="audio/wav"),
        MediaPart(kind="video", url="https://films.test/a.mp4"),
        MediaPart(kind="file", data="QUJD", media_type="application/zip"),
        MediaPart(kind="image", data="QUJD"),
        MediaPart(kind="image", url="file:///etc/passwd"),
        MediaPart(kind="file", data="/w==", media_type="text/plain"),
        ToolCallPart(id="a", name="b", arguments="{}"),
    ],
)
def test_parts_that_cannot_be_carried_are_refused(part):
    """A part without a counterpart is refused, naming its place."""
    assert refused(user(TextPart(text="x"), part)) == "messages[0].content[1]"


def test_pictures_in_wrong_turns_are_refused():
    """Assistant and system turns take no pictures."""
    picture = MediaPart(kind="image", url="https://pictures.test/a.png")
    assert refused(*HELLO, Message(role="assistant", parts=(picture,))) == "messages[1].content[0]"
    assert refused(Message(role="system", parts=(picture,)), *HELLO) == "messages[0].content[0]"


def test_all_parameters_as_sent():
    """Every parameter with a counterpart is sent under the vendor's name, schemas as they came."""
    schema = Raw(b'{"type":"object","properties":{"b":{},"a":{}},"x-unknown":1}')
    encoded = provider.chat.encode(
        ask(
            stream=True,
            max_output_tokens=5,
            temperature=0.5,
            top_p=0.9,
            top_k=3,
            stop=("END",),
            user="u1",
            reasoning_effort="low",
            tools=(
                Tool(name="t", description="d", parameters=schema, strict=True),
                Tool(name="bare"),
                Tool(name="open", parameters=Raw(b"{}")),
            ),
            tool_choice=ToolChoice(mode="named", name="t"),
            parallel_tool_calls=False,
            response_format=ResponseFormat(kind="json_schema", name="n", schema=schema),
        ),
        target(),
    )
    assert encoded.dropped == ()
    assert encoded.request.body.count(bytes(schema)) == 2
    body = json.loads(encoded.request.body)
    del body["model"], body["messages"]
    assert body == {
        "stream": True,
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "tools": [
            {"name": "t", "description": "d", "input_schema": json.loads(bytes(schema)), "strict": True},
            {"name": "bare", "input_schema": {"type": "object", "properties": {}}},
            {"name": "open", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "tool", "name": "t", "disable_parallel_tool_use": True},
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": json.loads(bytes(schema))},
        },
    }


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
    ],
)
def test_tool_choice_as_sent(choice, parallel, written):
    """The choice of tools is translated, together with whether several may be called at once."""
    mode = None if choice is None else ToolChoice(mode=choice)
    body = sent(tools=(Tool(name="t"),), tool_choice=mode, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == written


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ("text", "audio")}, "modalities"),
        ({"response_format": ResponseFormat(kind="json_object")}, "response_format"),
        ({"response_format": ResponseFormat(kind="json_schema")}, "response_format.json_schema.schema"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop": ("END", "\n")}, "stop"),
        ({"tool_choice": ToolChoice(mode="required")}, "tool_choice"),
        ({"tools": (Tool(name="t", parameters=Raw(b"[]")),)}, "tools[0].function.parameters"),
        ({"binding": ("web_search_options",)}, "web_search_options"),
    ],
)
def test_what_changes_the_meaning_is_refused(fields, param):
    """What changes the answer and cannot be said is refused under the caller's name for it."""
    assert refused(**fields) == param


def test_hints_are_dropped_and_listed():
    """Hints without a counterpart are left out of the body and named, and nothing else is sent for them."""
    hints = {
        "seed": 1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "service_tier": "flex",
        "reasoning_effort": "minimal",
        "parallel_tool_calls": True,
    }
    extra = {"store": Raw(b"true")}
    assert set(dropped(extra=extra, **hints)) == {*hints, "store"}
    assert sent(extra=extra, n=1, response_format=ResponseFormat(kind="text"), **hints) == sent()
    inside = (
        user(TextPart(text="a"), MediaPart(kind="image", url="https://p.test/a", detail="high"), name="Ann"),
        Message(role="assistant", parts=(ThinkingPart(text="unsigned"), TextPart(text="b"))),
    )
    assert dropped(*inside) == (
        "messages[].name",
        "messages[].content[].image_url.detail",
        "messages[].reasoning_content",
    )


# Answers


def test_answer_is_read():
    """Text, thinking and calls become parts in their order; the rest is kept as notices, never as a call."""
    server_call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}
    citations = [{"type": "char_location", "cited_text": "x"}]
    result = read(
        message(
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "opaque"},
            server_call,
            {"type": "text", "text": "Grüße", "citations": citations},
            {"type": "tool_use", "id": "a", "name": "t", "input": {"x": 1}},
            stop_reason="tool_use",
            container={"id": "c"},
            usage={
                "input_tokens": 10,
                "cache_creation_input_tokens": 200,
                "cache_read_input_tokens": 3000,
                "output_tokens": 7,
                "output_tokens_details": {"thinking_tokens": 4},
            },
        )
    )
    assert (result.id, result.model) == ("msg_1", "claude-test-1")
    (choice,) = result.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.parts == (
        ThinkingPart(text="hm", signature="sig"),
        ThinkingPart(redacted="opaque"),
        TextPart(text="Grüße"),
        ToolCallPart(id="a", name="t", arguments='{"x": 1}'),
    )
    assert result.usage == Usage(
        input_tokens=3210,
        cached_input_tokens=3000,
        cache_write_tokens=200,
        output_tokens=7,
        reasoning_tokens=4,
    )
    notices = {name: json.loads(bytes(raw)) for name, raw in result.notices.items()}
    assert notices == {"container": {"id": "c"}, "citations": [citations], "other_content": [server_call]}


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("something_new", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reasons(stop_reason, expected):
    """Every stop reason has its finish reason, a refusal included; an empty answer is still an answer."""
    result = read(message(stop_reason=stop_reason))
    assert result.choices[0].finish_reason == expected
    assert result.choices[0].parts == ()


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"input_tokens": 1}, {"output_tokens": 1}, [], 5]
    + [{"input_tokens": 1, "output_tokens": bad} for bad in (-1, 1.5, "1", True)],
)
def test_unknown_usage_is_none(usage):
    """A usage that is missing or makes no sense is unknown, never zero, and does not spoil the answer."""
    assert read(message(usage=usage)).usage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b"[{}]",
        b"<html><body>Bad gateway</body></html>",
        b'{"type": "message"',
        b"\xff\xfe",
        b"[" * 100_000,
        message({"type": "text"}),
        message({"type": "text", "text": 5}),
        message({"text": "no type"}),
        message({"type": "tool_use", "id": "a", "name": "t", "input": "x"}),
        message({"type": "tool_use", "id": "a", "name": "", "input": {}}),
        message("text"),
        message(stop_reason=None),
        {**message(), "content": None},
        {**message(), "content": "text"},
        {**message(), "type": "completion"},
        json.dumps(message({"type": "text", "text": "é"}), ensure_ascii=False).encode("latin-1"),
    ],
)
def test_answers_outside_the_contract(body):
    """Anything that is no message is a bad answer of the provider, whatever its status says."""
    with pytest.raises(BadProviderResponse):
        read(body)


def test_error_inside_a_success():
    """An error body with status 200 is the typed error."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(ProviderUnavailable) as caught:
        read(error)
    assert caught.value.vendor_code == "overloaded_error"


# Errors


@pytest.mark.parametrize(
    ("status", "kind", "text", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: required", ProviderRejected),
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 5 maximum", ContextTooLong),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
            ContextTooLong,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the API",
            ProviderQuotaExhausted,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentFiltered),
        (400, "invalid_request_error", "tool 'prompt is too long' is unknown", ProviderRejected),
        (401, "authentication_error", "invalid x-api-key", ProviderAuthFailed),
        (402, "billing_error", "pay", ProviderQuotaExhausted),
        (403, "permission_error", "no", ProviderAuthFailed),
        (404, "not_found_error", "model: claude-x", ProviderModelGone),
        (413, "request_too_large", "too large", ProviderRejected),
        (429, "rate_limit_error", "slow down", ProviderRateLimited),
        (500, "api_error", "Internal server error", ProviderUnavailable),
        (504, "timeout_error", "timed out", ProviderTimeout),
        (529, "overloaded_error", "Overloaded", ProviderUnavailable),
    ],
)
def test_error_classes(status, kind, text, expected):
    """Every documented error has its class, as a reply of its own and inside a stream alike."""
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}
    error = provider.decode_error(reply(body, status, {"retry-after": "7"}), target())
    assert type(error) is expected
    assert (error.status, error.vendor_code, error.retry_after_s) == (status, kind, 7.0)
    wire = b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"
    with pytest.raises(ProviderError) as caught:
        stream_events([STARTS, wire])
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (502, b"<html><h1>Bad Gateway</h1></html>", ProviderUnavailable),
        (503, b"", ProviderUnavailable),
        (500, b"null", ProviderUnavailable),
        (500, b'[{"error": {"type": "api_error", "message": "x"}}]', ProviderUnavailable),
        (500, b'{"type": "error", "error": {"type": "invalid_request_error"}}', ProviderUnavailable),
        (429, b"too many", ProviderRateLimited),
        (400, b'{"error": "plain text"}', ProviderRejected),
        (400, b"[]", ProviderRejected),
        (422, b"\xff", ProviderRejected),
        (302, b"", BadProviderResponse),
        (500, b"[" * 100_000, ProviderUnavailable),
    ],
)
def test_odd_error_bodies(status, body, expected):
    """An error body of any form gives the class its status says, without HTML in the message."""
    error = provider.decode_error(reply(body, status), target())
    assert type(error) is expected
    assert "<" not in error.message


def test_credentials_never_travel_on():
    """A credential that a vendor quotes back is not in the error."""
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": f"key {CREDENTIAL} is odd"},
    }
    error = provider.decode_error(reply(body, 400), target())
    assert CREDENTIAL not in error.message + error.detail


# Streams


def wire_event(kind, line_end="\n", **fields):
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}{line_end}data: {data}{line_end}{line_end}".encode()


def block_events(index, block, *deltas):
    return (
        wire_event("content_block_start", index=index, content_block=block)
        + b"".join(wire_event("content_block_delta", index=index, delta=delta) for delta in deltas)
        + wire_event("content_block_stop", index=index)
    )


STARTS = wire_event(
    "message_start",
    message={
        "id": "msg_1",
        "model": "claude-test-1",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1},
    },
)
STOPS = wire_event("message_stop")


def finishes(reason="end_turn", **usage):
    fields = {"usage": usage} if usage else {}
    return wire_event("message_delta", delta={"stop_reason": reason}, **fields)


def stream_events(portions):
    stream = provider.chat.open_stream(ask(stream=True), target())
    events = [event for portion in portions for event in stream.feed(portion)]
    return [*events, *stream.close()]


def joined(events):
    """Bring neighbouring pieces together, so that only the content counts."""
    calls, texts, thoughts, signatures = {}, [], [], []
    for event in events:
        match event:
            case TextDelta():
                texts.append(event.text)
            case ThinkingDelta():
                thoughts.append(event.text)
                signatures += [mark for mark in (event.signature, event.redacted) if mark is not None]
            case ToolCallDelta() if event.call not in calls:
                calls[event.call] = [event.id, event.name, event.arguments]
            case ToolCallDelta():
                assert (event.id, event.name) == (None, None)
                calls[event.call][2] += event.arguments
    return {
        "text": "".join(texts),
        "thinking": "".join(thoughts),
        "signatures": signatures,
        "calls": [(key, name, json.loads(arguments)) for key, name, arguments in calls.values()],
        "numbers": list(calls),
        "finished": [event.reason for event in events if isinstance(event, Finished)],
        "usage": [event.usage for event in events if isinstance(event, UsageReported)][-1],
    }


def test_stream_is_read():
    """A stream becomes typed events in the order of the wire, the last usage being the measured one."""
    whole = (
        STARTS
        + block_events(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": "sig"},
        )
        + wire_event("ping")
        + block_events(1, {"type": "redacted_thinking", "data": "opaque"})
        + block_events(
            2,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Grüße 👋"},
            {"type": "citations_delta", "citation": {"cited_text": "x"}},
        )
        + block_events(
            3,
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"q":1}'},
        )
        + block_events(
            4,
            {"type": "tool_use", "id": "a", "name": "first", "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"x"'},
            {"type": "input_json_delta", "partial_json": ":1}"},
        )
        + block_events(5, {"type": "tool_use", "id": "b", "name": "second", "input": {"y": 2}})
        + block_events(6, {"type": "tool_use", "id": "c", "name": "third", "input": {}})
        + wire_event("something_new", index=0)
        + finishes("tool_use", output_tokens=9)
        + STOPS
        + wire_event("message_start", message={"id": "late"})
    )
    counted = Usage(input_tokens=9, cached_input_tokens=4, output_tokens=1, source="estimated")
    assert stream_events([whole]) == [
        Started(id="msg_1", model="claude-test-1"),
        UsageReported(usage=counted),
        ThinkingDelta(text="hm"),
        ThinkingDelta(signature="sig"),
        ThinkingDelta(redacted="opaque"),
        TextDelta(text="Grüße 👋"),
        ToolCallDelta(call=0, id="a", name="first"),
        ToolCallDelta(call=0, arguments='{"x"'),
        ToolCallDelta(call=0, arguments=":1}"),
        ToolCallDelta(call=1, id="b", name="second"),
        ToolCallDelta(call=1, arguments='{"y": 2}'),
        ToolCallDelta(call=2, id="c", name="third"),
        ToolCallDelta(call=2, arguments="{}"),
        Finished(reason="tool_calls"),
        UsageReported(usage=Usage(input_tokens=9, cached_input_tokens=4, output_tokens=9)),
        Ended(),
    ]


def test_later_counts_replace_earlier_ones():
    """Counts repeated in message_delta are final; those it leaves out stay."""
    events = stream_events([STARTS + finishes(input_tokens=50, output_tokens=3) + STOPS])
    assert joined(events)["usage"] == Usage(input_tokens=54, cached_input_tokens=4, output_tokens=3)


@pytest.mark.parametrize("usage", [{}, {"output_tokens": -1}, {"output_tokens": "9"}])
def test_a_start_count_is_never_passed_off_as_measured(usage):
    """Where the final count is missing or senseless, what was said at the start remains marked an estimate."""
    reported = joined(stream_events([STARTS + finishes(**usage) + STOPS]))["usage"]
    assert reported.source == "estimated"


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"<html>Bad gateway</html>",
        b'{"id": "msg_1", "type": "message", "content": []}',
        STOPS,
        block_events(0, {"type": "text", "text": ""}) + STOPS,
        STARTS,
        STARTS + STARTS,
        STARTS + STOPS,
        STARTS + finishes(),
        STARTS + finishes() + b"event: message_stop\n",
        STARTS + finishes() + STOPS[:-4],
        STARTS + b"data: {broken\n\n" + finishes() + STOPS,
        STARTS + b"data: [DONE]\n\n",
        STARTS + b"data: null\n\n",
        STARTS + b'data: {"type": "ping", "x": "\xff"}\n\n' + b'data: {"type": "\xff"}\n\n',
        STARTS + wire_event("content_block_start", index=0),
        STARTS + wire_event("content_block_delta", index=0),
        STARTS + wire_event("content_block_delta", index=0, delta={"type": "text_delta"}),
        STARTS + wire_event("content_block_delta", index=0, delta={"type": "text_delta", "text": 5}),
        STARTS + block_events(0, {"type": "tool_use", "id": "a"}),
        STARTS + block_events(0, {"type": "tool_use", "id": "a", "name": "t", "input": [1]}),
        STARTS + b"data: " + b"x" * (1024 * 1024 + 1),
        STARTS + b'event: error\ndata: "gone"\n\n',
    ],
)
def test_broken_streams(wire):
    """A stream that is cut or breaks its contract is a bad answer, never a complete one."""
    with pytest.raises(BadProviderResponse):
        stream_events([wire])


@pytest.mark.parametrize(
    "wire",
    [
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
        b'{"type": "error",\n "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'[{"error": {"type": "overloaded_error", "message": "Overloaded"}}]',
        b'data: {"error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'event: error\ndata: {"type": "overloaded_error", "message": "Overloaded"}\n\n',
        b'data: {"error": {"type": "new_error", "message": "?"}}\n\n',
    ],
)
@pytest.mark.parametrize("before", [b"", STARTS], ids=["at once", "midway"])
def test_errors_inside_a_stream(before, wire):
    """A failure inside a stream is the typed error, in whatever form it comes."""
    with pytest.raises(ProviderUnavailable):
        stream_events([before + wire])


SMALL = (
    b": hello\n\n"
    + STARTS
    + b"\n"
    + block_events(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Zoë 👋 日本"})
    + b": keep-alive\n\n"
    + block_events(
        1,
        {"type": "tool_use", "id": "a", "name": "t", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"k":"é"}'},
    )
    + finishes("tool_use", output_tokens=4)
    + STOPS
)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_every_split_gives_the_same_events(line_end):
    """Wherever a stream is cut in two, and with any line end, the events are the same."""
    whole = SMALL.replace(b"\n", line_end)
    expected = stream_events([SMALL])
    for offset in range(len(whole) + 1):
        assert stream_events([whole[:offset], whole[offset:]]) == expected


@property_of()
@given(st.lists(st.integers(0, len(SMALL)), max_size=20), st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_any_portions_give_the_same_events(cuts, line_end):
    """Any number of portions, empty ones included, gives the same events."""
    whole = SMALL.replace(b"\n", line_end)
    assert stream_events(portions_of(whole, cuts)) == stream_events([SMALL])


def portions_of(whole, cuts):
    edges = [0, *sorted(cuts), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(edges)]


# Recorded traffic. Every file of messages, messages-stream and errors fits (the error of count_tokens has the same
# form); batches, count-tokens and files are other operations.

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
ERROR_CLASSES = {
    "400-bad-request.json": ProviderRejected,
    "400-context-length.json": ContextTooLong,
    "400-unsupported-effort.json": ProviderRejected,
    "401-key-older.json": ProviderAuthFailed,
    "401-key.json": ProviderAuthFailed,
    "404-count-tokens.json": ProviderModelGone,
    "404-model.json": ProviderModelGone,
}
BY_STATUS = {400: ProviderRejected, 401: ProviderAuthFailed, 404: ProviderModelGone, 429: ProviderRateLimited}


def expected_usage(raw):
    """Compute the neutral usage from the vendor's counts."""
    cached = raw.get("cache_read_input_tokens") or 0
    written = raw.get("cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=raw["input_tokens"] + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=raw["output_tokens"],
        reasoning_tokens=(raw.get("output_tokens_details") or {}).get("thinking_tokens", 0),
    )


@parametrize("recording", recordings("anthropic", "messages"))
def test_recorded_answers(recording):
    """A recorded answer gives its text, calls, thinking, finish reason and usage."""
    for interaction in recording.interactions:
        raw = interaction.json
        result = provider.chat.decode(
            HttpReply(status=interaction.status, headers=interaction.headers, body=interaction.body),
            ask(),
            target(),
        )
        parts = result.choices[0].parts
        content = raw["content"]
        assert [part.text for part in parts if isinstance(part, TextPart)] == [
            block["text"] for block in content if block["type"] == "text"
        ]
        calls = [part for part in parts if isinstance(part, ToolCallPart)]
        assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == [
            (block["id"], block["name"], block["input"]) for block in content if block["type"] == "tool_use"
        ]
        assert [(part.text, part.signature) for part in parts if isinstance(part, ThinkingPart)] == [
            (block["thinking"], block["signature"]) for block in content if block["type"] == "thinking"
        ]
        assert result.choices[0].finish_reason == FINISH[raw["stop_reason"]]
        assert result.usage == expected_usage(raw["usage"])
        assert (result.id, result.model) == (raw["id"], raw["model"])


def collect_stream(body):
    """Put a recorded stream together by reading its data lines, in the simplest way."""
    blocks, usage, finished, head = {}, {}, None, None
    for line in body.decode().splitlines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line[5:])
        match event["type"]:
            case "message_start":
                head = event["message"]
                usage |= head["usage"]
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "json": "", "signatures": []}
            case "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                block["text"] = block.get("text", "") + delta.get("text", "")
                block["thinking"] = block.get("thinking", "") + delta.get("thinking", "")
                block["json"] += delta.get("partial_json", "")
                block["signatures"] += [delta["signature"]] if "signature" in delta else []
            case "message_delta":
                finished = event["delta"]["stop_reason"]
                usage |= event["usage"]
    ordered = [blocks[index] for index in sorted(blocks)]
    calls = [
        (block["id"], block["name"], block["json"] or json.dumps(block["input"]))
        for block in ordered
        if block["type"] == "tool_use"
    ]
    return head, {
        "text": "".join(block["text"] for block in ordered if block["type"] == "text"),
        "thinking": "".join(block["thinking"] for block in ordered if block["type"] == "thinking"),
        "signatures": [
            mark
            for block in ordered
            for mark in ([block["data"]] if block["type"] == "redacted_thinking" else block["signatures"])
        ],
        "calls": calls,
        "finished": [FINISH[finished]],
        "usage": expected_usage(usage),
    }


def joined_as_text(events):
    """As `joined`, with the arguments as text: the length limit may have cut them."""
    arguments = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            key, name, text = arguments.get(event.call, (event.id, event.name, ""))
            arguments[event.call] = (key, name, text + event.arguments)
    rest = joined([event for event in events if not isinstance(event, ToolCallDelta)])
    assert list(arguments) == list(range(len(arguments)))
    del rest["numbers"]
    return {**rest, "calls": list(arguments.values())}


@parametrize("recording", recordings("anthropic", "messages-stream"))
def test_recorded_streams(recording):
    """A recorded stream gives its content and usage in one piece, byte by byte and at random cuts."""
    for interaction in recording.interactions:
        body = interaction.body
        head, expected = collect_stream(body)
        events = stream_events([body])
        assert joined_as_text(events) == expected
        assert events[0] == Started(id=head["id"], model=head["model"])
        assert events[-1] == Ended()
        assert events.count(Ended()) == 1
        assert stream_events([body[i : i + 1] for i in range(len(body))]) == events
        chance = random.Random(len(body))  # noqa: S311
        for _ in range(5):
            cuts = [chance.randrange(len(body)) for _ in range(40)]
            assert stream_events(portions_of(body, cuts)) == events


@parametrize("recording", recordings("anthropic", "messages-stream"))
def test_recorded_streams_cut_short(recording):
    """A recorded stream that stops anywhere before message_stop is a bad answer."""
    for interaction in recording.interactions:
        end = interaction.body.rindex(b'{"type":"message_stop"')
        step = max(1, end // 150)
        for cut in [*range(0, end, step), end, end + 10]:
            with pytest.raises(BadProviderResponse):
                stream_events([interaction.body[:cut]])


@parametrize("recording", recordings("anthropic", "errors"))
def test_recorded_errors(recording):
    """A recorded error has the class its signals say, with the vendor's type and no credential."""
    for interaction in recording.interactions:
        answer = HttpReply(status=interaction.status, headers=interaction.headers, body=interaction.body)
        error = provider.decode_error(answer, target())
        name = recording.id.rpartition("/")[2]
        assert type(error) is ERROR_CLASSES.get(name, BY_STATUS.get(interaction.status))
        assert error.status == interaction.status
        assert error.vendor_code == interaction.json["error"]["type"]
        assert CREDENTIAL not in error.message + error.detail
        assert "x-api-key" not in error.message
