"""What a call may use before it is made: bounds that no tokeniser passes, and limits that really go out."""

import json
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from llm_gate.dialects import anthropic_messages, cohere, gemini, ollama
from llm_gate.dialects.anthropic_inbound import decode_messages_request
from llm_gate.dialects.native import decode_chat_request as decode_native
from llm_gate.dialects.openai_chat import decode_chat_request as decode_openai
from llm_gate.dialects.openai_completions import decode_completion_request
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.limits import COST_LIMIT
from llm_gate.domain.plans import Limits, Plan, quotas_of, standing_of
from llm_gate.domain.pricing import Price
from llm_gate.domain.requests import EmbeddingRequest
from llm_gate.engine.estimate import (
    LIKELY_OUTPUT_TOKENS,
    LONGEST_OUTPUT_TOKENS,
    Rates,
    bound,
    check_bounded,
    limit_output,
    size_of_chat,
    size_of_embedding,
)
from support.figures import property_of
from support.targets import make_target
from support.texts import CHARACTERS

TODAY = date(2026, 11, 20)
PRICES = (
    Price(id="in", unit="input_tokens", per=1, nanos=Fraction(2)),
    Price(id="out", unit="output_tokens", per=1, nanos=Fraction(10)),
)
# By dialect: a target that speaks it, and where the limit of output stands in its bodies.
OUTBOUND = {
    "openai": (make_target(), ("max_tokens",)),
    "openai-renamed": (
        make_target(spec=ProviderSpec(dialect="openai", max_tokens_field="max_completion_tokens")),
        ("max_completion_tokens",),
    ),
    "responses": (make_target(spec=ProviderSpec(dialect="openai", api="responses")), ("max_output_tokens",)),
    "anthropic": (make_target(codecs=anthropic_messages.provider), ("max_tokens",)),
    "gemini": (make_target(codecs=gemini.provider), ("generationConfig", "maxOutputTokens")),
    "cohere": (make_target(codecs=cohere.provider), ("max_tokens",)),
    "ollama": (make_target(codecs=ollama.provider), ("options", "num_predict")),
}
INBOUND = {
    "openai": lambda text, most: decode_openai(
        _json({"model": "m", "messages": [{"role": "user", "content": text}]}, max_tokens=most)
    ),
    "openai-new": lambda text, most: decode_openai(
        _json({"model": "m", "messages": [{"role": "user", "content": text}]}, max_completion_tokens=most)
    ),
    "responses": lambda text, most: (
        decode_responses_request(_json({"model": "m", "input": text}, max_output_tokens=most)).chat
    ),
    "completions": lambda text, most: decode_completion_request(
        _json({"model": "m", "prompt": text}, max_tokens=most)
    ),
    "anthropic": lambda text, most: decode_messages_request(
        _json({"model": "m", "max_tokens": most or 7_777, "messages": [{"role": "user", "content": text}]})
    ),
    "native": lambda text, most: decode_native(
        _json(
            {
                "prompt": {
                    "messages": [{"role": "user", "content": text}],
                    "parameter": {} if most is None else {"maxTokens": most},
                }
            }
        )
    ),
}


def _json(body, **more):
    return json.dumps({**body, **{name: value for name, value in more.items() if value is not None}}).encode()


def standing(*, mode="strict", most=None, **limits):
    values = limits or {COST_LIMIT: 10**9}
    plan = Plan(name="pro", label="Pro", mode=mode, max_output_tokens=most, limits=Limits(values=values))
    return standing_of(plan, quotas_of("user", "t", "u", plan.limits, 0), anchor_ms=0)


def sent_limit(request, target, path):
    body = json.loads(target.deployment.codecs.chat.encode(request, target).request.body)
    for name in path:
        body = body[name]
    return body


# --- The limit of output goes out


