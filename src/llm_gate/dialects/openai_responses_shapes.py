"""The shapes of Responses and text completions for the published document; the codecs read far more leniently."""

from typing import Any

from msgspec import Struct

from llm_gate.dialects.openai_shapes import UsageShape
from llm_gate.dialects.openai_wire import Count, Probability, StreamOptions


class ResponsesBodyShape(Struct, frozen=True):
    """The body of a request; `input` is text or a list of items (messages, calls, what tools answered)."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: float | None = None
    top_p: Probability | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    user: str | None = None


class ResponsesUsageShape(Struct, frozen=True):
    """Token counts; the input's include cached ones. `cost` is in dollars, null when unknown."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost: float | None = None


class ResponsesReplyShape(Struct, frozen=True):
    """A complete answer; `output` holds reasoning, message and function_call items in their order."""

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    incomplete_details: dict[str, Any] | None = None
    usage: ResponsesUsageShape | None = None


class CompletionBodyShape(Struct, frozen=True):
    """The body of a request for plain text; `prompt` becomes one message of the user."""

    model: str
    prompt: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: Probability | None = None
    n: Count | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None


class CompletionChoiceShape(Struct, frozen=True):
    """One choice of an answer."""

    text: str
    index: int
    finish_reason: str


class CompletionReplyShape(Struct, frozen=True):
    """A complete answer in plain text."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoiceShape]
    usage: UsageShape | None = None
