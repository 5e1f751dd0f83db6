"""The input of OpenAI's Responses format: items read into the messages they stand for."""

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._json import is_given, read_as
from llm_gate.dialects.openai_messages import media_from_url
from llm_gate.dialects.openai_responses_wire import ContentBody, ItemBody
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)

_text_decoder = msgspec.json.Decoder(str)
_items_decoder = msgspec.json.Decoder(list[ItemBody])
_KNOWN = frozenset({None, "message", "function_call", "function_call_output", "reasoning", "item_reference"})
_NEEDS: dict[str, Ability] = {"image": "images", "audio": "audio", "file": "files"}
# What this gateway itself puts into the opaque field of a reasoning item: other servers' is worth nothing here.
_SIGNATURE, _REDACTED = "llm-gate.signature:", "llm-gate.redacted:"


class _ItemKind(Struct, frozen=True):
    type: str | None = None


_kinds_decoder = msgspec.json.Decoder(list[_ItemKind])


def seal(part: ThinkingPart) -> str | None:
    """Return what of a thought must travel back unchanged, as the opaque text of a reasoning item."""
    if part.redacted is not None:
        return _REDACTED + part.redacted
    return None if part.signature is None else _SIGNATURE + part.signature


def read_input(raw: Raw, instructions: str | None) -> tuple[Message, ...]:
    """Read the input, instructions first.

    Raises:
        InvalidRequest: it is malformed, or holds what has no neutral form; `param` holds the path.
    """
    if not is_given(raw):
        raise InvalidRequest("input: required field is missing", param="input")
    turns = _Turns()
    if instructions:
        turns.say("system", (TextPart(text=instructions),))
    if bytes(raw).startswith(b'"'):
        turns.say("user", (TextPart(text=read_as(_text_decoder, raw, where="input")),))
        return turns.done()
    # Items of other types have fields of other shapes: their type is what is wrong with them.
    kinds: list[_ItemKind] = read_as(_kinds_decoder, raw, where="input")
    for index, kind in enumerate(kinds):
        if kind.type not in _KNOWN:
            raise _unsupported(f"input[{index}]", f"an item of type {kind.type!r}")
    items = read_as(_items_decoder, raw, where="input")
    if not items:
        raise InvalidRequest("input: must hold at least one item", param="input")
    for index, item in enumerate(items):
        turns.add(item, f"input[{index}]")
    return turns.done()


def media_needs(messages: tuple[Message, ...]) -> frozenset[Ability]:
    """Return the abilities that the media of a conversation ask for."""
    parts = [part for message in messages for part in message.parts]
    parts += [piece for part in parts if isinstance(part, ToolResultPart) for piece in part.content]
    return frozenset(
        _NEEDS[part.kind] for part in parts if isinstance(part, MediaPart) and part.kind in _NEEDS
    )


