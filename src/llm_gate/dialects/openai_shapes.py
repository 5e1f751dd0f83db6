"""The shapes of OpenAI's requests and answers for the published document; the codecs read far more leniently."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from llm_gate.dialects.openai_wire import (
    Count,
    Penalty,
    Probability,
    StreamOptions,
)
from llm_gate.dialects.usage_info import UsageInfo


class ErrorDetail(Struct, frozen=True):
    """What went wrong. `usage_info` says what stands behind a limit's refusal."""

    message: str
    type: str
    param: str | None
    code: str | None
    usage_info: UsageInfo | UnsetType = UNSET


class ErrorShape(Struct, frozen=True):
    """An error answer."""

    error: ErrorDetail


class MessageShape(Struct, frozen=True):
    """One message; `content` is text or a list of parts (text, image_url, input_audio, file)."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class FunctionShape(Struct, frozen=True):
    """A function offered to the model."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolShape(Struct, frozen=True):
    """A tool offered to the model."""

    type: Literal["function"]
    function: FunctionShape


class ChatBodyShape(Struct, frozen=True):
    """The body of a chat request; further fields of the vendor's may be sent along."""

    model: str
    messages: list[MessageShape]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: float | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: str | list[str] | None = None
    n: Count | None = None
    seed: int | None = None
    tools: list[ToolShape] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    user: str | None = None


class UsageShape(Struct, frozen=True):
    """Token counts; the prompt's include cached ones. `cost` is in dollars, null when unknown."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None
    cost: float | None = None


class AnswerMessage(Struct, frozen=True):
    """The model's message."""

    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    reasoning_content: str | None = None


class ChoiceShape(Struct, frozen=True):
    """One choice of an answer."""

    index: int
    message: AnswerMessage
    finish_reason: str


class ChatReplyShape(Struct, frozen=True):
    """A complete answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChoiceShape]
    usage: UsageShape | None = None


class EmbeddingItem(Struct, frozen=True):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingReplyShape(Struct, frozen=True):
    """The vectors, in the order of the inputs."""

    object: str
    data: list[EmbeddingItem]
    model: str
    usage: UsageShape | None = None