@pytest.mark.parametrize("outbound", OUTBOUND)
@pytest.mark.parametrize("inbound", INBOUND)
def test_the_limit_reaches_the_wire(inbound, outbound):
    """In whatever form a request comes and goes, the vendor is told the limit that was reserved for."""
    target, path = OUTBOUND[outbound]
    request = INBOUND[inbound]("Hello", None)

    limited = limit_output(request, standing(most=8_000), [target])

    # One surface makes its callers say how much they want.
    expected = 7_777 if inbound == "anthropic" else 8_000
    assert sent_limit(limited, target, path) == expected
    assert size_of_chat(limited, target).most_output == expected


@pytest.mark.parametrize("outbound", OUTBOUND)
@pytest.mark.parametrize("inbound", INBOUND)
def test_what_the_caller_asked_for_reaches_the_wire(inbound, outbound):
    """A limit that the caller sets goes out as it is, and is what is reserved for."""
    target, path = OUTBOUND[outbound]
    request = INBOUND[inbound]("Hello", 333)

    limited = limit_output(request, standing(most=8_000), [target])

    # A body of the same dialect keeps the name that its caller chose.
    kept = {"openai": ("max_tokens",), "openai-new": ("max_completion_tokens",)}
    if outbound.startswith("openai"):
        path = kept.get(inbound, path)
    assert sent_limit(limited, target, path) == 333
    assert size_of_chat(limited, target).most_output == 333


@pytest.mark.parametrize(
    "names", [("max_tokens",), ("max_completion_tokens",), ("max_tokens", "max_completion_tokens")]
)
def test_an_empty_limit_is_filled_in(names):
    """A limit of null in a body of the same dialect is no limit: the gateway's own takes its place."""
    target, _ = OUTBOUND["openai"]
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **dict.fromkeys(names)}
    limited = limit_output(decode_openai(json.dumps(body).encode()), standing(most=99), [target])

    assert {name: sent_limit(limited, target, (name,)) for name in names} == dict.fromkeys(names, 99)


def test_of_two_limits_the_larger_counts():
    """A body may say both the old limit and the new one, and a vendor may know only one of them."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    for said in (
        {"max_tokens": 5_000, "max_completion_tokens": 10},
        {"max_tokens": 10, "max_completion_tokens": 5_000},
    ):
        request = decode_openai(json.dumps({**body, **said}).encode())

        assert request.max_output_tokens == 5_000
        with pytest.raises(InvalidRequest, match="more than the plan"):
            limit_output(request, standing(most=100), [make_target()])


@pytest.mark.parametrize(
    ("models", "plan", "expected"),
    [
        ((4_096,), None, 4_096),
        ((4_096, 2_000), None, 2_000),
        ((None,), None, LONGEST_OUTPUT_TOKENS),
        ((None, 64_000), None, LONGEST_OUTPUT_TOKENS),
        ((64_000,), None, 64_000),
        ((4_096,), 8_000, 4_096),
        ((64_000, None), 8_000, 8_000),
    ],
)
def test_the_limit_is_one_that_every_target_can_give(models, plan, expected):
    """It is the plan's, or the longest answer there can be, and never more than a model is known to give."""
    targets = [make_target(max_output_tokens=most) for most in models]

    assert (
        limit_output(INBOUND["openai"]("x", None), standing(most=plan), targets).output_limit_tokens
        == expected
    )


def test_nothing_is_limited_where_nothing_has_to_hold():
    """Without a strict plan that limits something, or a plan's own limit, requests go out as they came."""
    request = INBOUND["openai"]("x", None)
    unlimited = standing_of(Plan(name="u", label="U", mode="strict"), (), anchor_ms=0)

    assert limit_output(request, standing(mode="balanced"), [make_target()]) is request
    assert limit_output(request, unlimited, [make_target()]) is request
    assert (
        limit_output(request, standing(mode="balanced", most=50), [make_target()]).output_limit_tokens == 50
    )


