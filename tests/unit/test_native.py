"""The native wire format: requests read, answers, streams, errors and the list of providers written."""

import json
import time
from contextlib import suppress
from datetime import date
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.catalog.loader import load_catalog
from llm_gate.dialects import native_catalog, native_wire
from llm_gate.dialects.native import (
    decode_chat_request,
    decode_chat_stream_request,
    decode_embedding_request,
    encode_chat_result,
    encode_embedding_result,
    encode_error,
    error_code,
)
from llm_gate.dialects.native_catalog import encode_providers
from llm_gate.dialects.native_stream import NativeStreamEncoder, encode_stream_error
from llm_gate.dialects.native_wire import ErrorDetail
from llm_gate.domain.catalog import Model, ProviderEntry, ProviderSpec
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
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from llm_gate.domain.offers import offer_of
from llm_gate.domain.pricing import Cost, Price, PriceCondition, cost_of
from llm_gate.domain.results import ChatResult, Choice, EmbeddingResult
from llm_gate.domain.usage import Usage
from support.texts import CHARACTERS

TODAY = date(2026, 11, 20)
USER = {"role": "user", "content": "Hello, how are you?"}
SEED_REQUEST = b"""{
  "provider": {
    "name": "azure_openai",
    "model": {
      "name": "gpt-35-turbo"
    }
  },
  "prompt": {
    "parameter": {
      "temperature": 0.7,
      "maxTokens": 50
    },
    "messages": [
      {
        "role": "user",
        "content": "Hello, how are you?"
      }
    ]
  }
}"""
TOOL = {"name": "add", "description": "Adds", "parameters": {"type": "object", "maximum": 1e400}}
KEYS = [
    "provider",
    "name",
    "model",
    "prompt",
    "messages",
    "role",
    "content",
    "parameter",
    "tools",
    "toolChoice",
    "type",
    "function",
    "toolCalls",
    "tool",
    "imageUrl",
    "texts",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(CHARACTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


def body(prompt=None, **top):
    fields = {"prompt": {"messages": [USER], **(prompt or {})}, **top}
    # Infinity is what Python makes of 1e400; on the wire it is a number that only raw JSON keeps.
    return json.dumps(fields).replace("Infinity", "1e400").encode()


def messages_of(*messages):
    return decode_chat_request(body({"messages": list(messages)})).conversation.messages


def faults_of(raw, decode=decode_chat_request):
    with pytest.raises(InvalidRequest) as caught:
        decode(raw)
    return [(fault.path, fault.message) for fault in caught.value.faults]


def price(unit, usd, *, per=1_000_000, name="p", condition=None, since=None):
    return Price(id=name, unit=unit, per=per, nanos=Fraction(usd) * 10**9, condition=condition, since=since)


def answer(*parts, usage=None, reason="stop"):
    return ChatResult(choices=(Choice(parts=parts, finish_reason=reason),), usage=usage)


def events_of(data):
    """Return the parsed data of every event, each of which must be exactly one framed line."""
    frames = data.decode().split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


class TestChatRequest:
    def test_the_documents_example_is_read(self):
        """The request printed in the documents means what it says."""
        request = decode_chat_request(SEED_REQUEST)
        assert request.model == "azure_openai/gpt-35-turbo"
        assert request.temperature == 0.7
        assert request.max_output_tokens == 50
        assert request.conversation.messages == (
            Message(role="user", parts=(TextPart(text="Hello, how are you?"),)),
        )
        assert (request.stream, request.include_usage) == (False, False)
        assert (request.wire, dict(request.extra), request.binding) == (None, {}, ())
        assert request.needs == frozenset()

    def test_a_stream_request_is_the_same_with_usage(self):
        """The streaming route reads the same body and always wants usage at the end."""
        request = decode_chat_stream_request(SEED_REQUEST)
        assert (request.stream, request.include_usage) == (True, True)
        assert request.model == "azure_openai/gpt-35-turbo"

    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            ({"name": "a", "model": {"name": "m"}}, "a/m"),
            ({"name": "a", "model": {"name": "org/m"}}, "a/org/m"),
            ({"name": "a"}, "a/"),
            ({"name": "a", "model": {}}, "a/"),
            ({"name": "a", "model": None}, "a/"),
            ({"model": {"name": "m"}}, "m"),
            ({}, ""),
            (None, ""),
        ],
    )
    def test_provider_and_model_become_one_name(self, provider, model):
        """What the caller named is written as the resolver reads it; what is not named stays empty."""
        assert decode_chat_request(body(provider=provider)).model == model

    def test_every_parameter_is_carried(self):
        """Each documented parameter arrives in its neutral field."""
        parameter = {
            "temperature": 2,
            "maxTokens": 1,
            "topP": 0.5,
            "stop": ["a", "b"],
            "seed": -7,
            "jsonMode": True,
        }
        request = decode_chat_request(body({"parameter": parameter}))
        assert (request.temperature, request.max_output_tokens, request.top_p) == (2.0, 1, 0.5)
        assert (request.stop, request.seed) == (("a", "b"), -7)
        assert request.response_format.kind == "json_object"
        assert request.needs == {"json_object"}

    def test_a_single_stop_word_is_a_list_of_one(self):
        """A stop given as text means one stop word, not its letters."""
        assert decode_chat_request(body({"parameter": {"stop": "END"}})).stop == ("END",)

    def test_nulls_mean_absent(self):
        """A null is the same as leaving the field out."""
        prompt = {"parameter": None, "tools": None, "toolChoice": None, "responseFormat": None}
        request = decode_chat_request(body(prompt, tools=None))
        assert (request.tools, request.tool_choice, request.response_format) == ((), None, None)

    def test_a_schema_travels_untouched(self):
        """A response format of type json_schema keeps its schema as raw JSON, and its name."""
        wanted = {"type": "json_schema", "name": "n", "schema": {"const": 12345678901234567890123}}
        request = decode_chat_request(body({"responseFormat": wanted}))
        assert (request.response_format.kind, request.response_format.name) == ("json_schema", "n")
        assert bytes(request.response_format.schema) == b'{"const":12345678901234567890123}'
        assert request.needs == {"json_schema"}

    @pytest.mark.parametrize("on_top", [False, True])
    def test_tools_may_stand_in_the_prompt_or_beside_it(self, on_top):
        """Tools and the choice among them are read from either documented place."""
        given = {"tools": [TOOL], "toolChoice": {"name": "add"}}
        request = decode_chat_request(body({}, **given) if on_top else body(given))
        [tool] = request.tools
        assert (tool.name, tool.description) == ("add", "Adds")
        assert bytes(tool.parameters) == b'{"type":"object","maximum":1e400}'
        assert request.tool_choice == ToolChoice(mode="named", name="add")
        assert request.needs == {"tools"}

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", ToolChoice(mode="auto")),
            ("none", ToolChoice(mode="none")),
            ("required", ToolChoice(mode="required")),
            ({"function": {"name": "add"}}, ToolChoice(mode="named", name="add")),
            ({"type": "function", "function": {"name": "add"}}, ToolChoice(mode="named", name="add")),
        ],
    )
    def test_every_tool_choice_is_read(self, choice, expected):
        """A choice is a word or a function selector."""
        assert decode_chat_request(body({"tools": [TOOL], "toolChoice": choice})).tool_choice == expected

    @pytest.mark.parametrize("choice", ["auto", "none"])
    def test_a_choice_among_no_tools_says_nothing(self, choice):
        """Without tools, "auto" and "none" are no reason for any vendor to refuse."""
        assert decode_chat_request(body({"toolChoice": choice})).tool_choice is None


