"""Conversations in Gemini's wire format: turns made of parts, with the system's words beside them.

Theory of operation: system messages are taken out, wherever they stand. Messages of one role in a row become one
turn, since the answers to parallel calls must come together; pictures that a tool returned follow those answers in
a turn of their own, because an answer itself holds only JSON.
"""

import re
from typing import Any, NoReturn

import msgspec
from msgspec import Raw

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.provider import Target

# Models from Gemini 3 on refuse a call without the signature they gave it. For calls that another model made,
# Google documents this value: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_FOREIGN_SIGNATURE = "skip_thought_signature_validator"
_FIRST_WITH_SIGNATURES = (3, 0)
_FAMILY = re.compile(r"gemini-(\d+)(?:\.(\d+))?")

_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(?:;[\w.=+-]+)*;base64,(?P<data>.*)", re.DOTALL)
_SUFFIX = re.compile(r"\.(\w{1,5})(?:[?#].*)?$", re.DOTALL)
_MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "m4a": "audio/m4a",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mov": "video/mov",
    "webm": "video/webm",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "css": "text/css",
    "csv": "text/csv",
    "xml": "text/xml",
    "json": "application/json",
}


class Contents:
    """A conversation being written: the turns, the system's parts, and the hints that were left out."""

    __slots__ = ("_held", "_names", "_role", "dropped", "system", "turns")

    def __init__(self) -> None:
        self.turns: list[dict[str, Any]] = []
        self.system: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self._names: dict[str, str] = {}
        self._held: list[dict[str, Any]] = []
        self._role: str | None = None

    def add(self, message: Message, path: str) -> None:
        """Write one message; `path` is where it stands in the request."""
        if message.name is not None:
            self.dropped.append(f"{path}.name")
        if message.role == "system":
            self.system += self._write_system(message, path)
            return
        if message.role != self._role:
            self.release()
        parts: list[dict[str, Any]] = []
        calls = 0
        for index, part in enumerate(message.parts):
            if isinstance(part, ToolCallPart):
                parts.append(self._write_call(part, f"{path}.tool_calls[{calls}]"))
                calls += 1
            else:
                self._write_part(part, parts, path, f"{path}.content[{index}]")
        if parts and message.role == self._role:
            self.turns[-1]["parts"] += parts
        elif parts:
            role = "model" if message.role == "assistant" else "user"
            self.turns.append({"role": role, "parts": parts})
            self._role = message.role

    def release(self) -> None:
        """Write what tools returned beside text, after all answers of one turn."""
        if self._held:
            self.turns.append({"role": "user", "parts": self._held})
            self._held, self._role = [], None

    def _write_system(self, message: Message, path: str) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for index, part in enumerate(message.parts):
            if not isinstance(part, TextPart):
                _refuse(f"{path}.content[{index}]", "only text can instruct the model")
            if part.text:
                parts.append({"text": part.text})
        return parts

    def _write_part(self, part: Part, parts: list[dict[str, Any]], path: str, where: str) -> None:
        """Write anything but a call to the end of `parts`."""
        if isinstance(part, TextPart):
            if part.text:
                parts.append({"text": part.text})
        elif isinstance(part, MediaPart):
            parts.append(self._write_media(part, where))
        elif isinstance(part, ThinkingPart):
            self._write_thinking(part, parts, path)
        elif isinstance(part, ToolResultPart):
            parts.append(self._write_result(part, path, where))

    def _write_thinking(self, part: ThinkingPart, parts: list[dict[str, Any]], path: str) -> None:
        """Give a signature back where it stood; reasoning without one is worth nothing to the vendor."""
        if part.signature is None:
            self.dropped.append(f"{path}.reasoning_content")
        elif part.text:
            parts.append({"text": part.text, "thought": True, "thoughtSignature": part.signature})
        elif (
            parts
            and ("text" in parts[-1] or "inlineData" in parts[-1])
            and "thoughtSignature" not in parts[-1]
        ):
            parts[-1]["thoughtSignature"] = part.signature
        else:
            parts.append({"text": "", "thoughtSignature": part.signature})

    def _write_call(self, part: ToolCallPart, where: str) -> dict[str, Any]:
        self._names[part.id] = part.name
        call: dict[str, Any] = {"name": part.name, "args": Raw(b"{}")}
        if part.arguments.strip():
            if not _is_object(part.arguments):
                path = f"{where}.function.arguments"
                raise InvalidRequest(f"{path}: must be a JSON object", param=path)
            call["args"] = Raw(part.arguments.encode())
        if part.id:
            call["id"] = part.id
        body: dict[str, Any] = {"functionCall": call}
        if part.signature is not None:
            body["thoughtSignature"] = part.signature
        return body

    def _write_result(self, part: ToolResultPart, path: str, where: str) -> dict[str, Any]:
        name = self._names.get(part.tool_call_id) or part.name
        if name is None:
            raise InvalidRequest(
                f"{path}.tool_call_id: no earlier message calls a tool with this id",
                param=f"{path}.tool_call_id",
            )
        self._held += [self._write_media(item, where) for item in part.content if isinstance(item, MediaPart)]
        text = "".join(item.text for item in part.content if isinstance(item, TextPart))
        response: Any = Raw(text.encode()) if _is_object(text) else text
        if part.is_error or not isinstance(response, Raw):
            # An answer has to be an object; a failure is told by its key.
            response = {"error" if part.is_error else "result": response}
        result: dict[str, Any] = {"name": name, "response": response}
        if part.tool_call_id:
            result["id"] = part.tool_call_id
        return {"functionResponse": result}

    def _write_media(self, part: MediaPart, where: str) -> dict[str, Any]:
        if part.detail not in {None, "auto"}:
            self.dropped.append(f"{where}.image_url.detail")
        if part.filename is not None:
            self.dropped.append(f"{where}.file.filename")
        data, media_type = part.data, part.media_type
        inline = _DATA_URL.fullmatch(part.url or "") if data is None else None
        if inline is not None:
            data, media_type = inline["data"], media_type or inline["type"] or None
        media_type = media_type or _guess(part.url) or _guess(part.filename)
        if data is not None:
            if media_type is None:
                _refuse(where, "data without a media type")
            return {"inlineData": {"mimeType": media_type, "data": data}}
        if part.url is None or not part.url.startswith(("http://", "https://", "gs://")):
            _refuse(where, "neither data nor a link")
        link = {"fileUri": part.url} if media_type is None else {"mimeType": media_type, "fileUri": part.url}
        return {"fileData": link}


