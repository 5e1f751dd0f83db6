"""How tokens are counted before a call: what a catalog says of a model's vendor, and a count with its source."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

CountSource = Literal["vendor", "tokenizer", "estimate"]
"""Who counted: the vendor itself, the model's public tokenizer, or the gateway by the classes of characters."""

BANDS: Mapping[CountSource, tuple[int, int]] = {"tokenizer": (90, 110), "estimate": (80, 140)}
"""What eight of ten vendors' counts of recorded requests are at least and at most, in percent of ours."""

Tokens = Annotated[int, Meta(ge=0, le=1_000_000)]


class CountingSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of how a vendor counts, for the models whose names begin with `models` (empty: all others).

    `encoding` names the public tokenizer they have, `asks` says that the vendor can be asked. `message_tokens` is what
    frames each message, `chat_tokens` what every chat has besides (instructions of the vendor's own, above all),
    `tools_tokens` and `thinking_tokens` what a chat with tools, or with thinking switched on, has on top.
    """

    models: str = ""
    encoding: str | None = None
    asks: bool = False
    message_tokens: Tokens = 4
    chat_tokens: Tokens = 3
    tools_tokens: Tokens = 0
    thinking_tokens: Tokens = 0


_USUAL = CountingSpec()


def counting_of(specs: Sequence[CountingSpec], model: str) -> CountingSpec:
    """Return what is known of a model: what the longest beginning of its name says."""
    found = _USUAL
    for spec in specs:
        if model.startswith(spec.models) and len(spec.models) >= len(found.models):
            found = spec
    return found


class TokenCount(Struct, frozen=True, kw_only=True):
    """How many tokens a request has for a model, and who counted.

    `least_tokens` and `most_tokens` are where eight of ten vendors' own counts lie. They are the count itself where the
    vendor gave it.
    """

    input_tokens: int
    source: CountSource
    provider: str
    model: str

    @property
    def least_tokens(self) -> int:
        """The lower end of the band."""
        return self.input_tokens * self._band[0] // 100

    @property
    def most_tokens(self) -> int:
        """The upper end of the band."""
        return -(-self.input_tokens * self._band[1] // 100)

    @property
    def _band(self) -> tuple[int, int]:
        return BANDS.get(self.source, (100, 100))


class Tokenizers(Protocol):
    """Counts texts by public tokenizers, as far as they are here."""

    async def count(self, encoding: str, texts: Sequence[str]) -> tuple[int, ...] | None:
        """Return how many tokens each text has; None where that cannot be said here."""