class TestMessages:
    def test_roles_and_parts(self):
        """Text, parts and pictures (link or data URL, either spelling) become neutral parts."""
        read = messages_of(
            {"role": "system", "content": "S"},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "imageUrl", "imageUrl": {"url": "https://x.example/a.png", "detail": "low"}},
                    {"type": "image_url", "imageUrl": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
        )
        assert read == (
            Message(role="system", parts=(TextPart(text="S"),)),
            Message(
                role="user",
                name="ann",
                parts=(
                    TextPart(text="What is it?"),
                    MediaPart(kind="image", url="https://x.example/a.png", detail="low"),
                    MediaPart(kind="image", data="AAAA", media_type="image/png"),
                ),
            ),
        )

    def test_pictures_ask_for_a_model_that_sees(self):
        """A picture anywhere in the messages is an ability the target needs."""
        picture = [{"type": "imageUrl", "imageUrl": {"url": "https://x.example/a.png"}}]
        asked = decode_chat_request(body({"messages": [{"role": "user", "content": picture}]}))
        told = decode_chat_request(
            body({"messages": [USER, {"role": "tool", "toolCallId": "c", "content": picture}]})
        )
        assert asked.needs == told.needs == {"images"}

    def test_an_answer_can_be_sent_back_as_it_came(self):
        """The messages of an answer, appended as they are, become one assistant turn with its calls."""
        calls = (
            ToolCallPart(id="c1", name="add", arguments='{"a":1}'),
            ToolCallPart(id="c2", name="sub", arguments="{}"),
        )
        said = answer(TextPart(text="Let me see."), *calls, reason="tool_calls")
        came = json.loads(encode_chat_result(said, provider="p", model="m", cost=None))["messages"]
        read = messages_of(
            USER,
            *came,
            {"role": "tool", "toolCallId": "c2", "content": "0"},
            {"role": "tool", "toolCallId": "c1", "content": "3"},
        )
        assert read[1:] == (
            Message(role="assistant", parts=(TextPart(text="Let me see."), *calls)),
            Message(
                role="tool",
                parts=(ToolResultPart(tool_call_id="c2", content=(TextPart(text="0"),), name="sub"),),
            ),
            Message(
                role="tool",
                parts=(ToolResultPart(tool_call_id="c1", content=(TextPart(text="3"),), name="add"),),
            ),
        )

    def test_calls_without_text_come_back_as_an_assistant_turn(self):
        """An answer of calls only makes a turn of its own after the user's."""
        read = messages_of(USER, {"role": "tool", "tool": {"id": "c", "name": "add"}})
        assert read[1] == Message(role="assistant", parts=(ToolCallPart(id="c", name="add", arguments="{}"),))

    @pytest.mark.parametrize("field", ["tool", "toolCalls"])
    def test_an_assistant_may_carry_its_calls(self, field):
        """Calls may ride on the assistant's own message, one or a list."""
        call = {"id": "c", "name": "add", "arguments": "{}"}
        read = messages_of(USER, {"role": "assistant", field: call if field == "tool" else [call]})
        assert read[1] == Message(role="assistant", parts=(ToolCallPart(id="c", name="add", arguments="{}"),))

    def test_results_without_an_id_answer_the_oldest_open_call(self):
        """A result that names its function, or nothing, finds the call it belongs to."""
        calls = [{"name": "add"}, {"name": "sub"}, {"name": "add"}]
        read = messages_of(
            USER,
            {"role": "assistant", "toolCalls": calls},
            {"role": "function", "name": "add", "content": "1"},
            {"role": "function", "name": "add", "content": "2"},
            {"role": "tool", "content": "3"},
        )
        results = [message.parts[0] for message in read[2:]]
        assert [(part.tool_call_id, part.name) for part in results] == [
            ("call_1_0", "add"),
            ("call_1_2", "add"),
            ("call_1_1", "sub"),
        ]

    def test_a_named_result_without_any_call_keeps_its_name(self):
        """A function's answer whose call is not in the history stands under its name."""
        [message] = messages_of({"role": "function", "name": "add", "content": "1"})
        assert message.parts == (
            ToolResultPart(tool_call_id="add", content=(TextPart(text="1"),), name="add"),
        )


