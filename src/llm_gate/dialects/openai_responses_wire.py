"""Record types of OpenAI's Responses format, as read; unknown fields are ignored here and listed as dropped."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from llm_gate.dialects._json import ABSENT
from llm_gate.dialects.openai_wire import Count, ExtraContent, InputAudio, Penalty, Probability


class ContentBody(Struct, frozen=True):
    """One part of a message, or of what a tool answered."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: InputAudio | None = None


class ReasoningText(Struct, frozen=True):
    """A piece of shown reasoning."""

    text: str | None = None


class ItemBody(Struct, frozen=True):
    """One item of the input; which fields must be there depends on its type. A message may leave its type out."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ContentBody] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[ContentBody] | None = None
    summary: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    extra_content: ExtraContent | None = None

    @property
    def signature(self) -> str | None:
        """The signature that must travel back with a call."""
        google = self.extra_content.google if self.extra_content else None
        return google.thought_signature if google else None


class ToolBody(Struct, frozen=True):
    """A tool offered to the model; only functions have a neutral form."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class ChosenTool(Struct, frozen=True):
    """A tool choice that names one tool, or a set of them."""

    type: str
    name: str | None = None


class FormatBody(Struct, frozen=True):
    """The requested form of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Raw = ABSENT
    strict: bool | None = None
    description: str | None = None


class TextBody(Struct, frozen=True):
    """What is said about the answer's text."""

    format: FormatBody | None = None
    verbosity: Raw = ABSENT


class ReasoningBody(Struct, frozen=True):
    """How the model is to think."""

    effort: str | None = None
    summary: Raw = ABSENT
    generate_summary: Raw = ABSENT
    context: Raw = ABSENT
    mode: Raw = ABSENT


class ResponsesBody(Struct, frozen=True):
    """The body of a request; `input` is decoded on its own."""

    model: Annotated[str, Meta(min_length=1)]
    input: Raw = ABSENT
    instructions: str | None = None
    stream: bool | None = None
    stream_options: Raw = ABSENT
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = ABSENT
    prompt: Raw = ABSENT
