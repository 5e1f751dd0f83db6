"""Messages in the OpenAI wire format: read from callers, written to providers."""

import re
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._json import is_given, read_as
from llm_gate.dialects.openai_wire import ContentPart, ImageUrl, RequestMessage, ToolCall
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    Conversation,
    MediaPart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

_decoder = msgspec.json.Decoder(list[RequestMessage])
_DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(?:;[\w.=+-]+)*;base64,(?P<data>.*)", re.DOTALL)
_NEEDS: dict[str, Ability] = {"image_url": "images", "input_audio": "audio", "file": "files"}


def read_messages(raw: Raw) -> tuple[list[RequestMessage], Conversation]:
    """Check messages and return them with the conversation they stand for.

    Raises:
        InvalidRequest: an unknown role, a missing content, a wrong shape; `param` holds the path.
    """
    messages = read_as(_decoder, raw, where="messages")
    if not messages:
        raise InvalidRequest("messages: must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        _check(message, f"messages[{index}]")
    return messages, Conversation(lambda: tuple(_neutral(message, i) for i, message in enumerate(messages)))


def needs_of(messages: list[RequestMessage]) -> frozenset[Ability]:
    """Return the abilities that the media of the messages ask for."""
    return frozenset(
        _NEEDS[part.type]
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
        if part.type in _NEEDS
    )


def _check(message: RequestMessage, path: str) -> None:
    if message.content is None and not (message.role == "assistant" and _says_something(message)):
        raise InvalidRequest(f"{path}.content: required field is missing", param=f"{path}.content")
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidRequest(f"{path}.tool_call_id: required field is missing", param=f"{path}.tool_call_id")
    if message.function_call is not None and message.function_call.name is None:
        raise InvalidRequest(f"{path}.function_call: a name is required", param=f"{path}.function_call")
    if message.role == "function" and message.name is None:
        raise InvalidRequest(f"{path}.name: required field is missing", param=f"{path}.name")
    for index, call in enumerate(message.tool_calls or ()):
        if call.type in {None, "function"} and (call.function is None or call.function.name is None):
            where = f"{path}.tool_calls[{index}].function"
            raise InvalidRequest(f"{where}: a name is required", param=where)
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            _check_part(part, f"{path}.content[{index}]")


def _says_something(message: RequestMessage) -> bool:
    return bool(
        message.tool_calls
        or message.function_call
        or message.refusal
        or message.reasoning_content
        or is_given(message.audio)
    )


def _check_part(part: ContentPart, path: str) -> None:
    if part.type in {"text", "image_url", "input_audio", "file"} and getattr(part, part.type) is None:
        raise InvalidRequest(f"{path}.{part.type}: required field is missing", param=f"{path}.{part.type}")


def _neutral(message: RequestMessage, index: int) -> Message:
    path = f"messages[{index}]"
    if message.role in {"tool", "function"}:
        result = ToolResultPart(
            tool_call_id=message.tool_call_id or message.name or "",
            content=tuple(
                part
                for part in _content_parts(message.content, path)
                if isinstance(part, TextPart | MediaPart)
            ),
            name=message.name,
        )
        return Message(role="tool", parts=(result,))
    parts: list[Part] = []
    if message.reasoning_content:
        parts.append(ThinkingPart(text=message.reasoning_content))
    parts += _content_parts(message.content, path)
    if message.refusal:
        parts.append(TextPart(text=message.refusal, refusal=True))
    parts += [_tool_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
    if message.function_call is not None:
        # The old form has no ids: its answer names the function, so the name ties the two together.
        name = message.function_call.name or ""
        parts.append(ToolCallPart(id=name, name=name, arguments=message.function_call.arguments or "{}"))
    if is_given(message.audio):
        raise _unsupported(f"{path}.audio", "a spoken answer")
    role: Role = "system" if message.role in {"system", "developer"} else "user"
    if message.role == "assistant":
        role = "assistant"
    return Message(role=role, parts=tuple(parts), name=message.name)


def _tool_call(call: ToolCall, path: str) -> ToolCallPart:
    if call.function is None or call.function.name is None:
        raise _unsupported(path, "a call of anything but a function")
    return ToolCallPart(
        id=call.id or "",
        name=call.function.name,
        arguments=call.function.arguments or "{}",
        signature=call.signature,
    )


def _content_parts(content: str | list[ContentPart] | None, path: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(text=content)]
    return [_content_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)]


def _content_part(part: ContentPart, path: str) -> Part:
    if part.type == "text" and part.text is not None:
        return TextPart(text=part.text)
    if part.type == "refusal" and part.refusal is not None:
        return TextPart(text=part.refusal, refusal=True)
    if part.type == "image_url" and part.image_url is not None:
        image = ImageUrl(url=part.image_url) if isinstance(part.image_url, str) else part.image_url
        return media_from_url("image", image.url, f"{path}.image_url.url", detail=image.detail)
    if part.type == "input_audio" and part.input_audio is not None:
        sound = part.input_audio
        return MediaPart(kind="audio", data=sound.data, media_type=f"audio/{sound.format}")
    if part.type == "file" and part.file is not None and part.file.file_data is not None:
        return media_from_url(
            "file", part.file.file_data, f"{path}.file.file_data", filename=part.file.filename
        )
    raise _unsupported(path, f"a part of type {part.type!r}")


def _unsupported(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to another vendor's format",
        param=path,
        code="unsupported_parameter",
    )


def media_from_url(
    kind: Any, url: str, path: str, *, detail: str | None = None, filename: str | None = None
) -> MediaPart:
    """Read a link or a base64 data URL.

    Raises:
        InvalidRequest: it is neither.
    """
    if url.startswith(("http://", "https://")):
        return MediaPart(kind=kind, url=url, detail=detail, filename=filename)
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise InvalidRequest(f"{path}: must be an http(s) link or a base64 data URL", param=path)
    return MediaPart(
        kind=kind, data=match["data"], media_type=match["type"] or None, detail=detail, filename=filename
    )


def write_messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Write neutral messages."""
    written: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            written += [
                _write_tool_result(part, f"messages[{index}].content")
                for part in message.parts
                if isinstance(part, ToolResultPart)
            ]
        else:
            written.append(_write_message(message, index))
    return written


def _write_tool_result(part: ToolResultPart, path: str) -> dict[str, Any]:
    if any(isinstance(piece, MediaPart) for piece in part.content):
        raise _unsupported(path, "media in a tool's answer")
    text = "".join(piece.text for piece in part.content if isinstance(piece, TextPart))
    return {"role": "tool", "tool_call_id": part.tool_call_id, "content": text}


def _write_message(message: Message, index: int) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role}
    if message.name is not None:
        body["name"] = message.name
    calls = [write_tool_call(part) for part in message.parts if isinstance(part, ToolCallPart)]
    shown = [part for part in message.parts if isinstance(part, TextPart | MediaPart)]
    if (message.role == "user" and len(shown) > 1) or any(isinstance(part, MediaPart) for part in shown):
        if message.role != "user":
            raise _unsupported(f"messages[{index}].content", f"media of role {message.role!r}")
        body["content"] = [
            _write_part(part, f"messages[{index}].content[{i}]") for i, part in enumerate(shown)
        ]
    else:
        refusal = "".join(part.text for part in shown if isinstance(part, TextPart) and part.refusal)
        body["content"] = message.text if message.text or not (calls or refusal) else None
        if refusal:
            body["refusal"] = refusal
    if calls:
        body["tool_calls"] = calls
    return body


def write_tool_call(part: ToolCallPart) -> dict[str, Any]:
    """Write one tool call; a signature rides where Google's own service of this dialect puts it."""
    body: dict[str, Any] = {
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }
    if part.signature is not None:
        body["extra_content"] = {"google": {"thought_signature": part.signature}}
    return body


def _write_part(part: TextPart | MediaPart, path: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"
    if part.kind == "image":
        image = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": image}
    if part.kind == "audio" and part.data is not None:
        sound_format = (part.media_type or "audio/wav").rpartition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": sound_format}}
    if part.kind == "file" and part.data is not None:
        return {"type": "file", "file": {"file_data": url, "filename": part.filename or "file"}}
    raise _unsupported(path, f"{part.kind} by link")