class TestFaults:
    def test_every_fault_is_listed_at_once(self):
        """One answer names every wrong field, those of shape and those of meaning."""
        raw = body(
            {
                "parameter": {"temperature": 2.1, "maxTokens": 0, "n": 2, "jsonMode": True},
                "messages": [
                    {"role": "robot", "content": "x"},
                    {"role": "user", "mood": "good"},
                    {"role": "user", "content": [{"type": "text"}, {"type": "sound"}]},
                    {"role": "user", "content": [{"type": "imageUrl", "imageUrl": {"url": "ftp://x"}}]},
                ],
                "tools": [{"description": "nameless"}],
                "responseFormat": {"type": "text"},
            },
            provider={"name": "a/b", "model": {"name": ""}, "region": "west"},
            tools=[TOOL],
            session="s",
        )
        assert faults_of(raw) == [
            ("session", "unknown field"),
            ("prompt.messages[0].role", "invalid enum value 'robot'"),
            ("prompt.messages[1].mood", "unknown field"),
            ("prompt.messages[2].content[1].type", "invalid enum value 'sound'"),
            ("prompt.parameter.n", "unknown field"),
            ("prompt.parameter.temperature", "expected `float` <= 2.0"),
            ("prompt.parameter.maxTokens", "expected `int` >= 1"),
            ("prompt.tools[0].name", "required field is missing"),
            ("provider.region", "unknown field"),
            ("provider.model.name", "expected `str` of length >= 1"),
            ("provider.name", "must not hold a slash; the model goes into provider.model.name"),
            ("prompt.messages[1].content", "required field is missing"),
            ("prompt.messages[3].content[0].imageUrl.url", "must be an http(s) link or a base64 data URL"),
            ("tools", "is given twice, here and as prompt.tools"),
            ("prompt.responseFormat.type", "contradicts prompt.parameter.jsonMode"),
        ]

    @pytest.mark.parametrize(
        ("raw", "faults"),
        [
            (b"{}", [("prompt", "required field is missing")]),
            (b'{"prompt":null}', [("prompt", "expected `object`, got `null`")]),
            (b'{"prompt":{}}', [("prompt.messages", "required field is missing")]),
            (body({"messages": []}), [("prompt.messages", "expected `array` of length >= 1")]),
            (body({"messages": "x"}), [("prompt.messages", "expected `array`, got `str`")]),
            (body({"messages": ["x"]}), [("prompt.messages[0]", "expected `object`, got `str`")]),
            (
                body({"messages": [{"role": "user", "content": []}]}),
                [("prompt.messages[0].content", "must hold at least one part")],
            ),
            (
                body({"messages": [{"role": "user", "content": 5}]}),
                [("prompt.messages[0].content", "expected `str | array | null`, got `int`")],
            ),
            (
                body({"messages": [{"role": "assistant"}, {"role": "system"}]}),
                [
                    ("prompt.messages[0].content", "required field is missing"),
                    ("prompt.messages[1].content", "required field is missing"),
                ],
            ),
            (
                body({"messages": [{"role": "user", "content": "x", "toolCallId": "c", "toolCalls": []}]}),
                [
                    ("prompt.messages[0].toolCallId", "does not belong to a message of role 'user'"),
                    ("prompt.messages[0].toolCalls", "does not belong to a message of role 'user'"),
                ],
            ),
            (
                body({"messages": [USER, {"role": "tool"}]}),
                [
                    ("prompt.messages[1].content", "required field is missing"),
                    (
                        "prompt.messages[1].toolCallId",
                        "required field is missing: no open tool call precedes",
                    ),
                ],
            ),
            (
                body({"messages": [{"role": "tool", "content": "x", "tool": {"name": "f"}}]}),
                [
                    (
                        "prompt.messages[0]",
                        "carries either a tool's answer in content or a call in tool, not both",
                    )
                ],
            ),
            (
                body({"messages": [{"role": "user", "content": [{"type": "imageUrl", "text": "x"}]}]}),
                [
                    ("prompt.messages[0].content[0].text", "does not belong to a part of type 'imageUrl'"),
                    ("prompt.messages[0].content[0].imageUrl", "required field is missing"),
                ],
            ),
            (
                body({"toolChoice": "required"}),
                [("prompt.tools", "must hold a tool, since prompt.toolChoice requires one")],
            ),
            (
                body({"tools": [TOOL], "toolChoice": {"name": "sub"}}),
                [("prompt.tools", "must hold the tool 'sub' that prompt.toolChoice names")],
            ),
            (
                body({"tools": [{"name": ""}], "toolChoice": {"name": "sub"}}),
                [("prompt.tools[0].name", "expected `str` of length >= 1")],
            ),
            (
                body({"tools": [TOOL], "toolChoice": {}}),
                [("prompt.toolChoice", "must name exactly one tool")],
            ),
            (body({"toolChoice": "maybe"}), [("prompt.toolChoice", "invalid enum value 'maybe'")]),
            (
                body({"tools": [TOOL], "toolChoice": "auto"}, toolChoice="auto"),
                [("toolChoice", "is given twice, here and as prompt.toolChoice")],
            ),
            (
                body({"tools": [{"name": "f", "parameters": "x"}]}),
                [("prompt.tools[0].parameters", "expected `object | null`, got `str`")],
            ),
            (
                body({"responseFormat": {"type": "json_schema"}}),
                [("prompt.responseFormat.schema", "required field is missing")],
            ),
            (
                body({"responseFormat": {"type": "json_object", "name": "n", "schema": {}}}),
                [
                    ("prompt.responseFormat.schema", "belongs to type json_schema"),
                    ("prompt.responseFormat.name", "belongs to type json_schema"),
                ],
            ),
            (
                body({"parameter": {"seed": 2**63}}),
                [("prompt.parameter.seed", "expected `int` <= 9223372036854775807")],
            ),
        ],
    )
    def test_each_fault_is_named_with_its_place(self, raw, faults):
        """A body that cannot be carried out says where and why, and nothing that is not so."""
        assert faults_of(raw) == faults

    @pytest.mark.parametrize(
        "decode", [decode_chat_request, decode_chat_stream_request, decode_embedding_request]
    )
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"null",
            b"[]",
            b'"x"',
            b"{",
            b'{"prompt":{"messages":[{"role":"user","content":"x"}]},"content":{"texts":["x"]}',
            b"{}{}",
            b'{"prompt":1,"prompt":{"messages":[{"role":"user","content":"x"}]}}',
            b'{"content":1,"content":{"texts":["x"]}}',
            b"[" * 5000 + b"]" * 5000,
            b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}",
            b'{"prompt":{"messages":[{"role":"user","content":"\\ud800"}]},"content":{"texts":["\\ud800"]}}',
            b'{"prompt":{"messages":[{"role":"user","content":"\xff"}]},"content":{"texts":["\xff"]}}',
            b'{"prompt":{"messages":"x"},"content":{"texts":"x"}}',
            b'{"prompt":{"parameter":{"temperature":1e999}},"content":{"texts":[1e999]}}',
        ],
    )
    def test_malformed_bodies_are_the_callers_fault(self, decode, raw):
        """Whatever is sent, a body that is not understood is refused as invalid, never as our failure."""
        assert faults_of(raw, decode)

    def test_the_list_of_faults_is_bounded(self):
        """A hostile body cannot make the answer larger than a hundred faults and their count."""
        faults = faults_of(body({"parameter": {f"x{i}": 0 for i in range(500)}}))
        assert len(faults) == 101
        assert faults[-1] == ("", "400 more faults are not listed")

    def test_a_huge_faulty_body_names_its_first_fault(self):
        """A body of a million faults costs no more than reading it: the first one is enough."""
        raw = b'{"prompt":{"messages":[' + b"0," * 1_000_000 + b"0]}}"
        assert faults_of(raw) == [("prompt.messages[0]", "expected `object`, got `int`")]

    def test_a_long_history_of_calls_is_read_in_one_go(self):
        """Many thousand calls and their answers, in the worst order, take no more than a moment."""
        count = 20_000
        calls = [{"role": "tool", "tool": {"id": f"c{i}", "name": "f"}} for i in range(count)]
        results = [{"role": "tool", "toolCallId": f"c{i}", "content": ""} for i in reversed(range(count))]
        started_s = time.perf_counter()
        read = messages_of(USER, *calls, *results)
        assert time.perf_counter() - started_s < 5
        assert len(read[1].parts) == count
        assert read[2].parts[0].name == "f"

    def test_the_error_itself_names_all_faults(self):
        """The message of the error is readable without the list."""
        with pytest.raises(InvalidRequest) as caught:
            decode_chat_request(body({"parameter": {"temperature": "hot"}}, x=1))
        assert caught.value.message == (
            "x: unknown field; prompt.parameter.temperature: expected `float | null`, got `str`"
        )
        assert caught.value.param == "x"

    @given(JSON)
    def test_no_body_breaks_the_reader(self, value):
        """Any JSON at all is either read or refused as invalid."""
        for raw in (json.dumps(value).encode(), json.dumps({"prompt": value, "content": value}).encode()):
            for decode in (decode_chat_request, decode_embedding_request):
                with suppress(InvalidRequest):
                    decode(raw)