def test_more_than_the_plan_allows_is_refused():
    """A caller who asks for more than the plan gives is told so, and by how much."""
    with pytest.raises(InvalidRequest, match=r"max_tokens: 51 is more than the plan 'Pro' allows \(50\)"):
        limit_output(INBOUND["openai"]("x", 51), standing(mode="balanced", most=50), [make_target()])

    assert (
        limit_output(INBOUND["openai"]("x", 50), standing(most=50), [make_target()]).max_output_tokens == 50
    )


# --- What goes in

TEXT = st.one_of(
    st.text(CHARACTERS, max_size=60),
    st.text(alphabet=st.sampled_from('"\\\n\t\x08\x1b/é漢🙂\u2028'), max_size=40),
)  # fmt: skip


def strings_of(value):
    """Give every text in a body, keys of schemas and arguments included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from strings_of(item)


def contents_of(value):
    """Give what a vendor reads of a body: its texts, without the names of the format's own fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from contents_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in {"parameters", "input_schema", "schema", "responseSchema", "responseJsonSchema"}:
                yield from strings_of(item)
            elif name not in {"model", "role", "type", "stream"}:
                yield from contents_of(item)


def most_tokens(body, messages):
    """Count as the most wasteful tokeniser would: a token for each byte, and some around each message."""
    return sum(len(text.encode()) for text in contents_of(body)) + 8 * messages


@st.composite
def conversations(draw):
    """A conversation in OpenAI's format, perhaps with a tool that was called, and a tool to call."""
    said = draw(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=4))
    messages = [{"role": role, "content": text} for role, text in said]
    messages.append({"role": "user", "content": draw(TEXT) or "x"})
    body = {"model": "m", "messages": messages}
    if draw(st.booleans()):
        name = "look_up"
        arguments = json.dumps({"of": draw(TEXT)})
        messages += [
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": draw(TEXT) or "nothing"},
        ]  # fmt: skip
        schema = {"type": "object", "properties": {"of": {"type": "string", "description": draw(TEXT)}}}
        function = {"name": name, "description": draw(TEXT), "parameters": schema}
        body["tools"] = [{"type": "function", "function": function}]
    return body


@property_of(150, 5_000)
@given(body=conversations(), escaped=st.booleans(), outbound=st.sampled_from(sorted(OUTBOUND)))
@example(
    body={"model": "m", "messages": [{"role": "user", "content": "🙂" * 50}]}, escaped=True, outbound="openai"
)
def test_no_tokeniser_passes_the_bound(body, escaped, outbound):
    """Whatever is sent, in whichever dialect, has at most as many bytes as the bound has tokens."""
    target, _ = OUTBOUND[outbound]
    request = decode_openai(json.dumps(body, ensure_ascii=escaped).encode())
    try:
        encoded = target.deployment.codecs.chat.encode(request, target)
    except InvalidRequest:
        # Nothing but empty messages: some vendors take none, and nothing is sent.
        reject()
    sent = json.loads(encoded.request.body)

    assert size_of_chat(request, target).most_input >= most_tokens(sent, len(body["messages"]))


@property_of(150, 5_000)
@given(
    st.lists(TEXT.filter(lambda text: text.strip()), min_size=1, max_size=4),
    st.sampled_from(sorted(OUTBOUND)),
)
def test_no_tokeniser_passes_the_bound_of_a_native_request(texts, outbound):
    """The same holds of a request that leaves in its neutral form."""
    target, _ = OUTBOUND[outbound]
    messages = [{"role": "user", "content": text} for text in texts]
    request = decode_native(json.dumps({"prompt": {"messages": messages}}).encode())
    sent = json.loads(target.deployment.codecs.chat.encode(request, target).request.body)

    assert size_of_chat(request, target).most_input >= most_tokens(sent, len(texts))


