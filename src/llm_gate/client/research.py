"""Grounded research and the documents' workflows, for callers of the library."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta, Struct

from llm_gate.bootstrap import Gateway
from llm_gate.client.answers import dollars
from llm_gate.client.calls import caller_of, context_of, told_plainly
from llm_gate.client.media_requests import checked, text_said
from llm_gate.domain.access import CallContext
from llm_gate.domain.bounds import CostRange
from llm_gate.domain.errors import CallerError
from llm_gate.domain.preflight import Preflight
from llm_gate.domain.research import (
    MOST_QUERIES,
    MOST_RESULTS,
    Citation,
    ResearchEvent,
    ResearchRequest,
    ResearchResult,
    Source,
    StepReport,
)
from llm_gate.domain.search import TimeRange
from llm_gate.domain.usage import Usage
from llm_gate.domain.workflows import Workflow, denial_of, steps_of
from llm_gate.engine.quotes import Quoting
from llm_gate.engine.research import Research

_ENDPOINT = "LLMGate.research"


class ResearchWish(TypedDict, total=False):
    """What can be said of a research.

    `model` and `fallbacks` name who answers, as in a chat; `search` and `search_fallbacks` who searches, "grounding"
    being the search of whoever answers. With `queries` above 1, as many are written by the model first. The filters
    are those of a search. `language` and `instructions` are the answer's, which has at most `max_tokens`. `timeout_s`
    is how long all of it may take, in seconds.
    """

    model: str
    fallbacks: Sequence[str]
    search: str
    search_fallbacks: Sequence[str]
    queries: Annotated[int, Meta(ge=1, le=MOST_QUERIES)]
    max_results: Annotated[int, Meta(ge=1, le=MOST_RESULTS)]
    include_domains: Sequence[str] | None
    exclude_domains: Sequence[str] | None
    start_date: date | None
    end_date: date | None
    time_range: TimeRange | None
    country: str | None
    search_language: str | None
    depth: Literal["basic", "advanced"] | None
    max_tokens: Annotated[int, Meta(ge=1)] | None
    language: str | None
    instructions: str | None
    timeout_s: float | None


class ResearchAnswer(Struct, frozen=True, kw_only=True):
    """An answer with what it stands on. `citations` are the numbers that stand in it, each with its source.

    `sources` are all that was read, written by strangers. `notes` say what was done otherwise than asked, or is
    missing. `steps` say what each step took and cost; `usage` and `cost_usd` are those of all of them together, None
    where they are not known.
    """

    text: str
    citations: tuple[Citation, ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    steps: tuple[StepReport, ...]
    usage: Usage | None
    cost_nanos: int | None

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost, in dollars, exactly."""
        return dollars(self.cost_nanos)


class WorkflowQuote(Struct, frozen=True, kw_only=True):
    """What a workflow would cost; every operation of it may be done."""

    plan: str
    operations: tuple[str, ...]
    min_usd: Decimal | None
    expected_usd: Decimal | None
    max_usd: Decimal | None


async def ask_research(
    gateway: Gateway,
    question: str,
    user_id: str,
    options: Mapping[str, Any],
    on_event: Callable[[ResearchEvent], None] | None,
) -> ResearchAnswer:
    """Answer a question; raises what `LLMGate.research` raises."""
    request, context = _read(question, user_id, options)
    result: ResearchResult | None = None
    use_case = Research(gate=gateway.gate, quoting=_quoting(gateway))
    async with aclosing(use_case.events(request, context)) as events:
        with told_plainly():
            async for event in events:
                if on_event is not None:
                    on_event(event)
                if isinstance(event, ResearchResult):
                    result = event
    assert result is not None  # noqa: S101 - a research ends with its result
    return ResearchAnswer(
        text=result.answer,
        citations=result.citations,
        sources=result.sources,
        notes=result.notes,
        steps=result.steps,
        usage=result.usage,
        cost_nanos=result.cost_nanos,
    )


def _read(question: str, user_id: str, options: Mapping[str, Any]) -> tuple[ResearchRequest, CallContext]:
    said = checked(options, ResearchWish)
    context = context_of(caller_of(user_id), _ENDPOINT, timeout_s=said.pop("timeout_s", None))
    fields: dict[str, Any] = {
        _RENAMED.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in said.items()
    }
    return ResearchRequest(question=text_said(question, "question"), **fields), context


_RENAMED: Mapping[str, str] = {"search": "search_model", "max_tokens": "max_output_tokens"}


async def check_workflow(
    gateway: Gateway, name: str, user_id: str, provider: str | None, count: int
) -> WorkflowQuote:
    """Look at the operations of a workflow; raises what `LLMGate.check_workflow` raises."""
    caller = caller_of(user_id)
    directory = gateway.gate.directory_of(caller.tenant)
    steps = steps_of(Workflow(name=name, provider=provider, count=count), directory)
    asked = [step.asked() for step in steps]
    found: Preflight = await _quoting(gateway).look(asked, caller, directory, datetime.now(UTC))
    denial = denial_of(found)
    if denial is not None:
        refusal = denial.line.refusal
        assert isinstance(refusal, CallerError)  # noqa: S101 - that is what denied it
        with told_plainly():
            raise refusal
    cost: CostRange | None = found.cost
    return WorkflowQuote(
        plan=found.standing.plan.name,
        operations=tuple(step.label for step in steps),
        min_usd=dollars(None if cost is None else cost.min_nanos),
        expected_usd=dollars(None if cost is None else cost.expected_nanos),
        max_usd=dollars(None if cost is None else cost.max_nanos),
    )


def _quoting(gateway: Gateway) -> Quoting:
    gate = gateway.gate
    return Quoting(standings=gate.access, admission=gate.admission, quotes=gateway.stores.quotes)
