"""Counting tokens here: what catalogs say of vendors, how far a guess is off, and tokenizers that download nothing."""

import asyncio
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.dialects.anthropic_inbound import decode_messages_request
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.counting import CountingSpec, TokenCount, counting_of
from llm_gate.domain.errors import GateFault
from llm_gate.domain.estimates import SAMPLED_BYTES, estimate_tokens, in_tokens, weigh, weigh_json
from llm_gate.engine.likely import likely_input_tokens, read
from llm_gate.measures.tokens import LARGEST_CHARS, ShippedTokenizers
from support.scripts import ARTICLE_1
from support.targets import make_target

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def tokenizers():
    """Return tokenizers that several tests may load together."""
    return ShippedTokenizers()


def chat(*messages, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in messages], **fields}
    return decode_chat_request(json.dumps(body, ensure_ascii=False).encode())


# --- What is known of a vendor


def test_the_longest_beginning_of_a_name_decides():
    """Of several lines about a vendor, the one that says most of the model's name holds, whatever their order."""
    specs = (
        CountingSpec(models="gpt-4o", encoding="o200k_base"),
        CountingSpec(chat_tokens=9),
        CountingSpec(models="gpt-4", encoding="cl100k_base"),
    )

    found = [counting_of(specs, name) for name in ("gpt-4o-mini", "gpt-4", "o1")]

    assert [each.encoding for each in found] == ["o200k_base", "cl100k_base", None]
    assert (found[2].chat_tokens, counting_of((), "any").chat_tokens) == (9, 3)


def test_what_a_vendor_adds_is_counted_where_it_is_added():
    """Frames of messages and a vendor's own words count always, those for tools and thinking only with these."""
    rules = CountingSpec(message_tokens=10, chat_tokens=100, tools_tokens=1_000, thinking_tokens=10_000)
    target = make_target(spec=ProviderSpec(dialect="openai", counting=(rules,)))
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
    thoughtful = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}], **thinking}

    def count(request):
        return likely_input_tokens(request, target)

    assert 110 <= count(chat("a")) < 115
    assert 120 <= count(chat("a", "b")) < 125
    assert 1_110 <= count(chat("a", tools=[TOOL])) < 1_140
    assert 110 <= count(chat("a", tools=[TOOL], tool_choice="none")) < 115
    assert 10_110 <= count(decode_messages_request(json.dumps(thoughtful).encode())) < 10_115


def test_a_count_says_where_a_vendors_own_lies():
    """A guess and a tokenizer come with the range of eight in ten counts of vendors; a vendor's count is itself."""
    ends = {
        source: (count.least_tokens, count.most_tokens)
        for source in ("estimate", "tokenizer", "vendor")
        for count in [TokenCount(input_tokens=101, source=source, provider="p", model="m")]
    }

    assert ends == {"estimate": (80, 142), "tokenizer": (90, 112), "vendor": (101, 101)}


# --- The estimate


@pytest.mark.parametrize("language", ARTICLE_1)
def test_every_script_is_near_its_tokenizer(language, tokenizers):
    """A text of any script is guessed within a third less and three fifths more of what today's tokenizer counts."""
    text = ARTICLE_1[language]
    (counted,) = tokenizers.count_now("o200k_base", [text])

    assert 0.65 <= estimate_tokens([text]) / counted <= 1.6