class TestChatResult:
    def test_the_documents_example_is_written(self):
        """A plain answer holds the three counts and exactly one assistant message of role and content."""
        said = answer(
            ThinkingPart(text="hm"),
            TextPart(text="I am doing well, thank you. How can I assist you today?"),
            usage=Usage(input_tokens=8, output_tokens=5, cached_input_tokens=3, reasoning_tokens=2),
        )
        assert encode_chat_result(said, provider="azure_openai", model="gpt-35-turbo", cost=None) == (
            b'{"usage":{"completionTokens":5,"promptTokens":8,"totalTokens":13},'
            b'"messages":[{"role":"assistant",'
            b'"content":"I am doing well, thank you. How can I assist you today?"}],'
            b'"finishReason":"stop",'
            b'"provider":{"name":"azure_openai","model":{"name":"gpt-35-turbo"}}}'
        )

    def test_unknown_usage_is_left_out(self):
        """A usage that nobody knows is absent, not zero; an empty answer is an empty text."""
        assert json.loads(encode_chat_result(answer(), provider="p", model="m", cost=None)) == {
            "messages": [{"role": "assistant", "content": ""}],
            "finishReason": "stop",
            "provider": {"name": "p", "model": {"name": "m"}},
        }

    def test_tool_calls_are_messages_of_their_own(self):
        """Calls follow the text; without text there is no assistant message."""
        call = ToolCallPart(id="c", name="add", arguments='{"a": 1}', signature="s")
        written = {"role": "tool", "tool": {"id": "c", "name": "add", "arguments": '{"a": 1}'}}

        def messages(*parts):
            result = answer(*parts, reason="tool_calls")
            return json.loads(encode_chat_result(result, provider="p", model="m", cost=None))["messages"]

        assert messages(call) == [written]
        assert messages(call, TextPart(text="x")) == [{"role": "assistant", "content": "x"}, written]

    def test_refusals_and_choices(self):
        """A refusal is shown as content, and every choice gets its message."""
        result = ChatResult(
            choices=(
                Choice(parts=(TextPart(text="No.", refusal=True),), finish_reason="content_filter"),
                Choice(index=1, parts=(TextPart(text="Yes."),), finish_reason="stop"),
            ),
            usage=None,
        )
        written = json.loads(encode_chat_result(result, provider="p", model="m", cost=None))
        assert written["messages"] == [
            {"role": "assistant", "content": "No."},
            {"role": "assistant", "content": "Yes."},
        ]
        assert written["finishReason"] == "content_filter"

    def test_cost_is_exact(self):
        """Both sides of a cost add up digit by digit, with the plain prices that were used."""
        prices = (
            price("input_tokens", "0.15"),
            price("cached_input_tokens", "0.075"),
            price("output_tokens", "60"),
        )
        usage = Usage(input_tokens=8, cached_input_tokens=3, output_tokens=5)
        cost = cost_of(prices, usage, TODAY)
        written = encode_chat_result(answer(usage=usage), provider="p", model="m", cost=cost)
        assert written.endswith(
            b'"cost":{"token":{"price":{"unitOfMeasure":1000000,"currency":"USD",'
            b'"inputValue":0.15,"outputValue":60.0},'
            b'"prompt":0.000000975,"completion":0.0003,"total":0.000300975}}}'
        )

    def test_a_side_that_was_not_billed_has_no_price(self):
        """Prices appear for what was counted; the sums are there even when they are zero."""
        cost = cost_of((price("input_tokens", "0.1", per=1000),), Usage(input_tokens=7), TODAY)
        written = json.loads(encode_chat_result(answer(), provider="p", model="m", cost=cost))
        assert written["cost"] == {
            "token": {
                "price": {"unitOfMeasure": 1000000, "currency": "USD", "inputValue": 100.0},
                "prompt": 0.0007,
                "completion": 0,
                "total": 0.0007,
            }
        }

    def test_free_is_not_unknown(self):
        """A cost of nothing is written; only an unknown one is left out."""
        written = json.loads(encode_chat_result(answer(), provider="p", model="m", cost=Cost(lines=())))
        assert written["cost"]["token"]["total"] == 0


