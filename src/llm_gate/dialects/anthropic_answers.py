"""Complete chat answers in Anthropic's Messages format, written to callers."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._json import ABSENT
from llm_gate.dialects.anthropic_wire import DIALECT
from llm_gate.dialects.openai_usage import add_cost, cost_number, vendor_cost
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.pricing import Cost
from llm_gate.domain.results import ChatResult, Choice, FinishReason
from llm_gate.domain.usage import Usage

_STOP_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_object_decoder = msgspec.json.Decoder(dict[str, Raw])


def encode_answer(result: ChatResult, *, fallback_id: str, model: str, cost: Cost | None) -> bytes:
    """Write a complete answer; one that came in this format keeps every field of the vendor's.

    `fallback_id` and `model` stand in where the vendor did not say.
    """
    if result.wire is not None and result.wire.dialect == DIALECT:
        fields: dict[str, Any] = dict(result.wire.fields)
        usage: Raw = fields.get("usage", ABSENT)
        if bytes(usage).startswith(b"{"):
            fields["usage"] = add_cost(usage, cost)
        return msgspec.json.encode(fields)
    choice = min(result.choices, key=lambda each: each.index)
    stop_sequence = result.notices.get("stop_sequence")
    return msgspec.json.encode(
        {
            "id": message_id(result.id, fallback_id),
            "type": "message",
            "role": "assistant",
            "model": result.model or model,
            "content": [block for part in choice.parts for block in _blocks(part)],
            "stop_reason": "stop_sequence" if stop_sequence is not None else _stop_reason(choice),
            "stop_sequence": stop_sequence,
            "usage": write_usage(result.usage, cost),
        }
    )


def message_id(vendor_id: str | None, fallback_id: str) -> str:
    """Return the id of an answer as this format has them: with its prefix."""
    answer_id = vendor_id or fallback_id
    return answer_id if answer_id.startswith("msg_") else f"msg_{answer_id}"


def _stop_reason(choice: Choice) -> str:
    has_calls = any(isinstance(part, ToolCallPart) for part in choice.parts)
    return stop_reason(choice.finish_reason, has_calls=has_calls)


def stop_reason(reason: FinishReason, *, has_calls: bool) -> str:
    """Translate a finish reason; an answer that ends with calls always says so here, other vendors' do not."""
    return "tool_use" if has_calls and reason == "stop" else _STOP_REASONS[reason]


def write_usage(usage: Usage | None, cost: Cost | None) -> dict[str, Any]:
    """Write a usage with its cost in dollars; what is unknown is null.

    This format's input_tokens leave out what was read from or written to the cache.
    """
    if usage is None:
        return {"input_tokens": None, "output_tokens": None, "cost": None}
    # Some vendors claim more cached tokens than the whole input has.
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    return {
        "input_tokens": usage.input_tokens - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "cost": cost_number(cost),
        **vendor_cost(usage),
    }


def _blocks(part: Part) -> list[dict[str, Any]]:
    match part:
        case TextPart():
            return [{"type": "text", "text": part.text}] if part.text else []
        case ThinkingPart(redacted=str(data)):
            return [{"type": "redacted_thinking", "data": data}]
        case ThinkingPart():
            return [{"type": "thinking", "thinking": part.text, "signature": part.signature or ""}]
        case ToolCallPart():
            return [{**open_call(part.id, part.name, part.signature), "input": call_input(part.arguments)}]
    return []


def open_call(call_id: str, name: str, signature: str | None) -> dict[str, Any]:
    """Write a tool call without its input; a signature rides where the OpenAI format has it too."""
    block: dict[str, Any] = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    if signature is not None:
        block["extra_content"] = {"google": {"thought_signature": signature}}
    return block


def is_object(text: str) -> bool:
    """Tell whether a text is one complete JSON object."""
    try:
        _object_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def call_input(arguments: str) -> Any:
    """Return the arguments of a call as the object this format has in their place.

    What a model wrote wrongly, or was cut off in, is wrapped as the vendor recommends for the way back:
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    text = arguments.strip() or "{}"
    return Raw(text.encode()) if is_object(text) else {"INVALID_JSON": arguments}
