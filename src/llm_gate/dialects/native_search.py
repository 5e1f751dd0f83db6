"""Searches in the native wire format: questions read from callers, what was found written to them."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from llm_gate.dialects.native import model_name, name_faults
from llm_gate.dialects.native_faults import read_whole, refusal
from llm_gate.dialects.native_media import money
from llm_gate.dialects.native_media_wire import MoneyReply
from llm_gate.dialects.native_wire import (
    Body,
    Fallbacks,
    ModelName,
    Number,
    ProviderName,
    ProviderSelector,
    Reply,
)
from llm_gate.domain.catalog import SearchKind
from llm_gate.domain.money import format_usd
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.search import SearchHit, SearchRequest, SearchResult, TimeRange
from llm_gate.domain.search_rules import MOST_URL_CHARS, sound_search

MOST_QUERY_CHARS = 10_000
"""How long a query may be; every vendor takes less."""

Query = Annotated[str, Meta(max_length=MOST_QUERY_CHARS)]
Url = Annotated[str, Meta(min_length=8, max_length=MOST_URL_CHARS)]
Domain = Annotated[str, Meta(min_length=3, max_length=253)]
Domains = Annotated[list[Domain], Meta(max_length=1_200)]
Code = Annotated[str, Meta(min_length=2, max_length=12)]


class SearchBody(Body, frozen=True, kw_only=True):
    """The body of a search. `urls` go with kind "contents", every other kind needs a `query`.

    A filter that a vendor does not know is refused by it, and the next one is asked. Dates are days, both included;
    `timeRange` counts back from today. `extra` holds fields of the vendor's own, by its names.
    """

    query: Query = ""
    provider: ProviderSelector | None = None
    fallbacks: Fallbacks | None = None
    kind: SearchKind = "web"
    urls: Annotated[list[Url], Meta(max_length=100)] | None = None
    max_results: Annotated[int, Meta(ge=1, le=100)] | None = None
    include_domains: Domains | None = None
    exclude_domains: Domains | None = None
    start_date: date | None = None
    end_date: date | None = None
    time_range: TimeRange | None = None
    country: Code | None = None
    language: Code | None = None
    depth: Literal["basic", "advanced"] | None = None
    include_answer: bool = False
    include_content: bool = False
    extra: dict[str, Any] | None = None


class HitReply(Reply, frozen=True, kw_only=True):
    """One thing that was found, written by strangers: it is data. `extra` holds the vendor's other fields."""

    title: str
    url: str
    snippet: str
    content: str | UnsetType = UNSET
    score: float | UnsetType = UNSET
    published_at: str | UnsetType = field(default=UNSET, name="published_at")
    extra: Mapping[str, Raw] | UnsetType = UNSET


class SearchUsageReply(Reply, frozen=True, kw_only=True):
    """What is billed: requests (credits where the vendor counts those), pages, and the vendor's own word in dollars."""

    requests: int
    pages: int | UnsetType = UNSET
    vendor_cost: Number | UnsetType = UNSET


class SearchReply(Reply, frozen=True, kw_only=True):
    """What was found, best first. `notes` say what was left out."""

    provider: ProviderName
    query: str
    answer: str | UnsetType = UNSET
    results: list[HitReply]
    usage: SearchUsageReply
    cost: MoneyReply | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET
    synthetic: bool | UnsetType = UNSET
    extra: Mapping[str, Raw] | UnsetType = UNSET


_decoder = msgspec.json.Decoder(SearchBody)


def decode_search_request(body: bytes) -> SearchRequest:
    """Read a search.

    Raises:
        InvalidRequest: it is malformed, or contradicts itself; `faults` holds everything that is wrong.
    """
    said = read_whole(body, _decoder, SearchBody)
    faults = name_faults(said.provider)
    if faults:
        raise refusal(faults)
    request = SearchRequest(
        model=model_name(said.provider),
        fallbacks=tuple(said.fallbacks or ()),
        query=said.query,
        kind=said.kind,
        urls=tuple(said.urls or ()),
        max_results=said.max_results,
        include_domains=tuple(said.include_domains or ()),
        exclude_domains=tuple(said.exclude_domains or ()),
        start_date=said.start_date,
        end_date=said.end_date,
        time_range=said.time_range,
        country=said.country,
        language=said.language,
        depth=said.depth,
        wants_answer=said.include_answer,
        wants_content=said.include_content,
        extra=said.extra or {},
    )
    return sound_search(request)


def encode_search(result: SearchResult, target: Target, cost: Cost | None) -> bytes:
    """Write what was found."""
    vendor_nanos = None if result.usage is None else result.usage.vendor_cost_nanos
    return msgspec.json.encode(
        SearchReply(
            provider=ProviderName(name=target.provider, model=ModelName(name=target.model.name)),
            query=result.query,
            answer=result.answer or UNSET,
            results=write_hits(result.results),
            usage=SearchUsageReply(
                requests=result.requests,
                pages=result.pages or UNSET,
                vendor_cost=UNSET if vendor_nanos is None else Raw(format_usd(vendor_nanos).encode()),
            ),
            cost=money(None if cost is None else cost.nanos),
            notes=list(result.notes) or UNSET,
            synthetic=target.deployment.spec.synthetic or UNSET,
            extra=result.extra or UNSET,
        )
    )


def write_hits(hits: Sequence[SearchHit]) -> list[HitReply]:
    """Return hits as callers get them."""
    return [
        HitReply(
            title=hit.title,
            url=hit.url,
            snippet=hit.snippet,
            content=UNSET if hit.content is None else hit.content,
            score=UNSET if hit.score is None else hit.score,
            published_at=UNSET if hit.published_at is None else hit.published_at,
            extra=hit.extra or UNSET,
        )
        for hit in hits
    ]
