"""Contract of OpenAI's Responses format: requests read from callers, answers and streams written to them."""

import json
from typing import Any

import pytest

from llm_gate.dialects.openai_completions import decode_completion_request
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.dialects.openai_responses_items import seal
from llm_gate.dialects.openai_responses_results import Frame, encode_response
from llm_gate.dialects.openai_responses_stream import ResponsesStreamEncoder
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.events import (
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
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
from llm_gate.domain.results import ChatResult, Choice
from llm_gate.domain.usage import Usage
from support.described import assert_events, assert_response
from support.recorded import parametrize, recordings

SCHEMA = {"type": "object", "properties": {"b": {}, "a": {"type": "string"}}}
PICTURE = "data:image/png;base64,aGk="
USAGE = Usage(input_tokens=10, cached_input_tokens=4, output_tokens=7, reasoning_tokens=3)


def read(**fields):
    body = {"model": "m", "input": "Hi", **fields}
    return decode_responses_request(json.dumps(body).encode())


def messages(*items, **fields):
    return read(input=list(items), **fields).chat.conversation.messages


def fault(**fields):
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value.param


def text(words, role="user"):
    return Message(role=role, parts=(TextPart(text=words),))


# Requests


def test_every_parameter_is_read():
    """Every parameter with a neutral form arrives in its field."""
    request = read(
        instructions="Be brief.",
        stream=True,
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        frequency_penalty=-1,
        presence_penalty=1.5,
        tools=[{"type": "function", "name": "t", "description": "d", "parameters": SCHEMA, "strict": True}],
        tool_choice={"type": "function", "name": "t"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
        reasoning={"effort": "low"},
        user="u1",
        service_tier="flex",
    ).chat
    (tool,) = request.tools

    assert request.conversation.messages == (text("Be brief.", "system"), text("Hi"))
    assert (request.model, request.stream, request.max_output_tokens) == ("m", True, 7)
    assert (request.temperature, request.top_p) == (0.5, 0.9)
    assert (request.frequency_penalty, request.presence_penalty) == (-1.0, 1.5)
    assert (tool.name, tool.description, tool.strict) == ("t", "d", True)
    assert json.loads(bytes(tool.parameters)) == SCHEMA
    assert request.tool_choice == ToolChoice(mode="named", name="t")
    assert request.parallel_tool_calls is False
    assert isinstance(request.response_format, ResponseFormat)
    assert (request.response_format.kind, request.response_format.name) == ("json_schema", "n")
    assert json.loads(bytes(request.response_format.schema)) == SCHEMA
    assert (request.reasoning_effort, request.user, request.service_tier) == ("low", "u1", "flex")
    assert request.needs == {"tools", "json_schema"}
    assert (dict(request.extra), request.binding, request.wire) == ({}, (), None)


def test_null_is_as_good_as_nothing():
    """A field that is null counts as not given."""
    names = (
        "instructions stream max_output_tokens temperature top_p tools tool_choice parallel_tool_calls text "
        "reasoning include metadata user service_tier truncation store background previous_response_id "
        "conversation prompt top_logprobs safety_identifier prompt_cache_key stream_options max_tool_calls"
    )
    request = read(**dict.fromkeys(names.split())).chat

    assert request.conversation.messages == (text("Hi"),)
    assert (request.stream, request.tools, request.needs) == (False, (), frozenset())
    assert (dict(request.extra), request.binding) == ({}, ())


def test_hints_are_named():
    """What no other format can say is dropped by its wire path; what asks for nothing is not even named."""
    dropped = read(
        metadata={"a": "b"},
        store=True,
        truncation="auto",
        include=["reasoning.encrypted_content"],
        safety_identifier="s",
        prompt_cache_key="k",
        stream_options={"include_obfuscation": True},
        text={"verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto", "context": "all_turns"},
        max_tool_calls=3,
        something_new=1,
    ).chat.extra
    idle = read(metadata={}, store=False, truncation="disabled", include=[], background=False).chat.extra

    assert list(dropped) == [
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "truncation",
        "store",
        "stream_options",
        "include",
        "text.verbosity",
        "reasoning.summary",
        "reasoning.context",
        "max_tool_calls",
        "something_new",
    ]
    assert dict(idle) == {}


def test_items_become_turns():
    """Reasoning, text and calls of one go are one message; the answers of tools are one turn of their own."""
    found = messages(
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Wait.", "annotations": []}],
        },
        {"type": "function_call", "id": "f1", "call_id": "c1", "name": "t", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "t", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_image", "image_url": PICTURE}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    )

    assert found == (
        text("Be brief.", "system"),
        text("Hi"),
        Message(
            role="assistant",
            parts=(
                ThinkingPart(text="Hm."),
                TextPart(text="Wait."),
                ToolCallPart(id="c1", name="t", arguments='{"a":1}'),
                ToolCallPart(id="c2", name="t", arguments="{}"),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="c1", content=(TextPart(text="one"),)),
                ToolResultPart(
                    tool_call_id="c2",
                    content=(MediaPart(kind="image", data="aGk=", media_type="image/png"),),
                ),
            ),
        ),
        Message(role="assistant", parts=(TextPart(text="No.", refusal=True),)),
    )


def test_a_second_text_is_a_second_turn():
    """Texts of the model that follow each other stay apart, and reasoning belongs to what comes after it."""
    thought = {
        "type": "reasoning",
        "id": "r",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    found = messages(
        {"role": "assistant", "content": "One."}, thought, {"role": "assistant", "content": "Two."}
    )

    assert found == (
        text("One.", "assistant"),
        Message(role="assistant", parts=(ThinkingPart(text="Hm."), TextPart(text="Two."))),
    )


def test_a_text_after_a_call_stays_with_it():
    """A text between a call and its answer joins the turn of the call, which the answer must follow directly."""
    call = ToolCallPart(id="c", name="t", arguments="{}")
    found = messages(
        {"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"},
        {"role": "assistant", "content": "Calling."},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
    )

    assert [message.role for message in found] == ["assistant", "tool"]
    assert found[0].parts == (call, TextPart(text="Calling."))


def test_media_are_read():
    """Pictures, documents and sounds are read from links and data, and ask for the abilities they need."""
    content = [
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "high"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://x.test/a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
    ]
    request = read(input=[{"role": "user", "content": content}]).chat

    assert request.conversation.messages[0].parts == (
        MediaPart(kind="image", url="https://x.test/a.png", detail="high"),
        MediaPart(kind="file", data="aGk=", media_type="application/pdf", filename="a.pdf"),
        MediaPart(kind="file", url="https://x.test/a.pdf"),
        MediaPart(kind="audio", data="aGk=", media_type="audio/mp3"),
    )
    assert request.needs == {"images", "files", "audio"}


@pytest.mark.parametrize(
    "thought",
    [
        ThinkingPart(text="Hm.", signature="sig+/="),
        ThinkingPart(redacted="blob"),
        ThinkingPart(signature="s"),
    ],
)
def test_what_must_travel_back_does(thought):
    """A signature or sealed thought that went out in a reasoning item comes back unchanged with it."""
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    item = {"type": "reasoning", "id": "r", "summary": summary, "encrypted_content": seal(thought)}

    assert messages(item) == (Message(role="assistant", parts=(thought,)),)


def test_foreign_seals_are_worth_nothing():
    """Reasoning that another server sealed is left out, and so is what shows nothing."""
    item = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAAA"}

    assert messages(item, {"role": "user", "content": "Hi"}) == (text("Hi"),)


def test_a_signature_rides_on_its_call():
    """The signature of a call is read where it is written."""
    item = {"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"}
    (found,) = messages({**item, "extra_content": {"google": {"thought_signature": "sig"}}})

    assert found.parts == (ToolCallPart(id="c", name="t", arguments="{}", signature="sig"),)


@pytest.mark.parametrize(
    ("fields", "binding"),
    [
        ({"tools": [{"type": "web_search"}]}, ("tools[0].type",)),
        ({"tools": [{"type": "function", "name": "t"}, {"type": "mcp"}]}, ("tools[1].type",)),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, ("tool_choice",)),
        ({"stream": True, "include": ["message.output_text.logprobs"]}, ("include",)),
        ({"stream": True, "top_logprobs": 2}, ("top_logprobs",)),
    ],
)
def test_what_changes_the_answer_is_bound(fields, binding):
    """What changes the meaning of the answer and has no neutral form is marked, so that every vendor refuses it."""
    assert read(**fields).chat.binding == binding


def test_logprobs_of_a_whole_answer_are_asked_for():
    """Log probabilities are carried over where the answer comes whole."""
    request = read(include=["message.output_text.logprobs"], top_logprobs=2).chat

    assert (request.logprobs, request.top_logprobs, dict(request.extra)) == (True, 2, {})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": 1}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"type": "message", "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "refusal"}]}]}, "input[0].content[0].refusal"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].file_data"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0].input_audio",
        ),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "t", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        ({"instructions": ["Be brief."]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"name": "t"}]}, "tools[0].type"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"truncation": "sometimes"}, "truncation"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_malformed_requests_are_refused(fields, param):
    """What is malformed, or leans on a state, is refused with the path of the field."""
    assert fault(**fields) == param


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"model":"m"', b'{"model":"m","model":"m"}', b'{"model":"m","input":"\\ud800"}', b"\xff"],
)
def test_what_is_no_object_is_refused(body):
    """A body that is no plain JSON object is refused."""
    with pytest.raises(InvalidRequest):
        decode_responses_request(body)


