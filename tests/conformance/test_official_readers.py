"""Each vendor's official client reads our fake of that vendor, so that the fakes themselves are checked."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import anthropic
import cohere
import ollama
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from google import genai
from google.genai import errors as genai_errors
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    OPENAI_SPEAKERS,
    OWN_FORMATS,
    VENDORS,
    Told,
    anthropic_stream_told,
    anthropic_told,
    cohere_stream_told,
    cohere_told,
    cut,
    data_of,
    gemini_told,
    is_stream,
    ollama_told,
    openai_stream_told,
    openai_told,
    replay,
)
from support.small_answers import (
    ARGUMENTS,
    EMBEDDINGS,
    ERRORS,
    ROME,
    STREAMS,
    UNARY,
    answer,
    as_events,
    pieces,
    streamed,
)
from support.upstream import Answer

MODEL = "some-model"
BASES = {name: vendor.base for name, vendor in {**VENDORS, **OWN_FORMATS}.items()}
HELLO = [{"role": "user", "content": "Hello"}]
SMALL = Told((("Grüezi 👋", (("weather", ARGUMENTS),), "tool_calls"),), (12, 7))
CIAO = Told((("Ciao", (), "stop"),), (5, 2))
CALL = Told((("", (("weather", ROME),), "tool_calls"),), (5, 2))
VECTORS = [[0.5, 0.25], [1.0, 2.0]]
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


# ---- the clients, each pointed straight at the fake vendor


def address(upstream, provider) -> str:
    return upstream.url + BASES[provider]


@pytest.fixture(scope="module")
def openai_client(upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address(upstream, "openai"), api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=address(upstream, "anthropic"), api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def gemini_client(upstream) -> Iterator[genai.Client]:
    options = genai.types.HttpOptions(
        base_url=address(upstream, "gemini").removesuffix("/v1beta"),
        api_version="v1beta",
        retry_options=genai.types.HttpRetryOptions(attempts=1),
    )
    with closing(genai.Client(api_key="any", http_options=options)) as client:
        yield client


@pytest.fixture(scope="module")
def cohere_client(upstream) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2("any", base_url=address(upstream, "cohere")) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(upstream) -> Iterator[ollama.Client]:
    client = ollama.Client(host=address(upstream, "ollama"))
    with closing(client._client):  # it has no public way to close
        yield client


@pytest.fixture(scope="module")
def huggingface_client(upstream) -> Iterator[InferenceClient]:
    with InferenceClient(base_url=address(upstream, "huggingface"), api_key="any") as client:
        yield client


# ---- what each client reads, told in one form


def by_openai(client: openai.OpenAI) -> Told:
    completion = client.chat.completions.create(model=MODEL, messages=HELLO)
    return openai_told(completion.model_dump(warnings=False))


def by_openai_streamed(client: openai.OpenAI) -> Told:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    return openai_stream_told(chunk.model_dump(warnings=False) for chunk in stream)


def by_anthropic(client: anthropic.Anthropic) -> Told:
    message = client.messages.create(model=MODEL, max_tokens=100, messages=HELLO)
    return anthropic_told(message.model_dump(warnings=False))


def by_anthropic_streamed(client: anthropic.Anthropic) -> Told:
    stream = client.messages.create(model=MODEL, max_tokens=100, messages=HELLO, stream=True)
    return anthropic_stream_told(event.model_dump(warnings=False) for event in stream)


def as_gemini(chunk: genai.types.GenerateContentResponse) -> dict[str, Any]:
    return chunk.model_dump(by_alias=True, exclude_none=True, mode="json", warnings=False)


def by_gemini(client: genai.Client) -> Told:
    return gemini_told([as_gemini(client.models.generate_content(model=MODEL, contents="Hello"))])


def by_gemini_streamed(client: genai.Client) -> Told:
    stream = client.models.generate_content_stream(model=MODEL, contents="Hello")
    return gemini_told([as_gemini(chunk) for chunk in stream])


def by_cohere(client: cohere.ClientV2) -> Told:
    return cohere_told(client.chat(model=MODEL, messages=HELLO).dict())


def by_cohere_streamed(client: cohere.ClientV2) -> Told:
    return cohere_stream_told(event.dict() for event in client.chat_stream(model=MODEL, messages=HELLO))


def by_ollama(client: ollama.Client) -> Told:
    return ollama_told([client.chat(model=MODEL, messages=HELLO).model_dump()])


def by_ollama_streamed(client: ollama.Client) -> Told:
    lines = client.chat(model=MODEL, messages=HELLO, stream=True)
    return ollama_told([line.model_dump() for line in lines])


def by_huggingface(client: InferenceClient) -> Told:
    return openai_told(client.chat_completion(model=MODEL, messages=HELLO))


def by_huggingface_streamed(client: InferenceClient) -> Told:
    return openai_stream_told(client.chat_completion(model=MODEL, messages=HELLO, stream=True))


READERS: dict[str, tuple[Callable[[Any], Told], Callable[[Any], Told]]] = {
    "openai": (by_openai, by_openai_streamed),
    "anthropic": (by_anthropic, by_anthropic_streamed),
    "gemini": (by_gemini, by_gemini_streamed),
    "cohere": (by_cohere, by_cohere_streamed),
    "ollama": (by_ollama, by_ollama_streamed),
    "huggingface": (by_huggingface, by_huggingface_streamed),
}
WIRES = {"huggingface": "openai"}
PATHS = {
    "openai": ("/chat/completions", "/chat/completions"),
    "anthropic": ("/v1/messages", "/v1/messages"),
    "gemini": (f"/models/{MODEL}:generateContent", f"/models/{MODEL}:streamGenerateContent?alt=sse"),
    "cohere": ("/v2/chat", "/v2/chat"),
    "ollama": ("/api/chat", "/api/chat"),
    "huggingface": ("/chat/completions", "/chat/completions"),
}
each_provider = pytest.mark.parametrize("provider", READERS)


@pytest.fixture
def vendors_client(request, provider) -> Any:
    return request.getfixturevalue(f"{provider}_client")


# ---- answers written by hand


def small(provider: str) -> list[tuple[Answer, Told]]:
    if provider in OWN_FORMATS:
        return [(answer(provider), CIAO), (answer(provider, calls=True), CALL)]
    return [(Answer.json(UNARY[WIRES.get(provider, provider)]), SMALL)]


@each_provider
def test_small_answer(provider, upstream, vendors_client):
    """The client reads text, tool call, finish reason and counts, and asks at the address that we ask at."""
    for made, told in small(provider):
        upstream.will(made)
        assert READERS[provider][0](vendors_client) == told
        assert upstream.only.path == BASES[provider] + PATHS[provider][0]


@each_provider
def test_small_stream(provider, upstream, vendors_client):
    """The client reads the same from a stream, cut anywhere."""
    if provider in OWN_FORMATS:
        made, told = streamed(provider, *cut(b"".join(pieces(provider)))), CIAO
    else:
        made, told = Answer.events(*cut(as_events(WIRES.get(provider, provider), "\n"), 40)), SMALL
    upstream.will(made)
    assert READERS[provider][1](vendors_client) == told
    assert upstream.only.path == BASES[provider] + PATHS[provider][1]


def test_small_answers_have_every_required_field():
    """OpenAI's and Anthropic's clients take anything; their types, applied strictly, take our fakes as well."""
    ChatCompletion.model_validate(UNARY["openai"])
    for chunk in STREAMS["openai"]:
        ChatCompletionChunk.model_validate(chunk)
    CreateEmbeddingResponse.model_validate(EMBEDDINGS["openai"])
    Message.model_validate(UNARY["anthropic"])
    known: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in STREAMS["anthropic"]:
        if event["type"] != "ping":  # the types leave it out
            known.validate_python(event)


def test_thoughts_of_small_answers(upstream, cohere_client, ollama_client):
    """What a vendor thinks before a call is read where its client has it."""
    upstream.will(answer("cohere", calls=True))
    assert cohere_client.chat(model=MODEL, messages=HELLO).message.tool_plan == "I will ask."
    upstream.will(answer("ollama", calls=True))
    assert ollama_client.chat(model=MODEL, messages=HELLO).message.thinking == "I will ask."


def test_the_clients_own_gathering(upstream, anthropic_client, openai_client):
    """The helpers that gather a stream to one answer gather ours."""
    upstream.will(Answer.events(as_events("anthropic", "\n")))
    with anthropic_client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
        assert anthropic_told(stream.get_final_message().model_dump(warnings=False)) == SMALL
    upstream.will(Answer.events(as_events("openai", "\n")))
    with openai_client.chat.completions.stream(
        model=MODEL, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        assert openai_told(stream.get_final_completion().model_dump(warnings=False)) == SMALL


# ---- vectors


def vectors_by_openai(client: openai.OpenAI) -> Any:
    result = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    return [each.embedding for each in result.data], result.usage.prompt_tokens


def vectors_by_gemini(client: genai.Client) -> Any:
    result = client.models.embed_content(model=MODEL, contents=["a", "b"])
    return [each.values for each in result.embeddings], None


def vectors_by_cohere(client: cohere.ClientV2) -> Any:
    result = client.embed(
        model=MODEL, texts=["a", "b"], input_type="search_document", embedding_types=["float"]
    )
    return result.embeddings.float_, result.meta.billed_units.input_tokens


def vectors_by_ollama(client: ollama.Client) -> Any:
    result = client.embed(model=MODEL, input=["a", "b"])
    return [list(each) for each in result.embeddings], result.prompt_eval_count


EMBEDDERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "openai": (vectors_by_openai, "/embeddings"),
    "gemini": (vectors_by_gemini, f"/models/{MODEL}:batchEmbedContents"),
    "cohere": (vectors_by_cohere, "/v2/embed"),
    "ollama": (vectors_by_ollama, "/api/embed"),
}


@pytest.mark.parametrize("provider", EMBEDDERS)
def test_small_embeddings(provider, upstream, vendors_client):
    """The client reads the vectors and the count, and asks at the address that we ask at."""
    read, path = EMBEDDERS[provider]
    upstream.will(Answer.json(EMBEDDINGS[provider]))
    assert read(vendors_client) == (VECTORS, None if provider == "gemini" else 3)
    assert upstream.only.path == BASES[provider] + path


def recorded_vectors(provider: str, document: Any) -> Any:
    if provider == "gemini":
        return [each["values"] for each in document["embeddings"]]
    if provider == "openai":
        return [each["embedding"] for each in document["data"]]
    return document["embeddings"]["float"] if provider == "cohere" else document["embeddings"]


ENDINGS = ("/v1/embeddings", ":batchEmbedContents", "/v2/embed", "/api/embed")


@needs_recordings
@pytest.mark.parametrize("provider", EMBEDDERS)
def test_recorded_embeddings(provider, upstream, vendors_client):
    """The client reads the vectors of every recorded answer whose numbers came as numbers."""
    folder = "embed" if provider == "cohere" else "embeddings"
    found = [
        interaction
        for recording in recordings(provider, folder)
        for interaction in recording.interactions
        if interaction.request["url"].endswith(ENDINGS)
        and not isinstance(recorded_vectors(provider, interaction.json)[0], str)
    ]
    assert found
    for interaction in found:
        upstream.will(replay(interaction))
        assert EMBEDDERS[provider][0](vendors_client)[0] == recorded_vectors(provider, interaction.json)


# ---- failures

STATUS = {"openai": 429, "anthropic": 529, "gemini": 400, "cohere": 400, "ollama": 404, "huggingface": 429}


def failure_of(provider: str, read: Callable[[Any], Any], client: Any) -> tuple[int, str]:
    """Return the status and the words of what a client raises."""
    kinds = (
        openai.APIStatusError,
        anthropic.APIStatusError,
        genai_errors.APIError,
        cohere.core.ApiError,
        ollama.ResponseError,
        HfHubHTTPError,
    )
    with pytest.raises(kinds) as caught:
        read(client)
    error: Any = caught.value
    match provider:
        case "openai":
            return error.status_code, error.body["message"]
        case "anthropic":
            return error.status_code, error.body["error"]["message"]
        case "gemini":
            return error.code, error.message
        case "cohere":
            return error.status_code, error.body["message"]
        case "ollama":
            return error.status_code, error.error
    return error.response.status_code, error.server_message


@each_provider
def test_small_errors(provider, upstream, vendors_client):
    """The client raises its own error with our fake's status and words, whole and streamed."""
    status = STATUS[provider]
    for read in READERS[provider]:
        upstream.will(Answer.json(ERRORS[provider], status))
        assert failure_of(provider, read, vendors_client) == (status, "busy")


