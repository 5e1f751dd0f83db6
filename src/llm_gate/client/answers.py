"""What callers of the library get: small values, with money as an exact number of dollars."""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from llm_gate.domain.bounds import CostRange
from llm_gate.domain.conditions import PlaceStatus, Tried
from llm_gate.domain.errors import AnswerNotInForm
from llm_gate.domain.messages import TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.money import usd_decimal
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.results import ChatResult, Choice, EmbeddingResult, FinishReason
from llm_gate.domain.usage import Usage
from llm_gate.engine.answer import Answer


class ChatAnswer(Struct, frozen=True, kw_only=True):
    """A complete answer, and how it came about.

    `text`, `thinking` and `tool_calls` are those of the first choice; `choices` holds all of every one. `parsed` is the
    object that was asked for with `json_struct`. `usage` and `cost_usd` are of all that it took, None where they are
    not known. `attempts` counts what was sent, and `tried` tells what failed, or was left out, before.
    """

    text: str
    finish_reason: FinishReason
    provider: str
    model: str
    usage: Usage | None
    cost_nanos: int | None
    attempts: int
    tried: tuple[Tried, ...] = ()
    tool_calls: tuple[ToolCallPart, ...] = ()
    thinking: str = ""
    choices: tuple[Choice, ...] = ()
    parsed: Any = None

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost, in dollars, exactly."""
        return dollars(self.cost_nanos)


class EmbeddingAnswer(Struct, frozen=True, kw_only=True):
    """One vector for each text, in their order, and how they came about."""

    vectors: tuple[tuple[float, ...], ...]
    provider: str
    model: str
    usage: Usage | None
    cost_nanos: int | None
    attempts: int
    tried: tuple[Tried, ...] = ()

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost, in dollars, exactly."""
        return dollars(self.cost_nanos)


class CallQuote(Struct, frozen=True, kw_only=True):
    """What a call would cost, and whether it may be made; nothing is sent or held.

    `code` and `reason` say why it may not. The costs are None where a price is missing. `max_usd` holds for whatever
    the model makes of the input, and for all the output that it may have.
    """

    allowed: bool
    provider: str
    model: str
    plan: str
    code: str | None = None
    reason: str | None = None
    min_usd: Decimal | None = None
    expected_usd: Decimal | None = None
    max_usd: Decimal | None = None


class GateStatus(Struct, frozen=True, kw_only=True):
    """Who is asked where nobody is named, who then, who answered last, and how every place that was called is doing."""

    primary: str | None
    fallbacks: tuple[str, ...]
    current: str | None
    places: tuple[PlaceStatus, ...]


def dollars(nanos: int | None) -> Decimal | None:
    """Return nano-dollars as dollars."""
    return None if nanos is None else usd_decimal(nanos)


def chat_answer(answer: Answer[ChatResult], *, wants_object: bool) -> ChatAnswer:
    """Return a complete answer as callers get it.

    Raises:
        AnswerNotInForm: it is not the object that was asked for.
    """
    return described(
        answer.result.choices,
        answer.target,
        usage=answer.usage,
        cost=answer.cost,
        attempts=answer.attempts,
        tried=answer.tried,
        wants_object=wants_object,
    )


def described(
    choices: tuple[Choice, ...],
    target: Target,
    *,
    usage: Usage | None,
    cost: Cost | None,
    attempts: int,
    tried: tuple[Tried, ...],
    wants_object: bool,
) -> ChatAnswer:
    """Return the choices of an answer as callers get them.

    Raises:
        AnswerNotInForm: the first is not the object that was asked for.
    """
    first = choices[0]
    text = text_of(first)
    return ChatAnswer(
        text=text,
        finish_reason=first.finish_reason,
        provider=target.provider,
        model=target.model.name,
        usage=usage,
        cost_nanos=None if cost is None else cost.nanos,
        attempts=attempts,
        tried=tried,
        tool_calls=tuple(part for part in first.parts if isinstance(part, ToolCallPart)),
        thinking="".join(part.text for part in first.parts if isinstance(part, ThinkingPart)),
        choices=choices,
        parsed=object_of(text, first, target) if wants_object else None,
    )


def embedding_answer(answer: Answer[EmbeddingResult]) -> EmbeddingAnswer:
    """Return vectors as callers get them."""
    return EmbeddingAnswer(
        vectors=answer.result.vectors,
        provider=answer.target.provider,
        model=answer.target.model.name,
        usage=answer.usage,
        cost_nanos=None if answer.cost is None else answer.cost.nanos,
        attempts=answer.attempts,
        tried=answer.tried,
    )


def text_of(choice: Choice) -> str:
    """Return all text of a choice, also that in which the model declines."""
    return "".join(part.text for part in choice.parts if isinstance(part, TextPart))


def object_of(text: str, choice: Choice, target: Target) -> Any:
    """Read the answer's object; what came complete has been checked against the schema already.

    Raises:
        AnswerNotInForm: it is cut off, or none.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise AnswerNotInForm(
            f"the answer of {target.name} is not the object it was asked for (finish reason {choice.finish_reason!r})",
            provider=target.provider,
            model=target.wire_model,
        ) from None


def costs(likely: CostRange | None, most: CostRange | None) -> dict[str, Decimal | None]:
    """Return a quote's costs: those of the likely input, and the most of the largest one."""
    return {
        "min_usd": dollars(None if likely is None else likely.min_nanos),
        "expected_usd": dollars(None if likely is None else likely.expected_nanos),
        "max_usd": dollars(None if most is None else most.max_nanos),
    }
