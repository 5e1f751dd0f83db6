"""OpenAI's Responses as providers speak it: requests as written, answers and streams as read, recorded and small."""

import json
import random

import msgspec
import pytest
from msgspec import Raw

from llm_gate.dialects import openai
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.dialects.openai_responses_outbound import OpenAIResponses
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    InvalidRequest,
    ProviderError,
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
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.usage import Usage
from llm_gate.providers import azure_openai
from support.recorded import REASON, recorded_root, recordings
from support.targets import make_reply, make_target

SPEC = ProviderSpec(dialect="openai", api="responses")
CODEC = OpenAIResponses(openai.address)
HELLO = ChatRequest(
    model="m",
    conversation=Conversation(lambda: (Message(role="user", parts=(TextPart(text="Hello"),)),)),
)


def target(spec=SPEC, **fields):
    return make_target(codecs=openai.provider, spec=spec, **fields)


def read(**fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return decode_chat_request(json.dumps(body).encode())


def sent(request, on=None):
    encoded = openai.provider.chat.encode(request, on or target())
    return json.loads(encoded.request.body)


# ---- requests


def test_a_plain_question():
    """A question goes to /responses as one item, and asks the vendor to keep nothing."""
    encoded = openai.provider.chat.encode(HELLO, target(base_url="https://v.example/v1", model="vendor/m"))

    assert encoded.request.method == "POST"
    assert encoded.request.url == "https://v.example/v1/responses"
    assert dict(encoded.request.headers) == {"content-type": "application/json"}
    assert json.loads(encoded.request.body) == {
        "model": "vendor/m",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "store": False,
    }


def test_parameters_have_the_names_of_the_format():
    """Limit, form, effort, tools and choice of a chat request stand where this format has them."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body = sent(
        read(
            max_tokens=7,
            temperature=0.5,
            top_p=0.9,
            parallel_tool_calls=False,
            reasoning_effort="low",
            user="u",
            service_tier="flex",
            stream=True,
            tools=[
                {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
                {"type": "function", "function": {"name": "g", "strict": True}},
            ],
            tool_choice={"type": "function", "function": {"name": "f"}},
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        )
    )

    assert body == {
        "model": "model-a",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "store": False,
        "stream": True,
        "max_output_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "user": "u",
        "service_tier": "flex",
        "tools": [
            {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": False},
            {
                "type": "function",
                "name": "g",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}},
    }


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"n": 2}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"logprobs": True, "stream": True}, "logprobs"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format"),
    ],
)
def test_what_the_format_cannot_say_is_refused(fields, name):
    """A parameter that changes the answer and has no place in this format is the caller's to change."""
    with pytest.raises(InvalidRequest) as caught:
        openai.provider.chat.encode(read(**fields), target())

    assert caught.value.param == name


def test_hints_are_dropped_by_name():
    """Hints without a place are left out and named, among them those of the caller's own format."""
    request = read(seed=1, frequency_penalty=0.5, presence_penalty=0.5, metadata={"a": "b"}, store=True)
    encoded = openai.provider.chat.encode(request, target())

    assert sorted(encoded.dropped) == ["frequency_penalty", "metadata", "presence_penalty", "seed", "store"]
    assert json.loads(encoded.request.body)["store"] is False


def test_deviations_of_a_vendor_hold_here_too():
    """What a vendor does not take is left out, and what it names differently is renamed."""
    spec = ProviderSpec(
        dialect="openai", api="responses", drop=("store", "temperature"), rename={"user": "safety_identifier"}
    )
    encoded = openai.provider.chat.encode(read(temperature=1, user="u", max_tokens=5), target(spec))

    assert json.loads(encoded.request.body) == {
        "model": "model-a",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "max_output_tokens": 5,
        "safety_identifier": "u",
    }
    assert encoded.dropped == ("temperature",)


def test_a_conversation_with_tools_and_media():
    """Turns become items in their order: media as parts, calls and their answers as items, reasoning left out."""
    messages = (
        Message(role="system", parts=(TextPart(text="Be kind."),)),
        Message(
            role="user",
            parts=(
                TextPart(text="See"),
                MediaPart(kind="image", url="https://i.example/a.png"),
                MediaPart(kind="image", data="AA==", media_type="image/png", detail="low"),
                MediaPart(kind="audio", data="BB==", media_type="audio/mp3"),
                MediaPart(kind="file", data="CC==", media_type="application/pdf", filename="a.pdf"),
                MediaPart(kind="file", url="https://i.example/a.pdf"),
            ),
        ),
        Message(
            role="assistant",
            parts=(
                ThinkingPart(text="hm", signature="s"),
                TextPart(text="I look."),
                TextPart(text="No.", refusal=True),
                ToolCallPart(id="c1", name="f", arguments='{"a":1}'),
                TextPart(text="And?"),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="c1", content=(TextPart(text="4"), TextPart(text="2"))),
                ToolResultPart(
                    tool_call_id="c2", content=(MediaPart(kind="image", url="https://i.example/b.png"),)
                ),
            ),
        ),
    )
    request = ChatRequest(model="m", conversation=Conversation(lambda: messages))

    assert sent(request)["input"] == [
        {"type": "message", "role": "system", "content": "Be kind."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": "https://i.example/a.png", "detail": "auto"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "BB==", "format": "mp3"}},
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,CC==",
                },
                {"type": "input_file", "file_url": "https://i.example/a.pdf"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "I look."},
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "And?"}]},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_image", "image_url": "https://i.example/b.png", "detail": "auto"}],
        },
    ]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_media_where_the_format_has_no_place_for_them(role):
    """Media of the system or the model, and films, cannot be carried over."""
    for place, kind in ((role, "image"), ("user", "video")):
        part = MediaPart(kind=kind, url="https://i.example/a")
        turn = Message(role=place, parts=(part,))
        request = ChatRequest(model="m", conversation=Conversation(lambda turn=turn: (turn,)))
        with pytest.raises(InvalidRequest):
            openai.provider.chat.encode(request, target())


