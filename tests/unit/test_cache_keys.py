"""The keys of kept answers: what changes an answer changes the key, and nothing else does."""

import json
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from llm_gate.dialects.anthropic_inbound import decode_messages_request
from llm_gate.dialects.native import decode_chat_request as decode_native
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_completions import decode_completion_request
from llm_gate.dialects.openai_embeddings import decode_embedding_request
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.domain.cache import CacheRule, CacheRules, Shelf
from llm_gate.domain.pricing import Price
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.cache_facts import facts_of
from llm_gate.engine.cache_keys import CacheKeys
from llm_gate.engine.cache_wishes import read_wishes
from support.figures import full
from support.targets import make_target

ON = date(2026, 11, 21)
SHELF = Shelf(tenant="acme")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a router?"},
]
BODY = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "max_tokens": 100, "temperature": 0.5}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look up", "parameters": SCHEMA}}


def read(body: dict) -> ChatRequest:
    return decode_chat_request(json.dumps(body).encode())


def key(request: ChatRequest | dict, *, shelf: Shelf = SHELF, targets=None, on: date = ON) -> bytes | None:
    request = read(request) if isinstance(request, dict) else request
    return CacheKeys().of_chat(request, targets or [make_target()], shelf, on)


def group(request: ChatRequest | dict) -> tuple[bytes, str] | None:
    request = read(request) if isinstance(request, dict) else request
    return CacheKeys().of_group(request, [make_target()], SHELF, ON)


def test_the_same_question_has_one_key_in_every_format():
    """Five wire formats, one key."""
    user = [MESSAGES[1]]
    named = {"model": "x", "max_tokens": 100, "temperature": 0.5}
    asked = [
        decode_chat_request(json.dumps({**named, "messages": MESSAGES}).encode()),
        decode_messages_request(json.dumps({**named, "system": "Be brief.", "messages": user}).encode()),
        decode_responses_request(
            json.dumps(
                {
                    "model": "x",
                    "max_output_tokens": 100,
                    "temperature": 0.5,
                    "instructions": "Be brief.",
                    "input": "What is a router?",
                }
            ).encode()
        ).chat,
        structs.replace(
            decode_native(
                json.dumps(
                    {"prompt": {"messages": MESSAGES, "parameter": {"maxTokens": 100, "temperature": 0.5}}}
                ).encode()
            ),
            model="x",
        ),
    ]
    assert len({key(request) for request in asked}) == 1
    prompt = decode_completion_request(json.dumps({**named, "prompt": "What is a router?"}).encode())
    assert key(prompt) == key({**named, "messages": user})


def test_tools_have_one_key_in_two_formats():
    """A tool is the same tool, however its wire format wraps it."""
    shaped = {"name": "look", "description": "Look up", "input_schema": SCHEMA}
    ours = {"model": "x", "max_tokens": 9, "messages": [MESSAGES[1]]}
    theirs = decode_messages_request(json.dumps({**ours, "tools": [shaped]}).encode())
    assert key({**ours, "tools": [TOOL]}) == key(theirs)


CHANGES = {
    "model": "openai/gpt-4o",
    "messages": [*MESSAGES, {"role": "user", "content": "More"}],
    "max_tokens": 101,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 3,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "stop": "x",
    "n": 2,
    "seed": 1,
    "tools": [TOOL],
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "service_tier": "flex",
    "verbosity": "low",
    "logit_bias_": {"1": 2},
    "enable_thinking": True,
    "store": True,
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_parameter_changes_the_key(name):
    """What may change the answer is in the key, also what only one vendor knows."""
    assert key({**BODY, name: CHANGES[name]}) != key(BODY)


def test_all_changed_requests_differ_from_each_other():
    """No two of them share a key, nor a group but where only the last words differ."""
    keys = {key({**BODY, name: value}) for name, value in CHANGES.items()}
    assert len(keys) == len(CHANGES)


@pytest.mark.parametrize(
    "same",
    [
        {"stream": True, "stream_options": {"include_usage": True}},
        {"user": "someone"},
        {"metadata": {"run": "4711"}},
        {"safety_identifier": "abc", "prompt_cache_key": "def"},
        {"n": 1},
        {"response_format": {"type": "text"}},
        {"logprobs": False},
        {"modalities": ["text"]},
        {"top_p": None},
    ],
)
def test_what_no_answer_hangs_on_is_not_in_the_key(same):
    """Neither how the answer travels nor who asked, nor a default that was spelled out."""
    assert key({**BODY, **same}) == key(BODY)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "What is a router?", "name": "ann"},
        {"role": "user", "content": "What is a router?", "prefix": True},
        {"role": "user", "content": [{"type": "text", "text": "What is a router?", "weight": 2}]},
        {"role": "assistant", "content": "What is a router?"},
        {"role": "system", "content": "What is a router?"},
        {"role": "user", "content": "What is a router? "},
    ],
)
def test_whatever_a_message_says_is_in_the_key(message):
    """Also fields inside a message that have no neutral form."""
    assert key({**BODY, "messages": [MESSAGES[0], message]}) != key(BODY)


