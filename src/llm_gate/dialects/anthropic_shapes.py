"""The shapes of the Messages format for the published document; the codecs read far more leniently."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from llm_gate.dialects.anthropic_inbound import Fraction, Limit, Metadata
from llm_gate.dialects.usage_info import UsageInfo


class MessagesErrorDetail(Struct, frozen=True):
    """What went wrong. `usage_info` says what stands behind a limit's refusal."""

    type: str
    message: str
    usage_info: UsageInfo | UnsetType = UNSET


class MessagesErrorShape(Struct, frozen=True):
    """An error answer."""

    type: Literal["error"]
    error: MessagesErrorDetail
    request_id: str | None


class TurnShape(Struct, frozen=True):
    """One turn; `content` is text or a list of blocks (text, image, document, tool_use, tool_result, thinking)."""

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


class InputSchemaShape(Struct, frozen=True):
    """A JSON Schema of an object."""

    type: Literal["object"]
    properties: dict[str, Any] | None = None
    required: list[str] | None = None


class MessagesToolShape(Struct, frozen=True):
    """A tool offered to the model."""

    name: str
    input_schema: InputSchemaShape
    description: str | None = None


class CountBodyShape(Struct, frozen=True, kw_only=True):
    """The body of a request to count tokens."""

    model: str
    messages: list[TurnShape]
    system: str | list[dict[str, Any]] | None = None
    tools: list[MessagesToolShape] | None = None


class CountShape(Struct, frozen=True):
    """The count."""

    input_tokens: int


class MessagesBodyShape(CountBodyShape, frozen=True, kw_only=True):
    """The body of a chat request; further fields of the vendor's may be sent along."""

    max_tokens: Limit
    stream: bool | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: Metadata | None = None


class MessagesUsageShape(Struct, frozen=True):
    """Token counts; the input's leave out cached ones. `cost` is in dollars; null is unknown."""

    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class MessagesReplyShape(Struct, frozen=True):
    """A complete answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: MessagesUsageShape