class TestStream:
    PRICES = (price("input_tokens", "5"), price("output_tokens", "15"))

    def encoder(self):
        return NativeStreamEncoder(
            provider="p", model="m", price=lambda usage: cost_of(self.PRICES, usage, TODAY)
        )

    def test_text_goes_out_as_it_comes(self):
        """Every piece of text is one framed event at once, and the last event closes the account."""
        encoder = self.encoder()
        assert encoder.encode([Started(id="x"), ThinkingDelta(text="hm"), TextDelta(text="")]) == b""
        assert encoder.encode([TextDelta(text="Hel\n"), TextDelta(text="lo", refusal=True)]) == (
            b'data: {"message":{"role":"assistant","content":"Hel\\n"}}\n\n'
            b'data: {"message":{"role":"assistant","content":"lo"}}\n\n'
        )
        early, late = Usage(input_tokens=8), Usage(input_tokens=8, output_tokens=5)
        rest = [UsageReported(usage=early), Finished(reason="length"), UsageReported(usage=late)]
        assert encoder.encode(rest) == b""
        assert encoder.encode([Ended()]) == (
            b'data: {"usage":{"completionTokens":5,"promptTokens":8,"totalTokens":13},'
            b'"cost":{"token":{"price":{"unitOfMeasure":1000000,"currency":"USD",'
            b'"inputValue":5.0,"outputValue":15.0},'
            b'"prompt":0.00004,"completion":0.000075,"total":0.000115}},'
            b'"finishReason":"length","provider":{"name":"p","model":{"name":"m"}}}\n\n'
        )

    def test_a_tool_call_goes_out_whole(self):
        """The pieces of a call are kept until its choice is finished."""
        encoder = self.encoder()
        pieces = [
            ToolCallDelta(call=0, id="c0", name="add"),
            ToolCallDelta(call=1, id="c1", name="now"),
            ToolCallDelta(call=0, arguments='{"a"'),
            ToolCallDelta(call=0, arguments=":1}"),
        ]
        assert encoder.encode(pieces) == b""
        assert events_of(encoder.encode([Finished(reason="tool_calls"), Ended()])) == [
            {"message": {"role": "tool", "tool": {"id": "c0", "name": "add", "arguments": '{"a":1}'}}},
            {"message": {"role": "tool", "tool": {"id": "c1", "name": "now", "arguments": "{}"}}},
            {"finishReason": "tool_calls", "provider": {"name": "p", "model": {"name": "m"}}},
        ]

    def test_calls_belong_to_their_choice(self):
        """A choice that finishes releases its own calls only; the end releases what is left."""
        encoder = self.encoder()
        encoder.encode([ToolCallDelta(call=0, id=f"c{i}", name="f", index=i) for i in (1, 0)])
        first = events_of(encoder.encode([Finished(reason="stop", index=1)]))
        assert [event["message"]["tool"]["id"] for event in first] == ["c1"]
        rest = events_of(encoder.encode([Ended()]))
        assert rest[0]["message"]["tool"]["id"] == "c0"
        assert rest[1]["finishReason"] == "stop"

    def test_verbatim_events_have_no_place_here(self):
        """Bytes of another format are refused loudly, not lost silently."""
        with pytest.raises(TypeError, match="Verbatim"):
            self.encoder().encode([Verbatim(data=b"data: x\n\n")])

    def test_a_failure_is_an_error_event(self):
        """A broken stream says so under its own event name, in the shape of every native error."""
        detail = ErrorDetail(status_code="ERROR_502", message="cut")
        assert encode_stream_error([detail]) == (
            b'event: error\ndata: {"errorDetails":[{"statusCode":"ERROR_502","message":"cut"}]}\n\n'
        )


