"""Requests in OpenAI's Responses format, read from callers: what is asked for, and what the answer repeats of it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._json import given_or_none, is_given, read_as, read_object
from llm_gate.dialects.openai_responses_items import media_needs, read_input
from llm_gate.dialects.openai_responses_wire import (
    ChosenTool,
    FormatBody,
    ReasoningBody,
    ResponsesBody,
    TextBody,
    ToolBody,
)
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import Conversation, ResponseFormat, Tool, ToolChoice
from llm_gate.domain.requests import ChatRequest

_body_decoder = msgspec.json.Decoder(ResponsesBody)
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(ResponsesBody))
# Hints without a neutral form, with the values that ask for nothing a stateless gateway does not do anyway.
_HINTS: Mapping[str, tuple[bytes, ...]] = {
    "metadata": (b"{}",),
    "safety_identifier": (),
    "prompt_cache_key": (),
    "truncation": (b'"disabled"',),
    "store": (b"false",),
    "stream_options": (),
}
_STATEFUL = ("previous_response_id", "conversation", "prompt")
_LOGPROBS = "message.output_text.logprobs"


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """A request in neutral form, and the fields that the answer repeats, as they are written there."""

    chat: ChatRequest
    echo: Mapping[str, Any]


def decode_responses_request(body: bytes) -> ResponsesRequest:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, or leans on a state that the gateway does not keep.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    _refuse_state(parsed, fields)
    messages = read_input(parsed.input, parsed.instructions)
    tools, binding = _read_tools(parsed.tools or [])
    tool_choice = _read_choice(parsed.tool_choice, tools)
    if isinstance(parsed.tool_choice, ChosenTool) and tool_choice is None:
        binding = (*binding, "tool_choice")
    wanted = _read_format(parsed.text.format if parsed.text is not None else None)
    logprobs = _LOGPROBS in (parsed.include or ()) or bool(parsed.top_logprobs)
    if logprobs and parsed.stream:
        # The neutral events of a stream have no place for them.
        binding = (*binding, "top_logprobs" if parsed.top_logprobs else "include")
    chat = ChatRequest(
        model=parsed.model,
        conversation=Conversation(lambda: messages),
        needs=_needs(media_needs(messages), tools, wanted),
        stream=bool(parsed.stream),
        max_output_tokens=parsed.max_output_tokens,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        frequency_penalty=parsed.frequency_penalty,
        presence_penalty=parsed.presence_penalty,
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=parsed.parallel_tool_calls,
        response_format=wanted,
        reasoning_effort=parsed.reasoning.effort if parsed.reasoning is not None else None,
        logprobs=True if logprobs else None,
        top_logprobs=parsed.top_logprobs or None,
        user=parsed.user,
        service_tier=parsed.service_tier,
        extra=_dropped(parsed, fields),
        binding=binding,
    )
    return ResponsesRequest(chat=chat, echo=_echo(parsed, chat))


def _refuse_state(parsed: ResponsesBody, fields: Mapping[str, Raw]) -> None:
    for name in _STATEFUL:
        if name in fields and is_given(fields[name]):
            raise InvalidRequest(
                f"{name}: the gateway keeps no state between calls; send the whole conversation as input",
                param=name,
                code="unsupported_parameter",
            )
    if parsed.background:
        raise InvalidRequest(
            "background: the gateway answers at once or not at all",
            param="background",
            code="unsupported_parameter",
        )


def _needs(
    found: frozenset[Ability], tools: tuple[Tool, ...], wanted: ResponseFormat | None
) -> frozenset[Ability]:
    if tools:
        found |= {"tools"}
    if wanted is not None and wanted.kind != "text":
        found |= {wanted.kind}
    return found


def _read_tools(tools: list[ToolBody]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the functions, and the wire paths of tools that are something else."""
    functions: list[Tool] = []
    others: list[str] = []
    for index, tool in enumerate(tools):
        if tool.type != "function":
            others.append(f"tools[{index}].type")
            continue
        if not tool.name:
            raise _missing(f"tools[{index}].name")
        functions.append(
            Tool(
                name=tool.name,
                description=tool.description,
                parameters=given_or_none(tool.parameters),
                strict=tool.strict,
            )
        )
    return tuple(functions), tuple(others)


