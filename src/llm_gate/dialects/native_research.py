"""Grounded research in the native wire format: the question read from callers, progress and answer written to them."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from llm_gate.dialects.native import model_name, name_faults, write_usage
from llm_gate.dialects.native_faults import read_whole, refusal
from llm_gate.dialects.native_media_wire import MoneyReply
from llm_gate.dialects.native_wire import (
    AssistantMessage,
    Body,
    Fallbacks,
    ModelName,
    ProviderName,
    ProviderSelector,
    Reply,
    StreamMessage,
    TokenUsage,
)
from llm_gate.domain.errors import Fault, InvalidRequest
from llm_gate.domain.money import format_usd
from llm_gate.domain.research import (
    GROUNDING,
    MOST_INSTRUCTION_CHARS,
    MOST_LANGUAGE_CHARS,
    MOST_QUERIES,
    MOST_QUESTION_CHARS,
    MOST_RESULTS,
    AnswerDelta,
    Answering,
    Planning,
    Reading,
    ResearchEvent,
    ResearchRequest,
    ResearchResult,
    Searching,
    Source,
    StepReport,
)
from llm_gate.domain.search import TimeRange

Domains = Annotated[list[Annotated[str, Meta(min_length=1, max_length=253)]], Meta(max_length=300)]
Code = Annotated[str, Meta(min_length=2, max_length=20)]
Output = Annotated[int, Meta(ge=1, le=1_000_000)]

WIRE_NAMES = {
    "max_tokens": "maxTokens",
    "max_results": "search.maxResults",
    "include_domains": "search.includeDomains",
    "exclude_domains": "search.excludeDomains",
    "start_date": "search.startDate",
    "end_date": "search.endDate",
    "time_range": "search.timeRange",
    "country": "search.country",
    "depth": "search.depth",
    "search_fallbacks": "search.fallbacks",
}
"""What fields of a research are called here, where that is another name."""


class ResearchSearch(Body, frozen=True, kw_only=True):
    """How to search. The provider's name `grounding` lets the model that answers search by its vendor's own means.

    Filters are those of a search; one that the search provider does not know is refused.
    """

    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    max_results: Annotated[int, Meta(ge=1, le=MOST_RESULTS)] | None = None
    include_domains: Domains | None = None
    exclude_domains: Domains | None = None
    start_date: date | None = None
    end_date: date | None = None
    time_range: TimeRange | None = None
    country: Code | None = None
    language: Code | None = None
    depth: Literal["basic", "advanced"] | None = None


class ResearchBody(Body, frozen=True, kw_only=True):
    """A question to be answered from the web. `provider` and `fallbacks` name who answers.

    With `queries` above 1, the model first writes as many queries, which are searched for side by side. `language` and
    `instructions` are the answer's. With `stream`, the answer comes as events.
    """

    question: Annotated[str, Meta(min_length=1, max_length=MOST_QUESTION_CHARS)]
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    search: ResearchSearch | None = None
    queries: Annotated[int, Meta(ge=1, le=MOST_QUERIES)] = 1
    max_tokens: Output | None = None
    language: Annotated[str, Meta(min_length=1, max_length=MOST_LANGUAGE_CHARS)] | None = None
    instructions: Annotated[str, Meta(min_length=1, max_length=MOST_INSTRUCTION_CHARS)] | None = None
    stream: bool = False


class CitationReply(Reply, frozen=True, kw_only=True):
    """A number that stands in the answer as `[index]`, and the result it points at."""

    index: int
    url: str
    title: str


class SourceReply(Reply, frozen=True, kw_only=True):
    """A result that the answer could be given from; `query` found it."""

    index: int
    url: str
    title: str
    snippet: str | UnsetType = UNSET
    published_at: str | UnsetType = field(default=UNSET, name="published_at")
    query: str


class StepReply(Reply, frozen=True, kw_only=True):
    """What one step took and cost. `provider` and `model` are absent, and `error` is there, where it failed."""

    step: str
    operation: str
    provider: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    query: str | UnsetType = UNSET
    cost: MoneyReply | UnsetType = UNSET
    usage: TokenUsage | UnsetType = UNSET
    ms: int
    error: str | UnsetType = UNSET
    synthetic: bool | UnsetType = UNSET


class ResearchReply(Reply, frozen=True, kw_only=True):
    """An answer with what it stands on; also the last event of a stream. `cost` and `usage` are those of all steps.

    `sources` are all that was read. `notes` say what was done otherwise than asked, or is missing.
    """

    answer: str
    citations: list[CitationReply]
    sources: list[SourceReply]
    notes: tuple[str, ...]
    usage: TokenUsage | UnsetType = UNSET
    cost: MoneyReply | UnsetType = UNSET
    steps: list[StepReply]
    provider: ProviderName | UnsetType = UNSET


class ProgressReply(Reply, frozen=True, kw_only=True):
    """How far a research is: `planning`, `searching` (with the query), `reading` (with the sources), `answering`."""

    stage: str
    query: str | UnsetType = UNSET
    sources: list[SourceReply] | UnsetType = UNSET


class _ProgressEvent(Reply, frozen=True, kw_only=True):
    progress: ProgressReply


_bodies = msgspec.json.Decoder(ResearchBody)


def decode_research(body: bytes) -> ResearchRequest:
    """Read a request for research.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    parsed = read_whole(body, _bodies, ResearchBody)
    search = parsed.search or ResearchSearch()
    faults = name_faults(parsed.provider)
    faults += [Fault(f"search.{fault.path}", fault.message) for fault in name_faults(search.provider)]
    named = search.provider
    is_grounded = named is not None and named.name == GROUNDING
    if is_grounded and named is not None and named.model is not None:
        faults.append(Fault("search.provider.model", "cannot be named: the model that answers searches"))
    if search.start_date is not None and search.end_date is not None and search.start_date > search.end_date:
        faults.append(Fault("search.startDate", "is later than endDate"))
    if faults:
        raise refusal(faults)
    return ResearchRequest(
        question=parsed.question,
        model=model_name(parsed.provider),
        fallbacks=tuple(parsed.fallbacks or ()),
        search_model=GROUNDING if is_grounded else model_name(named),
        search_fallbacks=tuple(search.fallbacks or ()),
        queries=parsed.queries,
        max_results=search.max_results,
        include_domains=tuple(search.include_domains or ()),
        exclude_domains=tuple(search.exclude_domains or ()),
        start_date=search.start_date,
        end_date=search.end_date,
        time_range=search.time_range,
        country=search.country,
        search_language=search.language,
        depth=search.depth,
        max_output_tokens=parsed.max_tokens,
        language=parsed.language,
        instructions=parsed.instructions,
        stream=parsed.stream,
    )