# ---- which form is spoken


@pytest.mark.parametrize(
    ("of_provider", "of_model", "path"),
    [
        (None, None, "chat/completions"),
        ("chat", None, "chat/completions"),
        ("responses", None, "responses"),
        (None, "responses", "responses"),
        ("responses", "chat", "chat/completions"),
        ("chat", "responses", "responses"),
    ],
)
def test_the_model_decides_before_the_provider(of_provider, of_model, path):
    """Which form is asked in follows from the model's `api`, else the provider's, else it is chat completions."""
    on = target(ProviderSpec(dialect="openai", api=of_provider), base_url="https://v/v1", api=of_model)

    assert openai.provider.chat.encode(read(), on).request.url == f"https://v/v1/{path}"


@pytest.mark.parametrize(
    ("version", "url"),
    [
        ("v1", "https://r.example/openai/v1/responses"),
        ("2025-04-01-preview", "https://r.example/openai/responses?api-version=2025-04-01-preview"),
    ],
)
def test_azure_names_the_deployment_in_the_body(version, url):
    """At Azure, Responses are under no deployment's path, in the dated API neither."""
    on = make_target(
        codecs=azure_openai.provider,
        provider="azure_openai",
        spec=SPEC,
        base_url="https://r.example",
        api_version=version,
        deployment="mine",
    )
    request = azure_openai.provider.chat.encode(read(), on).request

    assert (request.url, json.loads(request.body)["model"]) == (url, "mine")


# ---- complete answers


def answered(body):
    return openai.provider.chat.decode(make_reply(body), HELLO, target())


def response(*output, **fields):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000.0,
        "status": "completed",
        "model": "m-2026",
        "output": list(output),
        "error": None,
        "incomplete_details": None,
        **fields,
    }


def message(*content):
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": list(content)}


SAID = message({"type": "output_text", "text": "Hi", "annotations": []})
CALLED = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}


