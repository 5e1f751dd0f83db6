"""Small answers of every vendor's format, written by hand: whole and streamed, with text and a tool call."""

import json
from typing import Any

from support.upstream import Answer

ARGUMENTS = {"city": "Zürich", "days": 2}
ROME = {"city": "Rome"}
OPENAI_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
}
OPENAI_CALL = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
GEMINI_USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 2,
}

EMBEDDINGS: dict[str, Any] = {
    "openai": {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 2.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    },
    "gemini": {"embeddings": [{"values": [0.5, 0.25]}, {"values": [1, 2]}]},
    "cohere": {
        "id": "e",
        "embeddings": {"float": [[0.5, 0.25], [1, 2]]},
        "texts": ["a", "b"],
        "meta": {"billed_units": {"input_tokens": 3}},
    },
    "ollama": {"model": "nomic-embed-text", "embeddings": [[0.5, 0.25], [1, 2]], "prompt_eval_count": 3},
}
ERRORS: dict[str, Any] = {
    "openai": {
        "error": {"message": "busy", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    },
    "anthropic": {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy"},
        "request_id": "req_1",
    },
    "gemini": {"error": {"code": 400, "message": "busy", "status": "INVALID_ARGUMENT"}},
    "cohere": {"id": "x", "message": "busy"},
    "ollama": {"error": "busy"},
    "huggingface": {"error": "busy"},
}


def openai_chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a piece of a streamed answer in the OpenAI format."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": choices, **more}


UNARY: dict[str, Any] = {
    "openai": {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Grüezi 👋",
                    "tool_calls": [{"id": "t1", "type": "function", "function": OPENAI_CALL}],
                },
                "finish_reason": "tool_calls",
            }
        ],
        "usage": OPENAI_USAGE,
    },
    "anthropic": {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "Grüezi 👋"},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": ARGUMENTS},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 8, "cache_read_input_tokens": 4, "output_tokens": 7},
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Grüezi 👋"},
                        {"functionCall": {"name": "weather", "args": ARGUMENTS}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": GEMINI_USAGE,
        "modelVersion": "m",
        "responseId": "g1",
    },
}


def openai_stream() -> list[Any]:
    """Return a streamed answer in the OpenAI format."""
    call = {"index": 0, "id": "t1", "type": "function"}
    arguments = OPENAI_CALL["arguments"]
    return [
        openai_chunk({"role": "assistant", "content": "Grüezi"}),
        openai_chunk({"content": " 👋"}),
        openai_chunk({"tool_calls": [{**call, "function": {"name": "weather", "arguments": ""}}]}),
        openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[:9]}}]}),
        openai_chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[9:]}}]}),
        openai_chunk({}, "tool_calls"),
        openai_chunk({}, usage=OPENAI_USAGE, choices=[]),
    ]


def anthropic_stream() -> list[Any]:
    """Return a streamed answer in the Messages format."""
    message = {**UNARY["anthropic"], "content": [], "stop_reason": None}
    message["usage"] = {**message["usage"], "output_tokens": 1}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    arguments = OPENAI_CALL["arguments"]
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grüezi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " 👋"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        *(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in (arguments[:9], arguments[9:])
        ),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]


def gemini_stream() -> list[Any]:
    """Return a streamed answer in Gemini's format."""
    (candidate,) = UNARY["gemini"]["candidates"]
    _, call = candidate["content"]["parts"]
    pieces = ([{"text": "Grüezi"}], [{"text": " 👋"}], [call])
    chunks = [
        {
            **UNARY["gemini"],
            "candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}],
        }
        for parts in pieces
    ]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    return chunks


STREAMS = {"openai": openai_stream(), "anthropic": anthropic_stream(), "gemini": gemini_stream()}


def as_events(wire: str, end: str) -> bytes:
    """Write a stream with one of the three line ends."""
    written = []
    for event in STREAMS[wire]:
        name = [f"event: {event['type']}"] if wire == "anthropic" else []
        written.append(end.join([*name, f"data: {json.dumps(event, ensure_ascii=False)}", "", ""]))
    closing = f"data: [DONE]{end}{end}" if wire == "openai" else ""
    return f"{''.join(written)}{closing}".encode()


def answer(provider: str, *, calls: bool = False) -> Answer:
    """Return a complete answer of Cohere or Ollama: a text, or a call with reasoning before it."""
    if provider == "cohere":
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps(ROME)},
        }
        message = {"role": "assistant", "content": [{"type": "text", "text": "Ciao"}]}
        if calls:
            message = {"role": "assistant", "tool_plan": "I will ask.", "tool_calls": [call]}
        return Answer.json(
            {
                "id": "a",
                "message": message,
                "finish_reason": "TOOL_CALL" if calls else "COMPLETE",
                "usage": {
                    "billed_units": {"input_tokens": 5, "output_tokens": 2},
                    "tokens": {"input_tokens": 500, "output_tokens": 20},
                },
            }
        )
    message = {"role": "assistant", "content": "" if calls else "Ciao"}
    if calls:
        message["thinking"] = "I will ask."
        message["tool_calls"] = [{"function": {"name": "weather", "arguments": ROME}}]
    return Answer.json(
        {
            "model": "llama3.2",
            "created_at": "2026-11-20T12:00:00Z",
            "message": message,
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 2,
        }
    )


def pieces(provider: str) -> list[bytes]:
    """Return the parts of a streamed answer of Cohere or Ollama; the last one is its end."""
    if provider == "cohere":
        events = [
            {"type": "message-start", "id": "s", "delta": {"message": {"role": "assistant", "content": []}}},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "Hm."}}},
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"role": "assistant", "content": {"type": "text", "text": ""}}},
            },
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"role": "assistant", "content": {"text": "Ci"}}},
            },
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"role": "assistant", "content": {"text": "ao"}}},
            },
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {"billed_units": {"input_tokens": 5, "output_tokens": 2}},
                },
            },
        ]
        return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]
    lines = [
        {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": "Ci"}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": "ao"}, "done": False},
        {
            "model": "m",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 2,
        },
    ]
    return [json.dumps(each).encode() + b"\n" for each in lines]


def streamed(provider: str, *parts: bytes, **more: Any) -> Answer:
    """Answer with such parts."""
    kind = "text/event-stream" if provider == "cohere" else "application/x-ndjson"
    return Answer(headers={"content-type": kind}, pieces=parts, **more)