def in_wire_names(error: InvalidRequest) -> InvalidRequest:
    """Return an error about a research with its fields called as they are here."""
    faults = [Fault(WIRE_NAMES.get(each.path, each.path), each.message) for each in error.faults]
    param = None if error.param is None else WIRE_NAMES.get(error.param, error.param)
    return InvalidRequest(error.message, param=param, code=error.code, faults=faults)


def encode_research(result: ResearchResult) -> bytes:
    """Write a result."""
    return msgspec.json.encode(_reply(result))


def encode_research_event(event: ResearchEvent) -> bytes:
    """Write what happens as a server-sent event."""
    match event:
        case Planning():
            return _progress(ProgressReply(stage="planning"))
        case Searching():
            return _progress(ProgressReply(stage="searching", query=event.query))
        case Reading():
            return _progress(ProgressReply(stage="reading", sources=_sources(event.sources)))
        case Answering():
            return _progress(ProgressReply(stage="answering"))
        case AnswerDelta():
            return _data(StreamMessage(message=AssistantMessage(content=event.text)))
        case ResearchResult():
            return _data(_reply(event))


def _progress(reply: ProgressReply) -> bytes:
    return b"event: progress\n" + _data(_ProgressEvent(progress=reply))


def _data(body: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _reply(result: ResearchResult) -> ResearchReply:
    answerer = result.answerer
    provider: ProviderName | UnsetType = UNSET
    if answerer is not None and answerer.provider is not None and answerer.model is not None:
        provider = ProviderName(name=answerer.provider, model=ModelName(name=answerer.model))
    return ResearchReply(
        answer=result.answer,
        citations=[
            CitationReply(index=each.index, url=each.url, title=each.title) for each in result.citations
        ],
        sources=_sources(result.sources),
        notes=result.notes,
        usage=write_usage(result.usage),
        cost=_money(result.cost_nanos),
        steps=[_step(step) for step in result.steps],
        provider=provider,
    )


def _sources(sources: Sequence[Source]) -> list[SourceReply]:
    return [
        SourceReply(
            index=each.index,
            url=each.url,
            title=each.title,
            snippet=each.text or UNSET,
            published_at=each.published_at or UNSET,
            query=each.query,
        )
        for each in sources
    ]


def _step(step: StepReport) -> StepReply:
    return StepReply(
        step=step.step,
        operation=step.operation,
        provider=step.provider or UNSET,
        model=step.model or UNSET,
        query=step.query or UNSET,
        cost=_money(step.cost_nanos),
        usage=write_usage(step.usage),
        ms=step.duration_ms,
        error=step.error or UNSET,
        synthetic=step.synthetic or UNSET,
    )


def _money(nanos: int | None) -> MoneyReply | UnsetType:
    return UNSET if nanos is None else MoneyReply(total=Raw(format_usd(nanos).encode()))
