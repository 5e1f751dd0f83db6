"""What a vendor's answer looks like on the wire, in three dialects: for fake providers. Knows nothing of the gateway.

Each dialect turns an ask into a whole document, or into the frames of a stream: an opening, the pieces with content, a
closing. `usage` says what is told of the tokens: "plain", "missing", "null", "negative", "absurd" or "twice".
"""

import json
import re
from dataclasses import dataclass
from typing import Any

INPUT_TOKENS = 7
_ABSURD = 10**15
_GEMINI_PATH = re.compile(r"/models/([^/:]+):(\w+)")
_TEXT = re.compile(r"call:([\w.-]+)(?: (\{.*\}))?")


@dataclass(frozen=True)
class Ask:
    """A request as a vendor reads it. `call` and `orders` are what its text says: `call:NAME {"fault": ...}`."""

    dialect: str
    model: str
    is_stream: bool
    wants_usage: bool
    call: str
    orders: dict[str, Any]


def text_of(call: str, **orders: Any) -> str:
    """Return a text that names a call, and orders a fault for it alone."""
    return f"call:{call} {json.dumps(orders)}" if orders else f"call:{call}"


def read_ask(path: str, body: bytes) -> Ask | None:
    """Read a request; None where it is none of the three."""
    try:
        document = json.loads(body or b"{}")
        call, orders = _told(_last_text(document))
        dialect, model, is_stream = _addressed(path, document)
        options = document.get("stream_options") or {}
        return Ask(
            dialect=dialect,
            model=model,
            is_stream=is_stream,
            wants_usage=bool(options.get("include_usage")),
            call=call,
            orders=orders,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _addressed(path: str, document: dict[str, Any]) -> tuple[str, str, bool]:
    """Return the dialect, the model, and whether a stream is asked for."""
    if match := _GEMINI_PATH.search(path):
        return "gemini", match[1], match[2].startswith("stream")
    dialect = "openai" if path.endswith("/chat/completions") else "anthropic"
    if dialect == "anthropic" and not path.endswith("/messages"):
        raise ValueError(path)
    return dialect, document["model"], bool(document.get("stream"))


def _last_text(document: dict[str, Any]) -> str:
    turns = document.get("messages") or document.get("contents") or [{}]
    content = turns[-1].get("content") or turns[-1].get("parts") or ""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content)


def _told(text: str) -> tuple[str, dict[str, Any]]:
    match = _TEXT.search(text)
    if match is None:
        return "", {}
    return match[1], json.loads(match[2]) if match[2] else {}


def _counted(input_name: str, output_name: str, output: int, usage: str) -> dict[str, Any] | None:
    if usage == "missing":
        return None
    if usage == "null":
        return {input_name: None, output_name: None}
    if usage == "negative":
        return {input_name: -5, output_name: -1}
    if usage == "absurd":
        return {input_name: _ABSURD, output_name: _ABSURD}
    return {input_name: INPUT_TOKENS, output_name: output}


def whole(ask: Ask, words: int, usage: str) -> Any:
    """Return a complete answer of so many words."""
    text = "wörd " * words
    if ask.dialect == "anthropic":
        found: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": ask.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
        }
        counted = _counted("input_tokens", "output_tokens", words, usage)
        return found if counted is None else {**found, "usage": counted}
    if ask.dialect == "gemini":
        return _gemini(ask, text, "STOP", _counted("promptTokenCount", "candidatesTokenCount", words, usage))
    message = {"role": "assistant", "content": text}
    found = _openai(ask, "chat.completion", {"message": message, "finish_reason": "stop"})
    counted = _counted("prompt_tokens", "completion_tokens", words, usage)
    return found if counted is None else {**found, "usage": counted}


def _openai(ask: Ask, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1_750_000_000,
        "model": ask.model,
        "choices": [{"index": 0, **choice}],
    }


def _gemini(ask: Ask, text: str, reason: str | None, counted: dict[str, Any] | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    found: dict[str, Any] = {"candidates": [candidate], "modelVersion": ask.model, "responseId": "r1"}
    return found if counted is None else {**found, "usageMetadata": counted}


@dataclass(frozen=True)
class Frames:
    """A streamed answer, as the bytes of its events."""

    opening: tuple[bytes, ...]
    pieces: tuple[bytes, ...]
    closing: tuple[bytes, ...]


def frame(document: Any, kind: str | None = None, end: str = "\n") -> bytes:
    """Return an event; `end` ends its lines."""
    data = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    head = "" if kind is None else f"event: {kind}{end}"
    return f"{head}data: {data}{end}{end}".encode()


def streamed(ask: Ask, words: int, usage: str, end: str = "\n") -> Frames:
    """Return the events of a complete answer, a word in each piece."""
    if ask.dialect == "anthropic":
        return _anthropic_frames(ask, words, usage, end)
    if ask.dialect == "gemini":
        counted = _counted("promptTokenCount", "candidatesTokenCount", words, usage)
        last = frame(_gemini(ask, "", "STOP", counted), end=end)
        pieces = tuple(frame(_gemini(ask, "wörd ", None, None), end=end) for _ in range(words))
        return Frames((), pieces, (last, last) if usage == "twice" else (last,))
    kind = "chat.completion.chunk"

    def chunk(delta: dict[str, Any], reason: str | None) -> bytes:
        return frame(_openai(ask, kind, {"delta": delta, "finish_reason": reason}), end=end)

    pieces = tuple(chunk({"role": "assistant", "content": "wörd "}, None) for _ in range(words))
    counted = _counted("prompt_tokens", "completion_tokens", words, usage)
    told = []
    if ask.wants_usage and counted is not None:
        told = [frame({**_openai(ask, kind, {}), "choices": [], "usage": counted}, end=end)]
    if usage == "twice":
        told *= 2
    return Frames((), pieces, (chunk({}, "stop"), *told, frame("[DONE]", end=end)))


def _anthropic_frames(ask: Ask, words: int, usage: str, end: str) -> Frames:
    counted = _counted("input_tokens", "output_tokens", words, usage)
    message = {**whole(ask, 0, "missing"), "content": [], "stop_reason": None}
    first = {} if counted is None else {"usage": {**counted, "output_tokens": counted["output_tokens"] and 1}}
    start = {"type": "message_start", "message": {**message, **first}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    piece = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "wörd "},
    }
    delta: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    }
    if counted is not None:
        delta["usage"] = {"output_tokens": counted["output_tokens"]}
    stop = {"type": "content_block_stop", "index": 0}
    deltas = [delta, delta] if usage == "twice" else [delta]
    closing = (stop, *deltas, {"type": "message_stop"})
    return Frames(
        tuple(frame(each, each["type"], end) for each in (start, block)),
        tuple(frame(piece, piece["type"], end) for _ in range(words)),
        tuple(frame(each, each["type"], end) for each in closing),
    )


def failure(
    dialect: str, status: int, *, code: str | None = None, wish_s: float | None = None
) -> dict[str, Any]:
    """Return an error's body; Gemini's tells a wish for patience in it."""
    message = "ordered by the test"
    if dialect == "anthropic":
        kind = code or {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if dialect == "gemini":
        name = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}.get(
            status, "INTERNAL"
        )
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wish_s}s"}
        details = [] if wish_s is None else [retry]
        return {"error": {"code": status, "message": message, "status": name, "details": details}}
    return {"error": {"message": message, "type": "server_error", "code": code, "param": None}}


def failure_frame(dialect: str) -> bytes:
    """Return an error inside a stream."""
    document = failure(dialect, 529 if dialect == "anthropic" else 503)
    return frame(document, "error" if dialect == "anthropic" else None)
