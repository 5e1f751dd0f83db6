"""What callers of the library ask for, as the requests that are made of it.

A conversation is written as the OpenAI format has it and read by that format's own reader: a provider that speaks it
gets every field as it was given, and the others what their formats can say.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec
from msgspec import Struct, structs

from llm_gate.client.forms import schema_of
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest

Messages = str | Sequence[Mapping[str, Any]]
"""A prompt, or the messages of a conversation as the OpenAI format has them."""

_UNNAMED = "default"
_REPAIRS = 1
_NAME = "answer"


class ChatOptions(TypedDict, total=False):
    """What can be said of a chat.

    `model` is `provider/model`, a provider's name, a model's name, or an alias; without it the configured default is
    asked. `system` is what the model is told before. `max_tokens` is how long the answer may be. `tools` and
    `tool_choice` are in the OpenAI format. `json_struct` is a JSON Schema, or an example of the object that is wanted,
    as for `llm_text_gen`. `fallbacks` are names like `model`, tried in their order where that does not answer, and
    `timeout_s` is how long all of it may take, in seconds. `more` holds further fields of the OpenAI format.
    """

    model: str
    system: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    json_struct: Mapping[str, Any] | None
    fallbacks: Sequence[str]
    timeout_s: float | None
    more: Mapping[str, Any]


class Wish(Struct, frozen=True, kw_only=True):
    """What a caller wants of a chat, with all its options; None is what was not said."""

    messages: Messages
    model: str = ""
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    json_struct: Mapping[str, Any] | None = None
    fallbacks: Sequence[str] = ()
    timeout_s: float | None = None
    more: Mapping[str, Any] = {}


def chat_request(wish: Wish, *, stream: bool = False) -> ChatRequest:
    """Return the request.

    Raises:
        InvalidRequest: a field or a message is not as the format has it.
        ValueError: there is nothing to be answered, or a field is given twice.
        TypeError: something in it is no JSON.
    """
    fields = {
        "messages": _messages(wish),
        "temperature": wish.temperature,
        "top_p": wish.top_p,
        "stop": wish.stop,
        "seed": wish.seed,
        "tools": wish.tools,
        "tool_choice": wish.tool_choice,
        "response_format": None if wish.json_struct is None else _form(wish.json_struct),
        "stream": stream or None,
    }
    body = {name: value for name, value in fields.items() if value is not None}
    twice = sorted({*body, "max_tokens", "model", "stream"} & wish.more.keys())
    if twice:
        raise ValueError(f"{twice[0]}: it has a parameter of its own")
    request = decode_chat_request(msgspec.json.encode({"model": wish.model or _UNNAMED, **body, **wish.more}))
    if wish.max_tokens is not None and wish.max_tokens < 1:
        raise ValueError("max_tokens: must be at least 1")
    # The limit goes out under whatever name a provider has for it.
    return structs.replace(
        request,
        model=wish.model,
        max_output_tokens=wish.max_tokens or request.max_output_tokens,
        output_limit_tokens=wish.max_tokens,
        repairs=0 if wish.json_struct is None else _REPAIRS,
    )


def _messages(wish: Wish) -> list[Mapping[str, Any]]:
    given = wish.messages
    if isinstance(given, str):
        if not given.strip():
            raise ValueError("messages: must be a text that is not empty, or a list of messages")
        given = [{"role": "user", "content": given}]
    if not given:
        raise ValueError("messages: there must be at least one")
    head = [] if wish.system is None else [{"role": "system", "content": wish.system}]
    return [*head, *given]


def _form(form: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": _NAME, "schema": schema_of(form)}}


def embedding_request(texts: str | Sequence[str], *, model: str, dimensions: int | None) -> EmbeddingRequest:
    """Return the request.

    Raises:
        ValueError: there is nothing to be turned into vectors.
        TypeError: it is not text.
    """
    inputs = (texts,) if isinstance(texts, str) else tuple(texts)
    if any(not isinstance(text, str) for text in inputs):
        raise TypeError("texts: must be a text, or a list of texts")
    if not inputs or not all(inputs):
        raise ValueError("texts: there must be at least one, and none of them empty")
    return EmbeddingRequest(model=model, inputs=inputs, dimensions=dimensions)