def test_parts_of_messages_do_not_run_together():
    """Where one message ends and the next begins is in the key."""
    one = [{"role": "user", "content": "ab"}, {"role": "user", "content": "c"}]
    other = [{"role": "user", "content": "a"}, {"role": "user", "content": "bc"}]
    assert key({**BODY, "messages": one}) != key({**BODY, "messages": other})
    parts = [{"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]}]
    assert key({**BODY, "messages": parts}) not in {
        key({**BODY, "messages": one}),
        key({**BODY, "messages": [{"role": "user", "content": "abc"}]}),
    }


def test_a_text_and_its_one_part_are_the_same():
    """Two ways to write one message make one key."""
    part = [MESSAGES[0], {"role": "user", "content": [{"type": "text", "text": "What is a router?"}]}]
    assert key({**BODY, "messages": part}) == key(BODY)


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
        {"functions": [{"name": "f"}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
                }
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA=="}}]},
                {"role": "assistant", "audio": {"id": "a"}},
            ]
        },
    ],
)
def test_what_has_no_neutral_answer_or_may_change_has_no_key(more):
    """A link's picture may change; what only one format can say is not kept."""
    assert key({**BODY, **more}) is None


def test_inline_media_are_in_the_key():
    """Two pictures, two keys."""

    def shown(data: str) -> dict:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        return {**BODY, "messages": [{"role": "user", "content": [part]}]}

    assert key(shown("AAAA")) == key(shown("AAAA"))
    assert key(shown("AAAA")) != key(shown("AAAB"))


def test_a_tests_orders_make_no_key():
    """A target that is told how to behave is asked each time."""
    assert key(BODY, targets=[structs.replace(make_target(), control="fail=500")]) is None


