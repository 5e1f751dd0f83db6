"""Reading native bodies so that every fault is found at once, not only the first.

A sound body is decoded directly. A faulty one is walked fault by fault, and what is sound in it is handed on, so that
its meaning can be checked in the same go; such a body is refused in any case.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from llm_gate.dialects._json import read_as, read_object
from llm_gate.dialects.native_wire import (
    ChatBody,
    ChatParameter,
    EmbeddingContent,
    EmbeddingsBody,
    MessageBody,
    Prompt,
    ProviderSelector,
    ResponseFormatBody,
    ToolBody,
    ToolChoiceBody,
    ToolSelector,
)
from llm_gate.domain.errors import Fault, InvalidRequest
from llm_gate.domain.faults import find_faults

MAX_FAULTS: Final = 100
"""How many faults of one body are listed; a hostile body could hold millions."""

# More separators than any honest request has; walking a body fault by fault is slow, so beyond that the first must do.
_MAX_SEPARATORS = 5_000
_CHOICES: Mapping[str, ToolChoiceBody] = {"required": "required", "auto": "auto", "none": "none"}

S = TypeVar("S", bound=Struct)
_chat_decoder = msgspec.json.Decoder(ChatBody)
_embeddings_decoder = msgspec.json.Decoder(EmbeddingsBody)
# A schema may hold a number beyond any float; it must not hide the faults beside it.
_plain_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=float)


def read_chat_body(body: bytes) -> tuple[ChatBody, list[Fault]]:
    """Read the body of a chat request, or what is sound in it, with the faults of its shape.

    Raises:
        InvalidRequest: it is no JSON object at all.
    """
    read_object(body)
    try:
        return _chat_decoder.decode(body), []
    except (msgspec.DecodeError, RecursionError):
        value = _blank_schemas(_plain(body, _chat_decoder))
    faults = find_faults(value, ChatBody)
    if not faults:  # the walk and the decoder disagree: the decoder decides
        _refuse_first(body, _chat_decoder)
    return _sound_chat(value), faults


def read_embeddings_body(body: bytes) -> tuple[EmbeddingsBody, list[Fault]]:
    """Read the body of an embedding request, or what is sound in it, with the faults of its shape.

    Raises:
        InvalidRequest: it is no JSON object at all.
    """
    read_object(body)
    try:
        return _embeddings_decoder.decode(body), []
    except (msgspec.DecodeError, RecursionError):
        value = _plain(body, _embeddings_decoder)
    faults = find_faults(value, EmbeddingsBody)
    if not faults:  # the walk and the decoder disagree: the decoder decides
        _refuse_first(body, _embeddings_decoder)
    selector = _sound(value.get("provider"), ProviderSelector, partly=True)
    return EmbeddingsBody(content=EmbeddingContent(texts=[]), provider=selector), faults


def add_fault(faults: list[Fault], fault: Fault) -> None:
    """Add a fault unless what it is about is known to be faulty itself."""
    inside = (f"{fault.path}.", f"{fault.path}[")
    if not any(known.path == fault.path or known.path.startswith(inside) for known in faults):
        faults.append(fault)


def refusal(faults: list[Fault]) -> InvalidRequest:
    """Make the error that lists the faults of a body."""
    shown = faults[:MAX_FAULTS]
    if len(faults) > MAX_FAULTS:
        shown.append(Fault("", f"{len(faults) - MAX_FAULTS} more faults are not listed"))
    text = "; ".join(f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in shown)
    return InvalidRequest(text, param=shown[0].path or None, faults=shown)


def _refuse_first(body: bytes, decoder: msgspec.json.Decoder[S]) -> None:
    """Refuse a body for the first fault that its decoder finds."""
    try:
        read_as(decoder, body)
    except InvalidRequest as error:
        path = error.param or ""
        raise refusal([Fault(path, error.message.removeprefix(f"{path}: "))]) from None


def _plain(body: bytes, decoder: msgspec.json.Decoder[S]) -> dict[str, Any]:
    if body.count(b",") > _MAX_SEPARATORS:
        _refuse_first(body, decoder)
    try:
        return _plain_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def _blank_schemas(value: dict[str, Any]) -> dict[str, Any]:
    """Empty the schemas of a body, in which anything may stand."""
    prompt = _mapping(value.get("prompt"))
    for tool in (*_listed(value.get("tools")), *_listed(prompt.get("tools"))):
        if isinstance(_mapping(tool).get("parameters"), dict):
            tool["parameters"] = {}
    answer = _mapping(prompt.get("responseFormat"))
    if isinstance(answer.get("schema"), dict):
        answer["schema"] = {}
    return value


def _sound_chat(value: dict[str, Any]) -> ChatBody:
    """Read what can be read of a faulty body; what cannot is replaced by something harmless."""
    prompt = _mapping(value.get("prompt"))
    harmless = MessageBody(role="user", content="")
    return ChatBody(
        prompt=Prompt(
            messages=[_sound(item, MessageBody) or harmless for item in _listed(prompt.get("messages"))],
            parameter=_sound(prompt.get("parameter"), ChatParameter, partly=True),
            tools=_sound_tools(prompt.get("tools")),
            tool_choice=_sound_choice(prompt.get("toolChoice")),
            response_format=_sound(prompt.get("responseFormat"), ResponseFormatBody),
        ),
        provider=_sound(value.get("provider"), ProviderSelector, partly=True),
        tools=_sound_tools(value.get("tools")),
        tool_choice=_sound_choice(value.get("toolChoice")),
    )


def _sound_tools(value: object) -> list[ToolBody] | None:
    tools = [_sound(item, ToolBody) for item in _listed(value)]
    return [tool for tool in tools if tool is not None] if isinstance(value, list) else None


def _sound_choice(value: object) -> ToolChoiceBody | None:
    if isinstance(value, str):
        return _CHOICES.get(value)
    return _sound(value, ToolSelector)


def _sound(value: object, record: type[S], *, partly: bool = False) -> S | None:
    """Read a faulty object without its unknown fields and, `partly`, without any faulty one."""
    if not isinstance(value, dict):
        return None
    names = {field.encode_name for field in msgspec.structs.fields(record)}
    kept = {name: item for name, item in value.items() if name in names}
    if partly:
        kept = {name: item for name, item in kept.items() if not find_faults({name: item}, record)}
    try:
        return msgspec.convert(kept, record)
    except msgspec.ValidationError:
        return None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def read_whole(body: bytes, decoder: msgspec.json.Decoder[S], record: type[S]) -> S:
    """Read a body whose meaning needs no further look, or refuse it with all that is wrong with its shape.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    read_object(body)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        value = _plain(body, decoder)
    faults = find_faults(value, record)
    if not faults:  # the walk and the decoder disagree: the decoder decides
        _refuse_first(body, decoder)
    raise refusal(faults)
