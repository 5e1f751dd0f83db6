"""What callers ask and what the fake upstream answers, as bytes in the vendors' wire formats."""

import json
from typing import Any

MODEL = "gpt-4o-mini"
CREATED_S = 1_700_000_000

_TEXT = (
    "Check the system log for the time of the restart first: a line that names the watchdog, the power supply or "
    "the scheduled update tells the three usual causes apart. If it is the update, move it or switch it off "
    "(article 4711). If nothing is logged at all, it is the power."
)
_SYSTEM = (
    "You are a concise assistant for a support desk. Answer in one paragraph, cite the article number where you "
    "can, and never invent prices."
)
_QUESTION = (
    "My router restarts every night at about three o'clock and then needs ten minutes to come back. I have changed "
    "the cable and the power supply. What should I check next, and which logs would you like to see?"
)


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


NUMBER = "@NUMBER@"
"""Where the load puts a number into a request that is to differ from all others."""


def request_body(model: str, *, stream: bool = False, varied: bool = False) -> bytes:
    """Write a chat request of half a kilobyte; `varied` ones have a place for a number."""
    question = f"{_QUESTION} ({NUMBER})" if varied else _QUESTION
    document: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    return _json(document)


OPENAI = _json(
    {
        "id": "chatcmpl-0123456789abcdefghijklmnopqrs",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 91,
            "completion_tokens": 64,
            "total_tokens": 155,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
)

GEMINI = _json(
    {
        "candidates": [
            {
                "content": {"parts": [{"text": _TEXT}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 91,
            "candidatesTokenCount": 64,
            "totalTokenCount": 155,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 91}],
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "0123456789abcdef",
    }
)

ANTHROPIC = _json(
    {
        "id": "msg_0123456789abcdefghijklmn",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 91,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 64,
        },
    }
)

CLOSING_EVENTS = 3
"""Events that follow the content of a stream: the finish reason, the usage, the end."""


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {
        "id": "chatcmpl-0123456789abcdefghijklmnopqrs",
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    return b"data: " + _json({**head, "choices": choices, **more}) + b"\n\n"


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


FIRST_EVENT = _chunk([_choice({"role": "assistant", "content": "The", "refusal": None})])
NEXT_EVENT = _chunk([_choice({"content": " word"})])
LAST_EVENTS = (
    _chunk([_choice({}, "stop")])
    + _chunk([], usage={"prompt_tokens": 91, "completion_tokens": 64, "total_tokens": 155})
    + b"data: [DONE]\n\n"
)