class TestEmbeddings:
    def test_a_request_is_read(self):
        """Texts, dimensions and the named model arrive."""
        request = decode_embedding_request(
            b'{"provider":{"name":"a","model":{"name":"e"}},"content":{"texts":["x","y"]},'
            b'"parameter":{"dimensions":256}}'
        )
        assert (request.model, request.inputs, request.dimensions) == ("a/e", ("x", "y"), 256)
        assert (request.encoding, request.wire) == ("float", None)

    def test_every_fault_is_listed(self):
        """A wrong embedding request names each wrong field."""
        raw = b'{"provider":{"name":"a/b","x":1},"content":{"texts":["",7]},"parameter":{"dimensions":0},"y":{}}'
        assert faults_of(raw, decode_embedding_request) == [
            ("y", "unknown field"),
            ("content.texts[0]", "expected `str` of length >= 1"),
            ("content.texts[1]", "expected `str`, got `int`"),
            ("provider.x", "unknown field"),
            ("parameter.dimensions", "expected `int` >= 1"),
            ("provider.name", "must not hold a slash; the model goes into provider.model.name"),
        ]
        assert faults_of(b'{"content":{"texts":[]}}', decode_embedding_request) == [
            ("content.texts", "expected `array` of length >= 1")
        ]

    def test_a_result_is_written(self):
        """Vectors keep their order; counts and cost follow where they are known."""
        usage = Usage(input_tokens=7)
        result = EmbeddingResult(vectors=((0.5, -1.0), (2.0, 0.25)), usage=usage)
        cost = cost_of((price("input_tokens", "0.1"),), usage, TODAY)
        assert encode_embedding_result(result, provider="p", model="m", cost=cost) == (
            b'{"data":[[0.5,-1.0],[2.0,0.25]],"usage":{"promptTokens":7,"totalTokens":7},'
            b'"cost":{"token":{"price":{"unitOfMeasure":1000000,"currency":"USD","inputValue":0.1},'
            b'"prompt":0.0000007,"completion":0,"total":0.0000007}}}'
        )
        bare = EmbeddingResult(vectors=((1.0,),), usage=None)
        assert encode_embedding_result(bare, provider="p", model="m", cost=None) == b'{"data":[[1.0]]}'


