"""Recorded failures of vendors: status, body and retry hint on both surfaces; nothing of a credential."""

from dataclasses import dataclass
from typing import Any

import openai
import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import (
    CHAT,
    EMBEDDINGS,
    NATIVE_CHAT,
    NATIVE_EMBEDDINGS,
    NATIVE_STREAM,
    VENDORS,
    Got,
    native_chat,
    plain_chat,
    replay,
)

MODEL = "some-model"
AUTH, GONE, REJECTED, LONG, LIMITED, DOWN, FILTERED = (
    "provider_auth_failed",
    "provider_model_not_found",
    "provider_rejected",
    "context_length_exceeded",
    "rate_limit_exceeded",
    "provider_unavailable",
    "content_filter",
)
STATUS = {AUTH: 502, GONE: 502, REJECTED: 400, LONG: 400, LIMITED: 429, DOWN: 503, FILTERED: 400}
TYPE = {400: "invalid_request_error", 429: "rate_limit_error", 502: "server_error", 503: "server_error"}
NATIVE_CODE = {400: "ERROR_001", 429: "ERROR_003", 502: "ERROR_502", 503: "ERROR_503"}

# What each recording must come out as, with the field it blames and the seconds it asks for.
EXPECTED: dict[str, tuple[str, str | None, str | None]] = {
    "openai/errors/400-context-length": (LONG, "input", None),
    "openai/errors/400-image-url": (REJECTED, None, None),
    "openai/errors/400-responses-model": (GONE, "model", None),
    "openai/errors/400-unknown-parameter": (REJECTED, "web_search_options", None),
    "openai/errors/400-unsupported-parameter-then-retry": (REJECTED, "stop", None),
    "openai/errors/401-chat-invalid-key": (AUTH, None, None),
    "openai/errors/401-responses-invalid-key": (AUTH, None, None),
    "openai/errors/401-stream-wrong-key": (AUTH, None, None),
    "openai/errors/404-chat-model": (GONE, None, None),
    "openai/errors/404-embedding-model": (GONE, None, None),
    "openai/errors/404-model-delete": (GONE, "model", None),
    "openai/errors/500-vector-store": (DOWN, None, None),
    "azure_openai/chat/prompt-filter-error-in-200": (FILTERED, "prompt", None),
    "azure_openai/errors/401-embeddings": (AUTH, None, None),
    "azure_openai/errors/401-key": (AUTH, None, None),
    "azure_openai/errors/404-deployment": (GONE, None, None),
    "azure_openai/errors/429-retry-after-ms": (LIMITED, None, "1"),
    "anthropic/errors/400-bad-request": (REJECTED, None, None),
    "anthropic/errors/400-context-length": (LONG, None, None),
    "anthropic/errors/400-unsupported-effort": (REJECTED, None, None),
    "anthropic/errors/401-key-older": (AUTH, None, None),
    "anthropic/errors/401-key": (AUTH, None, None),
    "anthropic/errors/404-count-tokens": (GONE, None, None),
    "anthropic/errors/404-model": (GONE, None, None),
    "gemini/errors/400-key-invalid-stream": (AUTH, None, None),
    "gemini/errors/400-key-invalid": (AUTH, None, None),
    "gemini/errors/400-vertex-context-length": (LONG, None, None),
    "gemini/errors/400-vertex-image-url": (REJECTED, None, None),
    "gemini/errors/403-unregistered": (AUTH, None, None),
    "gemini/errors/404-embed-model": (GONE, None, None),
    "gemini/errors/404-model": (GONE, None, None),
    "gemini/errors/429-plain": (LIMITED, None, None),
    "gemini/errors/429-retry-info": (LIMITED, None, "48"),
    "mistral/errors/401-key": (AUTH, None, None),
    "groq/errors/400-tool-use-failed-then-retry": (REJECTED, None, None),
    "groq/errors/404-model": (GONE, None, None),
    "openrouter/errors/400-context-length": (REJECTED, None, None),
    "openrouter/errors/401-key": (AUTH, None, None),
    "openrouter/errors/429-free-model": (LIMITED, None, "26"),
    "openrouter/errors/429-upstream": (LIMITED, None, None),
    "huggingface/errors/400-missing-input": (REJECTED, None, None),
    "huggingface/errors/404-plain-text": (GONE, None, None),
}
# Calls of operations that are none of ours here, and what an operation of ours never answers.
UNFIT = {"openai/errors/404-fine-tune-job"}


