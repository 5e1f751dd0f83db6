"""What a provider answered, in neutral form."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Raw, Struct

from llm_gate.domain.messages import Part
from llm_gate.domain.requests import Wire
from llm_gate.domain.usage import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Choice(Struct, frozen=True, kw_only=True):
    """One answer of a chat call. `logprobs` and `annotations` are raw JSON in the vendor's form."""

    index: int = 0
    parts: tuple[Part, ...]
    finish_reason: FinishReason
    logprobs: Raw | None = None


class ChatResult(Struct, frozen=True, kw_only=True):
    """A complete answer. `created_s` is in seconds since 1970, where the vendor says.

    `wire` holds the body's fields for a surface of the same dialect. `notices` are vendor facts beside the
    answer (content-filter verdicts and the like), raw JSON under their wire names.
    """

    choices: tuple[Choice, ...]
    usage: Usage | None
    id: str | None = None
    model: str | None = None
    created_s: int | None = None
    notices: Mapping[str, Raw] = {}
    wire: Wire | None = None


class EmbeddingResult(Struct, frozen=True, kw_only=True):
    """One vector for each input, in the order of the inputs."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None
    model: str | None = None
    wire: Wire | None = None
