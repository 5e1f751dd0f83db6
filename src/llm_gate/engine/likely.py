"""How many tokens go in with a chat, most likely: its texts and tools, and what the vendor puts around them.

Whatever is capped strictly goes by the bound that holds (engine/estimate.py), not by this.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from llm_gate.domain.catalog import Ability
from llm_gate.domain.counting import CountingSpec, counting_of
from llm_gate.domain.estimates import HUNDRED, TOKENS_PER_MEDIA, in_tokens, sample_of, weigh, weigh_json
from llm_gate.domain.messages import (
    MediaPart,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest

_MEDIA: frozenset[Ability] = frozenset({"images", "audio", "video", "files"})
_CALL_TOKENS = 12
# Of what a schema looks like, words and signs that always stand together are less than they are one by one.
_SCHEMA_PERCENT = 75
# Fields of a body that the model reads; tools and the form of the answer are measured apart.
_READ = ("messages", "system")
# What is carried along and not read: its size says nothing.
_OPAQUE = (b'"signature"', b'"redacted_thinking"', b'"encrypted_content"')
# What frames messages, their parts, calls of tools and their answers is JSON's: about so many tokens for each word.
_FRAMES: Mapping[bytes, int] = {b'"role"': 11, b'"type"': 10, b'"arguments"': 14, b'"tool_': 13}


class Read(Struct, frozen=True, kw_only=True):
    """What a model reads of a chat: its texts in the neutral form, and how many messages and media there are."""

    texts: tuple[str, ...]
    messages: int
    calls: int
    media: int


def counting(target: Target) -> CountingSpec:
    """Return what is known of how a target counts."""
    return counting_of(target.deployment.spec.counting, target.model.name)


def likely_input_tokens(request: ChatRequest, target: Target) -> int:
    """Return what a chat likely has at a target."""
    rules = counting(target)
    weight, messages, extra_tokens = _weigh_wire(request) or _weigh_neutral(request)
    if _offers_tools(request):
        weight += sum(map(weigh_json, tool_texts(request))) * _SCHEMA_PERCENT // 100
    schema = request.answer_schema
    if schema is not None:
        weight += weigh_json(schema) * _SCHEMA_PERCENT // 100
    return in_tokens(weight) + extra_tokens + around(request, rules, messages)


def around(request: ChatRequest, rules: CountingSpec, messages: int) -> int:
    """Return what a vendor puts around the texts of a chat."""
    tokens = rules.chat_tokens + messages * rules.message_tokens
    if _offers_tools(request):
        tokens += rules.tools_tokens
    if request.thinking_budget_tokens:
        tokens += rules.thinking_tokens
    return tokens


def _offers_tools(request: ChatRequest) -> bool:
    return bool(request.tools) and (request.tool_choice is None or request.tool_choice.mode != "none")


def tool_texts(request: ChatRequest) -> Iterator[bytes]:
    """Yield what is written of each tool."""
    for tool in request.tools:
        yield f"{tool.name}{tool.description or ''}".encode()
        if tool.parameters is not None:
            yield bytes(tool.parameters)


def read(request: ChatRequest) -> Read:
    """Return what a model reads of a chat, tools and the form of the answer left out."""
    messages = request.conversation.messages
    parts = [part for message in messages for part in _flat(message.parts)]
    return Read(
        texts=tuple(text for part in parts for text in _texts(part)),
        messages=_spoken(messages),
        calls=sum(isinstance(part, ToolCallPart | ToolResultPart) for part in parts),
        media=sum(isinstance(part, MediaPart) for part in parts),
    )


def _weigh_wire(request: ChatRequest) -> tuple[int, int, int] | None:
    """Weigh a body as it came, without decoding it; None where it has to be."""
    if request.wire is None or request.needs & _MEDIA:
        return None
    weight = messages = 0
    for name in _READ:
        raw = request.wire.fields.get(name)
        if raw is None:
            continue
        data = bytes(raw)
        sample = sample_of(data)
        if any(mark in sample for mark in _OPAQUE):
            return None
        frames = sum(sample.count(word) * tokens for word, tokens in _FRAMES.items())
        found = max(weigh_json(sample) - frames * HUNDRED, 0)
        weight += found if sample is data else found * len(data) // len(sample)
        spoken = sample.count(b'"role"') if name == "messages" else 1
        messages += spoken if sample is data or name != "messages" else spoken * len(data) // len(sample)
    return weight, messages, 0


def _weigh_neutral(request: ChatRequest) -> tuple[int, int, int]:
    found = read(request)
    weight = sum(weigh(text.encode(errors="replace")) for text in found.texts)
    return weight, found.messages, found.calls * _CALL_TOKENS + found.media * TOKENS_PER_MEDIA


def _spoken(messages: Sequence[Message]) -> int:
    return sum(message.role != "tool" or len(message.parts) for message in messages)


def _flat(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if isinstance(part, ToolResultPart):
            yield from part.content


def _texts(part: Part) -> Iterator[str]:
    match part:
        case TextPart() | ThinkingPart():
            yield part.text
        case ToolCallPart():
            yield part.name
            yield part.arguments
        case MediaPart() | ToolResultPart():
            return
