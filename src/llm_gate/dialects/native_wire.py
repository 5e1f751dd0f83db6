"""Record types of the native wire format: bodies as callers send them, answers as they are written.

Requests refuse unknown fields; answers leave out what is unknown. The OpenAPI document is made from these.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from llm_gate.domain.results import FinishReason

Name = Annotated[str, Meta(min_length=1)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

Number = Annotated[Raw, Meta(extra_json_schema={"type": "number"})]
"""A decimal number, written digit by digit: money never passes through a float."""


class Body(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a caller sends."""


class Reply(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a caller gets."""


class ModelSelector(Body, frozen=True, kw_only=True):
    """The model a caller wants; none means the provider's own choice."""

    name: Name | None = None


class ProviderSelector(Body, frozen=True, kw_only=True):
    """The provider and model a caller wants; none means the gateway's choice."""

    name: Name | None = None
    model: ModelSelector | None = None


class ChatParameter(Body, frozen=True, kw_only=True):
    """How the answer is to be made. `jsonMode` asks for a JSON object."""

    temperature: Temperature | None = None
    max_tokens: Count | None = None
    top_p: Probability | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    json_mode: bool | None = None


class ImageLink(Body, frozen=True, kw_only=True):
    """A picture: an http(s) link or a base64 data URL."""

    url: Name
    detail: str | None = None


class ContentPart(Body, frozen=True, kw_only=True):
    """One part of a message: text or a picture."""

    type: Literal["text", "imageUrl", "image_url"]
    text: str | None = None
    image_url: ImageLink | None = None


class ToolCallBody(Body, frozen=True, kw_only=True):
    """A tool call sent back as it came; `arguments` is JSON text."""

    name: Name
    id: str | None = None
    arguments: str | None = None


class MessageBody(Body, frozen=True, kw_only=True):
    """One message.

    Role "tool" (or "function") carries what a tool answered, in `content`; with `tool` instead it is a call
    that an earlier answer made, sent back as it came. An assistant's calls may also ride on its own message.
    """

    role: Literal["system", "user", "assistant", "function", "tool"]
    content: str | list[ContentPart] | None = None
    name: Name | None = None
    tool_call_id: Name | None = None
    tool: ToolCallBody | None = None
    tool_calls: list[ToolCallBody] | None = None


class ToolBody(Body, frozen=True, kw_only=True):
    """A function offered to the model; `parameters` is a JSON Schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Raw] | None = None


class FunctionSelector(Body, frozen=True, kw_only=True):
    """The function a tool choice names."""

    name: Name


class ToolSelector(Body, frozen=True, kw_only=True):
    """A tool choice that names one tool, directly or as a function."""

    type: Literal["function"] | None = None
    name: Name | None = None
    function: FunctionSelector | None = None


ToolChoiceBody = Literal["required", "auto", "none"] | ToolSelector


class ResponseFormatBody(Body, frozen=True, kw_only=True):
    """The form the answer must have; `schema` and `name` belong to type json_schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema: dict[str, Raw] | None = None


class Prompt(Body, frozen=True, kw_only=True):
    """The conversation and how to answer it."""

    messages: Annotated[list[MessageBody], Meta(min_length=1)]
    parameter: ChatParameter | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    response_format: ResponseFormatBody | None = None


Fallbacks = Annotated[list[Name], Meta(max_length=8)]


class ChatBody(Body, frozen=True, kw_only=True):
    """The body of a chat request. Tools may stand in the prompt or here, not in both.

    `fallbacks` are models or aliases to try after the first one, as `provider/model`.
    """

    prompt: Prompt
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None


class EmbeddingContent(Body, frozen=True, kw_only=True):
    """The texts to be turned into vectors."""

    texts: Annotated[list[Name], Meta(min_length=1, max_length=2048)]


class EmbeddingParameter(Body, frozen=True, kw_only=True):
    """How the vectors are to be made."""

    dimensions: Annotated[int, Meta(ge=1, le=2**20)] | None = None


class EmbeddingsBody(Body, frozen=True, kw_only=True):
    """The body of an embedding request."""

    content: EmbeddingContent
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    parameter: EmbeddingParameter | None = None


class TokenUsage(Reply, frozen=True, kw_only=True):
    """Token counts of a chat; the prompt's include cached ones."""

    completion_tokens: int
    prompt_tokens: int
    total_tokens: int


class EmbeddingUsage(Reply, frozen=True, kw_only=True):
    """Token counts of an embedding."""

    prompt_tokens: int
    total_tokens: int


class ToolCallReply(Reply, frozen=True, kw_only=True):
    """A tool the model asks for; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class AssistantMessage(Reply, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """What the model says."""

    content: str


class ToolMessage(Reply, frozen=True, kw_only=True, tag_field="role", tag="tool"):
    """A tool call of the model."""

    tool: ToolCallReply


class ModelName(Reply, frozen=True, kw_only=True):
    """The model that answered."""

    name: str


class ProviderName(Reply, frozen=True, kw_only=True):
    """The provider and model that answered."""

    name: str
    model: ModelName


class TokenPrice(Reply, frozen=True, kw_only=True):
    """What `unitOfMeasure` tokens cost; a side that was not billed is left out."""

    unit_of_measure: int = 1_000_000
    currency: str = "USD"
    input_value: Number | UnsetType = UNSET
    output_value: Number | UnsetType = UNSET


class TokenCost(Reply, frozen=True, kw_only=True):
    """What the tokens of one call cost, in the price's currency."""

    price: TokenPrice
    prompt: Number
    completion: Number
    total: Number


class CostReply(Reply, frozen=True, kw_only=True):
    """What one call costs."""

    token: TokenCost


class ChatReply(Reply, frozen=True, kw_only=True):
    """The answer to a chat request. Usage and cost are left out where they are unknown."""

    usage: TokenUsage | UnsetType = UNSET
    messages: list[AssistantMessage | ToolMessage]
    finish_reason: FinishReason | UnsetType = UNSET
    provider: ProviderName
    cost: CostReply | UnsetType = UNSET


class StreamMessage(Reply, frozen=True, kw_only=True):
    """One event of a streamed answer: a piece of text, or a complete tool call."""

    message: AssistantMessage | ToolMessage


class StreamEnd(Reply, frozen=True, kw_only=True):
    """The last event of a complete streamed answer."""

    usage: TokenUsage | UnsetType = UNSET
    cost: CostReply | UnsetType = UNSET
    finish_reason: FinishReason | UnsetType = UNSET
    provider: ProviderName


class EmbeddingsReply(Reply, frozen=True, kw_only=True):
    """The answer to an embedding request: one vector for each text, in their order."""

    data: tuple[tuple[float, ...], ...]
    usage: EmbeddingUsage | UnsetType = UNSET
    cost: CostReply | UnsetType = UNSET


class ErrorDetail(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong; `statusCode` is symbolic."""

    status_code: str
    message: str
    details: str | None = None


class UsageInfoReply(Reply, frozen=True, kw_only=True):
    """How far a limit is used; the field `current…` is named after what is counted, money is in US dollars.

    What calls under way hold is counted as used; `held` tells how much that is. After the end of a subscription,
    `expired` is true and `periodEnd` its end.
    """

    type: str
    limit: Number | int | None
    provider: str | None = None
    operation_type: str | None = None
    current_calls: int | UnsetType = UNSET
    current_tokens: int | UnsetType = UNSET
    current_jobs: int | UnsetType = UNSET
    current_cost: Number | UnsetType = UNSET
    requested: Number | int | UnsetType = UNSET
    held: Number | int | UnsetType = UNSET
    remaining: Number | int | UnsetType = UNSET
    usage_percentage: Number | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    resets_at: datetime | UnsetType | None = UNSET
    expired: bool | UnsetType = UNSET
    period_end: datetime | UnsetType = UNSET
    upgrade_to: str | UnsetType | None = UNSET


class ErrorReply(Reply, frozen=True, kw_only=True):
    """The body of every answer that is not a success. `usageInfo` says what stands behind a limit's refusal."""

    error_details: tuple[ErrorDetail, ...]
    usage_info: UsageInfoReply | UnsetType = UNSET
