"""What a call may use before it is made: tokens and money, as a bound that holds or as what is likely.

The bound goes by the UTF-8 bytes of everything that is sent, since no tokeniser makes more tokens than bytes, and by
the output that the provider is told to stop at. The likely figure is
that of engine/likely.py.
"""

from collections.abc import Sequence
from datetime import date

from msgspec import Struct, structs

from llm_gate.domain.catalog import Ability, Media, Model
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.estimates import estimate_tokens
from llm_gate.domain.messages import (
    MediaPart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from llm_gate.domain.plans import Standing
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.text_rates import TextRates, text_rates
from llm_gate.engine.likely import counting, likely_input_tokens

LIKELY_OUTPUT_TOKENS = 1_024
"""What an answer is expected to have where nobody says how long it may be."""

LONGEST_OUTPUT_TOKENS = 16_384
"""What an answer can have at most where neither caller, plan nor catalog says."""

MAX_RATES = 10_000
"""Models whose rates are remembered."""

_FIXED_TOKENS = 64
_MESSAGE_TOKENS = 16
_TOOLS_TOKENS = 1_024  # what vendors add by themselves where tools are offered, or a form is asked for
_USUAL_TIERS = (None, "default", "standard_only")
# Fields without a neutral form that cost nothing.
_FREE_EXTRAS = frozenset(
    {"logit_bias", "metadata", "prompt_cache_key", "safety_identifier", "store", "verbosity"}
)
_MEDIA: frozenset[Ability] = frozenset({"images", "audio", "video", "files"})


class Size(Struct, frozen=True, kw_only=True):
    """Tokens that go in and may come out: `likely_` as expected, `most_` as a bound that holds."""

    likely_input: int
    most_input: int
    likely_output: int
    most_output: int


class Bound(Struct, frozen=True, kw_only=True):
    """What one attempt at a target is held at, and (`most_`) can cost at the very most.

    Costs are in nano-dollars, None where the target has no price. `input_tokens` are those that likely go in.
    """

    target: Target
    input_tokens: int
    tokens: int
    cost_nanos: int | None
    most_tokens: int
    most_cost_nanos: int | None


class Rates:
    """The rates of text of every model, worked out once a day."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, date], TextRates | None] = {}

    @property
    def size(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def of(self, model: Model, on: date, *, reads_only: bool) -> TextRates | None:
        """Return a model's rates; `reads_only` where nothing comes out that would have a price."""
        name = (model.id, on)
        if name not in self._known:
            if len(self._known) > MAX_RATES:
                self._known.clear()
            self._known[name] = text_rates(model.prices, on, reads_only=reads_only)
        return self._known[name]


def limit_output(request: ChatRequest, standing: Standing, targets: Sequence[Target]) -> ChatRequest:
    """Return the request with the output it may have at most, where the caller's plan wants that bounded.

    Raises:
        InvalidRequest: it asks for more than the plan allows.
    """
    allowed = standing.plan.max_output_tokens
    asked = request.max_output_tokens
    if allowed is not None and asked is not None and asked > allowed:
        raise InvalidRequest(
            f"max_tokens: {asked} is more than the plan {standing.plan.label!r} allows ({allowed})",
            param="max_tokens",
        )
    must_limit = allowed is not None or (standing.is_strict and standing.is_capped)
    if asked is not None or not must_limit:
        return request
    # More than a model can give is refused by its vendor, so that the plan's figure is not sent as it is.
    can_give = [target.model.max_output_tokens or allowed or LONGEST_OUTPUT_TOKENS for target in targets]
    limit = min(can_give if allowed is None else (allowed, *can_give))
    return structs.replace(request, max_output_tokens=limit, output_limit_tokens=limit)


def size_of_chat(request: ChatRequest, target: Target) -> Size:
    """Return how large a chat call is at a target."""
    text_bytes, messages, media = _content(request)
    if request.wire is None:
        text_bytes += _tools_bytes(request)
    is_instructed = request.tools or request.response_format is not None
    rules = counting(target)
    # Where a vendor is known to add more by itself, twice as much is.
    most = text_bytes + messages * _MESSAGE_TOKENS + max(_FIXED_TOKENS, 2 * rules.chat_tokens)
    if is_instructed:
        most += max(_TOOLS_TOKENS, 2 * rules.tools_tokens)
    bounds = target.model.media_tokens
    answers = request.n or 1
    output = request.max_output_tokens
    longest = output if output is not None else _longest(target.model)
    return Size(
        likely_input=likely_input_tokens(request, target),
        most_input=most + sum(bounds.get(kind, 0) for kind in media),
        likely_output=(output if output is not None else min(LIKELY_OUTPUT_TOKENS, longest)) * answers,
        most_output=longest * answers,
    )


def size_of_embedding(request: EmbeddingRequest) -> Size:
    """Return how large an embedding call is."""
    likely = most = 0
    for each in request.inputs:
        if isinstance(each, str):
            size = len(each.encode())
            likely += estimate_tokens([each])
            most += size + _MESSAGE_TOKENS
        else:
            likely += len(each)
            most += len(each) + _MESSAGE_TOKENS
    return Size(likely_input=likely, most_input=most, likely_output=0, most_output=0)


def bound(target: Target, size: Size, rates: TextRates | None, *, strict: bool) -> Bound:
    """Return what an attempt is held at: the bound that holds where `strict`, else what is likely."""
    most = None if rates is None else rates.most(size.most_input, size.most_output)
    likely = None if rates is None else rates.most(size.likely_input, size.likely_output)
    most_tokens = size.most_input + size.most_output
    return Bound(
        target=target,
        input_tokens=size.likely_input,
        tokens=most_tokens if strict else size.likely_input + size.likely_output,
        cost_nanos=most if strict else likely,
        most_tokens=most_tokens,
        most_cost_nanos=most,
    )


def bounded_targets(request: ChatRequest, targets: Sequence[Target]) -> list[Target]:
    """Return the targets at which a call has a bound.

    Raises:
        InvalidRequest: it has none at any; says what stands in the way at the first.
    """
    bounded: list[Target] = []
    refusals: list[InvalidRequest] = []
    for target in targets:
        try:
            check_bounded(request, target)
        except InvalidRequest as error:
            refusals.append(error)
        else:
            bounded.append(target)
    if not bounded:
        raise refusals[0]
    return bounded


def check_bounded(request: ChatRequest, target: Target) -> None:
    """Refuse what has no bound, for a caller whose plan wants every call bounded.

    Raises:
        InvalidRequest: it holds something whose cost nobody can say beforehand.
    """
    unbounded = sorted({*request.extra, *request.binding} - _FREE_EXTRAS)
    if request.service_tier not in _USUAL_TIERS:
        unbounded.append("service_tier")
    if unbounded:
        raise InvalidRequest(
            f"{unbounded[0]}: what this costs cannot be bounded, which the caller's plan requires",
            param=unbounded[0],
            code="not_bounded",
        )
    if "max_tokens" in target.deployment.spec.drop:
        raise InvalidRequest(
            f"provider {target.provider!r} takes no limit of output, which the caller's plan requires",
            param="model",
            code="not_bounded",
        )
    missing = [kind for kind in _content(request)[2] if kind not in target.model.media_tokens]
    if missing:
        raise InvalidRequest(
            f"messages: how many tokens {_article(missing[0])} has at {target.name} is not known beforehand, "
            "which the caller's plan requires",
            param="messages",
            code="not_bounded",
        )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _longest(model: Model) -> int:
    return model.max_output_tokens or LONGEST_OUTPUT_TOKENS


def _content(request: ChatRequest) -> tuple[int, int, list[Media]]:
    """Return the bytes of text, the number of messages that must be counted apart, and the kinds of media."""
    if request.wire is not None and not request.needs & _MEDIA:
        # What frames a message in JSON is longer than what any tokeniser adds to it.
        return sum(memoryview(field).nbytes for field in request.wire.fields.values()), 0, []
    messages = request.conversation.messages
    media: list[Media] = []
    size = sum(_bytes_of(part, media) for message in messages for part in message.parts)
    size += sum(len(message.name.encode()) for message in messages if message.name)
    if request.wire is not None:
        size += sum(
            memoryview(field).nbytes for name, field in request.wire.fields.items() if name != "messages"
        )
    return size, len(messages), media


def _bytes_of(part: Part, media: list[Media]) -> int:
    match part:
        case TextPart():
            return len(part.text.encode())
        case ThinkingPart():
            return sum(len(text.encode()) for text in (part.text, part.signature or "", part.redacted or ""))
        case ToolCallPart():
            return (
                len(f"{part.id}{part.name}{part.arguments}{part.signature or ''}".encode()) + _MESSAGE_TOKENS
            )
        case ToolResultPart():
            return sum(_bytes_of(each, media) for each in part.content) + _MESSAGE_TOKENS
        case MediaPart():
            media.append(part.kind)
            return len((part.filename or "").encode())


def _tools_bytes(request: ChatRequest) -> int:
    size = 0
    for tool in request.tools:
        size += len(f"{tool.name}{tool.description or ''}".encode()) + _MESSAGE_TOKENS
        size += 0 if tool.parameters is None else memoryview(tool.parameters).nbytes
    schema = request.answer_schema
    return size if schema is None else size + len(schema)