class _Turns:
    """Puts items together into turns: what the model said in one go is several items here, one message there.

    A turn of the model takes its reasoning, its text and its calls. Further reasoning or text begins a turn of
    its own, unless calls are still without their answers, which must follow the calls directly.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._said: list[Part] = []
        self._results: list[ToolResultPart] = []

    def add(self, item: ItemBody, path: str) -> None:
        """Take the next item.

        Raises:
            InvalidRequest: it is malformed, or has no neutral form.
        """
        match item.type or ("message" if item.role is not None else "item_reference"):
            case "message":
                self._message(item, path)
            case "function_call":
                self._assistant(_call(item, path))
            case "function_call_output":
                self._result(item, path)
            case "reasoning":
                if (thought := _thought(item)) is not None:
                    self._assistant(thought, begins=True)
            case _:
                raise InvalidRequest(
                    f"{path}: the gateway keeps no items that could be referred to; send the item itself",
                    param=path,
                    code="unsupported_parameter",
                )

    def say(self, role: Role, parts: tuple[Part, ...]) -> None:
        """Add a whole turn."""
        self._close()
        self._messages.append(Message(role=role, parts=parts))

    def done(self) -> tuple[Message, ...]:
        """Return all turns."""
        self._close()
        return tuple(self._messages)

    def _message(self, item: ItemBody, path: str) -> None:
        if item.role is None:
            raise _missing(f"{path}.role")
        if item.content is None:
            raise _missing(f"{path}.content")
        parts = _content(item.content, f"{path}.content")
        if item.role == "assistant":
            self._assistant(*parts, begins=True)
        else:
            self.say("user" if item.role == "user" else "system", parts)

    def _assistant(self, *parts: Part, begins: bool = False) -> None:
        has_text = any(isinstance(part, TextPart) for part in self._said)
        has_calls = any(isinstance(part, ToolCallPart) for part in self._said)
        if self._results or (begins and has_text and not has_calls):
            self._close()
        self._said += parts

    def _result(self, item: ItemBody, path: str) -> None:
        if item.call_id is None:
            raise _missing(f"{path}.call_id")
        if item.output is None:
            raise _missing(f"{path}.output")
        if self._said:
            self._close()
        content = _content(item.output, f"{path}.output")
        self._results.append(ToolResultPart(tool_call_id=item.call_id, content=content, name=item.name))

    def _close(self) -> None:
        if self._said:
            self._messages.append(Message(role="assistant", parts=tuple(self._said)))
        if self._results:
            self._messages.append(Message(role="tool", parts=tuple(self._results)))
        self._said, self._results = [], []


def _call(item: ItemBody, path: str) -> ToolCallPart:
    if item.call_id is None:
        raise _missing(f"{path}.call_id")
    if item.name is None:
        raise _missing(f"{path}.name")
    return ToolCallPart(
        id=item.call_id, name=item.name, arguments=item.arguments or "{}", signature=item.signature
    )


def _thought(item: ItemBody) -> ThinkingPart | None:
    """Return the reasoning an item shows or seals; None where another server sealed all of it."""
    shown = item.content if isinstance(item.content, list) else ()
    text = "".join(piece.text or "" for piece in (*(item.summary or ()), *shown))
    sealed = item.encrypted_content or ""
    if sealed.startswith(_REDACTED):
        return ThinkingPart(redacted=sealed.removeprefix(_REDACTED))
    signature = sealed.removeprefix(_SIGNATURE) if sealed.startswith(_SIGNATURE) else None
    return ThinkingPart(text=text, signature=signature) if text or signature is not None else None


def _content(content: str | list[ContentBody], path: str) -> tuple[TextPart | MediaPart, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: ContentBody, path: str) -> TextPart | MediaPart:
    match part.type:
        case "input_text" | "output_text" | "text":
            if part.text is None:
                raise _missing(f"{path}.text")
            return TextPart(text=part.text)
        case "refusal":
            if part.refusal is None:
                raise _missing(f"{path}.refusal")
            return TextPart(text=part.refusal, refusal=True)
        case "input_image":
            if part.image_url is None:
                raise _stored(part, f"{path}.image_url")
            return media_from_url("image", part.image_url, f"{path}.image_url", detail=part.detail)
        case "input_file":
            if part.file_data is not None:
                return media_from_url("file", part.file_data, f"{path}.file_data", filename=part.filename)
            if part.file_url is None:
                raise _stored(part, f"{path}.file_data")
            return media_from_url("file", part.file_url, f"{path}.file_url", filename=part.filename)
        case "input_audio":
            if part.input_audio is None:
                raise _missing(f"{path}.input_audio")
            sound = part.input_audio
            return MediaPart(kind="audio", data=sound.data, media_type=f"audio/{sound.format}")
        case other:
            raise _unsupported(path, f"a part of type {other!r}")


def _stored(part: ContentBody, path: str) -> InvalidRequest:
    """Return the error for media that are not there, but perhaps at the vendor under an id."""
    return _missing(path) if part.file_id is None else _unsupported(path, "a file named by its id")


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: required field is missing", param=path)


def _unsupported(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to another vendor's format",
        param=path,
        code="unsupported_parameter",
    )
