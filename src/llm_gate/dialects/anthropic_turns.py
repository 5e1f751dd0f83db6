"""Turns of a conversation in Anthropic's Messages format, read from callers into neutral form."""

import binascii
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._json import ABSENT, is_given, read_as
from llm_gate.domain.catalog import Ability
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


class SourceBody(Struct, frozen=True):
    """Where a picture or a document comes from."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class TextBlock(Struct, frozen=True):
    """Text."""

    text: str
    cache_control: Raw = ABSENT


class ImageBlock(Struct, frozen=True):
    """A picture."""

    source: SourceBody
    cache_control: Raw = ABSENT


class DocumentBlock(Struct, frozen=True):
    """A document."""

    source: SourceBody
    title: str | None = None
    context: Raw = ABSENT
    citations: Raw = ABSENT
    cache_control: Raw = ABSENT


class GoogleContent(Struct, frozen=True):
    """What another vendor's models want back with a call they made."""

    thought_signature: str | None = None


class ExtraContent(Struct, frozen=True):
    """Fields of other vendors on a tool call."""

    google: GoogleContent | None = None


class ToolUseBlock(Struct, frozen=True):
    """A tool call the model made."""

    id: str
    name: str
    input: Raw
    extra_content: ExtraContent | None = None
    cache_control: Raw = ABSENT


class ToolResultBlock(Struct, frozen=True):
    """What a tool answered."""

    tool_use_id: str
    content: str | list[Raw] | None = None
    is_error: bool | None = None
    cache_control: Raw = ABSENT


class ThinkingBlock(Struct, frozen=True):
    """Reasoning, with the signature that must travel back unchanged."""

    thinking: str
    signature: str | None = None


class RedactedBlock(Struct, frozen=True):
    """Reasoning that is opaque to the caller."""

    data: str


class OtherBlock(Struct, frozen=True):
    """A block only the vendor understands."""

    type: str


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedBlock
    | OtherBlock
)


class Turn(NamedTuple):
    """One message as it came; `path` is where it stands."""

    role: str
    blocks: tuple[Block, ...]
    path: str


class Placed(NamedTuple):
    """A neutral message, the place of the wire message it came from (None: the system text), and its blocks."""

    message: Message
    place: int | None
    blocks: tuple[int, ...] = ()


class _MessageBody(Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Raw]


class _BlockKind(Struct, frozen=True):
    type: str


_messages_decoder = msgspec.json.Decoder(list[_MessageBody])
_kind_decoder = msgspec.json.Decoder(_BlockKind)
_BLOCKS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "text": msgspec.json.Decoder(TextBlock),
    "image": msgspec.json.Decoder(ImageBlock),
    "document": msgspec.json.Decoder(DocumentBlock),
    "tool_use": msgspec.json.Decoder(ToolUseBlock),
    "tool_result": msgspec.json.Decoder(ToolResultBlock),
    "thinking": msgspec.json.Decoder(ThinkingBlock),
    "redacted_thinking": msgspec.json.Decoder(RedactedBlock),
}
_HINTS = ("cache_control", "citations", "context")


def read_turns(raw: Raw) -> list[Turn]:
    """Check messages as far as this format is known; blocks of other types pass.

    Raises:
        InvalidRequest: an unknown role, a missing field, a wrong shape; `param` holds the path.
    """
    bodies = read_as(_messages_decoder, raw, where="messages")
    if not bodies:
        raise InvalidRequest("messages: must hold at least one message", param="messages")
    return [
        Turn(body.role, _read_blocks(body.content, f"messages[{i}].content"), f"messages[{i}]")
        for i, body in enumerate(bodies)
    ]


def _read_blocks(content: str | list[Raw] | None, path: str) -> tuple[Block, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextBlock(text=content),)
    return tuple(read_block(raw, f"{path}[{i}]") for i, raw in enumerate(content))


def read_block(raw: Raw, path: str) -> Block:
    """Read one block.

    Raises:
        InvalidRequest: it is none, or a known one of a wrong shape.
    """
    kind = read_as(_kind_decoder, raw, where=path).type
    decoder = _BLOCKS.get(kind)
    if decoder is None:
        return OtherBlock(kind)
    block: Block = read_as(decoder, raw, where=path)
    if isinstance(block, ToolUseBlock) and not bytes(block.input).startswith(b"{"):
        raise InvalidRequest(f"{path}.input: must be an object", param=f"{path}.input")
    if isinstance(block, ToolResultBlock):
        _read_blocks(block.content, f"{path}.content")
    return block


