"""Contract of the inbound Messages format: what requests mean, round trips, what answers and streams look like."""

import json
from datetime import date
from fractions import Fraction

import pytest
from msgspec import Raw

from llm_gate.dialects import gemini, openai
from llm_gate.dialects.anthropic_answers import encode_answer
from llm_gate.dialects.anthropic_events import MessageEncoder
from llm_gate.dialects.anthropic_faults import encode_error, in_wire_names, in_wire_words
from llm_gate.dialects.anthropic_inbound import decode_count_request, decode_messages_request
from llm_gate.dialects.anthropic_messages import provider
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest
from llm_gate.domain.events import (
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
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
from llm_gate.domain.pricing import Price, cost_of
from llm_gate.domain.results import ChatResult, Choice
from llm_gate.domain.usage import Usage
from support.targets import make_reply, make_target

HELLO = [{"role": "user", "content": "Hello"}]
PRICES = tuple(
    Price(id=unit, unit=unit, per=1_000_000, nanos=Fraction(nanos))
    for unit, nanos in (("input_tokens", 10**9), ("output_tokens", 2 * 10**9))
)
EPHEMERAL = {"type": "ephemeral"}


def price(usage):
    return cost_of(PRICES, usage, date(2026, 1, 1))


def read(**fields):
    body = {"model": "m", "max_tokens": 10, "messages": HELLO, **fields}
    return decode_messages_request(json.dumps(body).encode())


def read_turns(*turns, **fields):
    return read(messages=[{"role": role, "content": content} for role, content in turns], **fields)


def refused(body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        decode_messages_request(raw)
    return caught.value.param


def target(spec=None, **more):
    return make_target(codecs=provider, base_url="https://vendor.test", spec=spec, **more)


def sent(request, to=None):
    to = to or target()
    return json.loads(to.deployment.codecs.chat.encode(request, to).request.body)


# Requests


def test_conversation_in_neutral_form():
    """Blocks become parts in their order; a tool's answers become messages of their own."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    document = {"type": "document", "title": "t", "source": {"type": "text", "data": "ü"}}
    request = read_turns(
        ("user", [{"type": "text", "text": "See"}, image, document]),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "a", "name": "t", "input": {"b": 1}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "a", "content": "one", "is_error": True},
                {"type": "tool_result", "tool_use_id": "b", "content": [image]},
                {"type": "tool_result", "tool_use_id": "c"},
                {"type": "text", "text": "And now?"},
            ],
        ),
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
    )
    picture = MediaPart(kind="image", data="QUJD", media_type="image/png")
    assert request.conversation.messages == (
        Message(role="system", parts=(TextPart(text="Be brief.\n\nBe kind."),)),
        Message(
            role="user",
            parts=(
                TextPart(text="See"),
                picture,
                MediaPart(kind="file", data="w7w=", media_type="text/plain", filename="t"),
            ),
        ),
        Message(
            role="assistant",
            parts=(
                ThinkingPart(text="hm", signature="sig"),
                ThinkingPart(redacted="opaque"),
                TextPart(text="Looking."),
                ToolCallPart(id="a", name="t", arguments='{"b": 1}'),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResultPart(tool_call_id="a", content=(TextPart(text="one"),), is_error=True),
                ToolResultPart(tool_call_id="b", content=(picture,)),
                ToolResultPart(tool_call_id="c", content=()),
            ),
        ),
        Message(role="user", parts=(TextPart(text="And now?"),)),
    )
    assert request.needs == {"images", "files"}


def test_all_parameters():
    """Every parameter with a neutral form is read; the rest is kept under its name."""
    request = read(
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END"],
        stream=True,
        metadata={"user_id": "u"},
        thinking={"type": "enabled", "budget_tokens": 2000},
        output_config={
            "effort": "low",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
            "x": 1,
        },
        tools=[
            {"name": "t", "description": "d", "input_schema": {"type": "object"}, "strict": True},
            {"type": "custom", "name": "u", "input_schema": {}, "input_examples": [{}]},
        ],
        tool_choice={"type": "tool", "name": "t", "disable_parallel_tool_use": True},
        service_tier="auto",
    )
    assert request.max_output_tokens == 7
    assert (request.temperature, request.top_p, request.top_k) == (0.5, 0.9, 3)
    assert (request.stop, request.stream, request.user) == (("END",), True, "u")
    assert (request.reasoning_effort, request.thinking_budget_tokens) == ("low", 2000)
    assert request.response_format == ResponseFormat(kind="json_schema", schema=Raw(b'{"type": "object"}'))
    assert request.tools == (
        Tool(name="t", description="d", parameters=Raw(b'{"type": "object"}'), strict=True),
        Tool(name="u", parameters=Raw(b"{}")),
    )
    assert request.tool_choice == ToolChoice(mode="named", name="t")
    assert request.parallel_tool_calls is False
    assert request.binding == ()
    assert set(request.extra) == {"service_tier", "output_config.x", "tools[].input_examples"}


@pytest.mark.parametrize(
    ("choice", "mode"),
    [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none")],
)
def test_tool_choices(choice, mode):
    """Anthropic's words for whether a tool must be used become the neutral ones."""
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    assert read(tools=tools, tool_choice=choice).tool_choice == ToolChoice(mode=mode)
    assert read(tools=tools, tool_choice=choice).parallel_tool_calls is None


@pytest.mark.parametrize(
    ("thinking", "budget_tokens", "extra"),
    [
        ({"type": "disabled"}, 0, set()),
        ({"type": "adaptive"}, None, {"thinking"}),
        ({"type": "enabled", "budget_tokens": 1024, "display": "omitted"}, 1024, set()),
    ],
)
def test_thinking(thinking, budget_tokens, extra):
    """A budget is carried over, none at all as zero; what the model decides itself is a hint."""
    request = read(thinking=thinking)
    assert request.thinking_budget_tokens == budget_tokens
    assert set(request.extra) == extra


def test_what_only_the_vendor_can_do_is_binding():
    """Tools that run at the vendor, and where it may compute, cannot be left out silently."""
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]
    request = read(tools=tools, mcp_servers=[{}], inference_geo="eu")
    assert request.binding == ("tools[0].type", "mcp_servers", "inference_geo")


def test_cache_control_is_a_hint_wherever_it_stands():
    """A cache mark is carried to the vendor of the format, and named as dropped for any other."""
    request = read_turns(
        ("user", [{"type": "text", "text": "a", "cache_control": EPHEMERAL}]),
        system=[{"type": "text", "text": "s", "cache_control": EPHEMERAL}],
        tools=[{"name": "t", "input_schema": {"type": "object"}, "cache_control": EPHEMERAL}],
        cache_control=EPHEMERAL,
    )
    other = make_target()
    encoded = other.deployment.codecs.chat.encode(request, other)
    assert encoded.dropped == (
        "cache_control",
        "system[].cache_control",
        "messages[].content[].cache_control",
        "tools[].cache_control",
    )
    assert b"cache_control" not in encoded.request.body
    assert sent(request)["system"][0]["cache_control"] == EPHEMERAL


BODY = {"model": "m", "max_tokens": 1, "messages": HELLO}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b'{"model":"a","model":"b"}', None),
        ({"max_tokens": 1, "messages": HELLO}, "model"),
        ({"model": "m", "messages": HELLO}, "max_tokens"),
        ({**BODY, "max_tokens": 0}, "max_tokens"),
        ({**BODY, "temperature": 1.1}, "temperature"),
        ({**BODY, "top_p": -1}, "top_p"),
        ({**BODY, "stop_sequences": "x"}, "stop_sequences"),
        ({**BODY, "messages": "x"}, "messages"),
        ({**BODY, "messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({**BODY, "messages": [{"role": "user"}]}, "messages[0].content"),
        ({**BODY, "messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({**BODY, "messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {**BODY, "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {
                **BODY,
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "a", "name": "b", "input": "{}"}],
                    }
                ],
            },
            "messages[0].content[0].input",
        ),
        (
            {
                **BODY,
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": 1}]}],
                    }
                ],
            },
            "messages[0].content[0].content[0].type",
        ),
        ({**BODY, "system": [{"type": "image"}]}, "system[0].type"),
        ({**BODY, "system": 1}, "system"),
        ({**BODY, "tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({**BODY, "tools": [{"name": "t"}]}, "tools[0].input_schema"),
        ({**BODY, "tools": [{"name": "t", "input_schema": []}]}, "tools[0].input_schema"),
        ({**BODY, "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({**BODY, "tool_choice": "auto"}, "tool_choice"),
        ({**BODY, "thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({**BODY, "output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_malformed_bodies(body, param):
    """A malformed body is refused, naming the field."""
    assert refused(body) == param


def test_a_body_goes_out_as_it_came():
    """For a vendor of the format nothing is lost: unknown fields, unknown blocks, cache marks, order, spelling."""
    fields = {
        "model": "m",
        "max_tokens": 10,
        "messages": [
            {"role": "user", "content": [{"type": "brand_new", "x": [1.50]}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}]},
            {"role": "system", "content": "later"},
        ],
        "mcp_servers": [{"name": "x"}],
        "stream": True,
        "unknown": None,
    }
    request = decode_messages_request(json.dumps(fields).encode(), {"anthropic-beta": "b", "cookie": "c"})
    encoded = provider.chat.encode(request, target())
    assert json.loads(encoded.request.body) == {**fields, "model": "model-a"}
    assert b"1.5" in encoded.request.body
    assert encoded.dropped == ()
    assert encoded.request.headers == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "b",
    }


def test_a_deployments_own_rules_hold_on_the_way_through():
    """What a provider does not take is left out and named, or refused; renamed fields get their new name."""
    spec = ProviderSpec(dialect="anthropic", drop=("top_k", "tools"), rename={"metadata": "labels"})
    request = read(top_k=3, metadata={"user_id": "u"})
    encoded = provider.chat.encode(request, target(spec))
    assert json.loads(encoded.request.body) == {
        "model": "model-a",
        "max_tokens": 10,
        "messages": HELLO,
        "labels": {"user_id": "u"},
    }
    assert encoded.dropped == ("top_k",)
    with pytest.raises(InvalidRequest) as caught:
        provider.chat.encode(read(tools=[{"name": "t", "input_schema": {}}]), target(spec))
    assert caught.value.param == "tools"


def test_round_trip_through_the_neutral_form():
    """A request that is read and written again says the same, in the longer of its equivalent forms."""
    fields = {
        "max_tokens": 3000,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "opaque"},
                    {"type": "tool_use", "id": "a", "name": "t", "input": {"city": "Köln"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "a",
                        "content": [{"type": "text", "text": "4 °C"}],
                        "is_error": True,
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://pictures.test/a.png"}},
                ],
            },
        ],
        "temperature": 1.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{"name": "t", "description": "d", "input_schema": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "stream": True,
    }
    request = read(**fields)
    neutral = type(request)(
        **{name: getattr(request, name) for name in request.__struct_fields__ if name != "wire"}
    )
    assert sent(neutral) == {"model": "model-a", **fields}


@pytest.mark.parametrize(
    ("model", "budget_tokens", "settings"),
    [
        ("gemini-2.5-flash", 2000, {"thinkingBudget": 2000, "includeThoughts": True}),
        ("gemini-2.5-flash", 90_000, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-flash", 0, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", 0, None),
        ("gemini-3-pro", 1024, {"thinkingLevel": "low"}),
        ("gemini-3-pro", 5000, {"thinkingLevel": "medium"}),
        ("gemini-3-pro", 9000, {"thinkingLevel": "high"}),
        ("gemini-3-pro", 0, None),
        ("gemma-3", 2000, None),
    ],
)
def test_a_budget_for_gemini(model, budget_tokens, settings):
    """A budget becomes what the model's family has, or is named as dropped."""
    thinking = {"type": "enabled", "budget_tokens": budget_tokens} if budget_tokens else {"type": "disabled"}
    to = make_target(codecs=gemini.provider, model=model)
    encoded = gemini.provider.chat.encode(read(thinking=thinking), to)
    assert json.loads(encoded.request.body)["generationConfig"].get("thinkingConfig") == settings
    assert encoded.dropped == (("thinking",) if settings is None else ())


def test_errors_of_the_translation_name_the_callers_fields():
    """A field is named as the caller wrote it: parameters, tools, and blocks where they stand."""
    request = read_turns(
        ("user", "a"),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "a"},
                {"type": "text", "text": "b"},
                {"type": "text", "text": "c"},
            ],
        ),
        system="s",
    )
    pairs = {
        "stop": "stop_sequences",
        "response_format": "output_config.format",
        "tools[1].function.parameters": "tools[1].input_schema",
        "tools[0].function.strict": "tools[0].strict",
        "messages[0].content[0]": "system",
        "messages[1].content[0]": "messages[0].content[0]",
        "messages[2].content": "messages[1].content",
        "messages[3].content[1]": "messages[1].content[2]",
        "max_tokens": "max_tokens",
    }
    assert in_wire_names(list(pairs), request) == tuple(pairs.values())
    error = in_wire_words(InvalidRequest("stop: no", param="stop", code="c"), request)
    assert (error.message, error.param, error.code) == ("stop_sequences: no", "stop_sequences", "c")


