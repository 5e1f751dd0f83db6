"""What a request in the OpenAI wire format says inside its messages and tools that has no neutral form."""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._json import ABSENT
from llm_gate.dialects.openai_wire import (
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    ImageUrl,
    InputAudio,
    InputFile,
    RequestMessage,
    ToolCall,
    ToolDefinition,
)


class _Image(ImageUrl, frozen=True, forbid_unknown_fields=True):
    pass


class _Audio(InputAudio, frozen=True, forbid_unknown_fields=True):
    pass


class _File(InputFile, frozen=True, forbid_unknown_fields=True):
    pass


class _Part(ContentPart, frozen=True, forbid_unknown_fields=True):
    image_url: _Image | str | None = None
    input_audio: _Audio | None = None
    file: _File | None = None
    thinking: None = None


class _Function(FunctionCall, frozen=True, forbid_unknown_fields=True):
    pass


class _Call(ToolCall, frozen=True, forbid_unknown_fields=True):
    function: _Function | None = None


class _Message(RequestMessage, frozen=True, forbid_unknown_fields=True):
    # A list is not the list of another type, though what is read is the same.
    content: str | list[_Part] | None = None  # type: ignore[assignment]
    tool_calls: list[_Call] | None = None  # type: ignore[assignment]
    function_call: _Function | None = None


class _Definition(FunctionDefinition, frozen=True, forbid_unknown_fields=True):
    pass


class _Tool(ToolDefinition, frozen=True, forbid_unknown_fields=True):
    function: _Definition | None = None


class _Format(Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    json_schema: "_Schema | None" = None


class _Schema(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    schema: Raw = ABSENT
    strict: bool | None = None
    description: str | None = None


_DECODERS: Mapping[str, msgspec.json.Decoder[object]] = {
    "messages": msgspec.json.Decoder(list[_Message]),
    "tools": msgspec.json.Decoder(list[_Tool] | None),
    "response_format": msgspec.json.Decoder(_Format | None),
}


def unread(fields: Mapping[str, Raw]) -> bytes:
    """Return the fields that hold such a thing, as they came; nothing where there is none."""
    found: list[bytes] = []
    for name, decoder in _DECODERS.items():
        if name in fields:
            try:
                decoder.decode(fields[name])
            except msgspec.DecodeError:
                found.append(bytes(fields[name]))
    return b"".join(found)