# Answers


FRAME = Frame(id_stem="1", model="m-1", created_s=1700000000, echo=read(tools=[]).echo)


def written(*parts, reason="stop", usage=USAGE, **more):
    choice = Choice(parts=parts, finish_reason=reason, **more)
    body = json.loads(
        encode_response(ChatResult(choices=(choice,), usage=usage), FRAME, completed_s=9, cost=None)
    )
    assert_response(body)
    return body


def test_a_whole_answer():
    """An answer of reasoning, text and calls becomes items in their order, with counts of this format."""
    body = written(
        ThinkingPart(text="Hm.", signature="sig"),
        TextPart(text="One "),
        TextPart(text="moment."),
        TextPart(text="No.", refusal=True),
        ToolCallPart(id="c1", name="t", arguments="{}", signature="s1"),
        reason="tool_calls",
    )

    assert body["output"] == [
        {
            "id": "rs_1_0",
            "type": "reasoning",
            "status": "completed",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "llm-gate.signature:sig",
        },
        {
            "id": "msg_1_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "One moment.", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "No."},
            ],
        },
        {
            "id": "fc_1_2",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "t",
            "arguments": "{}",
            "extra_content": {"google": {"thought_signature": "s1"}},
        },
    ]
    assert (body["id"], body["model"]) == ("resp_1", "m-1")
    assert (body["status"], body["created_at"], body["completed_at"]) == ("completed", 1700000000, 9)
    assert body["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 17,
        "cost": None,
    }


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_incomplete_answer(reason, why):
    """An answer cut short by a limit or a filter says so, and its last item too."""
    body = written(ThinkingPart(text="Hm."), TextPart(text="One"), reason=reason)

    assert (body["status"], body["completed_at"]) == ("incomplete", None)
    assert body["incomplete_details"] == {"reason": why}
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]


