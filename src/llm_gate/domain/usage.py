"""What one call consumed. Parents include their children; an unknown usage is None, never zeros."""

from typing import Literal

from msgspec import Struct


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one call, in one convention for all vendors.

    `input_tokens` includes cached, cache-writing and audio input; `output_tokens` includes reasoning and
    audio output. Dialects convert to and from their own conventions.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    source: Literal["measured", "estimated"] = "measured"

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