def test_a_complete_answer():
    """Reasoning, text, refusal and calls become parts in their order; counts include their children."""
    usage = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 29,
        "cost": 0.00012,
    }
    thought = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
        "content": None,
        "encrypted_content": "x",
    }
    said = message({"type": "output_text", "text": "Hi"}, {"type": "refusal", "refusal": "no"})
    result = answered(response(thought, {"type": "web_search_call", "content": 1}, said, CALLED, usage=usage))

    assert result.choices[0].parts == (
        ThinkingPart(text="one\n\ntwo"),
        TextPart(text="Hi"),
        TextPart(text="no", refusal=True),
        ToolCallPart(id="c1", name="f", arguments='{"a":1}'),
    )
    assert result.choices[0].finish_reason == "tool_calls"
    assert result.usage == Usage(
        input_tokens=20,
        cached_input_tokens=4,
        cache_write_tokens=3,
        output_tokens=9,
        reasoning_tokens=5,
        vendor_cost_nanos=120_000,
    )
    assert (result.id, result.model, result.created_s) == ("resp_1", "m-2026", 1700000000)
    assert result.wire is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "stop"),
        ({"status": None}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
    ],
)
def test_why_it_ended(fields, reason):
    """The status and its details say why an answer ended."""
    assert answered(response(SAID, **fields)).choices[0].finish_reason == reason


def test_log_probabilities_have_the_form_of_the_chat_format():
    """Log probabilities of the text are handed out as the chat format has them."""
    logprobs = [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]
    said = message({"type": "output_text", "text": "Hi", "logprobs": logprobs})

    found = answered(response(said)).choices[0].logprobs

    assert msgspec.json.decode(found) == {"content": logprobs, "refusal": None}
    assert sent(read(logprobs=True, top_logprobs=2))["include"] == ["message.output_text.logprobs"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (response(status="failed", error={"code": "server_error", "message": "m"}), ProviderUnavailable),
        (response(status="failed", error=None), ProviderUnavailable),
        (response(status="failed", error={"code": "rate_limit_exceeded"}), ProviderRateLimited),
        (response(status="failed", error={"code": "invalid_prompt", "message": "m"}), ProviderRejected),
        (response(status="failed", error={"code": "image_too_small", "message": "m"}), ProviderRejected),
        ({"error": "busy"}, ProviderUnavailable),
        (response(status="queued"), BadProviderResponse),
        (response(SAID, status="in_progress"), BadProviderResponse),
        (response(output=None), BadProviderResponse),
        (response(output=[1]), BadProviderResponse),
        (response(output=[{"type": "message", "content": "text"}]), BadProviderResponse),
        ({"choices": []}, BadProviderResponse),
        (b"<html>", BadProviderResponse),
        (b"", BadProviderResponse),
        (b'{"output": [{"type": "message", "content": [{"text": "\xff"}]}]}', BadProviderResponse),
    ],
)
def test_answers_that_are_none(body, kind):
    """A failure inside a success is its own error, and anything unreadable or unfinished is no answer."""
    with pytest.raises(ProviderError) as caught:
        answered(body)

    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "usage", [None, {}, {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": -1}, 3]
)
def test_counts_that_cannot_be_are_unknown(usage):
    """A usage that is absent, malformed or all zeros is unknown, never free."""
    assert answered(response(SAID, usage=usage)).usage is None


# ---- streams


def wire(*events):
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for event in events
    )


def told(data, pieces=None):
    stream = openai.provider.chat.open_stream(HELLO, target())
    events = []
    for piece in pieces or [data]:
        events += stream.feed(piece)
    return [*events, *stream.close()]


def begun(kind="created"):
    return {"type": f"response.{kind}", "response": response(status="in_progress")}


def text(delta, kind="output_text", output=0, index=0):
    return {"type": f"response.{kind}.delta", "output_index": output, "content_index": index, "delta": delta}


def thought(delta, index):
    kind = "response.reasoning_summary_text.delta"
    return {"type": kind, "output_index": 0, "summary_index": index, "delta": delta}


def item(step, output, found):
    return {"type": f"response.output_item.{step}", "output_index": output, "item": found}


def arguments(step, output, **fields):
    return {"type": f"response.function_call_arguments.{step}", "output_index": output, **fields}


def ended(*output, kind="completed", **fields):
    return {"type": f"response.{kind}", "response": response(*output, status=kind, **fields)}


