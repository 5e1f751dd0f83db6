"""Chat requests in Cohere's second format, written for providers.

Contract: https://docs.cohere.com/reference/chat
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._fields import carry_over
from llm_gate.dialects._json import is_given
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.provider import Encoded, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest

JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}
SUPPORTED = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "stop",
        "seed",
        "tools",
        "tool_choice",
        "response_format",
    }
)
_THINKING = frozenset({"reasoning_effort", "thinking"})
_LEAST_P, _LARGEST_P = 0.01, 0.99
_object_decoder = msgspec.json.Decoder(dict[str, Raw])


def write_request(request: ChatRequest, target: Target) -> Encoded:
    """Build the request.

    Raises:
        InvalidRequest: it asks for something this format cannot say.
    """
    thinks = "thinking" in target.model.abilities
    dropped = carry_over(request, SUPPORTED | _THINKING if thinks else SUPPORTED, target.provider)
    conversation = _Conversation(thinks=thinks)
    for index, message in enumerate(request.conversation.messages):
        conversation.add(message, f"messages[{index}]")
    if not conversation.written:
        raise InvalidRequest("messages: must hold at least one message that is not empty", param="messages")
    body: dict[str, Any] = {
        "model": target.wire_model,
        "messages": conversation.written,
        "stream": request.stream,
        **_parameters(request),
        **_tools(request),
        **_response_format(request),
    }
    if thinks and (thinking := _thinking(request)) is not None:
        body["thinking"] = thinking
    return Encoded(
        request=HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/v2/chat",
            body=msgspec.json.encode(body),
            headers=JSON_HEADERS,
        ),
        dropped=(*dropped, *conversation.dropped),
    )


def _thinking(request: ChatRequest) -> dict[str, Any] | None:
    """Return the setting of a model that thinks: the vendor knows budgets and no levels."""
    budget_tokens = request.thinking_budget_tokens
    if budget_tokens:
        return {"type": "enabled", "token_budget": budget_tokens}
    if budget_tokens == 0 or request.reasoning_effort == "none":
        return {"type": "disabled"}
    return None if request.reasoning_effort is None else {"type": "enabled"}


def _parameters(request: ChatRequest) -> dict[str, Any]:
    for name in ("frequency_penalty", "presence_penalty"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 1:
            raise InvalidRequest(f"{name}: this provider takes 0 to 1", param=name)
    optional = {
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        # Elsewhere 1 means "all tokens"; here the range ends just below.
        "p": None if request.top_p is None else min(max(request.top_p, _LEAST_P), _LARGEST_P),
        "k": request.top_k,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "stop_sequences": request.stop or None,
        "seed": request.seed,
    }
    return {name: value for name, value in optional.items() if value is not None}


def _tools(request: ChatRequest) -> dict[str, Any]:
    choice, tools = request.tool_choice, request.tools
    forced = choice is not None and choice.mode in {"required", "named"}
    if not tools:
        if forced:
            raise InvalidRequest("tool_choice: needs tools to choose from", param="tool_choice")
        return {}
    if choice is not None and choice.mode == "named":
        # The vendor can force a call, but not of a certain tool: so that tool goes out alone.
        tools = tuple(tool for tool in tools if tool.name == choice.name)
        if not tools:
            raise InvalidRequest(f"tool_choice: no tool is called {choice.name!r}", param="tool_choice")
    written: dict[str, Any] = {"tools": [_tool(tool, index) for index, tool in enumerate(tools)]}
    if all(tool.strict for tool in tools):
        written["strict_tools"] = True
    if choice is not None and choice.mode != "auto":
        written["tool_choice"] = "REQUIRED" if forced else "NONE"
    return written


def _tool(tool: Tool, index: int) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    parameters: Any = {"type": "object", "properties": {}}
    if tool.parameters is not None and is_given(tool.parameters):
        path = f"tools[{index}].function.parameters"
        try:
            fields = _object_decoder.decode(tool.parameters)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest(f"{path}: must be a JSON Schema object", param=path) from None
        parameters = tool.parameters if "type" in fields else {"type": "object", **fields}
    return {"type": "function", "function": {**function, "parameters": parameters}}


def _response_format(request: ChatRequest) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None or wanted.kind == "text":
        return {}
    written: dict[str, Any] = {"type": "json_object"}
    if wanted.kind == "json_schema":
        if wanted.schema is None or not is_given(wanted.schema):
            raise _cannot("response_format.json_schema.schema", "a JSON answer without a schema")
        written["json_schema"] = wanted.schema
    return {"response_format": written}


class _Conversation:
    """Collects messages as this format has them, and the hints inside them that were left out."""

    def __init__(self, *, thinks: bool) -> None:
        self.written: list[dict[str, Any]] = []
        self._thinks = thinks
        self._dropped: dict[str, None] = {}

    @property
    def dropped(self) -> tuple[str, ...]:
        """The hints inside messages that were left out."""
        return tuple(self._dropped)

    def add(self, message: Message, path: str) -> None:
        """Take the next message."""
        if message.name is not None:
            self._dropped["messages[].name"] = None
        match message.role:
            case "tool":
                self._add_results(message, path)
            case "assistant":
                self._add_answer(message, path)
            case _:
                content = [
                    self._piece(part, message.role, f"{path}.content[{number}]")
                    for number, part in enumerate(message.parts)
                ]
                if content:
                    self.written.append({"role": message.role, "content": _shortened(content)})

    def _piece(self, part: object, role: str, where: str) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return _text(part)
        if isinstance(part, MediaPart) and part.kind == "image" and role == "user":
            image = {"url": _image_url(part, where)}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        raise _cannot(where, f"a part of this kind in a message of role {role!r}")

    def _add_results(self, message: Message, path: str) -> None:
        for number, part in enumerate(message.parts):
            where = f"{path}.content[{number}]"
            if not isinstance(part, ToolResultPart):
                raise _cannot(where, "anything but a tool's answer in a message of role 'tool'")
            if part.is_error:
                self._dropped["messages[].content[].is_error"] = None
            content = [self._piece(piece, "tool", where) for piece in part.content]
            self.written.append(
                {"role": "tool", "tool_call_id": part.tool_call_id, "content": _shortened(content)}
            )

    def _add_answer(self, message: Message, path: str) -> None:
        content: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        plan = ""
        asks = any(isinstance(part, ToolCallPart) for part in message.parts)
        for number, part in enumerate(message.parts):
            match part:
                case ToolCallPart():
                    calls.append(_call(part))
                case ThinkingPart() if part.text and self._thinks:
                    content.append({"type": "thinking", "thinking": part.text})
                case ThinkingPart() if part.text and asks:
                    plan += part.text
                case ThinkingPart():
                    self._dropped["messages[].reasoning_content"] = None
                case _:
                    piece = self._piece(part, "assistant", f"{path}.content[{number}]")
                    if piece["text"]:
                        content.append(piece)
        written: dict[str, Any] = {"role": "assistant"}
        if content:
            written["content"] = _shortened(content)
        if plan:
            written["tool_plan"] = plan
        if calls:
            written["tool_calls"] = calls
        if content or calls:
            self.written.append(written)


def _text(part: TextPart) -> dict[str, Any]:
    return {"type": "text", "text": part.text}


def _shortened(content: list[dict[str, Any]]) -> Any:
    """Return the content as plain text where it is nothing else."""
    if not content:
        return ""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content


def _call(part: ToolCallPart) -> dict[str, Any]:
    arguments = part.arguments if part.arguments.strip() else "{}"
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _image_url(part: MediaPart, where: str) -> str:
    if part.data is None:
        return part.url or ""
    if part.media_type is None:
        raise InvalidRequest(f"{where}: the media type of the image is missing", param=where)
    return f"data:{part.media_type};base64,{part.data}"


def _cannot(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to this provider", param=path, code="unsupported_parameter"
    )
