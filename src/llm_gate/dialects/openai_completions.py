"""OpenAI's older text completions: a prompt read as one user message, answers written as plain text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.dialects._json import ABSENT, is_given, read_as, read_object
from llm_gate.dialects.openai_usage import write_usage
from llm_gate.dialects.openai_wire import Count, Penalty, Probability, StreamOptions
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.events import (
    ChatEvent,
    Ended,
    Finished,
    Started,
    TextDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.messages import Conversation, Message, TextPart
from llm_gate.domain.pricing import Cost
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice, FinishReason
from llm_gate.domain.usage import Usage


class CompletionBody(Struct, frozen=True):
    """The body of a request."""

    model: Annotated[str, Meta(min_length=1)]
    prompt: str | list[str | int | list[int]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    user: str | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    logit_bias: Raw = ABSENT


_decoder = msgspec.json.Decoder(CompletionBody)
_modelled = frozenset(field.encode_name for field in msgspec.structs.fields(CompletionBody))


def decode_completion_request(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, or asks for what only a completion model of old could do.
    """
    fields = read_object(body)
    parsed = read_as(_decoder, body)
    prompt = _prompt(parsed.prompt)
    _refuse(parsed)
    message = Message(role="user", parts=(TextPart(text=prompt),))
    return ChatRequest(
        model=parsed.model,
        conversation=Conversation(lambda: (message,)),
        stream=bool(parsed.stream),
        include_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
        max_output_tokens=parsed.max_tokens,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        frequency_penalty=parsed.frequency_penalty,
        presence_penalty=parsed.presence_penalty,
        stop=(parsed.stop,) if isinstance(parsed.stop, str) else tuple(parsed.stop or ()),
        n=parsed.n,
        seed=parsed.seed,
        user=parsed.user,
        extra={name: raw for name, raw in fields.items() if name not in _modelled and is_given(raw)},
    )


def _prompt(prompt: str | list[str | int | list[int]]) -> str:
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        raise InvalidRequest("prompt: must hold a text", param="prompt")
    first = prompt[0]
    if not isinstance(first, str):
        raise _unsupported("prompt", "token ids mean nothing to other models; send text")
    if len(prompt) > 1:
        raise _unsupported("prompt", "one prompt for each call")
    return first


def _refuse(parsed: CompletionBody) -> None:
    asked: Mapping[str, bool] = {
        "suffix": bool(parsed.suffix),
        "best_of": (parsed.best_of or 1) > 1,
        "echo": bool(parsed.echo),
        "logprobs": parsed.logprobs is not None,
        "logit_bias": is_given(parsed.logit_bias) and bytes(parsed.logit_bias) != b"{}",
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise _unsupported(name, "cannot be carried over to a chat model")


def _unsupported(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {why}", param=name, code="unsupported_parameter")


class Head(Struct, frozen=True, kw_only=True):
    """What answers and chunks begin with; `model` and `created_s` stand in where the vendor does not say.

    `synthetic` marks an answer that no model gave.
    """

    id: str
    model: str
    created_s: int
    synthetic: bool = False

    def write(self, model: str | None, created_s: int | None) -> dict[str, Any]:
        """Write the fields, with what the vendor says."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": created_s or self.created_s,
            "model": model or self.model,
            **({"synthetic": True} if self.synthetic else {}),
        }


def encode_completion(result: ChatResult, head: Head, *, cost: Cost | None) -> bytes:
    """Write a complete answer."""
    body = head.write(result.model, result.created_s)
    body["choices"] = [_written(choice) for choice in result.choices]
    if result.usage is not None:
        body["usage"] = write_usage(result.usage, cost)
    return msgspec.json.encode(body)


def _written(choice: Choice) -> dict[str, Any]:
    text = "".join(part.text for part in choice.parts if isinstance(part, TextPart))
    return _choice(choice.index, text, choice.finish_reason)


def _choice(index: int, text: str, reason: FinishReason | None) -> dict[str, Any]:
    # The format knows no tools; a model that called one unasked has stopped.
    word = "stop" if reason == "tool_calls" else reason
    return {"text": text, "index": index, "logprobs": None, "finish_reason": word}


class CompletionChunkEncoder:
    """Writes one streamed answer; `price` gives the cost of a usage.

    The usage chunk is written only for a caller who asked for it.
    """

    def __init__(self, head: Head, *, include_usage: bool, price: Callable[[Usage], Cost | None]) -> None:
        self._head = head
        self._fields = head.write(None, None)
        self._include_usage = include_usage
        self._price = price
        self._usage: Usage | None = None

    def encode(self, events: Sequence[ChatEvent]) -> bytes:
        """Write events; may be empty.

        Raises:
            TypeError: a verbatim event, which only a surface of the vendor's own dialect can forward.
        """
        return b"".join(self._one(event) for event in events)

    def _one(self, event: ChatEvent) -> bytes:
        match event:
            case Started():
                self._fields = self._head.write(event.model, event.created_s)
                return b""
            case TextDelta():
                return self._chunk([_choice(event.index, event.text, None)])
            case Finished():
                return self._chunk([_choice(event.index, "", event.reason)])
            case UsageReported():
                self._usage = event.usage
                return b""
            case Ended():
                return self._usage_chunk() + b"data: [DONE]\n\n"
            case Verbatim() | VerbatimUsage():
                raise TypeError(f"{type(event).__name__} cannot be written in this format")
            case _:
                # Reasoning and tool calls have no place here.
                return b""

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**self._fields, "choices": choices, **more}) + b"\n\n"

    def _usage_chunk(self) -> bytes:
        if not self._include_usage or self._usage is None:
            return b""
        return self._chunk([], usage=write_usage(self._usage, self._price(self._usage)))