def test_options_of_another_format_mean_nothing_here():
    """A field that another format has is no option of it on this surface."""
    to = make_target(codecs=openai.provider)
    assert sent(read(stream=True, stream_options=5), to)["stream_options"] == {"include_usage": True}


# What is counted


def test_a_request_to_count_is_a_chat_without_a_limit():
    """What is to be counted says what a chat says, the limit of its answer only if it likes, and is checked alike."""
    request = decode_count_request(
        json.dumps(
            {
                "model": "m",
                "system": "Be kind.",
                "messages": HELLO,
                "thinking": {"type": "enabled", "budget_tokens": 2000},
            }
        ).encode()
    )

    assert [message.role for message in request.conversation.messages] == ["system", "user"]
    assert (request.max_output_tokens, request.thinking_budget_tokens) == (None, 2000)
    for wrong in ({"messages": []}, {"max_tokens": 0}, {"tools": [{"name": "t"}]}, {"system": 5}):
        with pytest.raises(InvalidRequest):
            decode_count_request(json.dumps({"model": "m", "messages": HELLO, **wrong}).encode())


# Answers


def result_of(*parts, reason="stop", **fields):
    return ChatResult(choices=(Choice(parts=parts, finish_reason=reason),), usage=None, **fields)


def written(result, cost=None):
    return json.loads(encode_answer(result, fallback_id="req_1", model="m", cost=cost))


