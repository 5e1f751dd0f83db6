"""Chat requests in Anthropic's Messages format, read from callers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._json import ABSENT, given_or_none, is_given, read_as, read_object
from llm_gate.dialects.anthropic_turns import TextBlock, hints_of, needs_of, place_messages, read_turns
from llm_gate.dialects.anthropic_wire import DIALECT
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import Conversation, ResponseFormat, Tool, ToolChoice
from llm_gate.domain.requests import ChatRequest, Wire

Limit = Annotated[int, Meta(ge=1, le=2**31)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

FORWARDED_HEADERS = ("anthropic-beta",)
"""Inbound headers that travel on to a vendor of this dialect."""

# Fields without a neutral form that change what the answer means, or where it may be computed.
_BINDING = ("mcp_servers", "container", "inference_geo")
_MODES: Mapping[str, str] = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}
_TOOL_KEYS = frozenset({"type", "name", "description", "input_schema", "strict"})
_OUTPUT_KEYS = frozenset({"effort", "format"})


class ToolDefinition(Struct, frozen=True):
    """A tool; those of other types than "custom" run at the vendor."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: Raw = ABSENT
    strict: bool | None = None


class ToolChoiceBody(Struct, frozen=True):
    """Whether and which tool must be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(Struct, frozen=True):
    """What is said about the request."""

    user_id: str | None = None


class ThinkingBody(Struct, frozen=True):
    """Whether and how much the model may think."""

    type: str
    budget_tokens: Limit | None = None


class FormatBody(Struct, frozen=True):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema: Raw = ABSENT


class OutputConfig(Struct, frozen=True):
    """Effort and form of the answer."""

    effort: str | None = None
    format: FormatBody | None = None


class AskedBody(Struct, frozen=True, kw_only=True):
    """What counting and answering have in common."""

    model: str
    messages: Raw
    system: str | list[Raw] | None = None
    tools: list[ToolDefinition] | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tool_choice: ToolChoiceBody | None = None
    metadata: Metadata | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    output_format: FormatBody | None = None


class MessagesBody(AskedBody, frozen=True, kw_only=True):
    """The fields that have a neutral form."""

    max_tokens: Limit


class CountBody(AskedBody, frozen=True, kw_only=True):
    """What is to be counted; nothing need be said of how long the answer may be."""

    max_tokens: Limit | None = None


class _BlockKind(Struct, frozen=True):
    type: str


_body_decoder = msgspec.json.Decoder(MessagesBody)
_count_decoder = msgspec.json.Decoder(CountBody)
_kind_decoder = msgspec.json.Decoder(_BlockKind)
_text_decoder = msgspec.json.Decoder(TextBlock)
_keys_decoder = msgspec.json.Decoder(dict[str, Raw])
_tool_keys_decoder = msgspec.json.Decoder(list[dict[str, Raw]])
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(MessagesBody))


def decode_messages_request(body: bytes, headers: Mapping[str, str] = {}) -> ChatRequest:
    """Read a chat request; of the inbound `headers` those of this dialect are kept.

    Raises:
        InvalidRequest: it is malformed; nothing of it may be forwarded.
    """
    return _decode(body, _body_decoder, headers)


def decode_count_request(body: bytes, headers: Mapping[str, str] = {}) -> ChatRequest:
    """Read a request whose tokens are to be counted, which says everything a chat request says but its limit.

    Raises:
        InvalidRequest: it is malformed.
    """
    return _decode(body, _count_decoder, headers)


def _decode(body: bytes, decoder: msgspec.json.Decoder[Any], headers: Mapping[str, str]) -> ChatRequest:
    fields = read_object(body)
    parsed: MessagesBody | CountBody = read_as(decoder, body)
    turns = read_turns(parsed.messages)
    system, extra = _read_system(parsed.system)
    extra = {key: raw for key, raw in fields.items() if key not in _modelled and is_given(raw)} | extra
    extra |= hints_of(turns) | _unknown_parts(fields)
    tools, binding = _read_tools(parsed.tools or [])
    choice = _read_choice(parsed.tool_choice, has_tools=bool(parsed.tools))
    response_format = _read_format(parsed)
    if parsed.thinking is not None and parsed.thinking.type not in {"enabled", "disabled"}:
        # The model decides by itself how much it thinks: other vendors' models do so unasked.
        extra["thinking"] = fields["thinking"]
    serial = parsed.tool_choice is not None and parsed.tool_choice.disable_parallel_tool_use
    return ChatRequest(
        model=parsed.model,
        conversation=Conversation(lambda: tuple(each.message for each in place_messages(system, turns))),
        needs=_needs(needs_of(turns), tools, response_format),
        stream=bool(parsed.stream),
        include_usage=True,
        max_output_tokens=parsed.max_tokens,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        top_k=parsed.top_k,
        stop=tuple(parsed.stop_sequences or ()),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False if serial else None,
        response_format=response_format,
        reasoning_effort=parsed.output_config.effort if parsed.output_config is not None else None,
        thinking_budget_tokens=_read_budget(parsed.thinking),
        user=parsed.metadata.user_id if parsed.metadata is not None else None,
        extra=extra,
        binding=(*binding, *(name for name in _BINDING if name in extra)),
        wire=Wire(
            dialect=DIALECT,
            fields=fields,
            headers={name: headers[name] for name in FORWARDED_HEADERS if name in headers},
            unread=lambda: _unread(fields, extra),
        ),
    )


def _unread(fields: Mapping[str, Raw], extra: Mapping[str, Raw]) -> bytes:
    """Return the fields of whose parts `extra` holds but one value of each."""
    inside = {name for name in extra if "[]" in name and not name.endswith(".cache_control")}
    named = {name.partition("[")[0] for name in inside}
    return b"".join(bytes(fields[name]) for name in sorted(named & fields.keys()))


def _needs(
    found: frozenset[Ability], tools: tuple[Tool, ...], response_format: ResponseFormat | None
) -> frozenset[Ability]:
    if tools:
        found |= {"tools"}
    return found if response_format is None else found | {"json_schema"}


def _read_system(system: str | list[Raw] | None) -> tuple[str, dict[str, Raw]]:
    """Return the instructions as one text, and the hints their blocks carry."""
    if system is None or isinstance(system, str):
        return (system or ""), {}
    texts: list[str] = []
    hints: dict[str, Raw] = {}
    for index, raw in enumerate(system):
        path = f"system[{index}]"
        if read_as(_kind_decoder, raw, where=path).type != "text":
            raise InvalidRequest(f"{path}.type: must be 'text'", param=f"{path}.type")
        block = read_as(_text_decoder, raw, where=path)
        texts.append(block.text)
        if is_given(block.cache_control):
            hints["system[].cache_control"] = block.cache_control
    return "\n\n".join(filter(None, texts)), hints


def _unknown_parts(fields: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return the fields inside tools and the output's settings that have no neutral form."""
    found: dict[str, Raw] = {}
    if is_given(fields.get("tools", ABSENT)):
        for tool in _tool_keys_decoder.decode(fields["tools"]):
            if bytes(tool.get("type", ABSENT)) in {b"", b"null", b'"custom"'}:
                found |= {f"tools[].{key}": tool[key] for key in tool.keys() - _TOOL_KEYS}
    if is_given(fields.get("output_config", ABSENT)):
        config: dict[str, Raw] = _keys_decoder.decode(fields["output_config"])
        found |= {f"output_config.{key}": config[key] for key in config.keys() - _OUTPUT_KEYS}
    return {name: found[name] for name in sorted(found)}


