"""Chat requests in Ollama's own format, written for providers.

Contract: https://docs.ollama.com/api/chat
"""

from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._fields import carry_over
from llm_gate.dialects._json import is_given
from llm_gate.dialects.ollama_wire import JSON_HEADERS
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
        "response_format",
    }
)
# https://docs.ollama.com/capabilities/thinking: this family takes levels, and cannot do without thinking.
_FAMILY_WITH_LEVELS = "gpt-oss"
_LEVELS = frozenset({"low", "medium", "high"})
_object_decoder = msgspec.json.Decoder(dict[str, Raw])


def write_request(request: ChatRequest, target: Target) -> Encoded:
    """Build the request.

    Raises:
        InvalidRequest: it asks for something this format cannot say.
    """
    think = _think(request, target)
    supported = set(SUPPORTED)
    if think is not None:
        supported |= {"reasoning_effort", "thinking"} if isinstance(think, bool) else {"reasoning_effort"}
    if request.tool_choice is not None and request.tool_choice.mode in {"auto", "none"}:
        supported.add("tool_choice")
    dropped = carry_over(request, supported, target.provider)
    conversation = _Conversation()
    for index, message in enumerate(request.conversation.messages):
        conversation.add(message, f"messages[{index}]")
    if not conversation.written:
        raise InvalidRequest("messages: must hold at least one message that is not empty", param="messages")
    body: dict[str, Any] = {
        "model": target.wire_model,
        "messages": conversation.written,
        # Left out, it would mean yes.
        "stream": request.stream,
    }
    if request.tools and (request.tool_choice is None or request.tool_choice.mode != "none"):
        body["tools"] = [_tool(tool) for tool in request.tools]
    if (wanted := _format(request)) is not None:
        body["format"] = wanted
    if options := _options(request):
        body["options"] = options
    if think is not None:
        body["think"] = think
    return Encoded(
        request=HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/api/chat",
            body=msgspec.json.encode(body),
            headers=JSON_HEADERS,
        ),
        dropped=(*dropped, *conversation.dropped),
    )


def _think(request: ChatRequest, target: Target) -> bool | str | None:
    """Return how the vendor is told to think, None where it cannot be: a model that does not think refuses it."""
    effort, budget_tokens = request.reasoning_effort, request.thinking_budget_tokens
    if effort is None and budget_tokens is None:
        return None
    if target.wire_model.rpartition("/")[2].startswith(_FAMILY_WITH_LEVELS):
        return effort if effort in _LEVELS else None
    if "thinking" not in target.model.abilities:
        return None
    return effort != "none" if budget_tokens is None else budget_tokens > 0


def _options(request: ChatRequest) -> dict[str, Any]:
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "num_predict": request.max_output_tokens,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": request.seed,
        "stop": request.stop or None,
    }
    return {name: value for name, value in optional.items() if value is not None}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    parameters: Any = {"type": "object", "properties": {}}
    if tool.parameters is not None and is_given(tool.parameters):
        parameters = tool.parameters
    return {"type": "function", "function": {**function, "parameters": parameters}}


def _format(request: ChatRequest) -> Any:
    wanted = request.response_format
    if wanted is None or wanted.kind == "text":
        return None
    if wanted.kind == "json_object":
        return "json"
    if wanted.schema is None or not is_given(wanted.schema):
        raise _cannot("response_format.json_schema.schema", "a JSON answer without a schema")
    return wanted.schema


class _Conversation:
    """Collects messages as this format has them, and the hints inside them that were left out."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        self._dropped: dict[str, None] = {}

    @property
    def dropped(self) -> tuple[str, ...]:
        """The hints inside messages that were left out."""
        return tuple(self._dropped)

    def add(self, message: Message, path: str) -> None:
        """Take the next message."""
        if message.role == "tool":
            self._add_results(message, path)
            return
        if message.name is not None:
            self._dropped["messages[].name"] = None
        texts: list[str] = []
        thoughts: list[str] = []
        images: list[str] = []
        calls: list[dict[str, Any]] = []
        for number, part in enumerate(message.parts):
            where = f"{path}.content[{number}]"
            match part:
                case TextPart():
                    texts.append(part.text)
                case MediaPart(kind="image") if message.role == "user":
                    images.append(self._image(part, where))
                case ThinkingPart() if message.role == "assistant":
                    thoughts.append(part.text)
                    if part.redacted is not None:
                        self._dropped["messages[].reasoning_content"] = None
                case ToolCallPart() if message.role == "assistant":
                    calls.append(self._call(part, f"{path}.tool_calls[{len(calls)}].function.arguments"))
                case _:
                    raise _cannot(where, f"a part of this kind in a message of role {message.role!r}")
        # The vendor's server joins the texts of one turn in the same way.
        written: dict[str, Any] = {"role": message.role, "content": "\n\n".join(texts)}
        optional = {"thinking": "".join(thoughts), "images": images, "tool_calls": calls}
        self.written.append(written | {name: value for name, value in optional.items() if value})

    def _add_results(self, message: Message, path: str) -> None:
        for number, part in enumerate(message.parts):
            where = f"{path}.content[{number}]"
            if not isinstance(part, ToolResultPart):
                raise _cannot(where, "anything but a tool's answer in a message of role 'tool'")
            if not all(isinstance(piece, TextPart) for piece in part.content):
                raise _cannot(where, "anything but text in a tool's answer")
            if part.is_error:
                self._dropped["messages[].content[].is_error"] = None
            text = "".join(piece.text for piece in part.content if isinstance(piece, TextPart))
            written = {"role": "tool", "content": text}
            name = self._names.get(part.tool_call_id) or part.name
            if name:
                written["tool_name"] = name
            if part.tool_call_id:
                written["tool_call_id"] = part.tool_call_id
            self.written.append(written)

    def _call(self, part: ToolCallPart, path: str) -> dict[str, Any]:
        text = part.arguments.strip() or "{}"
        try:
            _object_decoder.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest(f"{path}: must be a JSON object", param=path) from None
        self._names[part.id] = part.name
        written: dict[str, Any] = {"function": {"name": part.name, "arguments": Raw(text.encode())}}
        return {"id": part.id, **written} if part.id else written

    def _image(self, part: MediaPart, where: str) -> str:
        if part.detail not in {None, "auto"}:
            self._dropped["messages[].content[].image_url.detail"] = None
        if part.data is None:
            raise _cannot(where, "an image by link (send it as a base64 data URL)")
        return part.data


def _cannot(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to this provider", param=path, code="unsupported_parameter"
    )