STARTED = Started(id="resp_1", model="m-2026", created_s=1700000000)
COUNTS = {"input_tokens": 3, "output_tokens": 2}
GOLDEN = wire(
    begun(),
    begun("in_progress"),
    thought("o", 0),
    thought("ne", 0),
    thought("two", 1),
    text("Hél", output=1),
    text("lo", output=1),
    {"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "Héllo"},
    item("done", 1, message({"type": "output_text", "text": "Héllo"})),
    text("no", kind="refusal", output=1, index=1),
    {"type": "response.something.new", "delta": {"a": 1}, "text": 5},
    item("added", 2, {**CALLED, "arguments": ""}),
    item("added", 3, {**CALLED, "call_id": "c2", "name": "g", "arguments": ""}),
    arguments("delta", 3, delta='{"b"'),
    arguments("delta", 2, delta='{"a":1}'),
    arguments("delta", 3, delta=":2}"),
    arguments("done", 3, arguments='{"b":2}'),
    item("done", 2, CALLED),
    ended(usage=COUNTS),
)
GOLDEN_EVENTS = [
    STARTED,
    ThinkingDelta(text="o"),
    ThinkingDelta(text="ne"),
    ThinkingDelta(text="\n\ntwo"),
    TextDelta(text="Hél"),
    TextDelta(text="lo"),
    TextDelta(text="no", refusal=True),
    ToolCallDelta(call=0, id="c1", name="f"),
    ToolCallDelta(call=1, id="c2", name="g"),
    ToolCallDelta(call=1, arguments='{"b"'),
    ToolCallDelta(call=0, arguments='{"a":1}'),
    ToolCallDelta(call=1, arguments=":2}"),
    UsageReported(usage=Usage(input_tokens=3, output_tokens=2)),
    Finished(reason="tool_calls"),
    Ended(),
]


def test_a_whole_stream():
    """Deltas come out in their order, calls that interleave stay apart, and only the last event ends the answer."""
    assert told(GOLDEN) == GOLDEN_EVENTS


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_every_split(line_end):
    """Wherever the bytes are cut, also inside a character, the events are the same."""
    data = GOLDEN.replace(b"\n", line_end)
    for at in range(1, len(data), 7 if line_end == b"\r\n" else 1):
        assert told(data, [data[:at], data[at:]]) == GOLDEN_EVENTS
    assert told(data, [data[at : at + 1] for at in range(len(data))]) == GOLDEN_EVENTS


def test_what_comes_without_deltas():
    """A vendor that sends whole items, or only the whole answer at the end, loses nothing by it."""
    whole = [
        STARTED,
        TextDelta(text="Hi"),
        ToolCallDelta(call=0, id="c1", name="f", arguments='{"a":1}'),
        Finished(reason="tool_calls"),
        Ended(),
    ]

    assert told(wire(begun(), item("done", 0, SAID), item("done", 1, CALLED), ended(SAID, CALLED))) == whole
    assert told(wire(begun(), ended(SAID, CALLED))) == whole
    assert told(wire(ended(SAID, CALLED))) == whole
    cut = [text("H"), {"type": "response.output_text.done", "text": "Hi"}]
    assert told(wire(begun(), *cut, ended(SAID))) == [
        STARTED,
        TextDelta(text="H"),
        TextDelta(text="i"),
        Finished(reason="stop"),
        Ended(),
    ]


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "max_output_tokens"}, "length"), ({"reason": "content_filter"}, "content_filter")],
)
def test_an_answer_that_was_cut_short(details, reason):
    """An incomplete answer ends in order, with the reason why it is."""
    last = ended(kind="incomplete", incomplete_details=details)

    assert told(wire(begun(), text("a"), last))[-2:] == [Finished(reason=reason), Ended()]


def test_the_chat_formats_mark_means_nothing_here():
    """[DONE] after the end is let pass, and in its place it is no end."""
    whole = wire(begun(), text("a"), ended())
    done = b"data: [DONE]\n\n"

    assert told(whole + done) == told(whole)
    with pytest.raises(BadProviderResponse):
        told(wire(begun(), text("a")) + done)


