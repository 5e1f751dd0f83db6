"""The native wire format: chat and embedding requests read from callers, answers and errors written to them.

Streams, the list of providers and the record types live in their own native_ modules.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from llm_gate.dialects.native_costs import write_cost
from llm_gate.dialects.native_faults import add_fault, read_chat_body, read_embeddings_body, refusal
from llm_gate.dialects.native_messages import read_messages
from llm_gate.dialects.native_wire import (
    AssistantMessage,
    ChatParameter,
    ChatReply,
    EmbeddingsReply,
    EmbeddingUsage,
    ErrorDetail,
    ErrorReply,
    ModelName,
    ProviderName,
    ProviderSelector,
    ResponseFormatBody,
    TokenUsage,
    ToolBody,
    ToolCallReply,
    ToolChoiceBody,
    ToolMessage,
    ToolSelector,
    UsageInfoReply,
)
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import Fault
from llm_gate.domain.messages import (
    Conversation,
    MediaPart,
    Message,
    Part,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
)
from llm_gate.domain.pricing import Cost
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.usage import Usage

_ERROR_CODES = {400: "ERROR_001", 500: "ERROR_002", 429: "ERROR_003", 404: "ERROR_004"}

T = TypeVar("T")


def decode_chat_request(body: bytes) -> ChatRequest:
    """Read a chat request.

    `model` of the result is "provider/model", "provider/", "model" or "", as far as the caller named them.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    return _read_chat(body, stream=False)


def decode_chat_stream_request(body: bytes) -> ChatRequest:
    """Read a chat request whose answer is to be streamed, with its usage in the last event.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    return _read_chat(body, stream=True)


def _read_chat(body: bytes, *, stream: bool) -> ChatRequest:
    parsed, faults = read_chat_body(body)
    messages, more = read_messages(parsed.prompt.messages, "prompt.messages")
    faults += [*name_faults(parsed.provider), *more]
    tools, tools_path = _one_of(parsed.prompt.tools, parsed.tools, "tools", faults)
    choice: ToolChoiceBody | None
    choice, choice_path = _one_of(parsed.prompt.tool_choice, parsed.tool_choice, "toolChoice", faults)
    tool_choice = _read_choice(choice, tools or [], (choice_path, tools_path), faults)
    parameter = parsed.prompt.parameter or ChatParameter()
    response_format = _read_format(parsed.prompt.response_format, parameter.json_mode, faults)
    if faults:
        raise refusal(faults)
    return ChatRequest(
        model=model_name(parsed.provider),
        conversation=Conversation(lambda: messages),
        needs=_needs(messages, tools or [], response_format),
        stream=stream,
        include_usage=stream,
        max_output_tokens=parameter.max_tokens,
        temperature=parameter.temperature,
        top_p=parameter.top_p,
        stop=(parameter.stop,) if isinstance(parameter.stop, str) else tuple(parameter.stop or ()),
        seed=parameter.seed,
        tools=tuple(_read_tool(tool) for tool in tools or ()),
        tool_choice=tool_choice,
        response_format=response_format,
        fallbacks=tuple(parsed.fallbacks or ()),
    )


def decode_embedding_request(body: bytes) -> EmbeddingRequest:
    """Read an embedding request; `model` is written as for a chat.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    parsed, faults = read_embeddings_body(body)
    faults += name_faults(parsed.provider)
    if faults:
        raise refusal(faults)
    return EmbeddingRequest(
        model=model_name(parsed.provider),
        inputs=tuple(parsed.content.texts),
        dimensions=None if parsed.parameter is None else parsed.parameter.dimensions,
        fallbacks=tuple(parsed.fallbacks or ()),
    )


def model_name(provider: ProviderSelector | None) -> str:
    """Return the neutral name of what a caller selects: "provider/model", "provider/", "model" or ""."""
    if provider is None:
        return ""
    model = (provider.model.name if provider.model is not None else None) or ""
    return model if provider.name is None else f"{provider.name}/{model}"


def name_faults(provider: ProviderSelector | None) -> list[Fault]:
    """Return what is wrong with how a provider is named."""
    # The neutral name is split at its first slash, so one in here would silently name another provider.
    if provider is None or provider.name is None or "/" not in provider.name:
        return []
    return [Fault("provider.name", "must not hold a slash; the model goes into provider.model.name")]


def _one_of(in_prompt: T | None, on_top: T | None, name: str, faults: list[Fault]) -> tuple[T | None, str]:
    """Return what was given in either of two places, and where."""
    if in_prompt is not None and on_top is not None:
        faults.append(Fault(name, f"is given twice, here and as prompt.{name}"))
    return (on_top, name) if in_prompt is None and on_top is not None else (in_prompt, f"prompt.{name}")


def _read_tool(tool: ToolBody) -> Tool:
    return Tool(name=tool.name, description=tool.description, parameters=_raw(tool.parameters))