def _each(turns: Sequence[Turn]) -> Iterator[Block]:
    for turn in turns:
        for block in turn.blocks:
            yield block
            if isinstance(block, ToolResultBlock):
                yield from _read_blocks(block.content, f"{turn.path}.content")


def needs_of(turns: Sequence[Turn]) -> frozenset[Ability]:
    """Return the abilities that the media of the messages ask for."""
    found: set[Ability] = set()
    for block in _each(turns):
        if isinstance(block, ImageBlock):
            found.add("images")
        elif isinstance(block, DocumentBlock):
            found.add("files")
    return frozenset(found)


def hints_of(turns: Sequence[Turn]) -> dict[str, Raw]:
    """Return the hints inside blocks that no other format has, by name; one value of each."""
    found: dict[str, Raw] = {}
    for block in _each(turns):
        for name in _HINTS:
            raw: Raw = getattr(block, name, ABSENT)
            if is_given(raw):
                found.setdefault(f"messages[].content[].{name}", raw)
    return found


def place_messages(system: str, turns: Sequence[Turn]) -> list[Placed]:
    """Translate a conversation, remembering where each neutral message comes from.

    Raises:
        InvalidRequest: a block has no neutral form.
    """
    placed: list[Placed] = []
    if system:
        placed.append(Placed(Message(role="system", parts=(TextPart(text=system),)), None))
    for index, turn in enumerate(turns):
        numbered = enumerate(turn.blocks)
        for is_result, group in groupby(numbered, lambda pair: isinstance(pair[1], ToolResultBlock)):
            blocks = list(group)
            parts = tuple(_part(block, turn.role, f"{turn.path}.content[{i}]") for i, block in blocks)
            role: Any = "tool" if is_result else turn.role
            placed.append(Placed(Message(role=role, parts=parts), index, tuple(i for i, _ in blocks)))
    return placed


def _part(block: Block, role: str, path: str) -> Part:
    match block:
        case TextBlock():
            return TextPart(text=block.text)
        case ImageBlock() | DocumentBlock() if role == "user":
            return _media(block, path)
        case ToolResultBlock() if role == "user":
            return _tool_result(block, path)
        case ToolUseBlock() if role == "assistant":
            google = block.extra_content.google if block.extra_content is not None else None
            signature = google.thought_signature if google is not None else None
            return ToolCallPart(
                id=block.id, name=block.name, arguments=bytes(block.input).decode(), signature=signature
            )
        case ThinkingBlock() if role == "assistant":
            return ThinkingPart(text=block.thinking, signature=block.signature or None)
        case RedactedBlock() if role == "assistant":
            return ThinkingPart(redacted=block.data)
        case OtherBlock():
            raise _unsupported(path, f"a block of type {block.type!r}")
    raise _unsupported(path, f"a block of this type in a turn of role {role!r}")


def _tool_result(block: ToolResultBlock, path: str) -> ToolResultPart:
    pieces: list[TextPart | MediaPart] = []
    for number, piece in enumerate(_read_blocks(block.content, f"{path}.content")):
        where = f"{path}.content[{number}]"
        if isinstance(piece, TextBlock):
            pieces.append(TextPart(text=piece.text))
        elif isinstance(piece, ImageBlock | DocumentBlock):
            pieces.append(_media(piece, where))
        else:
            raise _unsupported(where, "a block of this type in a tool's answer")
    return ToolResultPart(
        tool_call_id=block.tool_use_id, content=tuple(pieces), is_error=bool(block.is_error)
    )


def _media(block: ImageBlock | DocumentBlock, path: str) -> MediaPart:
    source = block.source
    kind: Literal["image", "file"] = "image" if isinstance(block, ImageBlock) else "file"
    title = block.title if isinstance(block, DocumentBlock) else None
    if source.type == "base64" and source.data is not None:
        return MediaPart(kind=kind, data=source.data, media_type=source.media_type, filename=title)
    if source.type == "url" and source.url is not None:
        return MediaPart(kind=kind, url=source.url, filename=title)
    if source.type == "text" and source.data is not None:
        data = binascii.b2a_base64(source.data.encode(), newline=False).decode()
        return MediaPart(kind=kind, data=data, media_type="text/plain", filename=title)
    raise _unsupported(f"{path}.source", f"a source of type {source.type!r}")


def _unsupported(path: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: {what} cannot be carried over to another vendor's format",
        param=path,
        code="unsupported_parameter",
    )
