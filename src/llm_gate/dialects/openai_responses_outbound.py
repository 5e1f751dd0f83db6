"""Chat requests in OpenAI's Responses format, written to providers; nothing is kept there between calls."""

from collections.abc import Callable
from typing import Any

import msgspec

from llm_gate.dialects._fields import carry_over
from llm_gate.dialects.openai_responses_outbound_results import decode_response
from llm_gate.dialects.openai_responses_outbound_stream import ResponsesChatStream
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult

_SUPPORTED = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "parallel_tool_calls",
        "reasoning_effort",
        "user",
        "service_tier",
        "tool_choice",
        "tools",
        "response_format",
        "logprobs",
    }
)
_NO_PARAMETERS = {"type": "object", "properties": {}}


class OpenAIResponses:
    """The chat operation of providers that are asked in the Responses format.

    Every request is translated, since none comes in this format as it goes out. `address` gives the full URL
    for a target and a path.
    """

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        spec = target.deployment.spec
        # The neutral events of a stream have no place for log probabilities.
        supported = _SUPPORTED - set(spec.drop) - ({"logprobs"} if request.stream else set())
        dropped = carry_over(request, supported, target.provider)
        body: dict[str, Any] = {"input": write_input(request.conversation.messages), "store": False}
        has_logprobs = request.logprobs or request.top_logprobs
        plain = {
            "max_output_tokens": None if "max_tokens" in dropped else request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
            "reasoning": _write_reasoning(request, dropped),
            "user": request.user,
            "service_tier": request.service_tier,
            "include": ["message.output_text.logprobs"] if has_logprobs else None,
            "top_logprobs": request.top_logprobs,
            "tools": [_write_tool(tool) for tool in request.tools] or None,
            "tool_choice": _write_choice(request.tool_choice),
            "text": _write_text(request.response_format),
        }
        body.update(
            (name, value) for name, value in plain.items() if value is not None and name not in dropped
        )
        for name in spec.drop:
            body.pop(name, None)
        for old, new in spec.rename.items():
            if old in body:
                body[new] = body.pop(old)
        body["model"] = target.wire_model
        if request.stream:
            body["stream"] = True
        return Encoded(
            request=HttpRequest(
                method="POST",
                url=self._address(target, "responses"),
                headers={"content-type": "application/json"},
                body=msgspec.json.encode(body),
            ),
            dropped=dropped,
        )

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:  # noqa: ARG002
        """Read a complete answer."""
        return decode_response(reply, target)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:  # noqa: ARG002
        """Read a streamed answer."""
        return ResponsesChatStream(target)


def write_input(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Write neutral messages as items, in their order.

    Reasoning is left out: without the state that the vendor keeps of it, it is worth nothing there.
    """
    items: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}].content"
        if message.role == "tool":
            items += [_write_result(part, path) for part in message.parts if isinstance(part, ToolResultPart)]
        elif message.role == "assistant":
            items += _write_answer(message, path)
        else:
            shown = [part for part in message.parts if isinstance(part, TextPart | MediaPart)]
            if message.role == "system" and any(isinstance(part, MediaPart) for part in shown):
                raise _unsupported(path, "media of role 'system'")
            items.append({"type": "message", "role": message.role, "content": _write_content(shown, path)})
    return items


def _write_answer(message: Message, path: str) -> list[dict[str, Any]]:
    """Write what the model said: each run of text is a message, each call an item of its own."""
    items: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, MediaPart):
            raise _unsupported(path, "media of role 'assistant'")
        if isinstance(part, TextPart):
            said = (
                {"type": "refusal", "refusal": part.text}
                if part.refusal
                else {"type": "output_text", "text": part.text}
            )
            if items and items[-1]["type"] == "message":
                items[-1]["content"].append(said)
            else:
                items.append({"type": "message", "role": "assistant", "content": [said]})
        elif isinstance(part, ToolCallPart):
            items.append(
                {
                    "type": "function_call",
                    "call_id": part.id,
                    "name": part.name,
                    "arguments": part.arguments,
                }
            )
    return items


def _write_result(part: ToolResultPart, path: str) -> dict[str, Any]:
    output: str | list[dict[str, Any]]
    if all(isinstance(piece, TextPart) for piece in part.content):
        output = "".join(piece.text for piece in part.content if isinstance(piece, TextPart))
    else:
        output = [_write_part(piece, path) for piece in part.content]
    return {"type": "function_call_output", "call_id": part.tool_call_id, "output": output}


def _write_content(parts: list[TextPart | MediaPart], path: str) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return [_write_part(part, f"{path}[{index}]") for index, part in enumerate(parts)]


def _write_part(part: TextPart | MediaPart, path: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    url = part.url or f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"
    if part.kind == "image":
        return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
    if part.kind == "audio" and part.data is not None:
        sound_format = (part.media_type or "audio/wav").rpartition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": sound_format}}
    if part.kind == "file" and part.data is not None:
        return {"type": "input_file", "filename": part.filename or "file", "file_data": url}
    if part.kind == "file":
        return {"type": "input_file", "file_url": url}
    raise _unsupported(path, f"{part.kind} by link" if part.data is None else part.kind)


def _unsupported(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to another vendor's format",
        param=path,
        code="unsupported_parameter",
    )


def _write_reasoning(request: ChatRequest, dropped: tuple[str, ...]) -> dict[str, Any] | None:
    if request.reasoning_effort is None or "reasoning_effort" in dropped:
        return None
    return {"effort": request.reasoning_effort}


def _write_tool(tool: Tool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "function",
        "name": tool.name,
        "parameters": _NO_PARAMETERS if tool.parameters is None else tool.parameters,
        # Left out, it would mean the opposite of what it means everywhere else.
        "strict": bool(tool.strict),
    }
    if tool.description is not None:
        body["description"] = tool.description
    return body


def _write_choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


def _write_text(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.kind != "json_schema":
        return {"format": {"type": wanted.kind}}
    if wanted.schema is None:
        raise InvalidRequest("response_format: json_schema needs a schema here", param="response_format")
    optional = {"description": wanted.description, "strict": wanted.strict}
    return {
        "format": {
            "type": "json_schema",
            "name": wanted.name or "answer",
            "schema": wanted.schema,
            **{name: value for name, value in optional.items() if value is not None},
        }
    }