def test_answer_as_written():
    """Parts become blocks in their order, with usage that leaves out the cache, and the cost."""
    usage = Usage(
        input_tokens=100, cached_input_tokens=30, cache_write_tokens=20, output_tokens=9, reasoning_tokens=4
    )
    result = ChatResult(
        id="chatcmpl-1",
        model="gpt",
        choices=(
            Choice(
                parts=(
                    ThinkingPart(text="hm"),
                    ThinkingPart(text="ha", signature="sig"),
                    ThinkingPart(redacted="opaque"),
                    TextPart(text="Hi"),
                    TextPart(text=""),
                    ToolCallPart(id="a", name="t", arguments='{"b": 1.50}', signature="sig2"),
                    ToolCallPart(id="b", name="u", arguments=""),
                ),
                finish_reason="tool_calls",
            ),
        ),
        usage=usage,
    )
    body = encode_answer(result, fallback_id="x", model="m", cost=price(usage))
    assert json.loads(body) == {
        "id": "msg_chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "thinking", "thinking": "ha", "signature": "sig"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "text", "text": "Hi"},
            {
                "type": "tool_use",
                "id": "a",
                "name": "t",
                "input": {"b": 1.5},
                "extra_content": {"google": {"thought_signature": "sig2"}},
            },
            {"type": "tool_use", "id": "b", "name": "u", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 50,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
            "cost": 0.000118,
        },
    }
    assert b'"cost":0.000118' in body


