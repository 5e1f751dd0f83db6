"""Record types of the OpenAI wire format, as read; unknown fields are ignored here and survive as raw JSON."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from llm_gate.dialects._json import ABSENT

Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31)]


class ImageUrl(Struct, frozen=True):
    """A picture: a link or a data URL."""

    url: str
    detail: str | None = None


class InputAudio(Struct, frozen=True):
    """Base64 sound and its format (wav, mp3)."""

    data: str
    format: str = "wav"


class InputFile(Struct, frozen=True):
    """A document: a data URL, or the id of an uploaded file."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ThinkingText(Struct, frozen=True):
    """A piece of reasoning inside a content part, as one vendor of this dialect sends it."""

    text: str | None = None


class ContentPart(Struct, frozen=True):
    """One part of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    thinking: list[ThinkingText] | str | None = None


class FunctionCall(Struct, frozen=True):
    """The function a model asks for; `arguments` is JSON text."""

    name: str | None = None
    arguments: str | None = None


class Google(Struct, frozen=True):
    """Where Google's own service of this dialect puts the signature of a thought."""

    thought_signature: str | None = None


class ExtraContent(Struct, frozen=True):
    """Vendor data that rides on a tool call."""

    google: Google | None = None


class ToolCall(Struct, frozen=True):
    """A tool call of a message or of a stream's delta."""

    id: str | None = None
    type: str | None = None
    index: int | None = None
    function: FunctionCall | None = None
    extra_content: ExtraContent | None = None

    @property
    def signature(self) -> str | None:
        """The signature that must travel back with the call."""
        google = self.extra_content.google if self.extra_content else None
        return google.thought_signature if google else None


class RequestMessage(Struct, frozen=True):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    audio: Raw = ABSENT
    refusal: str | None = None
    reasoning_content: str | None = None


class FunctionDefinition(Struct, frozen=True):
    """A function offered to the model."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class ToolDefinition(Struct, frozen=True):
    """A tool offered to the model; only functions have a neutral form."""

    type: str
    function: FunctionDefinition | None = None


class NamedFunction(Struct, frozen=True):
    """The function a tool choice names."""

    name: str


class NamedTool(Struct, frozen=True):
    """A tool choice that names one tool."""

    type: str
    function: NamedFunction | None = None


class JsonSchema(Struct, frozen=True):
    """The schema of a structured answer."""

    name: Annotated[str, Meta(min_length=1)]
    schema: Raw = ABSENT
    strict: bool | None = None
    description: str | None = None


class ResponseFormatBody(Struct, frozen=True):
    """The requested form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct, frozen=True):
    """What the caller wants in the stream."""

    include_usage: bool | None = None


class ChatBody(Struct, frozen=True):
    """The body of a chat request; `messages` is decoded on its own."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Raw
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["auto", "none", "required", "any"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormatBody | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    modalities: list[str] | None = None
    user: str | None = None
    service_tier: str | None = None


class ReplyMessage(Struct, frozen=True):
    """The message of a complete answer, or the delta of a streamed one."""

    role: str | None = None
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: Raw = ABSENT


class ReplyChoice(Struct, frozen=True):
    """One choice of an answer or of a chunk."""

    index: int = 0
    message: ReplyMessage | None = None
    delta: ReplyMessage | None = None
    finish_reason: str | None = None
    logprobs: Raw = ABSENT


class Completion(Struct, frozen=True):
    """A complete answer or one chunk of a stream."""

    choices: list[ReplyChoice] | None = None
    id: str | None = None
    model: str | None = None
    created: float | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT
    object: str | None = None


class PromptDetails(Struct, frozen=True):
    """Children of the prompt tokens."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionDetails(Struct, frozen=True):
    """Children of the completion tokens."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class UsageBody(Struct, frozen=True):
    """Token counts; the prompt's include cached ones."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cost: Raw = ABSENT
