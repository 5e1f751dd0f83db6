"""Chat requests in the OpenAI wire format: read from callers, written to providers."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._fields import MEANINGFUL, carry_over, given
from llm_gate.dialects._json import given_or_none, is_given, read_as, read_object
from llm_gate.dialects.openai_messages import needs_of, read_messages, write_messages
from llm_gate.dialects.openai_results import decode_result
from llm_gate.dialects.openai_stream import OpenAIChatStream
from llm_gate.dialects.openai_unread import unread
from llm_gate.dialects.openai_wire import ChatBody, NamedTool, ResponseFormatBody, ToolDefinition
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import ResponseFormat, Tool, ToolChoice
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest, Wire
from llm_gate.domain.results import ChatResult

DIALECT = "openai"

_SUPPORTED = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "parallel_tool_calls",
        "reasoning_effort",
        "user",
        "service_tier",
        "tool_choice",
        "n",
        "stop",
        "tools",
        "response_format",
        "logprobs",
        "modalities",
    }
)
# Fields without a neutral form that change what the answer means.
_BINDING = ("functions", "function_call", "audio", "logit_bias", "web_search_options", "prediction")
_body_decoder = msgspec.json.Decoder(ChatBody)
_options_decoder = msgspec.json.Decoder(dict[str, Raw])
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(ChatBody))


def decode_chat_request(body: bytes) -> ChatRequest:
    """Read a chat request.

    Raises:
        InvalidRequest: it is malformed; nothing of it may be forwarded.
    """
    fields = read_object(body)
    parsed = read_as(_body_decoder, body)
    messages, conversation = read_messages(parsed.messages)
    tools, binding = _read_tools(parsed.tools or [])
    tool_choice = _read_choice(parsed.tool_choice, tools)
    if isinstance(parsed.tool_choice, NamedTool) and tool_choice is None:
        binding = (*binding, "tool_choice")
    response_format = _read_format(parsed.response_format)
    extra = {key: value for key, value in fields.items() if key not in _modelled and is_given(value)}
    return ChatRequest(
        model=parsed.model,
        conversation=conversation,
        needs=_needs(needs_of(messages), tools, response_format),
        stream=bool(parsed.stream),
        include_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
        # Where both are said both go out, and a vendor may know but one of them: the larger is what may come.
        max_output_tokens=max(parsed.max_completion_tokens or 0, parsed.max_tokens or 0) or None,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        top_k=parsed.top_k,
        frequency_penalty=parsed.frequency_penalty,
        presence_penalty=parsed.presence_penalty,
        stop=(parsed.stop,) if isinstance(parsed.stop, str) else tuple(parsed.stop or ()),
        n=parsed.n,
        seed=parsed.seed,
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=parsed.parallel_tool_calls,
        response_format=response_format,
        reasoning_effort=parsed.reasoning_effort,
        logprobs=parsed.logprobs,
        top_logprobs=parsed.top_logprobs,
        modalities=tuple(parsed.modalities or ()),
        user=parsed.user,
        service_tier=parsed.service_tier,
        extra=extra,
        binding=(*binding, *(name for name in _BINDING if name in extra)),
        wire=Wire(dialect=DIALECT, fields=fields, unread=lambda: unread(fields)),
    )


def _needs(
    found: frozenset[Ability], tools: tuple[Tool, ...], response_format: ResponseFormat | None
) -> frozenset[Ability]:
    if tools:
        found |= {"tools"}
    if response_format is not None and response_format.kind != "text":
        found |= {response_format.kind}
    return found


def _read_tools(tools: list[ToolDefinition]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the functions, and the wire paths of tools that are something else."""
    functions: list[Tool] = []
    others: list[str] = []
    for index, tool in enumerate(tools):
        function = tool.function
        if tool.type == "function":
            if function is None:
                path = f"tools[{index}].function"
                raise InvalidRequest(f"{path}: required field is missing", param=path)
            functions.append(
                Tool(
                    name=function.name,
                    description=function.description,
                    parameters=given_or_none(function.parameters),
                    strict=function.strict,
                )
            )
        else:
            others.append(f"tools[{index}].type")
    return tuple(functions), tuple(others)


def _read_choice(choice: str | NamedTool | None, tools: tuple[Tool, ...]) -> ToolChoice | None:
    """Return the choice; None for the default, and for a named tool that is no function."""
    if choice is None:
        return None
    if isinstance(choice, NamedTool):
        if choice.type != "function":
            return None
        if choice.function is None:
            path = "tool_choice.function"
            raise InvalidRequest(f"{path}: required field is missing", param=path)
        return ToolChoice(mode="named", name=choice.function.name)
    if choice == "auto" and not tools:
        return None
    # One vendor's older word for the same.
    return msgspec.convert({"mode": "required" if choice == "any" else choice}, ToolChoice)