def test_a_signed_call_comes_back_signed():
    """What a vendor signed on a call is read from the block it was written into."""
    call = ToolCallPart(id="a", name="t", arguments="{}", signature="sig")
    blocks = written(result_of(call, reason="tool_calls"))["content"]
    (message,) = read_turns(("assistant", blocks)).conversation.messages
    assert message.parts == (call,)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
    ],
)
def test_stop_reasons(reason, word):
    """Each finish reason has its word; a call always ends the turn for the tool."""
    assert written(result_of(TextPart(text="a"), reason=reason))["stop_reason"] == word
    call = ToolCallPart(id="a", name="t", arguments="{}")
    assert written(result_of(call, reason="stop"))["stop_reason"] == "tool_use"


def test_known_stop_sequences_are_told():
    """Where the vendor says which stop sequence it met, the answer says so."""
    body = written(result_of(TextPart(text="a"), notices={"stop_sequence": Raw(b'"END"')}))
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "END")


def test_unknown_usage_is_null():
    """Unknown counts are null, never zero."""
    body = written(result_of(TextPart(text="a")))
    assert body["usage"] == {"input_tokens": None, "output_tokens": None, "cost": None}
    assert (body["id"], body["model"]) == ("msg_req_1", "m")


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "no json"])
def test_input_that_is_no_object(arguments):
    """Arguments that a model wrote wrongly are kept in the wrapping Anthropic recommends."""
    call = ToolCallPart(id="a", name="t", arguments=arguments)
    assert written(result_of(call))["content"][0]["input"] == {"INVALID_JSON": arguments}