def _read_choice(choice: str | ChosenTool | None, tools: tuple[Tool, ...]) -> ToolChoice | None:
    """Return the choice; None for the default, and for one that has no neutral form."""
    if isinstance(choice, ChosenTool):
        if choice.type != "function":
            return None
        if not choice.name:
            raise _missing("tool_choice.name")
        return ToolChoice(mode="named", name=choice.name)
    if choice is None or (choice == "auto" and not tools):
        return None
    return msgspec.convert({"mode": choice}, ToolChoice)


def _read_format(body: FormatBody | None) -> ResponseFormat | None:
    if body is None:
        return None
    if body.type != "json_schema":
        return ResponseFormat(kind=body.type)
    if not body.name:
        raise _missing("text.format.name")
    if not is_given(body.schema):
        raise _missing("text.format.schema")
    return ResponseFormat(
        kind=body.type,
        name=body.name,
        schema=body.schema,
        strict=body.strict,
        description=body.description,
    )


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: required field is missing", param=path)


def _dropped(parsed: ResponsesBody, fields: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return the hints that no other format can say, by their wire paths."""
    found = {
        name: fields[name]
        for name, idle in _HINTS.items()
        if name in fields and is_given(fields[name]) and bytes(fields[name]) not in idle
    }
    if any(wish != _LOGPROBS for wish in parsed.include or ()):
        found["include"] = fields["include"]
    text, reasoning = parsed.text or TextBody(), parsed.reasoning or ReasoningBody()
    nested = {
        "text.verbosity": text.verbosity,
        "reasoning.summary": reasoning.summary,
        "reasoning.generate_summary": reasoning.generate_summary,
        "reasoning.context": reasoning.context,
        "reasoning.mode": reasoning.mode,
    }
    found |= {path: raw for path, raw in nested.items() if is_given(raw)}
    return found | {name: raw for name, raw in fields.items() if name not in _modelled and is_given(raw)}


def _echo(parsed: ResponsesBody, chat: ChatRequest) -> dict[str, Any]:
    """Return what an answer repeats of its request, with the defaults of what was not said."""
    return {
        "background": False,
        "instructions": parsed.instructions,
        "max_output_tokens": chat.max_output_tokens,
        "max_tool_calls": None,
        "parallel_tool_calls": chat.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": parsed.prompt_cache_key,
        "reasoning": {"effort": chat.reasoning_effort, "summary": None},
        "safety_identifier": parsed.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0 if chat.temperature is None else chat.temperature,
        "text": {"format": _write_format(chat.response_format)},
        "tool_choice": _write_choice(chat.tool_choice),
        "tools": [_write_tool(tool) for tool in chat.tools],
        "top_logprobs": chat.top_logprobs or 0,
        "top_p": 1.0 if chat.top_p is None else chat.top_p,
        "frequency_penalty": chat.frequency_penalty or 0.0,
        "presence_penalty": chat.presence_penalty or 0.0,
        "truncation": "disabled",
        "user": parsed.user,
        "metadata": parsed.metadata or {},
    }


def _write_tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": _on_one_line(tool.parameters),
        "strict": tool.strict,
    }


def _write_choice(choice: ToolChoice | None) -> str | dict[str, Any]:
    if choice is None:
        return "auto"
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


def _write_format(wanted: ResponseFormat | None) -> dict[str, Any]:
    if wanted is None:
        return {"type": "text"}
    optional = {
        "name": wanted.name,
        "description": wanted.description,
        "schema": _on_one_line(wanted.schema),
        "strict": wanted.strict,
    }
    return {"type": wanted.kind, **{name: value for name, value in optional.items() if value is not None}}


def _on_one_line(raw: Raw | None) -> Raw | None:
    """Return raw JSON without the caller's line breaks, which would end an event of a stream."""
    return None if raw is None else Raw(msgspec.json.format(bytes(raw), indent=-1))
