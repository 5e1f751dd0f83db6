"""Tavily: searches of the web and the news, billed in credits, which every answer counts."""

from typing import Any

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import VendorFailure, plain_text, retry_after_s, typed_error
from llm_gate.dialects._findings import (
    Names,
    credits_of,
    extra_of,
    payload,
    posted,
    read_answer,
    read_hits,
    text_of,
)
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, Provider, Target
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.search_rules import billed

_NAMES = Names(
    url="url", snippet=("content",), published=("published_date",), content="raw_content", score="score"
)
_TAKEN = frozenset({"query", "answer", "results", "usage"})


class _Failure(Struct, frozen=True, kw_only=True):
    """An error body."""

    detail: Any = None


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    try:
        detail = msgspec.json.decode(reply.body, type=_Failure).detail
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        detail = None
    return typed_error(
        VendorFailure(
            status=reply.status,
            message=_said(detail) or plain_text(reply),
            retry_after_s=retry_after_s(reply.headers),
        ),
        target,
    )


def _said(detail: object) -> str:
    """Return what an error says: under `error`, plainly, or as the faults of a body."""
    if isinstance(detail, list):
        return "; ".join(filter(None, map(_said, detail)))
    if isinstance(detail, dict):
        detail = detail.get("error") or detail.get("msg") or detail.get("message")
    return detail if isinstance(detail, str) else ""


class TavilySearch:
    """Searches the web or the news; an answer of the vendor's own costs nothing more."""

    def run(self, request: SearchRequest, target: Target, facts: Facts) -> Exchanges[SearchResult]:
        """Search.

        Raises:
            InvalidRequest: a field of the vendor's own is one that the gateway sets.
            ProviderError: the answer holds no results, or tells of a failure.
        """
        del facts
        reply = yield posted(target, "search", _payload(request, target))
        found = read_answer(reply, target)
        results, notes = read_hits(found.get("results"), _NAMES, target, request.max_results)
        usage = found.get("usage")
        counted = credits_of(usage.get("credits")) if isinstance(usage, dict) else None
        return SearchResult(
            query=request.query,
            results=results,
            answer=text_of(found.get("answer")),
            requests=billed(request, target.model).requests if counted is None else counted,
            notes=notes,
            extra=extra_of(found, _TAKEN),
        )


def _payload(request: SearchRequest, target: Target) -> dict[str, Any]:
    said = {
        "query": request.query,
        "topic": "news" if request.kind == "news" else "general",
        "max_results": request.max_results,
        "include_domains": list(request.include_domains),
        "exclude_domains": list(request.exclude_domains),
        "start_date": None if request.start_date is None else request.start_date.isoformat(),
        "end_date": None if request.end_date is None else request.end_date.isoformat(),
        "time_range": request.time_range,
        "country": request.country,
        "include_answer": request.wants_answer or request.kind == "answer",
        "include_raw_content": request.wants_content,
        # An older way to hand over a key; ours travels in a header, and nobody else's is taken.
        "api_key": None,
        **({} if request.depth is None else {"search_depth": request.depth}),
    }
    # Without a word for the depth, the vendor might choose the dearer one.
    return payload(said, {"search_depth": "basic", "include_usage": True}, request.extra, target)


provider = Provider(dialect="tavily", decode_error=decode_error, media={"search": TavilySearch()})