def test_answers_of_the_vendor_keep_every_field():
    """An answer of the same format comes back as it was, with the cost in its usage."""
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "brand_new", "x": 1}, {"type": "text", "text": "a", "citations": None}],
        "stop_reason": "pause_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2, "service_tier": "standard", "cost": 1},
        "future": {"a": 1},
    }
    result = provider.chat.decode(make_reply(body), read(), target())
    usage = {
        "input_tokens": 3,
        "output_tokens": 2,
        "service_tier": "standard",
        "cost": 0.000007,
        "vendor_cost": 1,
    }
    assert written(result, price(result.usage)) == {**body, "usage": usage}


# Streams


def encoder():
    return MessageEncoder(fallback_id="req_1", model="m", price=price)


def told(*batches):
    """Return the events that batches of neutral events become."""
    writer = encoder()
    text = b"".join(writer.encode(batch) for batch in batches).decode()
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def start(index, block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, **fields):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index):
    return {"type": "content_block_stop", "index": index}


TEXT = {"type": "text", "text": ""}
THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def tool(call_id, name):
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}


def test_stream_as_written():
    """Thinking, text and calls become blocks one after the other, in Anthropic's order."""
    usage = Usage(input_tokens=10, cached_input_tokens=4, output_tokens=5)
    events = told(
        [Started(id="chatcmpl-1", model="gpt"), UsageReported(usage=Usage(input_tokens=10))],
        [ThinkingDelta(text="h"), ThinkingDelta(text="m"), ThinkingDelta(signature="sig")],
        [ThinkingDelta(redacted="opaque")],
        [TextDelta(text="H"), TextDelta(text="i"), TextDelta(text="")],
        [ToolCallDelta(call=0, id="a", name="t", signature="sig2"), ToolCallDelta(call=0, arguments='{"b":')],
        [ToolCallDelta(call=0, arguments="1}")],
        [ToolCallDelta(call=1, id="b", name="u")],
        [Finished(reason="stop"), UsageReported(usage=usage), Ended()],
    )
    assert events == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_chatcmpl-1",
                "type": "message",
                "role": "assistant",
                "model": "gpt",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 10,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        start(0, THINKING),
        delta(0, "thinking_delta", thinking="h"),
        delta(0, "thinking_delta", thinking="m"),
        delta(0, "signature_delta", signature="sig"),
        stop(0),
        start(1, {"type": "redacted_thinking", "data": "opaque"}),
        stop(1),
        start(2, TEXT),
        delta(2, "text_delta", text="H"),
        delta(2, "text_delta", text="i"),
        stop(2),
        start(3, {**tool("a", "t"), "extra_content": {"google": {"thought_signature": "sig2"}}}),
        delta(3, "input_json_delta", partial_json='{"b":'),
        delta(3, "input_json_delta", partial_json="1}"),
        stop(3),
        start(4, tool("b", "u")),
        stop(4),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 6,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 4,
                "output_tokens": 5,
                "output_tokens_details": {"thinking_tokens": 0},
                "cost": 0.00002,
            },
        },
        {"type": "message_stop"},
    ]


