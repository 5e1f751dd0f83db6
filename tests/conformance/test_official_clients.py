"""The official OpenAI and Anthropic clients on every surface they can speak, in front of every vendor's format."""

import base64
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from support.replay import CALLER_TOKEN, OWN_FORMATS, VENDORS, cut
from support.small_answers import (
    ARGUMENTS,
    EMBEDDINGS,
    ERRORS,
    ROME,
    UNARY,
    answer,
    as_events,
    pieces,
    streamed,
)
from support.upstream import Answer

MODEL = "some-model"
HELLO: Any = [{"role": "user", "content": "Hello"}]
PROVIDERS = (*VENDORS, *OWN_FORMATS)
FORMATS = {"anthropic": "anthropic", "gemini": "gemini"}
EMBEDDERS = {
    "openai": "text-embedding-3-small",
    "mistral": "mistral-embed",
    "gemini": "gemini-embedding-001",
    "cohere": "embed-v4.0",
    "ollama": "nomic-embed-text",
}
MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4-5",
    "gemini/gemini-2.5-flash",
    "cohere/command-a-03-2025",
)
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(scope="module")
def messages_client(gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=CALLER_TOKEN, max_retries=0) as client:
        yield client


class Said(NamedTuple):
    """What a client has in hand: text, calls with their arguments, counts."""

    text: str
    calls: list[tuple[str, Any]]
    counts: tuple[int, int]


# ---- each surface: how its client is asked and read


def chat(client: openai.OpenAI, model: str) -> Said:
    done = client.chat.completions.create(model=model, messages=HELLO)
    return of_chat(done)


def chat_stream(client: openai.OpenAI, model: str) -> Said:
    with client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        return of_chat(stream.get_final_completion())


