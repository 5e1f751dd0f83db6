"""What callers ask for, in neutral form, whatever wire format it came in."""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Raw, Struct, structs

from llm_gate.domain.catalog import Ability
from llm_gate.domain.messages import Conversation, ResponseFormat, Tool, ToolChoice


class Wire(Struct, frozen=True, kw_only=True):
    """The top-level fields of a body as they came, for a target that speaks the same dialect.

    `headers` are the inbound headers that belong to the dialect and may travel on with the body. `unread` returns
    what the fields say inside and the neutral form leaves out, nothing where it leaves out nothing.
    """

    dialect: str
    fields: Mapping[str, Raw]
    headers: Mapping[str, str] = {}
    unread: Callable[[], bytes] | None = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """One chat call. None means that the caller did not say.

    `extra` holds inbound fields without a neutral counterpart, under their wire names; they travel on only
    to a target of the same dialect (`wire.dialect`). `binding` names what changes the answer's meaning and has
    no neutral form, so that another dialect must refuse it. `needs` lists the abilities the target must have.
    `thinking_budget_tokens` bounds the reasoning; 0 asks for none.
    `output_limit_tokens` is set where the gateway itself bounds the output: it goes out whatever the body says.
    `repairs` says how often an answer that does not fit its JSON Schema is asked for again. `fallbacks` are names to
    try after `model`. `conversations` are what some providers, by name, are asked in other words.
    `is_guarded` says that the answer's text is looked at.
    """

    model: str
    conversation: Conversation
    needs: frozenset[Ability] = frozenset()
    stream: bool = False
    include_usage: bool = False
    max_output_tokens: int | None = None
    output_limit_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    n: int | None = None
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    thinking_budget_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: tuple[str, ...] = ()
    user: str | None = None
    service_tier: str | None = None
    extra: Mapping[str, Raw] = {}
    binding: tuple[str, ...] = ()
    repairs: int = 0
    fallbacks: tuple[str, ...] = ()
    conversations: Mapping[str, Conversation] = {}
    is_guarded: bool = False
    wire: Wire | None = None

    @property
    def is_read(self) -> bool:
        """Whether the gateway itself reads the answer along, so that a stream's events must say what they mean."""
        return self.is_guarded or self.answer_schema is not None

    def at(self, provider: str) -> "ChatRequest":
        """Return the request as a provider is to get it."""
        own = self.conversations.get(provider) if self.conversations else None
        return self if own is None else structs.replace(self, conversation=own, wire=None)

    @property
    def answer_schema(self) -> bytes | None:
        """The JSON Schema that the answer must fit, where the request names one."""
        wanted = self.response_format
        if wanted is None or wanted.kind != "json_schema" or wanted.schema is None:
            return None
        return bytes(wanted.schema)


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Texts (or lists of token ids) to be turned into vectors; `encoding` is how the caller wants them written."""

    model: str
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    encoding: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None
    fallbacks: tuple[str, ...] = ()
    extra: Mapping[str, Raw] = {}
    wire: Wire | None = None