def _read_tools(tools: list[ToolDefinition]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the functions, and the wire paths of tools that run at the vendor."""
    functions: list[Tool] = []
    others: list[str] = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.type not in {None, "custom"}:
            others.append(f"{path}.type")
            continue
        if not tool.name:
            raise InvalidRequest(f"{path}.name: required field is missing", param=f"{path}.name")
        if not bytes(tool.input_schema).startswith(b"{"):
            where = f"{path}.input_schema"
            raise InvalidRequest(f"{where}: must be a JSON Schema object", param=where)
        functions.append(
            Tool(
                name=tool.name,
                description=tool.description,
                parameters=given_or_none(tool.input_schema),
                strict=tool.strict,
            )
        )
    return tuple(functions), tuple(others)


def _read_choice(body: ToolChoiceBody | None, *, has_tools: bool) -> ToolChoice | None:
    if body is None or (body.type == "auto" and not has_tools):
        return None
    if body.type == "tool" and not body.name:
        raise InvalidRequest("tool_choice.name: required field is missing", param="tool_choice.name")
    name = body.name if body.type == "tool" else None
    return msgspec.convert({"mode": _MODES[body.type], "name": name}, ToolChoice)


def _read_format(parsed: AskedBody) -> ResponseFormat | None:
    config = parsed.output_config
    # An older name of the same, still sent with a beta header.
    form = config.format if config is not None and config.format is not None else parsed.output_format
    if form is None:
        return None
    if not is_given(form.schema):
        path = "output_config.format.schema"
        raise InvalidRequest(f"{path}: required field is missing", param=path)
    return ResponseFormat(kind="json_schema", schema=form.schema)


def _read_budget(thinking: ThinkingBody | None) -> int | None:
    if thinking is None:
        return None
    if thinking.type == "disabled":
        return 0
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        path = "thinking.budget_tokens"
        raise InvalidRequest(f"{path}: required field is missing", param=path)
    return thinking.budget_tokens if thinking.type == "enabled" else None