def of_chat(done: Any) -> Said:
    message = done.choices[0].message
    calls = [(each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls or ()]
    return Said(message.content, calls, (done.usage.prompt_tokens, done.usage.completion_tokens))


def responses(client: openai.OpenAI, model: str) -> Said:
    return of_response(client.responses.create(model=model, input="Hello"))


def responses_stream(client: openai.OpenAI, model: str) -> Said:
    with client.responses.stream(model=model, input="Hello") as stream:
        return of_response(stream.get_final_response())


def of_response(done: Any) -> Said:
    calls = [(item.name, json.loads(item.arguments)) for item in done.output if item.type == "function_call"]
    return Said(done.output_text, calls, (done.usage.input_tokens, done.usage.output_tokens))


def messages(client: anthropic.Anthropic, model: str) -> Said:
    return of_message(client.messages.create(model=model, max_tokens=100, messages=HELLO))


def messages_stream(client: anthropic.Anthropic, model: str) -> Said:
    with client.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
        return of_message(stream.get_final_message())


def of_message(done: Any) -> Said:
    text = "".join(block.text for block in done.content if block.type == "text")
    calls = [(block.name, block.input) for block in done.content if block.type == "tool_use"]
    usage = done.usage
    asked = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return Said(text, calls, (asked, usage.output_tokens))


def completion(client: openai.OpenAI, model: str) -> Said:
    done = client.completions.create(model=model, prompt="Hello")
    return Said(done.choices[0].text, [], (done.usage.prompt_tokens, done.usage.completion_tokens))


def completion_stream(client: openai.OpenAI, model: str) -> Said:
    stream = client.completions.create(
        model=model, prompt="Hello", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    usage = chunks[-1].usage
    return Said(text, [], (usage.prompt_tokens, usage.completion_tokens))


SURFACES: dict[str, tuple[Callable[[Any, str], Said], bool]] = {
    "chat": (chat, False),
    "chat-streamed": (chat_stream, True),
    "responses": (responses, False),
    "responses-streamed": (responses_stream, True),
    "completions": (completion, False),
    "completions-streamed": (completion_stream, True),
    "messages": (messages, False),
    "messages-streamed": (messages_stream, True),
}
each_surface = pytest.mark.parametrize("surface", SURFACES)


@pytest.fixture
def caller_of(surface, client, messages_client) -> Any:
    return messages_client if surface.startswith("messages") else client


def scripted(provider: str, *, is_streamed: bool) -> tuple[Answer, Said]:
    """Return a small answer of a vendor, and what it says."""
    if provider in OWN_FORMATS:
        if is_streamed:
            return streamed(provider, *cut(b"".join(pieces(provider)))), Said("Ciao", [], (5, 2))
        return answer(provider, calls=True), Said("", [("weather", ROME)], (5, 2))
    wire = FORMATS.get(provider, "openai")
    body = Answer.events(*cut(as_events(wire, "\n"))) if is_streamed else Answer.json(UNARY[wire])
    return body, Said("Grüezi 👋", [("weather", ARGUMENTS)], (12, 7))


@each_provider
@each_surface
def test_answers(provider, surface, upstream, caller_of):
    """Text, calls and counts of every vendor's format reach the client on every surface."""
    ask, is_streamed = SURFACES[surface]
    scripted_answer, said = scripted(provider, is_streamed=is_streamed)
    upstream.will(scripted_answer)
    got = ask(caller_of, f"{provider}/{MODEL}")
    expected = said if not surface.startswith("completions") else Said(said.text, [], said.counts)
    assert Said(got.text or "", got.calls, got.counts) == expected


@each_provider
@each_surface
def test_failures(provider, surface, upstream, caller_of):
    """A vendor that limits its callers is the client's own RateLimitError on every surface, with its wait."""
    wire = provider if provider in ERRORS else "openai"
    upstream.will(Answer.json(ERRORS[wire], 429, retry_after="7"))
    ask, _ = SURFACES[surface]
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
        ask(caller_of, f"{provider}/{MODEL}")
    assert caught.value.status_code == 429
    assert caught.value.response.headers["retry-after"] == "7"


@each_provider
@pytest.mark.parametrize("surface", [name for name, (_, is_streamed) in SURFACES.items() if is_streamed])
def test_broken_streams(provider, surface, upstream, caller_of):
    """A stream that breaks off raises in the client on every surface, so that nobody takes it for an answer."""
    if provider in OWN_FORMATS:
        upstream.will(streamed(provider, *pieces(provider)[:-1]))
    else:
        wire = as_events(FORMATS.get(provider, "openai"), "\n").split(b"\n\n")
        upstream.will(Answer.events(*(block + b"\n\n" for block in wire[:2])))
    ask, _ = SURFACES[surface]
    with pytest.raises((openai.APIError, anthropic.APIError)):
        ask(caller_of, f"{provider}/{MODEL}")


@pytest.mark.parametrize("provider", ["openai", "mistral", "gemini", "cohere", "ollama"])
@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(provider, encoding, upstream, client):
    """Vectors of every vendor's format reach the client, in the encoding it asks for by itself or by name."""
    upstream.will(Answer.json(EMBEDDINGS["openai" if provider == "mistral" else provider]))
    more: Any = {} if encoding is None else {"encoding_format": encoding}
    result = client.embeddings.create(model=f"{provider}/{EMBEDDERS[provider]}", input=["a", "b"], **more)
    vectors = [each.embedding for each in result.data]
    if encoding == "base64":
        vectors = [list(struct.unpack("<2f", base64.b64decode(each))) for each in vectors]
    assert vectors == [[0.5, 0.25], [1.0, 2.0]]
    assert [each.index for each in result.data] == [0, 1]


def test_models(client, messages_client):
    """Each client lists and finds the models of every vendor that has a list here, in its own form."""
    listed = {model.id: model for model in client.models.list()}
    named = {model.id: model for model in messages_client.models.list(limit=1000)}
    assert set(named) <= set(listed)
    for name in MODELS:
        assert client.models.retrieve(name).owned_by == listed[name].owned_by == name.partition("/")[0]
        assert messages_client.models.retrieve(name).display_name == named[name].display_name
        assert named[name].type == "model"


@pytest.mark.parametrize(
    ("model", "tokens"), [(f"anthropic/{MODEL}", 10), (f"openai/{MODEL}", 8), (f"ollama/{MODEL}", 10)]
)
def test_count_tokens(model, tokens, upstream, messages_client):
    """Counting asks no vendor unasked: it is an estimate, or the tokenizer's where that is public."""
    upstream.will()
    assert messages_client.messages.count_tokens(model=model, messages=HELLO).input_tokens == tokens
    assert upstream.seen == []
