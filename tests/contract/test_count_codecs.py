"""Asking vendors for counts: exactly what goes out, and what comes back, as recorded and as it should not be."""

import json

import pytest

from llm_gate.dialects import anthropic_messages, gemini, openai
from llm_gate.dialects.anthropic_inbound import decode_count_request
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, ProviderModelGone
from support.recorded import REASON, recorded_root, recordings
from support.targets import make_reply, make_target

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "t", "parameters": {"type": "object", "properties": {}}}}
ASKED = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
    "tools": [TOOL],
    "max_tokens": 9,
    "temperature": 0.5,
    "seed": 7,
    "user": "u",
}
CODECS = {
    "openai": (openai.provider, "input_tokens"),
    "anthropic": (anthropic_messages.provider, "input_tokens"),
    "gemini": (gemini.provider, "totalTokens"),
}


def sent(name, body, **fields):
    """Return the request that goes to a vendor for a body of OpenAI's format."""
    target = make_target(codecs=CODECS[name][0], base_url="https://vendor.test/v1", **fields)
    return target.deployment.codecs.count.encode(decode_chat_request(json.dumps(body).encode()), target)


def test_openai_is_asked_in_the_responses_format():
    """Instructions, messages and tools go out, and nothing that only says how to answer."""
    request = sent("openai", ASKED)

    assert (request.method, request.url) == ("POST", "https://vendor.test/v1/responses/input_tokens")
    assert json.loads(request.body) == {
        "model": "model-a",
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": "Hello"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "t",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
    }


def test_anthropic_is_asked_in_its_own_format():
    """The same fields as a chat's, without those that this endpoint refuses."""
    request = sent("anthropic", ASKED)

    assert request.url == "https://vendor.test/v1/v1/messages/count_tokens"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert json.loads(request.body) == {
        "model": "model-a",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "tools": [{"name": "t", "input_schema": {"type": "object", "properties": {}}}],
    }


def test_a_body_of_the_vendors_own_format_goes_on_as_it_came():
    """What is counted keeps every field inside it, and the caller's choice of betas."""
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}
        ],
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "max_tokens": 4096,
        "metadata": {"user_id": "u"},
        "stop_sequences": ["x"],
    }
    target = make_target(codecs=anthropic_messages.provider)
    request = target.deployment.codecs.count.encode(
        decode_count_request(json.dumps(body).encode(), {"anthropic-beta": "some-beta"}), target
    )

    counted = {name: body[name] for name in ("messages", "thinking")}
    assert json.loads(request.body) == {**counted, "model": "model-a"}
    assert request.headers["anthropic-beta"] == "some-beta"


def test_gemini_is_asked_with_the_whole_request():
    """Instructions and tools count only inside `generateContentRequest`, which must name its model."""
    request = sent("gemini", ASKED, model="gemini-2.5-flash")
    whole = json.loads(request.body)["generateContentRequest"]

    assert request.url == "https://vendor.test/v1/models/gemini-2.5-flash:countTokens"
    assert list(json.loads(request.body)) == ["generateContentRequest"]
    assert whole["model"] == "models/gemini-2.5-flash"
    assert whole["contents"] == [{"role": "user", "parts": [{"text": "Hello"}]}]
    assert whole["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert whole["tools"][0]["functionDeclarations"][0]["name"] == "t"


def test_what_cannot_be_carried_over_is_not_counted():
    """A request that the vendor would not be asked is not counted there either."""
    with pytest.raises(InvalidRequest):
        sent("anthropic", {**ASKED, "modalities": ["audio"]})


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "value", [None, "14", -1, 1.5, True, 10**12], ids=["null", "text", "below", "part", "bool", "absurd"]
)
def test_an_answer_without_a_count_is_bad(name, value):
    """Anything but a number that can be a count is the vendor's failure."""
    codecs, field = CODECS[name]
    target = make_target(codecs=codecs)

    for body in ({field: value}, {}, [], b"{", b"\xff"):
        with pytest.raises(BadProviderResponse):
            codecs.count.decode(make_reply(body), target)
    assert codecs.count.decode(make_reply({field: 14, "more": None}), target) == 14


@pytest.mark.skipif(recorded_root() is None, reason=REASON)
@pytest.mark.parametrize(
    ("name", "operation", "file", "tokens"),
    [
        ("anthropic", "count-tokens", "one-message", 14),
        ("anthropic", "count-tokens", "with-tools", 16),
        ("gemini", "count-tokens", "flash-2-5", 12),
        ("gemini", "count-tokens", "flash-3-5", 8),
        ("openai", "responses", "input-tokens", 18),
    ],
)
def test_recorded_counts_are_read(name, operation, file, tokens):
    """What vendors really answered is read as they meant it."""
    found = next(each for each in recordings(name, operation) if each.id.endswith(f"/{file}.json"))
    codecs = CODECS[name][0]

    read = codecs.count.decode(make_reply(found.interactions[0].body), make_target(codecs=codecs))

    assert read == tokens


@pytest.mark.skipif(recorded_root() is None, reason=REASON)
def test_a_recorded_failure_of_counting_is_typed():
    """The vendor's word that it has no such model is that, as for a chat."""
    found = next(
        each for each in recordings("anthropic", "errors") if each.id.endswith("404-count-tokens.json")
    )
    failed = found.interactions[0]
    target = make_target(codecs=anthropic_messages.provider)

    error = anthropic_messages.provider.decode_error(make_reply(failed.body, failed.status), target)

    assert isinstance(error, ProviderModelGone)
