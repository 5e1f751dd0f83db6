"""Contract of the OpenAI dialect: complete chat answers, read from providers and written to callers."""

import json

import pytest
from msgspec import structs

from llm_gate.dialects.openai_results import decode_result, encode_result
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    ProviderRateLimited,
    ProviderUnavailable,
)
from llm_gate.domain.messages import (
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from llm_gate.domain.pricing import Cost, CostLine, Price
from llm_gate.domain.results import ChatResult, Choice
from llm_gate.domain.usage import Usage
from support.targets import make_reply, make_target

CALL = {"id": "a", "type": "function", "function": {"name": "t", "arguments": '{"x": 1}'}}


def cost(nanos):
    price = Price(id="p", unit="input_tokens", per=1, nanos=1)
    return Cost(lines=(CostLine(price=price, quantity=1, nanos=nanos),))


ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "model-a-2026",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []},
            "logprobs": {"content": []},
            "finish_reason": "stop",
            "content_filter_results": {"hate": {"filtered": False}},
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        },
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
        "queue_time": 0.10,
    },
    "system_fingerprint": "fp",
}


def answered(body, status=200):
    return decode_result(make_reply(body, status), make_target())


def written(result, price=None):
    return json.loads(encode_result(result, fallback_id="f", model="m", created_s=1, cost=price))


def test_a_complete_answer():
    """Choices, calls, finish reasons and every count are read."""
    result = answered(ANSWER)
    first, second = result.choices
    assert (first.parts, first.finish_reason) == ((TextPart(text="Hello"),), "stop")
    assert json.loads(bytes(first.logprobs)) == {"content": []}
    assert second.parts == (ToolCallPart(id="a", name="t", arguments='{"x": 1}'),)
    assert (second.index, second.finish_reason) == (1, "tool_calls")
    assert (result.id, result.model, result.created_s) == ("chatcmpl-1", "model-a-2026", 1700000000)
    assert result.usage == Usage(
        input_tokens=10,
        cached_input_tokens=4,
        cache_write_tokens=2,
        audio_input_tokens=1,
        output_tokens=5,
        reasoning_tokens=3,
        audio_output_tokens=1,
    )


def test_an_answer_of_the_dialect_keeps_every_field():
    """The vendor's fields come out as they came in, with the cost beside the counts."""
    assert written(answered(ANSWER), cost(1_500)) == {
        **ANSWER,
        "usage": {**ANSWER["usage"], "cost": 0.0000015},
    }
    assert written(answered(ANSWER))["usage"]["cost"] is None
    body = encode_result(answered(ANSWER), fallback_id="f", model="m", created_s=1, cost=cost(1_500))
    assert b'"cost":0.0000015}' in body
    dear = {**ANSWER, "usage": {**ANSWER["usage"], "cost": 8.1e-05}}
    assert written(answered(dear), cost(5))["usage"]["vendor_cost"] == 8.1e-05


def test_a_translated_answer():
    """An answer from another dialect is written with every field the dialect documents."""
    result = structs.replace(answered(ANSWER), wire=None)
    assert written(result, cost(2 * 10**9)) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "model-a-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": {"content": []},
                "finish_reason": "stop",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
                "logprobs": None,
                "finish_reason": "tool_calls",
            },
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
            "cost": 2,
        },
    }


def test_what_the_vendor_did_not_say_is_filled_in():
    """Id, model and time stand in; an unknown usage is left out, not zero."""
    result = ChatResult(
        choices=(Choice(parts=(ThinkingPart(text="hm"),), finish_reason="length"),), usage=None
    )
    body = written(result)
    assert (body["id"], body["model"], body["created"], "usage" in body) == ("f", "m", 1, False)
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": "a", "reasoning_content": "r"}, (ThinkingPart(text="r"), TextPart(text="a"))),
        ({"content": "a", "reasoning": "r"}, (ThinkingPart(text="r"), TextPart(text="a"))),
        ({"content": "a", "reasoning": {"x": 1}}, (TextPart(text="a"),)),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            (ThinkingPart(text="r"), TextPart(text="a")),
        ),
        ({"content": None, "refusal": "No."}, (TextPart(text="No.", refusal=True),)),
        (
            {"function_call": {"name": "f", "arguments": ""}},
            (ToolCallPart(id="call_0", name="f", arguments="{}"),),
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": None}}]},
            (ToolCallPart(id="call_0", name="f", arguments="{}"),),
        ),
        ({}, ()),
    ],
)
def test_messages_in_every_spelling(message, parts):
    """Reasoning, refusals and calls are found wherever vendors put them."""
    assert answered({"choices": [{"message": message}]}).choices[0].parts == parts


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        (None, "stop"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons(word, reason):
    """The vendor's word becomes one of four reasons."""
    assert answered({"choices": [{"message": {}, "finish_reason": word}]}).choices[0].finish_reason == reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"<html>ok</html>",
        b"{",
        b"\xff",
        b"[" * 100_000,
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": "x"},
        {"choices": [{"message": 5}]},
        {"choices": [{"message": {}, "finish_reason": "error"}]},
    ],
    ids=lambda body: str(body)[:20],
)
def test_what_is_no_answer_is_never_passed_on(body):
    """HTML, nothing, null and every other wrong shape with status 200 is a bad response."""
    with pytest.raises(BadProviderResponse):
        answered(body)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m", "code": "content_filter", "status": 400}, ContentFiltered),
        ({"message": "m", "code": 429}, ProviderRateLimited),
        ("down", ProviderUnavailable),
    ],
)
def test_errors_inside_a_success(error, expected):
    """An error in a body with status 200 is that error, even beside choices."""
    with pytest.raises(expected):
        answered({**ANSWER, "error": error})


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_tokens": 3}, Usage(input_tokens=3)),
        ({"prompt_tokens": 3, "prompt_cache_hit_tokens": 2}, Usage(input_tokens=3, cached_input_tokens=2)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "total_tokens": 17,
                "completion_tokens_details": {"reasoning_tokens": 10},
            },
            Usage(input_tokens=3, output_tokens=14, reasoning_tokens=10),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 14,
                "total_tokens": 17,
                "completion_tokens_details": {"reasoning_tokens": 10},
            },
            Usage(input_tokens=3, output_tokens=14, reasoning_tokens=10),
        ),
        ({}, None),
        (None, None),
        ([], None),
        ({"total_tokens": 5}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": 10**9}, None),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": []}, None),
    ],
)
def test_counts(counts, usage):
    """Counts are read, reasoning beside the completion is added to it, and nonsense is unknown."""
    assert answered({"choices": [{"message": {}}], "usage": counts}).usage == usage