@pytest.mark.parametrize("size", range(1, len(GOLDEN) - 2, 13))
def test_a_cut_stream_is_never_complete(size):
    """A stream that stops before its last event is an error, and what came before is not lost."""
    stream = openai.provider.chat.open_stream(
        HELLO, target(ProviderSpec(api="responses", finish_is_end=True))
    )
    events = list(stream.feed(GOLDEN[:size]))
    with pytest.raises(BadProviderResponse) as caught:
        stream.close()

    events += caught.value.preceding
    assert events == GOLDEN_EVENTS[: len(events)]
    assert Ended() not in events


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (wire(ended(kind="failed", error={"code": "server_error", "message": "m"})), ProviderUnavailable),
        (wire(ended(kind="failed")), ProviderUnavailable),
        (wire({"type": "error", "code": "rate_limit_exceeded", "message": "m"}), ProviderRateLimited),
        (wire({"type": "error", "error": {"type": "invalid_request_error"}}), ProviderRejected),
        (wire({"type": "error", "code": "invalid_prompt", "message": "m"}), ProviderRejected),
        (b'data: {"error":{"code":429,"message":"m"}}\n\n', ProviderRateLimited),
        (b'event: error\ndata: {"message":"m"}\n\n', ProviderUnavailable),
        (b'{"error":{"code":503,"message":"m"}}\n\n', ProviderUnavailable),
        (b'{"output":[]}\n\n', BadProviderResponse),
        (b"data: <html>\n\n", BadProviderResponse),
        (b"data: [1]\n\n", BadProviderResponse),
        (b'data: {"type":"response.completed"}\n\n', BadProviderResponse),
        (wire({"type": "response.output_text.delta", "delta": 5}), BadProviderResponse),
        (wire(arguments("delta", 7, delta="{")), BadProviderResponse),
        (b'data: {"type":"response.output_text.delta","delta":"\xff"}\n\n', BadProviderResponse),
        (b"data: " + b"x" * 1_100_000, BadProviderResponse),
    ],
)
def test_failures_inside_a_stream(last, kind):
    """A failure in the stream is its own error; what came before in the same bytes comes with it."""
    stream = openai.provider.chat.open_stream(HELLO, target())
    assert list(stream.feed(wire(begun()))) == []
    assert list(stream.feed(wire(text("a")))) == [STARTED, TextDelta(text="a")]
    too_large = len(last) > 1_000_000
    with pytest.raises(ProviderError) as caught:
        stream.feed(last if too_large else wire(text("b")) + last)

    assert type(caught.value) is kind
    assert caught.value.preceding == (() if too_large else (TextDelta(text="b"),))


def test_nothing_is_handed_out_of_an_answer_that_fails_at_once():
    """The beginning alone is held back, so that a failure right after it can still be asked for elsewhere."""
    stream = openai.provider.chat.open_stream(HELLO, target())
    with pytest.raises(ProviderUnavailable) as caught:
        stream.feed(wire(begun(), begun("in_progress"), ended(kind="failed")))

    assert caught.value.preceding == ()


@pytest.mark.parametrize("data", [b"", b"<html>busy</html>", b": ping\n\n"])
def test_what_is_no_stream(data):
    """Something else in the place of a stream is said to be that."""
    with pytest.raises(BadProviderResponse):
        told(data)


# ---- recorded traffic


def recorded(*, streamed):
    if recorded_root() is None:
        return pytest.mark.skip(reason=REASON)
    found = [
        pytest.param(one, id=f"{recording.id}-{number}")
        for vendor in ("openai", "azure_openai", "openrouter", "xai")
        for recording in recordings(vendor, "responses", "responses-stream")
        for number, one in enumerate(recording.interactions)
        if one.request["method"] == "POST" and one.request["url"].endswith("/responses")
        if (one.json is None) is streamed
    ]
    return pytest.mark.parametrize("one", found)


