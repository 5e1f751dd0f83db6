"""What one call consumed. Parents include their children; an unknown usage is None, never zeros."""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, structs


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one call, in one convention for all vendors.

    `input_tokens` includes cached, cache-writing, audio and picture input; `output_tokens` includes reasoning,
    audio and picture output. Dialects convert to and from their own conventions. `vendor_cost_nanos` is what the
    vendor itself says the call cost, in nano-dollars; it is shown beside our cost and never taken for it.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    source: Literal["measured", "estimated"] = "measured"
    vendor_cost_nanos: int | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def counts(self) -> dict[str, int]:
        """The counts that are not zero, by name."""
        return {name: count for name in _COUNTS if (count := getattr(self, name))}


_COUNTS = tuple(name for name in Usage.__struct_fields__ if name.endswith("_tokens"))


MOST_TOKENS = 10**9
"""More than any model can take or give in one call: a vendor that says so is wrong."""


MOST_VENDOR_NANOS = 10**15
"""A million dollars: no vendor says so of one call and means it."""


def believed(usage: Usage) -> Usage | None:
    """Return a vendor's counts; None where they are impossible, so that they are taken for unknown."""
    if not all(0 <= getattr(usage, name) < MOST_TOKENS for name in _COUNTS):
        return None
    cost = usage.vendor_cost_nanos
    if cost is not None and not 0 <= cost < MOST_VENDOR_NANOS:
        return structs.replace(usage, vendor_cost_nanos=None)
    return usage


def total_usage(usages: Iterable[Usage | None]) -> Usage | None:
    """Add usages up; unknown when any of them is, estimated when any of them is."""
    known: list[Usage] = []
    for usage in usages:
        if usage is None:
            return None
        known.append(usage)
    vendor_costs = [usage.vendor_cost_nanos for usage in known if usage.vendor_cost_nanos is not None]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in known),
        cached_input_tokens=sum(usage.cached_input_tokens for usage in known),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in known),
        audio_input_tokens=sum(usage.audio_input_tokens for usage in known),
        image_input_tokens=sum(usage.image_input_tokens for usage in known),
        output_tokens=sum(usage.output_tokens for usage in known),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in known),
        audio_output_tokens=sum(usage.audio_output_tokens for usage in known),
        image_output_tokens=sum(usage.image_output_tokens for usage in known),
        source="estimated" if any(usage.source == "estimated" for usage in known) else "measured",
        vendor_cost_nanos=sum(vendor_costs) if known and len(vendor_costs) == len(known) else None,
    )