def test_an_empty_answer():
    """A finished answer without a word has an empty message; a filtered one has nothing."""
    (item,) = written()["output"]

    assert (item["type"], item["content"][0]["text"]) == ("message", "")
    assert written(reason="content_filter")["output"] == []


def test_unknown_usage_is_null():
    """Counts that nobody gave are null, never zero."""
    assert written(TextPart(text="Hi"), usage=None)["usage"] is None


def test_log_probabilities_are_written():
    """Log probabilities of a whole answer stand at its text."""
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]}
    body = written(TextPart(text="Hi"), logprobs=json.dumps(logprobs).encode())

    assert body["output"][0]["content"][0]["logprobs"] == logprobs["content"]


# Streams


def streamed(*events):
    encoder = ResponsesStreamEncoder(FRAME, clock=lambda: 9.5)
    found = parsed(b"".join(encoder.encode([event]) for event in events))
    assert_events(found)
    return found


def parsed(data: bytes) -> list[Any]:
    blocks = data.decode().split("\n\n")[:-1]
    return [json.loads(block.partition("\ndata: ")[2]) for block in blocks]


def kinds(events):
    return [event["type"].removeprefix("response.") for event in events]


def outputs(events):
    """Return the output of the last event, after checking that the closed items are the same."""
    output = events[-1]["response"]["output"]
    done = {e["output_index"]: e["item"] for e in events if e["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == output
    return output


def test_a_streamed_answer():
    """A stream of all kinds opens, fills and closes each item in its place, and ends with what a whole answer has."""
    events = streamed(
        Started(id="x", model="m-2", created_s=1600000000),
        ThinkingDelta(text="H"),
        ThinkingDelta(text="m."),
        ThinkingDelta(signature="sig"),
        TextDelta(text="One "),
        TextDelta(text="moment."),
        TextDelta(text="No.", refusal=True),
        ToolCallDelta(call=0, id="c1", name="t", arguments='{"a":'),
        ToolCallDelta(call=1, id="c2", name="u", signature="s2"),
        ToolCallDelta(call=0, arguments="1}"),
        Finished(reason="tool_calls"),
        UsageReported(usage=USAGE),
        Ended(),
    )
    whole = written(
        ThinkingPart(text="Hm.", signature="sig"),
        TextPart(text="One moment."),
        TextPart(text="No.", refusal=True),
        ToolCallPart(id="c1", name="t", arguments='{"a":1}'),
        ToolCallPart(id="c2", name="u", arguments="{}", signature="s2"),
        reason="tool_calls",
    )

    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert outputs(events) == whole["output"]
    assert events[-1]["response"] == {**whole, "model": "m-2", "created_at": 1600000000}
    assert [e["content_index"] for e in events if "content_index" in e] == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_kinds_that_alternate_are_items_of_their_own():
    """Text that goes on after a call or a thought is another message, after what came between."""
    events = streamed(
        Started(),
        TextDelta(text="A"),
        ToolCallDelta(call=0, id="c", name="t", arguments="{}"),
        TextDelta(text="B"),
        ThinkingDelta(redacted="blob"),
        ThinkingDelta(text="Hm."),
        Finished(reason="tool_calls"),
        Ended(),
    )

    assert [item["type"] for item in outputs(events)] == [
        "message",
        "function_call",
        "message",
        "reasoning",
        "reasoning",
    ]


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_incomplete_stream(reason, why):
    """A stream cut short by a limit or a filter ends as incomplete, and so does its last item."""
    events = streamed(
        Started(), ThinkingDelta(text="Hm."), TextDelta(text="One"), Finished(reason=reason), Ended()
    )

    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": why}
    assert [item["status"] for item in outputs(events)] == ["completed", "incomplete"]


def test_an_empty_stream():
    """A finished stream without a word has an empty message, whether or not it said why it ended."""
    for end in ([Finished(reason="stop"), Ended()], [Ended()]):
        events = streamed(Started(), *end)
        (item,) = outputs(events)
        assert (item["type"], item["content"][0]["text"]) == ("message", "")


def test_only_the_first_choice_is_written():
    """Further choices, which nobody can have asked for, are left out."""
    events = streamed(
        Started(),
        TextDelta(text="A"),
        TextDelta(text="B", index=1),
        Finished(reason="length", index=1),
        Finished(reason="stop"),
        Ended(),
    )

    assert outputs(events)[0]["content"][0]["text"] == "A"
    assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("before", [[], [Started(), ThinkingDelta(text="Hm."), TextDelta(text="One")]])
def test_a_failed_stream(before):
    """A failure ends the stream with the response as it stands, and the error."""
    encoder = ResponsesStreamEncoder(FRAME, clock=lambda: 9.5)
    data = encoder.encode(before)
    failure = encoder.fail(
        "it broke", code="provider_unavailable", param=None, kind="server_error", response_code="server_error"
    )
    events = parsed(data + failure)
    assert_events(events)

    assert kinds(events)[:2] == ["created", "in_progress"]
    assert kinds(events)[-2:] == ["failed", "error"]
    failed = events[-2]["response"]
    assert (failed["status"], failed["error"]) == ("failed", {"code": "server_error", "message": "it broke"})
    assert [item["status"] for item in failed["output"]] == (["completed", "incomplete"] if before else [])
    assert events[-1]["error"] == {
        "message": "it broke",
        "type": "server_error",
        "param": None,
        "code": "provider_unavailable",
    }


def test_verbatim_events_are_a_mistake():
    """Wire events of another format are never forwarded here."""
    with pytest.raises(TypeError):
        ResponsesStreamEncoder(FRAME, clock=lambda: 9.5).encode([Verbatim(data=b"data: {}\n\n")])


# Recorded requests

# Where a recorded request cannot be answered, and the field that stands in the way.
REFUSED = {
    "openai/responses-stream/background-mode.json": "background",
}
BOUND = {
    "openai/responses-stream/mcp-list-tools.json": "tools[0].type",
    "openai/responses-stream/tool-search.json": "tools[0].type",
    "openai/responses-stream/logprobs.json": "include",
    "openai/responses/custom-tool.json": "tools[0].type",
    "openai/responses/image-generation-tool.json": "tools[0].type",
    "openai/responses/web-search-tool.json": "tools[0].type",
}
RECORDED = [
    recording
    for vendor in ("openai", "azure_openai", "xai", "openrouter")
    for recording in recordings(vendor, "responses", "responses-stream", "json-schema", "errors")
]


def bodies(recording, ending):
    """Return the bodies of a recording's requests to an address."""
    asked = [one.request for one in recording.interactions]
    return [one["body"] for one in asked if one["method"] == "POST" and one["url"].endswith(ending)]


@parametrize("recording", [one for one in RECORDED if bodies(one, "/responses")])
def test_recorded_requests(recording):
    """Each recorded request is read with its words and calls, or refused for the reason given here."""
    for body in bodies(recording, "/responses"):
        raw = json.dumps(body).encode()
        if any(
            item.get("type", "").startswith("tool_search") for item in body["input"] if isinstance(item, dict)
        ):
            with pytest.raises(InvalidRequest, match="cannot be carried over"):
                decode_responses_request(raw)
            continue
        if recording.id in REFUSED:
            with pytest.raises(InvalidRequest) as caught:
                decode_responses_request(raw)
            assert caught.value.param == REFUSED[recording.id]
            continue
        request = decode_responses_request(raw).chat
        assert request.binding[:1] == ((BOUND[recording.id],) if recording.id in BOUND else ())
        assert request.model == body["model"]
        found = [part for message in request.conversation.messages for part in message.parts]
        names = [part.name for part in found if isinstance(part, ToolCallPart)]
        items = [] if isinstance(body["input"], str) else body["input"]
        assert names == [item["name"] for item in items if item.get("type") == "function_call"]
        functions = [tool["name"] for tool in body.get("tools") or () if tool["type"] == "function"]
        assert [tool.name for tool in request.tools if isinstance(tool, Tool)] == functions


@parametrize("recording", recordings("openai", "completions"))
def test_recorded_completion_requests(recording):
    """Each recorded request for a text completion is read with its prompt and parameters."""
    for body in bodies(recording, "/completions"):
        request = decode_completion_request(json.dumps(body).encode())
        assert request.conversation.messages == (text(body["prompt"]),)
        assert (request.max_output_tokens, request.n) == (body.get("max_tokens"), body.get("n"))
        assert (request.temperature, request.user) == (body.get("temperature"), body.get("user"))