def write_contents(messages: tuple[Message, ...], target: Target) -> Contents:
    """Write a conversation.

    Raises:
        InvalidRequest: a part cannot be carried over; `param` holds its path.
    """
    contents = Contents()
    for index, message in enumerate(messages):
        contents.add(message, f"messages[{index}]")
    contents.release()
    if not contents.turns:
        # The vendor needs at least one turn; instructions that stand alone are what the user says.
        if not contents.system:
            raise InvalidRequest("messages: hold nothing that can be sent", param="messages")
        contents.turns.append({"role": "user", "parts": contents.system})
        contents.system = []
    if _wants_signatures(target.wire_model):
        for turn in contents.turns:
            # In one turn only the first of parallel calls carries a signature.
            first: dict[str, Any] = next((part for part in turn["parts"] if "functionCall" in part), {})
            if first:
                first.setdefault("thoughtSignature", _FOREIGN_SIGNATURE)
    return contents


def _wants_signatures(model: str) -> bool:
    family = model_family(model)
    # Moving names such as gemini-flash-latest lead to newer models.
    return "gemini" in model if family is None else family >= _FIRST_WITH_SIGNATURES


def model_family(model: str) -> tuple[int, int] | None:
    """Return the version in a model's name; None for moving names and for other models."""
    match = _FAMILY.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _is_object(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        _object_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _guess(name: str | None) -> str | None:
    match = _SUFFIX.search(name or "")
    return _MEDIA_TYPES.get(match[1].lower()) if match else None


def _refuse(path: str, why: str) -> NoReturn:
    raise InvalidRequest(
        f"{path}: cannot be carried over to this provider ({why})", param=path, code="unsupported_parameter"
    )
