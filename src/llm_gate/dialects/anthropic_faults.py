"""Errors in Anthropic's Messages format, written to callers, with fields named as this format names them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_gate.dialects._json import ABSENT, is_given
from llm_gate.dialects.anthropic_turns import place_messages, read_turns
from llm_gate.dialects.usage_info import UsageInfo
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.requests import ChatRequest

# https://docs.claude.com/en/api/errors
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FIRST_SERVER_STATUS = 500

# Neutral names of parameters that this format calls otherwise.
_NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "response_format.json_schema.schema": "output_config.format.schema",
    "reasoning_effort": "output_config.effort",
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "messages[].reasoning_content": "messages[].content[].thinking",
}
_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.content\[(\d+)\])?(.*)", re.DOTALL)
_TOOL = re.compile(r"(tools\[\d*\])\.function\.(.*)", re.DOTALL)


def encode_error(message: str, *, status: int, request_id: str, usage_info: UsageInfo | None = None) -> bytes:
    """Write an error body; its type follows from the status."""
    default = "api_error" if status >= _FIRST_SERVER_STATUS else "invalid_request_error"
    error: dict[str, Any] = {"type": _TYPES.get(status, default), "message": message}
    if usage_info is not None:
        error["usage_info"] = usage_info
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id or None})


def encode_stream_error(error: bytes) -> bytes:
    """Write an error's body as an event, after which the stream ends without message_stop."""
    return b"event: error\ndata: " + error + b"\n\n"


def in_wire_names(names: Sequence[str], request: ChatRequest) -> tuple[str, ...]:
    """Return the names of parameters as this format has them."""
    return tuple(dict.fromkeys(_wire_name(name, request) for name in names))


def in_wire_words(error: InvalidRequest, request: ChatRequest) -> InvalidRequest:
    """Return an error of the translation with the field named as the caller knows it."""
    if error.param is None:
        return error
    name = _wire_name(error.param, request)
    message = error.message
    if message.startswith(error.param):
        message = name + message.removeprefix(error.param)
    return InvalidRequest(message, param=name, code=error.code)


def _wire_name(name: str, request: ChatRequest) -> str:
    if name in _NAMES:
        return _NAMES[name]
    if match := _TOOL.fullmatch(name):
        rest = "input_schema" if match[2] == "parameters" else match[2]
        return f"{match[1]}.{rest}"
    match = _MESSAGE.fullmatch(name)
    return name if match is None else _place(match, request)


def _place(match: re.Match[str], request: ChatRequest) -> str:
    """Find a neutral message, and its part, in the wire messages: the translation splits and adds some."""
    if request.wire is None:
        return match[0]
    # The instructions, if there are any, are the first neutral message.
    raw = request.wire.fields.get("system", ABSENT)
    system = msgspec.json.decode(raw) if is_given(raw) else ""
    has_system = bool(system) if isinstance(system, str) else any(block["text"] for block in system)
    try:
        placed = place_messages("…" if has_system else "", read_turns(request.wire.fields["messages"]))
    except InvalidRequest:
        return match[0]
    number = int(match[1])
    if number >= len(placed) or placed[number].place is None:
        return "system"
    _, index, blocks = placed[number]
    part = int(match[2]) if match[2] else None
    if part is None or part >= len(blocks):
        return f"messages[{index}].content"
    return f"messages[{index}].content[{blocks[part]}]"
