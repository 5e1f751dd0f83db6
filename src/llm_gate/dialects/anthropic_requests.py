"""Chat requests in Anthropic's Messages format, written for providers."""

import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._fields import carry_over
from llm_gate.dialects._json import is_given
from llm_gate.dialects.anthropic_wire import is_own
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.provider import Encoded, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest

SUPPORTED = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "thinking",
        "user",
    }
)
# What changes the meaning of the answer, under this format's own names.
_MEANINGFUL = frozenset({"messages", "system", "tools", "tool_choice", "stop_sequences", "output_config"})
_HEADERS: Mapping[str, str] = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
_DEFAULT_MAX_TOKENS = 4096
_LARGEST_DEFAULT_MAX_TOKENS = 8192
_MAX_TEMPERATURE = 1.0
# https://platform.claude.com/docs/en/build-with-claude/effort
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
_TOOL_CHOICES: Mapping[str, str] = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w.=+-]+)*;base64,(?P<data>.*)", re.DOTALL)
_NOT_IN_CALL_ID = re.compile(r"[^A-Za-z0-9_-]")
_object_decoder = msgspec.json.Decoder(dict[str, Raw])


def write_request(request: ChatRequest, target: Target) -> Encoded:
    """Build the request; a body that came in this format goes out as it came.

    Raises:
        InvalidRequest: it asks for something this format cannot say, or this provider does not take.
    """
    if request.wire is not None and is_own(request):
        body, dropped = _pass_on(request.wire.fields, target)
        if request.output_limit_tokens is not None:
            body["max_tokens"] = request.output_limit_tokens
        headers = {**_HEADERS, **request.wire.headers}
    else:
        body, dropped = _translate(request, target)
        headers = dict(_HEADERS)
    return Encoded(
        request=HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/v1/messages",
            body=msgspec.json.encode(body),
            headers=headers,
        ),
        dropped=dropped,
    )