@dataclass(frozen=True)
class Case:
    """One recorded failure."""

    id: str
    provider: str
    interaction: Interaction


def is_failure(interaction: Interaction) -> bool:
    return interaction.status >= 400 or (isinstance(interaction.json, dict) and "error" in interaction.json)


CASES = [
    Case(recording.id.removesuffix(".json"), provider, interaction)
    for provider in VENDORS
    for recording in recordings(provider, "errors", "chat")
    for interaction in recording.interactions
    if is_failure(interaction) and recording.id.removesuffix(".json") not in UNFIT
]
each_failure = pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
needs_recordings = pytest.mark.skipif(recorded_root() is None, reason=REASON)


def bodies(provider: str) -> dict[str, Any]:
    """Return a request for each route on which a vendor's failure can come."""
    named = native_chat(provider, MODEL)
    found: dict[str, Any] = {CHAT: plain_chat(provider, MODEL), NATIVE_CHAT: named, NATIVE_STREAM: named}
    if provider != "anthropic":
        found[EMBEDDINGS] = {"model": f"{provider}/{MODEL}", "input": "Hello"}
        found[NATIVE_EMBEDDINGS] = {"content": {"texts": ["Hello"]}, "provider": named["provider"]}
    return found


def assert_openai_error(got: Got, code: str, param: str | None = None) -> None:
    (error,) = got.json.values()
    assert {**error, "message": ""} == {"message": "", "type": TYPE[got.status], "param": param, "code": code}


def assert_native_error(got: Got) -> None:
    (detail,) = got.json["errorDetails"]
    assert got.json.keys() == {"errorDetails"}
    assert detail["statusCode"] == NATIVE_CODE[got.status]
    assert detail.keys() <= {"statusCode", "message", "details"}


def assert_failure(got: Got, path: str, expected: tuple[str, str | None, str | None], provider: str) -> None:
    code, param, wait = expected
    assert got.status == STATUS[code], got.body
    assert got.headers["content-type"] == "application/json"
    if path.startswith("/llm-gate"):
        assert_native_error(got)
    else:
        assert_openai_error(got, code, param)
    assert got.headers.get("retry-after") == wait
    assert got.headers.get("x-should-retry") == ("false" if code in {AUTH, GONE} else None)
    text = got.body.decode()
    assert provider in text
    if code == GONE:
        assert MODEL in text


@needs_recordings
@each_failure
def test_recorded_failure(case, upstream, caller):
    """A recorded failure has its status, body and retry hint on every route, streamed or not."""
    for path, body in bodies(case.provider).items():
        upstream.will(replay(case.interaction))
        got = caller.post(path, body)
        assert_failure(got, path, EXPECTED[case.id], case.provider)
        assert len(upstream.seen) == 1
    upstream.will(replay(case.interaction))
    got = caller.post(CHAT, plain_chat(case.provider, MODEL, stream=True))
    assert_failure(got, CHAT, EXPECTED[case.id], case.provider)


CLIENT_ERRORS = {400: openai.BadRequestError, 429: openai.RateLimitError}


@needs_recordings
@each_failure
def test_official_client(case, upstream, client):
    """The official client raises the class that belongs to the status, with code and parameter."""
    upstream.will(replay(case.interaction))
    code, param, _ = EXPECTED[case.id]
    kind = CLIENT_ERRORS.get(STATUS[code], openai.InternalServerError)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**plain_chat(case.provider, MODEL))
    assert (caught.value.code, caught.value.param) == (code, param)


@needs_recordings
def test_every_recorded_failure_is_expected():
    """Each recorded failure of these vendors has a row above, and each row a recording."""
    assert {case.id for case in CASES} == EXPECTED.keys()
