"""A conversation in neutral form: messages made of small parts, tagged so that kept ones can be told apart."""

from collections.abc import Callable
from typing import Literal

from msgspec import Raw, Struct

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(Struct, frozen=True, kw_only=True, tag="text"):
    """Plain text. `refusal` marks text in which the model declined."""

    text: str
    refusal: bool = False


class MediaPart(Struct, frozen=True, kw_only=True, tag="media"):
    """A picture, sound, film or document: either a link or base64 data with its media type."""

    kind: Literal["image", "audio", "video", "file"]
    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None
    filename: str | None = None


class ThinkingPart(Struct, frozen=True, kw_only=True, tag="thinking"):
    """Reasoning the vendor showed. `signature` must travel back unchanged; `redacted` is opaque data."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class ToolCallPart(Struct, frozen=True, kw_only=True, tag="tool_call"):
    """The model asks for a tool. `arguments` is JSON text; `signature` must travel back unchanged."""

    id: str
    name: str
    arguments: str
    signature: str | None = None


class ToolResultPart(Struct, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered. `name` is the tool's, where the wire format carries it."""

    tool_call_id: str
    content: tuple["TextPart | MediaPart", ...]
    name: str | None = None
    is_error: bool = False


Part = TextPart | MediaPart | ThinkingPart | ToolCallPart | ToolResultPart


class Message(Struct, frozen=True, kw_only=True):
    """One turn. A tool's answers come as role "tool" with only ToolResultParts."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """All plain text of the turn, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart) and not part.refusal)


class Conversation:
    """The messages of a request, validated at once but translated only when somebody reads them.

    A request that leaves in the dialect it came in never needs the neutral form.
    """

    __slots__ = ("_messages", "_translate")

    def __init__(self, translate: Callable[[], tuple[Message, ...]]) -> None:
        self._translate = translate
        self._messages: tuple[Message, ...] | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages, oldest first."""
        if self._messages is None:
            self._messages = self._translate()
        return self._messages


class Tool(Struct, frozen=True, kw_only=True):
    """A function the model may ask for. `parameters` is a JSON Schema as raw JSON."""

    name: str
    description: str | None = None
    parameters: Raw | None = None
    strict: bool | None = None


class ToolChoice(Struct, frozen=True, kw_only=True):
    """Whether and which tool must be used; `name` only with mode "named"."""

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """The form the answer must have; `schema` is raw JSON Schema, only with kind "json_schema"."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Raw | None = None
    strict: bool | None = None
    description: str | None = None