def _read_format(body: ResponseFormatBody | None) -> ResponseFormat | None:
    if body is None:
        return None
    schema = body.json_schema
    if body.type == "json_schema" and schema is None:
        path = "response_format.json_schema"
        raise InvalidRequest(f"{path}: required field is missing", param=path)
    if schema is None:
        return ResponseFormat(kind=body.type)
    return ResponseFormat(
        kind=body.type,
        name=schema.name,
        schema=given_or_none(schema.schema),
        strict=schema.strict,
        description=schema.description,
    )


_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


class OpenAIChat:
    """The chat operation of every provider that speaks this dialect.

    `address` gives the full URL for a target and a path such as "chat/completions".
    """

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request; a body that came in this dialect goes out as it came."""
        if request.wire is not None and request.wire.dialect == DIALECT:
            body, dropped = _pass_on(request, request.wire.fields, target)
        else:
            body, dropped = _translate(request, target)
        body["model"] = target.wire_model
        if request.stream:
            body["stream"] = True
            if "stream_options" not in target.deployment.spec.drop:
                body["stream_options"] = _with_usage(request)
        return Encoded(
            request=HttpRequest(
                method="POST",
                url=self._address(target, "chat/completions"),
                headers={"content-type": "application/json"},
                body=msgspec.json.encode(body),
            ),
            dropped=dropped,
        )

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:  # noqa: ARG002
        """Read a complete answer."""
        return decode_result(reply, target)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Read a streamed answer; verbatim for a caller of this dialect."""
        verbatim = request.wire is not None and request.wire.dialect == DIALECT
        return OpenAIChatStream(target, verbatim=verbatim, explained=request.is_read)


def _with_usage(request: ChatRequest) -> dict[str, Any]:
    """Ask for the usage, whatever the caller wants to see, and keep the caller's other options."""
    is_own = request.wire is not None and request.wire.dialect == DIALECT
    raw = request.wire.fields.get("stream_options") if request.wire is not None and is_own else None
    options: dict[str, Any] = _options_decoder.decode(raw) if raw is not None and is_given(raw) else {}
    return {**options, "include_usage": True}


def _pass_on(
    request: ChatRequest, fields: Mapping[str, Raw], target: Target
) -> tuple[dict[str, Any], tuple[str, ...]]:
    spec = target.deployment.spec
    body: dict[str, Any] = dict(fields)
    body.pop("stream_options", None)
    if request.output_limit_tokens is not None:
        for name in _LIMITS & body.keys() or {spec.max_tokens_field or "max_tokens"}:
            body[name] = request.output_limit_tokens
    named = given(request)
    for name in spec.drop:
        if name in MEANINGFUL and name in named:
            raise InvalidRequest(
                f"{name}: provider {target.provider!r} does not take it",
                param=name,
                code="unsupported_parameter",
            )
    dropped = tuple(name for name in spec.drop if name in body and is_given(body[name]))
    for name in spec.drop:
        body.pop(name, None)
    _rename(body, spec.rename)
    return body, dropped


def _rename(body: dict[str, Any], names: Mapping[str, str]) -> None:
    """Move fields to a vendor's own names; a field the caller gave under that name stays."""
    for old, new in names.items():
        if old in body:
            value = body.pop(old)
            body.setdefault(new, value)


def _translate(request: ChatRequest, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    spec = target.deployment.spec
    supported = _SUPPORTED - set(spec.drop)
    dropped = carry_over(request, supported, target.provider)
    body: dict[str, Any] = {"messages": write_messages(request.conversation.messages)}
    plain = {
        spec.max_tokens_field or "max_tokens": None if "max_tokens" in dropped else request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": request.seed,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "reasoning_effort": request.reasoning_effort,
        "user": request.user,
        "service_tier": request.service_tier,
        "n": request.n,
        "stop": list(request.stop) or None,
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs,
        "modalities": list(request.modalities) or None,
        "tools": [_write_tool(tool) for tool in request.tools] or None,
        "tool_choice": _write_choice(request.tool_choice),
        "response_format": _write_format(request.response_format),
    }
    body.update((name, value) for name, value in plain.items() if value is not None and name not in dropped)
    _rename(body, spec.rename)
    return body, dropped


def _write_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _write_choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _write_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.kind != "json_schema":
        return {"type": wanted.kind}
    schema = {
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.schema,
        "strict": wanted.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in schema.items() if value is not None},
    }