def test_tenant_part_name_and_targets_are_in_the_key():
    """An entry is bound to whose it is, what was asked for, and who may answer."""
    first, second = make_target(), make_target(model="other")
    asked = read(BODY)
    keys = [
        key(asked),
        key(asked, shelf=Shelf(tenant="acm", part="e")),
        key(asked, shelf=Shelf(tenant="acme", part="x")),
        key(asked, targets=[second]),
        key(asked, targets=[first, second]),
        key(structs.replace(asked, model="alias")),
        key(structs.replace(asked, output_limit_tokens=100)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(asked, targets=[first, second]) == key(asked, targets=[second, first])


def test_prices_of_the_day_are_in_the_key():
    """A price that changes, or that begins on a day, makes other keys from then on."""
    target = make_target()

    def priced(nanos: int, since: date | None = None):
        price = Price(id="p", unit="input_tokens", per=1, nanos=Fraction(nanos), since=since)
        return structs.replace(target, model=structs.replace(target.model, prices=(price,)))

    assert key(BODY, targets=[priced(1)]) != key(BODY, targets=[priced(2)])
    later = [priced(1, date(2026, 12, 1))]
    assert key(BODY, targets=later) != key(BODY, targets=later, on=date(2026, 12, 2))
    keys = CacheKeys()
    first = keys.of_chat(read(BODY), later, SHELF, ON)
    # Remembered prices are forgotten with the day.
    assert keys.of_chat(read(BODY), later, SHELF, date(2026, 12, 2)) != first
    assert keys.of_chat(read(BODY), later, SHELF, ON) == first


def test_a_group_leaves_out_the_last_words_alone():
    """Questions of one group differ in the last words of the user and in nothing else."""
    other = {**BODY, "messages": [MESSAGES[0], {"role": "user", "content": "What is a switch?"}]}
    found, asked = group(BODY), group(other)
    assert found is not None
    assert asked is not None
    assert found[0] == asked[0]
    assert (found[1], asked[1]) == ("What is a router?", "What is a switch?")
    for name, value in CHANGES.items():
        if name not in {"messages", "model"}:
            changed = group({**BODY, name: value})
            assert changed is None or changed[0] != found[0], name
    system = group({**BODY, "messages": [{"role": "system", "content": "Be long."}, MESSAGES[1]]})
    assert system is not None
    assert system[0] != found[0]


@pytest.mark.parametrize("last", [{"role": "assistant", "content": "Yes"}, {"role": "user", "content": "  "}])
def test_there_is_no_group_without_last_words_of_the_user(last):
    """An answer is not compared, and neither is nothing."""
    assert group({**BODY, "messages": [*MESSAGES, last]}) is None


def test_embeddings_have_keys_of_their_own():
    """Texts, dimensions and the vendor's fields are in the key, how numbers are written is not."""

    def of(**more: object) -> bytes | None:
        body = {"model": "m", "input": ["a", "b"], **more}
        request = decode_embedding_request(json.dumps(body).encode())
        return CacheKeys().of_embedding(request, [make_target()], SHELF, ON)

    assert of() == of(encoding_format="base64") == of(user="x")
    differing = [
        of(),
        of(input=["ab"]),
        of(input=["a"]),
        of(dimensions=3),
        of(input_type="query"),
        of(input=[1]),
    ]
    assert len(set(differing)) == len(differing)


words = st.text("abcä☃", max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)


def turned(value: object) -> object:
    """Return the same JSON with every object's keys the other way round."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


@settings(max_examples=full(100, 2_000), deadline=None)
@given(
    first=st.dictionaries(words, json_values, max_size=4),
    second=st.dictionaries(words, json_values, max_size=4),
)
def test_the_order_of_json_keys_does_not_matter_and_everything_else_does(first, second):
    """Schemas, tools and a vendor's own fields are compared by what they say."""

    def asked(value: dict) -> bytes | None:
        function = {"name": "f", "parameters": {"type": "object", **value}}
        tools = [{"type": "function", "function": function}]
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", **value}}}
        return key({**BODY, "tools": tools, "response_format": form, "own": value})

    found = asked(first)
    assert found == key(json.loads(json.dumps(turned(read_body(first))))) == asked(first)
    if json.dumps(first, sort_keys=True) != json.dumps(second, sort_keys=True):
        assert asked(second) != found


def read_body(value: dict) -> dict:
    function = {"name": "f", "parameters": {"type": "object", **value}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", **value}}}
    return {
        **BODY,
        "tools": [{"type": "function", "function": function}],
        "response_format": form,
        "own": value,
    }


@pytest.mark.parametrize(
    ("header", "reads", "keeps", "only_kept", "max_age_ms"),
    [
        ("no-cache", False, True, False, None),
        ("No-Cache", False, True, False, None),
        ("no-store", False, False, False, None),
        ("max-age=30", True, True, False, 30_000),
        ('max-age="30"', True, True, False, 30_000),
        ("only-if-cached, max-age=0", True, True, True, 0),
        ("no-cache=x , foo", False, True, False, None),
        ("max-age=-1", True, True, False, None),
        ("max-age=abc", True, True, False, None),
        ("max-age", True, True, False, None),
        ("max-age=1e3", True, True, False, None),
        (",,=,", True, True, False, None),
        ("", True, True, False, None),
    ],
)
def test_cache_control_is_read_as_http_says(header, reads, keeps, only_kept, max_age_ms):
    """Known directives count, malformed and unknown ones do not."""
    found = read_wishes({"cache-control": header})
    assert (found.reads, found.keeps, found.only_kept, found.max_age_ms) == (
        reads,
        keeps,
        only_kept,
        max_age_ms,
    )


def test_an_alias_goes_before_a_plan_and_a_plan_before_the_rest():
    """What a rule does not say is as the rule before it has it."""
    rules = CacheRules(
        usual=CacheRule(exact=True, ttl_ms=1, threshold=0.9),
        plans={"free": {"ttl_ms": 2, "threshold": 0.8}},
        aliases={"best": {"ttl_ms": 3, "exact": False}},
    )
    assert rules.of("other", "m") == rules.usual
    assert rules.of("free", "m") == CacheRule(exact=True, ttl_ms=2, threshold=0.8)
    assert rules.of("free", "best") == CacheRule(exact=False, ttl_ms=3, threshold=0.8)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("How many people lived in Oslo in 1990?", ("oslo", "1990")),
        ("Why doesn\u2019t it start? It is not on.", ("not", "not")),
        ("What did I say? Use Python 3.11, please.", ("python", "3.11")),
        ('Translate "open the door" into French.', ("french", '"open the door"')),
        ("what is a router", ()),
        ("", ()),
    ],
)
def test_facts_are_numbers_names_denials_and_quotes(text, facts):
    """What must agree before two questions are compared, in its order."""
    assert facts_of(text) == facts


def test_questions_with_other_facts_are_in_other_groups():
    """The rest of the words may differ."""

    def of(text: str) -> bytes:
        found = group({**BODY, "messages": [{"role": "user", "content": text}]})
        assert found is not None
        return found[0]

    assert of("How big was Oslo in 1990?") == of("What was the size of Oslo in 1990?")
    assert of("How big was Oslo in 1990?") != of("How big was Oslo in 1991?")
    assert of("How big was Oslo?") != of("How big was Bergen?")