def test_tools_and_forms_count_with_what_vendors_add():
    """Tools, and a form of the answer, come with instructions that nobody wrote."""
    plain = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    tool = {"type": "function", "function": {"name": "f"}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    sizes = [
        size_of_chat(decode_openai(json.dumps(body).encode()), make_target()).most_input
        for body in (plain, {**plain, "tools": [tool]}, {**plain, "response_format": form})
    ]

    assert sizes[1] - sizes[0] > 1_000
    assert sizes[2] - sizes[0] > 1_000


def with_media(kind="image_url", **part):
    content = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: part}]
    return decode_openai(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    )


def test_a_picture_counts_what_the_catalog_says_at_most():
    """A picture is bounded by its model's own figure, whatever its bytes are."""
    request = with_media(url="data:image/png;base64," + "A" * 100_000)
    target = make_target(media_tokens={"image": 3_000})
    size = size_of_chat(request, target)

    assert 3_000 <= size.most_input < 4_000
    assert size.likely_input < size.most_input
    check_bounded(request, target)
    with pytest.raises(InvalidRequest, match="how many tokens an image has") as caught:
        check_bounded(request, make_target())
    assert caught.value.code == "not_bounded"


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"web_search_options": {}}, "web_search_options"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"something_new": 1}, "something_new"),
    ],
)
def test_what_has_no_bound_is_refused(extra, named):
    """What a strict plan's money could be spent on without anybody knowing how much is refused, by its name."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **extra}
    request = decode_openai(json.dumps(body).encode())

    with pytest.raises(InvalidRequest, match="cannot be bounded") as caught:
        check_bounded(request, make_target())
    assert caught.value.param.startswith(named)


@pytest.mark.parametrize(
    "extra", [{"metadata": {"a": "b"}}, {"store": False}, {"service_tier": "default"}, {"logit_bias": {}}]
)
def test_what_costs_nothing_is_let_pass(extra):
    """Fields that change no cost stay possible."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **extra}

    check_bounded(decode_openai(json.dumps(body).encode()), make_target())


def test_a_vendor_that_takes_no_limit_is_refused():
    """Where a vendor cannot be told to stop, there is no bound."""
    target = make_target(spec=ProviderSpec(dialect="openai", drop=("max_tokens",)))

    with pytest.raises(InvalidRequest, match="takes no limit of output"):
        check_bounded(INBOUND["openai"]("x", None), target)


# --- Tokens and money


def test_likely_figures_stay_below_the_bound():
    """What is likely goes by the words and is a usual answer; several answers cost several times."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 4_000}], "n": 3}
    size = size_of_chat(decode_openai(json.dumps(body).encode()), make_target())

    assert size.likely_input == 769
    assert size.most_input >= 4_000
    assert (size.likely_output, size.most_output) == (3 * LIKELY_OUTPUT_TOKENS, 3 * LONGEST_OUTPUT_TOKENS)


@pytest.mark.parametrize("strict", [True, False])
def test_a_bound_holds_what_its_mode_promises(strict):
    """A strict plan holds the most there can be, a balanced one what is likely; both know the most."""
    target = make_target(prices=PRICES)
    rates = Rates().of(target.model, TODAY, reads_only=False)
    size = size_of_chat(INBOUND["openai"]("x" * 400, 100), target)
    found = bound(target, size, rates, strict=strict)
    most = 2 * size.most_input + 10 * 100

    assert found.most_cost_nanos == most
    assert found.cost_nanos == (most if strict else 2 * size.likely_input + 1_000)
    assert found.tokens == (size.most_input if strict else size.likely_input) + 100
    assert bound(target, size, None, strict=strict).cost_nanos is None


def test_embeddings_are_bounded_by_their_bytes_or_their_tokens():
    """A text has at most as many tokens as bytes, and a list of tokens has as many as it says."""
    texts = size_of_embedding(EmbeddingRequest(model="m", inputs=("漢" * 10, "ab")))
    tokens = size_of_embedding(EmbeddingRequest(model="m", inputs=((1, 2, 3), (4,))))

    assert texts.most_input >= 32
    assert texts.likely_input == 11
    assert (tokens.likely_input, tokens.most_output) == (4, 0)
    assert tokens.most_input >= 4
