"""Recorded embeddings of vendors: what is sent, and which vectors come back, on both surfaces."""

import base64
import struct
from dataclasses import dataclass
from typing import Any

import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    EMBEDDINGS,
    NATIVE_EMBEDDINGS,
    OPENAI_SPEAKERS,
    assert_arrived,
    replay,
    wire_model,
)
from support.upstream import Answer

needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


@dataclass(frozen=True)
class Case:
    """One recorded embedding call."""

    id: str
    provider: str
    interaction: Interaction

    @property
    def recorded(self) -> dict[str, Any]:
        """The request as recorded."""
        return self.interaction.request["body"]

    @property
    def path(self) -> str:
        """The address behind the vendor's own."""
        if self.provider != "azure_openai":
            return "/embeddings"
        model = wire_model(self.provider, self.recorded["model"])
        return f"/openai/deployments/{model}/embeddings?api-version=2024-10-21"


CASES = [
    Case(recording.id.removesuffix(".json"), provider, interaction)
    for provider in OPENAI_SPEAKERS
    for recording in recordings(provider, "embeddings")
    for interaction in recording.interactions
]
GEMINI = [
    Case(recording.id.removesuffix(".json"), "gemini", interaction)
    for recording in recordings("gemini", "embeddings")
    for interaction in recording.interactions
    if ":batchEmbedContents" in interaction.request["url"]
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in cases])


def numbers(embedding: Any) -> list[float]:
    """Return a vector's numbers, unpacked where they are packed."""
    if not isinstance(embedding, str):
        return list(embedding)
    raw = base64.b64decode(embedding)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def texts_of(given: Any) -> list[str]:
    """Return a text for each input; the native surface takes no token ids."""
    return [item if isinstance(item, str) else "x" for item in ([given] if isinstance(given, str) else given)]


@needs_recordings
@each(CASES)
def test_openai_format(case, upstream, caller):
    """The recorded vectors come back in the recorded encoding, and the recorded request arrives."""
    upstream.will(replay(case.interaction))
    got = caller.post(EMBEDDINGS, {**case.recorded, "model": f"{case.provider}/{case.recorded['model']}"})
    assert got.status == 200, got.body
    recorded = case.interaction.json
    assert [item["embedding"] for item in got.json["data"]] == [
        item["embedding"] for item in recorded["data"]
    ]
    counts = {key: got.json["usage"][key] for key in ("prompt_tokens", "total_tokens")}
    assert counts == {key: recorded["usage"][key] for key in counts}
    assert got.json["object"] == "list"
    assert_arrived(upstream.only, case.provider, case.path)
    model = wire_model(case.provider, case.recorded["model"])
    assert upstream.only.json == {**case.recorded, "model": model}
    assert got.headers["x-llm-gate-model"] == model


@needs_recordings
@each(CASES)
def test_official_client(case, upstream, client):
    """The official client, which asks for base64 by itself, gets numbers out of every recording."""
    upstream.will(replay(case.interaction))
    named = ("input", "dimensions", "user", "encoding_format")
    given = {key: case.recorded[key] for key in named if key in case.recorded}
    result = client.embeddings.create(model=f"{case.provider}/{case.recorded['model']}", **given)
    vectors = [numbers(item.embedding) for item in result.data]
    wanted = [numbers(item["embedding"]) for item in case.interaction.json["data"]]
    assert vectors == [pytest.approx(vector, abs=1e-7) for vector in wanted]


@needs_recordings
@each(CASES)
def test_native(case, upstream, caller):
    """The native surface gives the recorded vectors as numbers, with the counts."""
    upstream.will(replay(case.interaction))
    texts = texts_of(case.recorded["input"])
    model = {"name": case.provider, "model": {"name": case.recorded["model"]}}
    got = caller.post(NATIVE_EMBEDDINGS, {"content": {"texts": texts}, "provider": model})
    assert got.status == 200, got.body
    recorded = case.interaction.json
    assert got.json["data"] == [numbers(item["embedding"]) for item in recorded["data"]]
    usage = recorded["usage"]
    assert got.json["usage"] == {
        "promptTokens": usage["prompt_tokens"],
        "totalTokens": usage["total_tokens"],
    }
    assert_arrived(upstream.only, case.provider, case.path)
    assert upstream.only.json["input"] == texts


def gemini_texts(case: Case) -> list[str]:
    return [item["content"]["parts"][0]["text"] for item in case.recorded["requests"]]


def gemini_model(case: Case) -> str:
    return case.interaction.request["url"].rpartition("/models/")[2].partition(":")[0]


