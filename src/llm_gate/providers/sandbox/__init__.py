"""The built-in provider without a vendor: deterministic, free, and synthetic by its own word in every answer.

It speaks the OpenAI dialect through the same codecs as a real vendor; only the wire is missing. The header
`x-llm-gate-sandbox: fail=429; delay_ms=200; cut_after=3` makes it fail, wait, or break off after some pieces.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import structs

from llm_gate.dialects.openai import address
from llm_gate.dialects.openai_chat import OpenAIChat
from llm_gate.dialects.openai_embeddings import OpenAIEmbedding, pack
from llm_gate.dialects.openai_errors import decode_error, encode_error
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, HttpRequest, LocalReply, Provider, Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.providers.sandbox.control import CONTROL_HEADER, Control, read_control, with_control
from llm_gate.providers.sandbox.made_up import synthesise
from llm_gate.providers.sandbox.media import (
    SandboxFaceSwaps,
    SandboxImageEdits,
    SandboxImages,
    SandboxSpeech,
    SandboxTranscription,
    SandboxVideos,
)
from llm_gate.providers.sandbox.searching import SandboxSearch, respond_search
from llm_gate.providers.sandbox.studio import respond_media
from llm_gate.providers.sandbox.training import SandboxTuning, respond_training, tuned_from

__all__ = ["CONTROL_HEADER", "GREETING", "Control", "provider", "read_control", "respond"]

GREETING = "This is a synthetic answer from the LLM Gate sandbox; no model was called."

_DIMENSIONS = 256
_MAX_DIMENSIONS = 4096
_QUOTE_CHARS = 400
_BYTES_PER_TOKEN = 4
_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream"}
_FAILURES: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "bad_request"),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_FIRST_SERVER_STATUS = 500
_SERVER_ERROR = ("server_error", "server_error")
_REQUEST_ERROR = ("invalid_request_error", "sandbox_failure")


def _with_control(encoded: Encoded, target: Target) -> Encoded:
    return structs.replace(encoded, request=with_control(encoded.request, target))


class SandboxChat:
    """The OpenAI dialect's chat, with the control header carried along."""

    def __init__(self) -> None:
        self._wire = OpenAIChat(address)

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return _with_control(self._wire.encode(request, target), target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a complete answer."""
        return self._wire.decode(reply, request, target)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Read a streamed answer."""
        return self._wire.open_stream(request, target)


class SandboxEmbedding:
    """The OpenAI dialect's embedding, with the control header carried along."""

    def __init__(self) -> None:
        self._wire = OpenAIEmbedding(address)

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request."""
        return _with_control(self._wire.encode(request, target), target)

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read the vectors."""
        return self._wire.decode(reply, request, target)


def respond(request: HttpRequest, now_s: float) -> LocalReply:
    """Answer a request of the OpenAI dialect; the answer depends on the request alone, but for its date."""
    try:
        control = read_control(request.headers.get(CONTROL_HEADER))
    except InvalidRequest as error:
        return _refusal(error, 0.0)
    delay_s = control.delay_ms / 1000
    if control.fail is not None:
        return _failure(control.fail, delay_s)
    try:
        media = (
            respond_training(request, now_s)
            or respond_media(request, now_s)
            or respond_search(request, now_s)
        )
        if media is not None:
            return media if control.cut_after is None else _cut(media)
        body: dict[str, Any] = msgspec.json.decode(request.body)
        if request.url.endswith("/embeddings"):
            pieces, headers = [_embeddings(body)], _JSON
        else:
            pieces, headers = _chat(body, hashlib.sha256(request.body).hexdigest()[:24], int(now_s))
    except InvalidRequest as error:
        return _refusal(error, delay_s)
    broken = False
    if control.cut_after is not None and headers is _JSON:
        pieces, broken = [pieces[0][: len(pieces[0]) // 2]], True
    elif control.cut_after is not None and control.cut_after < len(pieces):
        pieces, broken = pieces[: control.cut_after], True
    return LocalReply(status=200, headers=headers, chunks=iter(pieces), delay_s=delay_s, broken=broken)


def _cut(reply: LocalReply) -> LocalReply:
    """Return the first half of an answer that is no stream."""
    whole = b"".join(reply.chunks)
    return structs.replace(reply, chunks=iter((whole[: len(whole) // 2],)), broken=True)


def _refusal(error: InvalidRequest, delay_s: float) -> LocalReply:
    message = f"{error.message} (synthetic)"
    body = encode_error(message, kind="invalid_request_error", code=error.code, param=error.param)
    return LocalReply(status=400, headers=_JSON, chunks=iter((body,)), delay_s=delay_s)


def _failure(status: int, delay_s: float) -> LocalReply:
    unnamed = _SERVER_ERROR if status >= _FIRST_SERVER_STATUS else _REQUEST_ERROR
    kind, code = _FAILURES.get(status, unnamed)
    message = f"The sandbox failed with status {status}, as the {CONTROL_HEADER} header asked (synthetic)."
    headers = {**_JSON, "retry-after": "1"} if status in {429, 503} else _JSON
    body = encode_error(message, kind=kind, code=code, param=None)
    return LocalReply(status=status, headers=headers, chunks=iter((body,)), delay_s=delay_s)


def _chat(body: dict[str, Any], key: str, now_s: int) -> tuple[list[bytes], dict[str, str]]:
    for name in ("logprobs", "audio", "functions"):
        if body.get(name):
            raise InvalidRequest(f"{name}: the sandbox cannot do this", param=name)
    if set(body.get("modalities") or ["text"]) != {"text"}:
        raise InvalidRequest("modalities: the sandbox answers in text only", param="modalities")
    if not body["messages"]:
        # Turns without any content vanish when other formats are translated.
        raise InvalidRequest("messages: the sandbox needs at least one with content", param="messages")
    head = {
        "id": f"chatcmpl-sandbox-{key}",
        "created": now_s,
        "model": body["model"],
        "system_fingerprint": "synthetic",
        "synthetic": True,
    }
    call = _tool_call(body, key)
    words, reason = ([], "tool_calls") if call else _words(body)
    count = body.get("n") or 1
    prompt = _tokens(msgspec.json.encode([body["messages"], body.get("tools") or []]))
    produced = msgspec.json.encode(call) if call else "".join(words).encode()
    completion = max(len(words), 1) if words else _tokens(produced)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion * count,
        "total_tokens": prompt + completion * count,
    }
    if body.get("stream"):
        return list(
            _stream(head, words, call, reason, usage if _wants_usage(body) else None, count=count)
        ), _EVENTS
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words) if call is None else None}
    if call is not None:
        message["tool_calls"] = [call]
    choices = [
        {"index": i, "message": message, "logprobs": None, "finish_reason": reason} for i in range(count)
    ]
    answer = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
    return [msgspec.json.encode(answer)], _JSON


def _wants_usage(body: dict[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _stream(
    head: dict[str, Any],
    words: list[str],
    call: dict[str, Any] | None,
    reason: str,
    usage: dict[str, int] | None,
    *,
    count: int,
) -> Iterator[bytes]:
    def event(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    for index in range(count):
        yield event(index, {"role": "assistant", "content": None if call else ""})
        for word in words:
            yield event(index, {"content": word})
        if call is not None:
            arguments = call["function"]["arguments"]
            opening = {**call, "index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}
            yield event(index, {"tool_calls": [opening]})
            half = len(arguments) // 2
            for piece in (arguments[:half], arguments[half:]):
                yield event(index, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield event(index, {}, reason)
    if usage is not None:
        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _tool_call(body: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Ask for a tool when one is offered and none has just answered."""
    tools = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice") or "auto"
    answered = body["messages"][-1]["role"] in {"tool", "function"}
    if not tools or choice == "none" or (answered and choice == "auto"):
        return None
    wanted = (
        choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else tools[0]["name"]
    )
    chosen = next((tool for tool in tools if tool["name"] == wanted), None)
    if chosen is None:
        raise InvalidRequest(f"tool_choice: no tool is named {wanted!r}", param="tool_choice")
    parameters = chosen.get("parameters")
    schema = {**(parameters if isinstance(parameters, dict) else {}), "type": "object"}
    arguments = msgspec.json.encode(synthesise(schema)).decode()
    return {
        "id": f"call_{key}",
        "type": "function",
        "function": {"name": chosen["name"], "arguments": arguments},
    }


def _words(body: dict[str, Any]) -> tuple[list[str], str]:
    """Return the answer in words, each with its blank, and why it ends."""
    text = _text(body)
    stop = body.get("stop") or []
    for mark in [stop] if isinstance(stop, str) else stop:
        text = text.partition(mark)[0] if mark else text
    words = [word if i == 0 else f" {word}" for i, word in enumerate(text.split(" "))]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None and len(words) > limit:
        return words[:limit], "length"
    return words, "stop"


def _text(body: dict[str, Any]) -> str:
    wanted = body.get("response_format") or {"type": "text"}
    if wanted["type"] == "json_schema":
        schema = wanted["json_schema"].get("schema") or {"type": "object"}
        return msgspec.json.encode(synthesise(schema)).decode()
    last = body["messages"][-1]
    said, pictures = _said(last)
    if wanted["type"] == "json_object":
        return msgspec.json.encode({"synthetic": True, "answer": GREETING, "you_said": said}).decode()
    seen = f" It came with {pictures} media part(s), which nobody looked at." if pictures else ""
    if last["role"] in {"tool", "function"}:
        return f"{GREETING} The tool said: {said}"
    base = tuned_from(body["model"])
    whose = "" if base is None else f" It speaks as {body['model']}, tuned from {base}."
    return f"{GREETING}{whose} You said: {said}{seen}"


def _said(message: dict[str, Any]) -> tuple[str, int]:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content[:_QUOTE_CHARS], 0
    text = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return text[:_QUOTE_CHARS], sum(1 for part in content if part.get("type") != "text")


def _tokens(data: bytes) -> int:
    return max(1, math.ceil(len(data) / _BYTES_PER_TOKEN))


def _embeddings(body: dict[str, Any]) -> bytes:
    given = body["input"]
    texts = [given] if isinstance(given, str) else given
    if texts and isinstance(texts[0], int):
        texts = [texts]
    size = body.get("dimensions") or _DIMENSIONS
    if size > _MAX_DIMENSIONS:
        raise InvalidRequest(f"dimensions: at most {_MAX_DIMENSIONS}", param="dimensions")
    wants_base64 = body.get("encoding_format") == "base64"
    data = []
    tokens = 0
    for index, text in enumerate(texts):
        words = text.lower().split() if isinstance(text, str) else [str(token) for token in text]
        tokens += _tokens(text.encode()) if isinstance(text, str) else len(text)
        vector = _vector(words, size)
        data.append(
            {"object": "embedding", "index": index, "embedding": pack(vector) if wants_base64 else vector}
        )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode(
        {"object": "list", "data": data, "model": body["model"], "usage": usage, "synthetic": True}
    )


def _vector(words: list[str], size: int) -> tuple[float, ...]:
    """Hash words into a unit vector, so that texts which share words come out close to each other."""
    sums = [0.0] * size
    for word in words or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        for place in range(0, len(digest), 4):
            number = int.from_bytes(digest[place : place + 4], "big")
            sums[(number >> 1) % size] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in sums)) or 1.0
    return tuple(round(value / length, 6) for value in sums)


provider = Provider(
    dialect="openai",
    decode_error=decode_error,
    chat=SandboxChat(),
    embedding=SandboxEmbedding(),
    media={
        "image": SandboxImages(),
        "image_edit": SandboxImageEdits(),
        "face_swap": SandboxFaceSwaps(),
        "speech": SandboxSpeech(),
        "transcription": SandboxTranscription(),
        "search": SandboxSearch(),
    },
    jobs={"video": SandboxVideos()},
    tuning=SandboxTuning(),
    respond=respond,
)