def expected(document):
    """Say in the neutral terms what a recorded response object comes to."""
    texts, refusals, calls, thoughts = [], [], [], []
    for each in document["output"]:
        if each["type"] == "message":
            texts += [part["text"] for part in each["content"] if part["type"] == "output_text"]
            refusals += [part["refusal"] for part in each["content"] if part["type"] == "refusal"]
        elif each["type"] == "function_call":
            calls.append((each["call_id"], each["name"], each["arguments"]))
        elif each["type"] == "reasoning":
            thoughts += [part["text"] for part in [*each["summary"], *(each.get("content") or [])]]
    reason = "tool_calls" if calls else "stop"
    if document["status"] == "incomplete":
        reason = {"max_output_tokens": "length"}[document["incomplete_details"]["reason"]]
    usage = document["usage"]
    counts = (
        usage["input_tokens"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    )
    return ("".join(texts), "".join(refusals), calls, "\n\n".join(thoughts), reason, counts)


def known(usage):
    return (0, 0, 0) if usage is None else (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens)


@recorded(streamed=False)
def test_recorded_answers(one):
    """A recorded answer says what its JSON says."""
    result = answered(one.body)
    (choice,) = result.choices
    said = [part for part in choice.parts if isinstance(part, TextPart)]

    assert expected(one.json) == (
        "".join(part.text for part in said if not part.refusal),
        "".join(part.text for part in said if part.refusal),
        [(part.id, part.name, part.arguments) for part in choice.parts if isinstance(part, ToolCallPart)],
        "\n\n".join(part.text for part in choice.parts if isinstance(part, ThinkingPart)),
        choice.finish_reason,
        known(result.usage),
    )
    assert (result.id, result.model) == (one.json["id"], one.json["model"])


@recorded(streamed=True)
def test_recorded_streams(one):
    """A recorded stream says what its last event says, however its bytes are cut."""
    chance = random.Random(len(one.body))  # noqa: S311 - cuts, not secrets
    cuts = sorted(chance.randrange(len(one.body)) for _ in range(40))
    pieces = [one.body[a:b] for a, b in zip([0, *cuts], [*cuts, len(one.body)], strict=True)]
    last = [line for line in one.body.splitlines() if line.startswith(b"data: {")][-1]
    document = json.loads(last[6:])["response"]

    events = told(one.body, pieces)

    assert events == told(one.body)
    assert isinstance(events[0], Started)
    assert [isinstance(event, Ended) for event in events].index(True) == len(events) - 1
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls.setdefault(event.call, [event.id, event.name, ""])[2] += event.arguments
    texts = [event for event in events if isinstance(event, TextDelta)]
    (reason,) = [event.reason for event in events if isinstance(event, Finished)]
    usages = [event.usage for event in events if isinstance(event, UsageReported)]
    assert expected(document) == (
        "".join(event.text for event in texts if not event.refusal),
        "".join(event.text for event in texts if event.refusal),
        [tuple(call) for call in calls.values()],
        "".join(event.text for event in events if isinstance(event, ThinkingDelta)),
        reason,
        known(usages[0] if usages else None),
    )
    assert (events[0].id, events[0].model) == (document["id"], document["model"])


# Requests that lean on the vendor's state or its own tools, which the gateway refuses before anything is sent.
REFUSED = ("background-mode.json-0", "tool-search.json-1")


def requests():
    if recorded_root() is None:
        return pytest.mark.skip(reason=REASON)
    found = []
    for vendor in ("openai", "azure_openai", "openrouter", "xai"):
        for recording in recordings(vendor, "responses", "responses-stream"):
            for number, one in enumerate(recording.interactions):
                body = one.request["body"]
                name = f"{recording.id}-{number}"
                if not isinstance(body, dict) or not one.request["url"].endswith("/responses"):
                    continue
                if not name.endswith(REFUSED):
                    found.append(pytest.param(body, id=name))
    return pytest.mark.parametrize("body", found)


@requests()
def test_recorded_requests_survive_the_way_through(body):
    """What a caller asks in this format, the vendor is asked in it; or it is refused before anything is sent."""
    before = decode_responses_request(json.dumps(body).encode()).chat
    if before.binding:
        with pytest.raises(InvalidRequest):
            CODEC.encode(before, target())
        return
    written = CODEC.encode(before, target()).request.body
    after = decode_responses_request(written).chat

    def plain(chat):
        return [
            (turn.role, kept)
            for turn in chat.conversation.messages
            if (kept := tuple(part for part in turn.parts if not isinstance(part, ThinkingPart)))
        ]

    assert plain(after) == plain(before)
    assert [tool.name for tool in after.tools] == [tool.name for tool in before.tools]
    assert [bytes(tool.parameters or Raw(b"")) for tool in after.tools] == [
        bytes(tool.parameters or Raw(b"")) for tool in before.tools
    ]
    assert after.response_format == before.response_format
    assert after.reasoning_effort == before.reasoning_effort
    assert (after.max_output_tokens, after.stream) == (before.max_output_tokens, before.stream)
