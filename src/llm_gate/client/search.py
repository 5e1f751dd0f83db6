"""Searches for callers of the library: asked for, and given as plain values."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gate.client.answers import dollars
from llm_gate.client.calls import told_plainly
from llm_gate.client.media import MediaCall
from llm_gate.client.media_requests import MediaChoice, text_said
from llm_gate.domain.catalog import SearchKind
from llm_gate.domain.conditions import Tried
from llm_gate.domain.errors import GateFault
from llm_gate.domain.search import SearchHit, SearchRequest, SearchResult, TimeRange
from llm_gate.engine.answer import Answer


class SearchWish(MediaChoice, total=False):
    """What can be said of a search.

    `urls` go with kind "contents" alone. Domains are host names, each with everything below it. Dates are days, both
    included; `time_range` counts back from today. `country` is an ISO 3166 code, `language` an ISO 639 one. A filter
    that a vendor does not know is refused by it, never left out, and the next vendor is asked.
    """

    kind: SearchKind
    urls: Sequence[str] | None
    max_results: Annotated[int, Meta(ge=1, le=100)] | None
    include_domains: Sequence[str] | None
    exclude_domains: Sequence[str] | None
    start_date: date | None
    end_date: date | None
    time_range: TimeRange | None
    country: str | None
    language: str | None
    depth: Literal["basic", "advanced"] | None
    include_answer: bool
    include_content: bool


class FoundPage(Struct, frozen=True, kw_only=True):
    """One thing that was found, written by strangers. `extra` holds the vendor's other fields."""

    title: str
    url: str
    snippet: str = ""
    content: str | None = None
    score: float | None = None
    published_at: str | None = None
    extra: Mapping[str, Any] = {}


class SearchAnswer(Struct, frozen=True, kw_only=True):
    """What was found, best first, and how it came about.

    `answer` is the vendor's own summary. `requests` are those that are billed (credits where the vendor counts these),
    `pages` what it bills beside. `attempts` counts what was sent, and `tried` tells what failed, or was left out,
    before.
    """

    query: str
    results: tuple[FoundPage, ...]
    provider: str
    model: str
    requests: int
    pages: int
    cost_nanos: int | None
    attempts: int
    answer: str | None = None
    notes: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()
    extra: Mapping[str, Any] = {}

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost, in dollars, exactly."""
        return dollars(self.cost_nanos)


_RENAMED = {"include_answer": "wants_answer", "include_content": "wants_content"}


async def search(call: MediaCall, query: str) -> SearchAnswer:
    """Search; raises what `LLMGate.search` raises."""
    said, context = call.read(SearchWish, {})
    fields: dict[str, Any] = {
        _RENAMED.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in said.items()
    }
    request = SearchRequest(query=text_said(query, "query", may_be_empty=True), **fields)
    with told_plainly():
        answer = await call.gateway.gate.make(request, context)
    result = answer.result
    if not isinstance(result, SearchResult):
        raise GateFault(f"search: a {type(result).__name__} came of it")
    return _answer(answer, result)


def _answer(answer: Answer[Any], result: SearchResult) -> SearchAnswer:
    return SearchAnswer(
        query=result.query,
        results=tuple(map(_page, result.results)),
        provider=answer.target.provider,
        model=answer.target.model.name,
        requests=result.requests,
        pages=result.pages,
        cost_nanos=None if answer.cost is None else answer.cost.nanos,
        attempts=answer.attempts,
        answer=result.answer,
        notes=result.notes,
        tried=answer.tried,
        extra=_plain(result.extra),
    )


def _page(hit: SearchHit) -> FoundPage:
    return FoundPage(
        title=hit.title,
        url=hit.url,
        snippet=hit.snippet,
        content=hit.content,
        score=hit.score,
        published_at=hit.published_at,
        extra=_plain(hit.extra),
    )


def _plain(extra: Mapping[str, Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in extra.items()}