@pytest.mark.parametrize(
    "text", [ARTICLE_1["english"], ARTICLE_1["chinese"], "def f(x):\n    return x + 1\n"]
)
def test_a_long_text_is_judged_by_samples(text):
    """What is too long to be read whole is guessed from pieces of it, within a fiftieth."""
    whole = text * (3 * SAMPLED_BYTES // len(text.encode()))
    exact = weigh(text.encode()) * (len(whole) // len(text))

    assert abs(weigh(whole.encode()) / exact - 1) < 0.02


@pytest.mark.parametrize(
    "text", ['He said "yes"\nand left.', "a\\b\\c " * 9, ARTICLE_1["russian"], ARTICLE_1["chinese"]]
)
def test_json_is_weighed_as_it_is_read(text):
    """A text written with escapes is about as heavy as the text itself, in either way of writing JSON."""
    plain = weigh(text.encode())
    for ascii_only in (True, False):
        written = weigh_json(json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode())
        assert abs(written - plain) <= max(plain * 0.35, 150)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_weighed(data):
    """Whatever bytes come, the guess is a number from nothing to three tokens a byte."""
    assert 0 <= in_tokens(weigh_json(data)) <= in_tokens(weigh(data)) <= 3 * len(data) + 1


def test_a_body_and_its_meaning_are_guessed_alike():
    """A body that need not be decoded is guessed as its messages would be, within a quarter."""
    history = [
        {"role": "system", "content": ARTICLE_1["french"]},
        {"role": "user", "content": [{"type": "text", "text": ARTICLE_1["english"]}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains in Rome, as it did yesterday."},
        {"role": "user", "content": ARTICLE_1["russian"]},
    ]
    request = decode_chat_request(
        json.dumps({"model": "m", "messages": history}, ensure_ascii=False).encode()
    )
    target = make_target()
    as_meant = estimate_tokens(read(request).texts) + 5 * 4 + 3 + 2 * 12

    assert abs(likely_input_tokens(request, target) / as_meant - 1) < 0.25


def test_signatures_of_thoughts_are_not_counted():
    """What a caller carries along unread is no part of the guess, however long it is."""

    def count(signature):
        turns = [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "Well", "signature": signature}],
            },
            {"role": "user", "content": "Go on"},
        ]
        body = {"model": "m", "max_tokens": 9, "messages": turns}
        return likely_input_tokens(decode_messages_request(json.dumps(body).encode()), make_target())

    assert count("a") == count("aB3/" * 500) < 30


# --- Tokenizers


def test_tokenizers_count_as_published(tokenizers):
    """The shipped ranks give the counts that these encodings are known for; special words are plain text."""
    texts = ["tiktoken is great!", "antidisestablishmentarianism", "お誕生日おめでとう", "<|endoftext|>", ""]

    assert tokenizers.count_now("cl100k_base", texts) == (6, 6, 9, 7, 0)
    assert tokenizers.count_now("o200k_base", texts) == (6, 6, 8, 7, 0)


def test_a_tokenizer_needs_no_network(monkeypatch):
    """An encoding is read from the package alone."""

    def refuse(*_args, **_more):
        raise AssertionError("somebody opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert ShippedTokenizers().count_now("cl100k_base", ["Hello"]) == (1,)


@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "\n" * 300_000, "a" * 300_000], ids=["blanks", "lines", "a"]
)
def test_odd_texts_do_not_break_a_tokenizer(text, tokenizers):
    """Endless runs of one character are counted, which the library alone does not survive."""
    assert 0 < tokenizers.count_now("o200k_base", [text])[0] < len(text)


def test_what_cannot_be_counted_is_none(tokenizers):
    """Texts beyond all measure, and any without the extra, are left to the estimate; an unknown name is a fault."""
    bare = ShippedTokenizers()
    bare.is_installed = False

    assert asyncio.run(bare.count("cl100k_base", ["a"])) is None
    assert asyncio.run(tokenizers.count("cl100k_base", ["a" * (LARGEST_CHARS + 1)])) is None
    with pytest.raises(GateFault, match="there is no encoding 'r50k_base'"):
        asyncio.run(tokenizers.count("r50k_base", ["a"]))


def test_several_at_once_load_an_encoding_once():
    """Requests that come together all get their counts."""
    tokenizers = ShippedTokenizers()

    async def together():
        return await asyncio.gather(*(tokenizers.count("cl100k_base", ["Hello, world"]) for _ in range(8)))

    assert asyncio.run(together()) == [(3,)] * 8