def _pass_on(fields: Mapping[str, Raw], target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    spec = target.deployment.spec
    body: dict[str, Any] = {**fields, "model": target.wire_model}
    dropped = tuple(name for name in spec.drop if name in body and is_given(body[name]))
    for name in dropped:
        if name in _MEANINGFUL:
            raise InvalidRequest(
                f"{name}: provider {target.provider!r} does not take it",
                param=name,
                code="unsupported_parameter",
            )
    for name in spec.drop:
        body.pop(name, None)
    for old, new in spec.rename.items():
        if old in body:
            value = body.pop(old)
            body.setdefault(new, value)
    return body, dropped


def _translate(request: ChatRequest, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    dropped = carry_over(request, _expressible(request), target.provider)
    conversation = _Conversation()
    for index, message in enumerate(request.conversation.messages):
        conversation.add(message, index)
    if not conversation.turns:
        raise InvalidRequest("messages: must hold at least one message that is not empty", param="messages")
    body: dict[str, Any] = {
        "model": target.wire_model,
        "max_tokens": _max_tokens(request, target),
        "messages": conversation.written(),
    }
    if conversation.system:
        body["system"] = "\n\n".join(conversation.system)
    body |= _parameters(request)
    if request.tools:
        body["tools"] = [_tool(tool, index) for index, tool in enumerate(request.tools)]
    if (choice := _tool_choice(request)) is not None:
        body["tool_choice"] = choice
    if output := _output_config(request):
        body["output_config"] = output
    if request.stream:
        body["stream"] = True
    return body, (*dropped, *conversation.dropped)


def _expressible(request: ChatRequest) -> frozenset[str]:
    """Return the parameters that can be said with the values they have here."""
    without = set()
    if request.reasoning_effort not in _EFFORTS:
        without.add("reasoning_effort")
    if request.response_format is not None and request.response_format.kind == "json_object":
        without.add("response_format")
    if not request.tools:
        without.add("parallel_tool_calls")
    return SUPPORTED - without


def _max_tokens(request: ChatRequest, target: Target) -> int:
    """Return the limit, which this vendor insists on having."""
    if request.max_output_tokens is not None:
        return request.max_output_tokens
    if target.model.max_output_tokens is None:
        return _DEFAULT_MAX_TOKENS
    return min(target.model.max_output_tokens, _LARGEST_DEFAULT_MAX_TOKENS)


def _parameters(request: ChatRequest) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if request.temperature is not None:
        if request.temperature > _MAX_TEMPERATURE:
            raise InvalidRequest("temperature: this provider takes 0 to 1", param="temperature")
        written["temperature"] = request.temperature
    if request.top_p is not None:
        written["top_p"] = request.top_p
    if request.top_k is not None:
        written["top_k"] = request.top_k
    if request.stop:
        # Anthropic: "each stop sequence must contain non-whitespace".
        if not all(text.strip() for text in request.stop):
            raise _cannot("stop", "a stop sequence of white space only")
        written["stop_sequences"] = request.stop
    budget_tokens = request.thinking_budget_tokens
    if budget_tokens is not None:
        enabled = {"type": "enabled", "budget_tokens": budget_tokens}
        written["thinking"] = enabled if budget_tokens else {"type": "disabled"}
    if request.user is not None:
        written["metadata"] = {"user_id": request.user}
    return written


def _tool(tool: Tool, index: int) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    written["input_schema"] = _input_schema(tool.parameters, f"tools[{index}].function.parameters")
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written


def _input_schema(parameters: Raw | None, path: str) -> Any:
    if parameters is None or not is_given(parameters):
        return {"type": "object", "properties": {}}
    try:
        fields = _object_decoder.decode(parameters)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"{path}: must be a JSON Schema object", param=path) from None
    # Elsewhere `{}` is a fine schema for "no arguments"; here the type is required.
    return parameters if "type" in fields else {"type": "object", **fields}


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if not request.tools:
        if choice is not None and choice.mode in {"required", "named"}:
            raise InvalidRequest("tool_choice: needs tools to choose from", param="tool_choice")
        return None
    serial = request.parallel_tool_calls is False
    if choice is None and not serial:
        return None
    written: dict[str, Any] = {"type": "auto" if choice is None else _TOOL_CHOICES[choice.mode]}
    if choice is not None and choice.mode == "named":
        written["name"] = choice.name
    if serial and written["type"] != "none":
        written["disable_parallel_tool_use"] = True
    return written


def _output_config(request: ChatRequest) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if request.reasoning_effort in _EFFORTS:
        written["effort"] = request.reasoning_effort
    wanted = request.response_format
    if wanted is not None and wanted.kind == "json_schema":
        if wanted.schema is None or not is_given(wanted.schema):
            raise _cannot("response_format.json_schema.schema", "a JSON answer without a schema")
        written["format"] = {"type": "json_schema", "schema": wanted.schema}
    return written


class _Conversation:
    """Collects messages as this format has them: one system text, then turns that alternate."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.turns: list[tuple[str, list[dict[str, Any]]]] = []
        self._dropped: dict[str, None] = {}

    @property
    def dropped(self) -> tuple[str, ...]:
        """The hints inside messages that were left out."""
        return tuple(self._dropped)

    def written(self) -> list[dict[str, Any]]:
        """Return the turns; Anthropic wants tool results before anything else a user turn says."""
        return [
            {"role": role, "content": sorted(blocks, key=lambda block: block["type"] != "tool_result")}
            if role == "user"
            else {"role": role, "content": blocks}
            for role, blocks in self.turns
        ]

    def add(self, message: Message, index: int) -> None:
        """Take the next message."""
        if message.name is not None:
            self._dropped["messages[].name"] = None
        if message.role == "system":
            self._add_system(message, index)
            return
        role = "assistant" if message.role == "assistant" else "user"
        blocks = []
        for number, part in enumerate(message.parts):
            block = self._block(part, role, f"messages[{index}]", number)
            if block is not None:
                blocks.append(block)
        if not blocks:
            return
        if self.turns and self.turns[-1][0] == role:
            self.turns[-1][1].extend(blocks)
        else:
            self.turns.append((role, blocks))

    def _add_system(self, message: Message, index: int) -> None:
        for number, part in enumerate(message.parts):
            if not isinstance(part, TextPart):
                raise _cannot(f"messages[{index}].content[{number}]", "anything but text in a system message")
        if message.text.strip():
            self.system.append(message.text)

    def _block(self, part: Part, role: str, path: str, number: int) -> dict[str, Any] | None:
        where = f"{path}.content[{number}]"
        match part:
            case TextPart():
                return _text(part)
            case MediaPart() if role == "user":
                return self._media(part, where)
            case ToolResultPart() if role == "user":
                return self._tool_result(part, path)
            case ThinkingPart() if role == "assistant":
                return self._thinking(part)
            case ToolCallPart() if role == "assistant":
                return _tool_use(part, f"{path}.tool_calls")
        raise _cannot(
            where, f"a part of this kind in {'an assistant' if role == 'assistant' else 'a user'} turn"
        )

    def _thinking(self, part: ThinkingPart) -> dict[str, Any] | None:
        if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        if part.signature is not None:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        # Anthropic refuses thinking that it has not signed.
        self._dropped["messages[].reasoning_content"] = None
        return None

    def _tool_result(self, part: ToolResultPart, path: str) -> dict[str, Any]:
        written: dict[str, Any] = {"type": "tool_result", "tool_use_id": _call_id(part.tool_call_id)}
        blocks = []
        for number, piece in enumerate(part.content):
            where = f"{path}.content[{number}]"
            block = _text(piece) if isinstance(piece, TextPart) else self._media(piece, where)
            if block is not None:
                blocks.append(block)
        if blocks:
            written["content"] = blocks
        if part.is_error:
            written["is_error"] = True
        return written

    def _media(self, part: MediaPart, where: str) -> dict[str, Any]:
        if part.kind not in {"image", "file"}:
            raise _cannot(where, part.kind)
        if part.detail not in {None, "auto"}:
            self._dropped["messages[].content[].image_url.detail"] = None
        if part.kind == "image":
            return {"type": "image", "source": _source(part, where)}
        written: dict[str, Any] = {"type": "document", "source": _source(part, where)}
        if part.filename is not None:
            written["title"] = part.filename
        return written


def _text(part: TextPart) -> dict[str, Any] | None:
    # Anthropic: "text content blocks must contain non-whitespace text".
    return {"type": "text", "text": part.text} if part.text.strip() else None


def _source(part: MediaPart, where: str) -> dict[str, Any]:
    data, media_type = part.data, part.media_type
    if data is None:
        url = part.url or ""
        if url.startswith(("http://", "https://")):
            return {"type": "url", "url": url}
        match = _DATA_URL.fullmatch(url)
        if match is None:
            raise InvalidRequest(f"{where}: must be an http(s) link or a base64 data URL", param=where)
        data, media_type = match["data"], match["type"] or media_type
    if part.kind == "image":
        if media_type is None:
            raise InvalidRequest(f"{where}: the media type of the image is missing", param=where)
        return {"type": "base64", "media_type": media_type, "data": data}
    if media_type in {None, "application/pdf"}:
        return {"type": "base64", "media_type": "application/pdf", "data": data}
    if media_type == "text/plain":
        return {"type": "text", "media_type": media_type, "data": _decoded(data, where)}
    raise _cannot(where, f"a file of type {media_type}")


def _decoded(data: str, where: str) -> str:
    try:
        return binascii.a2b_base64(data).decode()
    except ValueError:
        raise InvalidRequest(f"{where}: is not text in base64", param=where) from None


def _tool_use(part: ToolCallPart, path: str) -> dict[str, Any]:
    text = part.arguments.strip() or "{}"
    try:
        _object_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"{path}: arguments must be a JSON object", param=path) from None
    return {"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": Raw(text.encode())}


def _call_id(call_id: str) -> str:
    """Return an id that Anthropic takes (letters, digits, _ and -); other vendors' ids may hold more."""
    return _NOT_IN_CALL_ID.sub("_", call_id)


def _cannot(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to this provider", param=path, code="unsupported_parameter"
    )