def test_calls_that_come_in_turn_are_sorted():
    """Pieces of parallel calls that alternate come out one call after the other, none lost."""
    events = told(
        [Started(id="1")],
        [ToolCallDelta(call=0, id="a", name="t"), ToolCallDelta(call=1, id="b", name="u")],
        [ToolCallDelta(call=0, arguments='{"x"'), ToolCallDelta(call=1, arguments='{"y"')],
        [ToolCallDelta(call=0, arguments=":{}"), ToolCallDelta(call=1, arguments=":2")],
        [ToolCallDelta(call=0, arguments="}"), ToolCallDelta(call=1, arguments="}")],
        [Finished(reason="tool_calls"), Ended()],
    )
    assert events[1:-2] == [
        start(0, tool("a", "t")),
        delta(0, "input_json_delta", partial_json='{"x"'),
        delta(0, "input_json_delta", partial_json=":{}"),
        delta(0, "input_json_delta", partial_json="}"),
        stop(0),
        start(1, tool("b", "u")),
        delta(1, "input_json_delta", partial_json='{"y"'),
        delta(1, "input_json_delta", partial_json=":2"),
        delta(1, "input_json_delta", partial_json="}"),
        stop(1),
    ]
    assert events[-2]["usage"] == {"input_tokens": None, "output_tokens": None, "cost": None}


def test_a_signature_after_text_has_a_block_of_its_own():
    """A signature that belongs to text is kept, and text that follows begins another block."""
    events = told(
        [TextDelta(text="a"), ThinkingDelta(signature="s"), TextDelta(text="b"), ThinkingDelta(text="t")],
        [Finished(reason="length"), Ended()],
    )
    assert [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"] == [
        "text",
        "thinking",
        "text",
        "thinking",
    ]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_an_empty_answer_has_its_frame():
    """An answer without any content is a start, a delta with its reason, and an end."""
    events = told([Started(id="1"), Finished(reason="content_filter")], [Ended()])
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
    assert events[1]["delta"]["stop_reason"] == "refusal"


def test_only_the_first_choice_has_a_place():
    """Further choices are left out."""
    events = told(
        [TextDelta(text="a"), TextDelta(text="b", index=1), Finished(reason="length", index=1), Ended()]
    )
    assert [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"] == ["a"]
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


def wire(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}   \n\n".encode()


START = wire("message_start", message={"id": "msg_1", "usage": {"input_tokens": 7, "output_tokens": 1}})
NEW = wire("content_block_start", index=0, content_block={"type": "brand_new", "x": 1})
FINISH = wire("message_delta", delta={"stop_reason": "refusal", "x": 1}, usage={"output_tokens": 3, "y": 2})
STOP = wire("message_stop")


def test_streams_of_the_vendor_pass_as_they_are():
    """Events of the same format keep every byte; the last usage gets the cost, the end comes last."""
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    decoder = provider.chat.open_stream(read(stream=True), target())
    events = list(decoder.feed(ping + START + ping + NEW + FINISH + STOP))
    measured = Usage(input_tokens=7, output_tokens=3)
    assert events == [
        UsageReported(usage=Usage(input_tokens=7, output_tokens=1, source="estimated")),
        Verbatim(data=START),
        Verbatim(data=ping, has_content=False),
        Verbatim(data=NEW),
        VerbatimUsage(payload=FINISH.split(b"data: ")[1].strip(), usage=measured),
        Ended(),
    ]
    assert decoder.close() == []
    out = encoder().encode(events)
    assert out.startswith(START + ping + NEW)
    changed = {"output_tokens": 3, "y": 2, "cost": 0.000013}
    last = {"type": "message_delta", "delta": {"stop_reason": "refusal", "x": 1}, "usage": changed}
    assert json.loads(out.split(b"data: ")[-2].split(b"\n")[0]) == last
    assert out.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_verbatim_streams_are_still_checked():
    """A stream that passes untouched and breaks off is an error all the same, after what came before."""
    decoder = provider.chat.open_stream(read(stream=True), target())
    assert len(decoder.feed(START + NEW)) == 3
    with pytest.raises(BadProviderResponse):
        decoder.close()
    decoder = provider.chat.open_stream(read(stream=True), target())
    with pytest.raises(BadProviderResponse) as caught:
        decoder.feed(START + STOP)
    assert caught.value.preceding[-1] == Verbatim(data=START)


def test_events_without_a_name_get_one():
    """A vendor that leaves the event's name out is set right: clients go by it."""
    nameless = START.removeprefix(b"event: message_start\n")
    decoder = provider.chat.open_stream(read(stream=True), target())
    assert decoder.feed(nameless)[-1] == Verbatim(data=START)


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_error_types_follow_the_status(status, kind):
    """Each status has Anthropic's word, and the body repeats the request id."""
    assert json.loads(encode_error("no", status=status, request_id="req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "request_id": "req_1",
    }
