"""Token counts in the OpenAI wire format: parents include their children, as in the neutral form."""

from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._json import is_given
from llm_gate.dialects.openai_wire import CompletionDetails, PromptDetails, UsageBody
from llm_gate.domain.money import format_usd, read_nanos
from llm_gate.domain.pricing import Cost
from llm_gate.domain.usage import Usage, believed

_decoder = msgspec.json.Decoder(UsageBody)


def read_usage(raw: Raw) -> Usage | None:
    """Read a usage object; None when it is absent, malformed, negative or absurd."""
    if not is_given(raw):
        return None
    try:
        return count(_decoder.decode(raw))
    except msgspec.DecodeError:
        return None


def count(body: UsageBody) -> Usage | None:
    """Bring counts to the neutral form; None when they are absent, negative or absurd."""
    if body.prompt_tokens is None and body.completion_tokens is None:
        return None
    prompt = body.prompt_tokens_details or PromptDetails()
    completion = body.completion_tokens_details or CompletionDetails()
    reasoning = completion.reasoning_tokens or 0
    output = body.completion_tokens or 0
    # Some vendors count reasoning beside the completion; only their total gives it away.
    if reasoning and body.total_tokens == (body.prompt_tokens or 0) + output + reasoning:
        output += reasoning
    usage = Usage(
        input_tokens=body.prompt_tokens or 0,
        cached_input_tokens=prompt.cached_tokens or body.prompt_cache_hit_tokens or 0,
        cache_write_tokens=prompt.cache_write_tokens or 0,
        audio_input_tokens=prompt.audio_tokens or 0,
        output_tokens=output,
        reasoning_tokens=reasoning,
        audio_output_tokens=completion.audio_tokens or 0,
        vendor_cost_nanos=read_nanos(bytes(body.cost).decode(errors="replace")) if body.cost else None,
    )
    return believed(usage)


def write_usage(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """Write a usage object with the cost in dollars beside the counts (null when unknown)."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
        "cost": cost_number(cost),
        **vendor_cost(usage),
    }


def vendor_cost(usage: Usage) -> dict[str, Any]:
    """Return the field that shows a vendor's own cost beside ours; nothing where the vendor names none."""
    nanos = usage.vendor_cost_nanos
    return {} if nanos is None else {"vendor_cost": Raw(format_usd(nanos).encode())}


def add_cost(raw: Raw | bytes, cost: Cost | None) -> dict[str, Any]:
    """Return a vendor's own usage object with our cost in it; a cost of the vendor's own is kept beside it."""
    fields: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Raw])
    theirs = fields.pop("cost", None)
    fields["cost"] = cost_number(cost)
    if theirs is not None:
        fields["vendor_cost"] = theirs
    return fields


def cost_number(cost: Cost | None) -> Raw | None:
    """Return a cost in dollars as an exact JSON number."""
    return None if cost is None else Raw(format_usd(cost.nanos).encode())