class TestErrors:
    def test_codes_are_symbolic(self):
        """The documents' four codes, and the number itself for every other status."""
        codes = {status: error_code(status) for status in (400, 500, 429, 404, 401, 503)}
        assert codes == {
            400: "ERROR_001",
            500: "ERROR_002",
            429: "ERROR_003",
            404: "ERROR_004",
            401: "ERROR_401",
            503: "ERROR_503",
        }

    def test_one_entry_for_each_fault(self):
        """An error body lists its entries in order, without nulls."""
        details = [
            ErrorDetail(status_code="ERROR_001", message="a"),
            ErrorDetail(status_code="ERROR_001", message="b", details="c"),
        ]
        assert encode_error(details) == (
            b'{"errorDetails":[{"statusCode":"ERROR_001","message":"a"},'
            b'{"statusCode":"ERROR_001","message":"b","details":"c"}]}'
        )


def token(given, got=None):
    values = {"inputValue": given} if got is None else {"inputValue": given, "outputValue": got}
    return {"unitOfMeasure": 1000000, "currency": "USD", "token": values}


def pixel(width, height, value, quality=None):
    size = {"width": width, "height": height}
    rate = {**size, "value": value} if quality is None else {**size, "quality": quality, "value": value}
    return {"unitOfMeasure": 1000000, "currency": "USD", "pixel": rate}


# The documents' answer to GET /providers without its ids; gpt-4o-mini's context window is the true one there (64000).
DOCUMENTED = [
    {
        "name": "gpt-35-turbo",
        "label": "GPT-3.5 Turbo",
        "description": "GPT-3.5 Turbo model",
        "contextWindow": 16385,
        "tranningData": "Sep 2021",
        "enabled": True,
    },
    {
        "name": "gpt-4",
        "label": "GPT-4",
        "description": "GPT-4 model",
        "contextWindow": 8192,
        "tranningData": "Sep 2021",
        "price": [token(30.0, 60.0)],
        "enabled": True,
    },
    {
        "name": "dall-e-2",
        "label": "DALL·E-2",
        "description": "DALL·E-2 model for image generation",
        "tranningData": "Nov 2022",
        "price": [pixel(1024, 1024, 0.02), pixel(512, 512, 0.018), pixel(256, 256, 0.016)],
        "enabled": True,
    },
    {
        "name": "dall-e-3",
        "label": "DALL·E-3",
        "description": "DALL·E-3 model for advanced image generation",
        "tranningData": "Nov 2023",
        "price": [
            pixel(1024, 1024, 0.04, "Standard"),
            pixel(1792, 1024, 0.08, "Standard"),
            pixel(1024, 1024, 0.08, "HD"),
            pixel(1792, 1024, 0.12, "HD"),
        ],
        "enabled": True,
    },
    {
        "name": "gpt-4o",
        "label": "GPT-4o",
        "description": "GPT-4 multimodal",
        "contextWindow": 128000,
        "tranningData": "Oct 2023",
        "price": [token(5.0, 15.0), pixel(1024, 1024, 0.003825, "Standard")],
        "enabled": True,
    },
    {
        "name": "gpt-4o-mini",
        "label": "GPT-4 Mini",
        "description": "GPT-4 Smaller Variant",
        "contextWindow": 128000,
        "tranningData": "Oct 2023",
        "price": [token(0.15, 0.6), pixel(1024, 1024, 0.003825, "Standard")],
        "enabled": True,
    },
    {
        "name": "text-embedding-ada-002",
        "label": "Text Embedding Ada 002",
        "description": "Ada 002 for embedding",
        "price": [token(0.1)],
        "enabled": True,
    },
]


def without_ids(value):
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "id"}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def listed(*models, enabled=True, on=TODAY):
    entry = ProviderEntry(
        id="i",
        name="p",
        label="P",
        description="P provider",
        spec=ProviderSpec(),
        models={name: model for model in models for name in (model.name, *model.aliases)},
    )
    return json.loads(encode_providers([offer_of(entry, enabled=enabled)], on))["data"][0]


def model(name, **fields):
    return Model(
        id=f"id-{name}", provider="p", name=name, label=name, description="", operations=("chat",), **fields
    )