def test_which_error_it_is(upstream, openai_client, anthropic_client, gemini_client):
    """The errors are of the kinds that callers tell apart, with the vendor's own word for it."""
    upstream.will(Answer.json(ERRORS["openai"], 429))
    with pytest.raises(openai.RateLimitError) as limited:
        by_openai(openai_client)
    assert limited.value.code == "rate_limit_exceeded"
    upstream.will(Answer.json(ERRORS["anthropic"], 529))
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        by_anthropic(anthropic_client)
    assert overloaded.value.body["error"]["type"] == "overloaded_error"
    upstream.will(Answer.json(ERRORS["gemini"], 400))
    with pytest.raises(genai_errors.ClientError) as rejected:
        by_gemini(gemini_client)
    assert rejected.value.status == "INVALID_ARGUMENT"


def recorded_words(provider: str, document: Any) -> str:
    if provider in {"openai", "anthropic", "gemini"}:
        return document["error"]["message"]
    return document["message" if provider == "cohere" else "error"]


@needs_recordings
@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "cohere", "ollama"])
def test_recorded_errors(provider, upstream, vendors_client):
    """The client raises every recorded failure with its status and words."""
    found = [
        interaction
        for recording in recordings(provider, "errors")
        for interaction in recording.interactions
        if interaction.status >= 400 and isinstance(interaction.json, dict)
        if "/v1/chat" not in interaction.request["url"] or provider == "openai"
    ]
    assert found
    for interaction in found:
        upstream.will(replay(interaction))
        expected = (interaction.status, recorded_words(provider, interaction.json))
        assert failure_of(provider, READERS[provider][0], vendors_client) == expected