def _raw(schema: dict[str, Raw] | None) -> Raw | None:
    return None if schema is None else Raw(msgspec.json.encode(schema))


def _read_choice(
    choice: ToolChoiceBody | None, tools: list[ToolBody], paths: tuple[str, str], faults: list[Fault]
) -> ToolChoice | None:
    choice_path, tools_path = paths
    if choice is None:
        return None
    if isinstance(choice, ToolSelector):
        names = {choice.name, choice.function.name if choice.function is not None else None} - {None}
        if len(names) != 1:
            faults.append(Fault(choice_path, "must name exactly one tool"))
            return None
        name = names.pop()
        if not any(tool.name == name for tool in tools):
            add_fault(faults, Fault(tools_path, f"must hold the tool {name!r} that {choice_path} names"))
        return ToolChoice(mode="named", name=name)
    if tools:
        return ToolChoice(mode=choice)
    if choice == "required":
        add_fault(faults, Fault(tools_path, f"must hold a tool, since {choice_path} requires one"))
    return None


def _read_format(
    body: ResponseFormatBody | None, json_mode: bool | None, faults: list[Fault]
) -> ResponseFormat | None:
    path = "prompt.responseFormat"
    if body is None:
        return ResponseFormat(kind="json_object") if json_mode else None
    if json_mode and body.type != "json_object":
        faults.append(Fault(f"{path}.type", "contradicts prompt.parameter.jsonMode"))
    if body.type == "json_schema":
        if body.schema is None:
            add_fault(faults, Fault(f"{path}.schema", "required field is missing"))
        return ResponseFormat(kind="json_schema", name=body.name, schema=_raw(body.schema))
    stray = (name for name in ("schema", "name") if getattr(body, name) is not None)
    faults += [Fault(f"{path}.{name}", "belongs to type json_schema") for name in stray]
    return ResponseFormat(kind=body.type)


def _needs(
    messages: Sequence[Message], tools: list[ToolBody], response_format: ResponseFormat | None
) -> frozenset[Ability]:
    found: set[Ability] = {"tools"} if tools else set()
    if response_format is not None and response_format.kind != "text":
        found.add(response_format.kind)
    if any(_shows_picture(part) for message in messages for part in message.parts):
        found.add("images")
    return frozenset(found)


def _shows_picture(part: Part) -> bool:
    pieces = getattr(part, "content", (part,))
    return any(isinstance(piece, MediaPart) for piece in pieces)


def encode_chat_result(result: ChatResult, *, provider: str, model: str, cost: Cost | None) -> bytes:
    """Write a complete answer."""
    reply = ChatReply(
        usage=write_usage(result.usage),
        messages=[message for choice in result.choices for message in _write_messages(choice.parts)],
        finish_reason=result.choices[0].finish_reason if result.choices else UNSET,
        provider=ProviderName(name=provider, model=ModelName(name=model)),
        cost=write_cost(cost),
    )
    return msgspec.json.encode(reply)


def write_usage(usage: Usage | None) -> TokenUsage | UnsetType:
    """Write the three documented counts; nothing where the usage is unknown."""
    if usage is None:
        return UNSET
    return TokenUsage(
        completion_tokens=usage.output_tokens,
        prompt_tokens=usage.input_tokens,
        total_tokens=usage.total_tokens,
    )


def _write_messages(parts: Sequence[Part]) -> list[AssistantMessage | ToolMessage]:
    text = "".join(part.text for part in parts if isinstance(part, TextPart))
    calls: list[AssistantMessage | ToolMessage] = [
        ToolMessage(tool=ToolCallReply(id=part.id, name=part.name, arguments=part.arguments))
        for part in parts
        if isinstance(part, ToolCallPart)
    ]
    return [AssistantMessage(content=text), *calls] if text or not calls else calls


def encode_embedding_result(
    result: EmbeddingResult,
    *,
    provider: str,  # noqa: ARG001 - the documented body names neither; the headers do
    model: str,  # noqa: ARG001 - same
    cost: Cost | None,
) -> bytes:
    """Write the vectors, in the order of the texts."""
    counts: EmbeddingUsage | UnsetType = UNSET
    if result.usage is not None:
        counts = EmbeddingUsage(
            prompt_tokens=result.usage.input_tokens, total_tokens=result.usage.total_tokens
        )
    return msgspec.json.encode(EmbeddingsReply(data=result.vectors, usage=counts, cost=write_cost(cost)))


def error_code(status: int) -> str:
    """Return the symbolic code that stands for an HTTP status in `errorDetails`."""
    return _ERROR_CODES.get(status, f"ERROR_{status}")


def encode_error(details: Sequence[ErrorDetail], usage_info: UsageInfoReply | UnsetType = UNSET) -> bytes:
    """Write an error body: `{"errorDetails": [{statusCode, message, details?}], "usageInfo"?}`."""
    return msgspec.json.encode(ErrorReply(error_details=tuple(details), usage_info=usage_info))