def gemini_request(case: Case) -> dict[str, Any]:
    """Return an OpenAI-format request that says what the recorded one says."""
    asked = {"model": f"gemini/{gemini_model(case)}", "input": gemini_texts(case)}
    size = case.recorded["requests"][0].get("outputDimensionality")
    return asked if size is None else {**asked, "dimensions": size}


@needs_recordings
@each(GEMINI)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_gemini(case, encoding, upstream, caller):
    """Gemini's vectors come back in the wanted encoding; one request for each text goes out."""
    upstream.will(replay(case.interaction))
    got = caller.post(EMBEDDINGS, {**gemini_request(case), "encoding_format": encoding})
    assert got.status == 200, got.body
    data = got.json["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    assert {type(item["embedding"]) for item in data} == {str if encoding == "base64" else list}
    wanted = [item["values"] for item in case.interaction.json["embeddings"]]
    assert [numbers(item["embedding"]) for item in data] == [
        pytest.approx(vector, abs=1e-7) for vector in wanted
    ]
    counts = case.interaction.json.get("usageMetadata")
    assert ("usage" in got.json) == bool(counts)
    if counts:
        assert got.json["usage"]["prompt_tokens"] == counts["promptTokenCount"]
    model = wire_model("gemini", gemini_model(case))
    assert_arrived(upstream.only, "gemini", f"/models/{model}:batchEmbedContents")
    sizes = [item.get("outputDimensionality") for item in case.recorded["requests"]]
    assert upstream.only.json == {
        "requests": [
            {
                "model": f"models/{model}",
                "content": {"parts": [{"text": text}]},
                **({} if size is None else {"outputDimensionality": size}),
            }
            for text, size in zip(gemini_texts(case), sizes, strict=True)
        ]
    }


@needs_recordings
@each(GEMINI)
def test_gemini_native(case, upstream, caller):
    """The native surface gives Gemini's vectors as recorded."""
    upstream.will(replay(case.interaction))
    named = {"name": "google", "model": {"name": gemini_model(case)}}
    got = caller.post(NATIVE_EMBEDDINGS, {"content": {"texts": gemini_texts(case)}, "provider": named})
    assert got.status == 200, got.body
    assert got.json["data"] == [item["values"] for item in case.interaction.json["embeddings"]]


# ---- without recordings


def openai_vectors(*vectors: Any) -> Answer:
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return Answer.json({"object": "list", "data": data, "model": "m", "usage": usage})


PACKED = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()


@pytest.mark.parametrize("sent", [[0.5, -0.25], PACKED])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_encoding_that_the_vendor_ignores(sent, encoding, upstream, caller):
    """The caller gets the encoding it asked for, whatever the vendor sent."""
    upstream.will(openai_vectors(sent))
    got = caller.post(EMBEDDINGS, {"model": "mistral/m", "input": "Hello", "encoding_format": encoding})
    assert got.json["data"][0]["embedding"] == (PACKED if encoding == "base64" else [0.5, -0.25])
    assert got.json["usage"]["prompt_tokens"] == 3


def test_token_ids(upstream, caller):
    """Lists of token ids reach a vendor of the format, and are refused where they mean nothing."""
    upstream.will(openai_vectors([0.5], [0.25]))
    got = caller.post(EMBEDDINGS, {"model": "openai/m", "input": [[1, 2], [3]]})
    assert got.status == 200
    assert upstream.only.json["input"] == [[1, 2], [3]]
    upstream.will(openai_vectors([0.5]))
    assert caller.post(EMBEDDINGS, {"model": "openai/m", "input": [1, 2]}).status == 200
    assert upstream.only.json["input"] == [1, 2]
    upstream.will(openai_vectors([0.5]))
    refused = caller.post(EMBEDDINGS, {"model": "gemini/m", "input": [1, 2]})
    assert (refused.status, refused.json["error"]["param"]) == (400, "input")
    assert upstream.seen == []


def test_wrong_number_of_vectors(upstream, caller):
    """An answer with too few or too many vectors is no answer."""
    for vectors in ([], [[0.5]], [[0.5], [0.5], [0.5]]):
        upstream.will(openai_vectors(*vectors))
        got = caller.post(EMBEDDINGS, {"model": "openai/m", "input": ["a", "b"]})
        assert (got.status, got.json["error"]["code"]) == (502, "bad_provider_response")


def test_a_provider_without_embeddings(upstream, caller):
    """Asking a vendor for what it does not offer is the caller's mistake, and nothing is sent."""
    upstream.will(openai_vectors([0.5]))
    got = caller.post(EMBEDDINGS, {"model": "anthropic/claude-haiku-4-5", "input": "Hello"})
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
    assert upstream.seen == []