# ---- recorded answers

FOLDERS = {
    "anthropic": ("messages", "messages-stream"),
    "gemini": ("generate", "tools", "json-schema", "stream"),
    "cohere": ("chat", "chat-stream"),
    "ollama": ("chat", "chat-stream"),
    **dict.fromkeys(OPENAI_SPEAKERS, ("chat", "chat-tools", "json-schema", "chat-stream")),
}


def recorded_url(interaction: Interaction) -> str:
    return interaction.request["url"] if interaction.request else ""


def is_chat(interaction: Interaction) -> bool:
    if interaction.status != 200 or (isinstance(interaction.json, dict) and "error" in interaction.json):
        return False
    if interaction.request is None:
        return True
    url = interaction.request["url"]
    return any(
        end in url for end in ("/chat/completions", "/messages", "enerateContent", "/v2/chat", "/api/chat")
    )


def recorded_told(provider: str, interaction: Interaction) -> Told:
    """Read a recorded answer with our own simple readers."""
    whole = interaction.json
    if provider == "ollama":
        return ollama_told([json.loads(line) for line in interaction.body.splitlines()])
    if provider == "gemini":
        return gemini_told(data_of(interaction.body) if whole is None else [whole])
    readers = {
        "anthropic": (anthropic_told, anthropic_stream_told),
        "cohere": (cohere_told, cohere_stream_told),
    }
    read, read_stream = readers.get(provider, (openai_told, openai_stream_told))
    return read_stream(data_of(interaction.body)) if whole is None else read(whole)


def answered(provider: str, interaction: Interaction) -> Answer:
    if provider == "ollama" and b"\n" in interaction.body.strip():
        return streamed("ollama", *cut(interaction.body))
    return replay(interaction)


RECORDED = [
    pytest.param(provider, interaction, id=f"{recording.id.removesuffix('.json')}-{number}")
    for provider, folders in FOLDERS.items()
    for recording in recordings(provider, *folders)
    for number, interaction in enumerate(recording.interactions)
    if is_chat(interaction)
    # What the vendor sends to those who ask for an array or for numbered enums, which its client does not.
    if not interaction.body.startswith(b"[") and "enum-encoding" not in recorded_url(interaction)
]


@needs_recordings
@pytest.mark.parametrize(("provider", "interaction"), RECORDED)
def test_recorded(provider, interaction, upstream, request):
    """The client reads the recorded text, calls, finish reason and counts, whole or streamed."""
    reader = provider if provider in READERS else "openai"
    client = request.getfixturevalue(f"{reader}_client")
    is_whole = interaction.json is not None and not is_stream(interaction)
    upstream.will(answered(provider, interaction))
    told = READERS[reader][0 if is_whole else 1](client)
    assert told == recorded_told(provider, interaction)