class TestProviders:
    def test_the_documents_catalogue_is_reproduced(self):
        """The documents' seven models come first, in their order, spelling and prices."""
        entry = load_catalog().providers["azure_openai"]
        [provider] = json.loads(encode_providers([offer_of(entry, enabled=True)], TODAY))["data"]
        assert list(provider) == ["id", "name", "label", "description", "enabled", "model"]
        assert (provider["name"], provider["label"]) == ("azure_openai", "Azure OpenAI")
        assert (provider["description"], provider["enabled"]) == ("Azure OpenAI provider", True)
        assert without_ids(provider["model"])[:7] == DOCUMENTED
        assert list(provider["model"][1]) == ["id", *DOCUMENTED[1]]
        assert list(provider["model"][4]["price"][1]) == ["id", "unitOfMeasure", "currency", "pixel"]

    def test_the_whole_catalog_is_listed_with_distinct_ids(self):
        """Every model of every provider appears once, and no two entries share an id."""
        catalog = load_catalog()
        offers = [offer_of(entry, enabled=False) for entry in catalog.providers.values()]
        data = json.loads(encode_providers(offers, TODAY))["data"]
        assert [provider["name"] for provider in data] == list(catalog.providers)
        models = [model for provider in data for model in provider["model"]]
        prices = [price for model in models for price in model.get("price", ())]
        ids = [item["id"] for item in (*data, *models, *prices)]
        assert len(ids) == len(set(ids))
        assert not any(item["enabled"] for item in (*data, *models))

    def test_an_alias_is_no_second_model(self):
        """A model that has other names is listed once, where the file has it."""
        shown = listed(model("a", aliases=("z",)), model("b"))
        assert [item["name"] for item in shown["model"]] == ["a", "b"]

    def test_a_model_is_enabled_with_its_provider_until_it_retires(self):
        """A retired model stays in the list, disabled from its last day on."""
        models = (model("a"), model("old", retired_on=TODAY))
        today, before = listed(*models), listed(*models, on=date(2026, 11, 19))
        assert [item["enabled"] for item in today["model"]] == [True, False]
        assert [item["enabled"] for item in before["model"]] == [True, True]
        off = listed(*models, enabled=False)
        assert (off["enabled"], [item["enabled"] for item in off["model"]]) == (False, [False, False])

    def test_only_the_plain_price_of_the_day_is_shown(self):
        """Of token prices the plain one valid on the day counts; its entry bears the input price's id."""
        long = PriceCondition(above_input_tokens=200_000)
        prices = (
            price("input_tokens", "9", name="future", since=date(2026, 12, 1)),
            price("input_tokens", "3", name="old"),
            price("input_tokens", "2", per=1000, name="new", since=date(2026, 11, 1)),
            price("input_tokens", "4", name="long", condition=long),
            price("cached_input_tokens", "1", name="cached"),
            price("output_tokens", "7", name="out"),
        )
        [item] = listed(model("a", prices=prices))["model"]
        assert item["price"] == [{"id": "new", **token(2000.0, 7.0)}]

    def test_a_model_priced_by_output_alone(self):
        """Where only one side has a price, the entry bears its id and value."""
        [item] = listed(model("a", prices=(price("output_tokens", "7", name="out"),)))["model"]
        assert item["price"] == [
            {"id": "out", "unitOfMeasure": 1000000, "currency": "USD", "token": {"outputValue": 7.0}}
        ]

    def test_a_picture_price_follows_the_day_in_its_place(self):
        """A newer price of the same size takes the older one's place; other units have no entry."""
        size = PriceCondition(width=512, height=512)
        prices = (
            price("requests", "1", per=1),
            price("images", "0.02", per=1, name="a", condition=size),
            price("images", "0.5", per=10, name="b"),
            price("images", "0.01", per=1, name="c", condition=size, since=TODAY),
            price("images", "0.005", per=1, name="d", condition=size, since=date(2027, 1, 1)),
        )
        [item] = listed(model("a", prices=prices))["model"]
        assert item["price"] == [
            {"id": "c", **pixel(512, 512, 0.01)},
            {"id": "b", "unitOfMeasure": 1000000, "currency": "USD", "pixel": {"value": 0.05}},
        ]


class TestWireRecords:
    def test_requests_refuse_and_answers_omit(self):
        """Every public record yields a schema with a description; money is a number in it."""
        records = [
            getattr(native_wire, name)
            for name in ("ChatBody", "ChatReply", "StreamMessage", "StreamEnd", "ErrorReply")
        ]
        records += [native_wire.EmbeddingsBody, native_wire.EmbeddingsReply, native_catalog.ProvidersReply]
        _, schemas = msgspec.json.schema_components(records)
        assert all(schema.get("description") for schema in schemas.values())
        assert schemas["TokenCost"]["properties"]["total"] == {"type": "number"}
        assert schemas["ModelListing"]["required"] == ["id", "name", "label", "description", "enabled"]
        assert schemas["ChatBody"]["additionalProperties"] is False
        assert schemas["AssistantMessage"]["required"] == ["role", "content"]
