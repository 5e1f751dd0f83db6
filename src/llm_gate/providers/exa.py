"""Exa: searches by meaning, pages read at their addresses, and answers with their sources."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct, structs

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects._findings import Names, extra_of, payload, posted, read_answer, read_hits, text_of
from llm_gate.domain.errors import ProviderError, ProviderRejected, ProviderUnavailable
from llm_gate.domain.money import read_nanos
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, Provider, Target
from llm_gate.domain.search import SearchHit, SearchRequest, SearchResult
from llm_gate.domain.search_rules import beyond_included
from llm_gate.domain.usage import Usage, believed

MOST_TEXT_CHARS = 10_000
"""How much of each page is asked for where its content is wanted."""

_SNIPPET_CHARS = 300
_NAMES = Names(
    url="url",
    snippet=("highlights", "summary"),
    published=("publishedDate",),
    content="text",
    score="score",
)
_TAKEN = frozenset({"results", "citations", "answer", "costDollars", "statuses", "context"})
_CATEGORIES = {"news": "news", "scholar": "research paper"}
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_TEXT = {"maxCharacters": MOST_TEXT_CHARS}
# What another try may mend; a page that is not there, or not for us, stays so.
_PASSING = frozenset({"CRAWL_TIMEOUT", "CRAWL_LIVECRAWL_TIMEOUT", "CRAWL_UNKNOWN_ERROR"})
_SHOWN_FAILURES = 10


class _Failure(Struct, frozen=True, kw_only=True):
    """An error body."""

    error: Any = None
    message: Any = None
    tag: Any = None


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    try:
        failure = msgspec.json.decode(reply.body, type=_Failure)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        failure = _Failure()
    said = next((text for text in (failure.error, failure.message) if isinstance(text, str) and text), None)
    return typed_error(
        VendorFailure(
            status=reply.status,
            message=plain_text(reply) if said is None else said,
            codes=(failure.tag,) if isinstance(failure.tag, str) and failure.tag else (),
            retry_after_s=retry_after_s(reply.headers),
        ),
        target,
    )


class ExaSearch:
    """Searches, reads pages, or answers a question, after the kind of the request."""

    def run(self, request: SearchRequest, target: Target, facts: Facts) -> Exchanges[SearchResult]:
        """Do what the kind of the request says.

        Raises:
            InvalidRequest: a field of the vendor's own is one that the gateway sets.
            ProviderError: the answer holds no results, or tells of a failure.
        """
        if request.kind == "contents":
            return (yield from _contents(request, target))
        if request.kind == "answer":
            return (yield from _answered(request, target))
        reply = yield posted(target, "search", _search_payload(request, target, facts))
        found = read_answer(reply, target)
        results, notes = read_hits(found.get("results"), _NAMES, target, request.max_results)
        return SearchResult(
            query=request.query,
            results=tuple(map(_with_snippet, results)),
            pages=beyond_included(len(results), target.model),
            usage=_usage(found),
            notes=notes,
            extra=extra_of(found, _TAKEN),
        )


def _search_payload(request: SearchRequest, target: Target, facts: Facts) -> dict[str, Any]:
    start, end = _days(request, facts)
    said: dict[str, Any] = {
        "query": request.query,
        "numResults": request.max_results,
        "category": _CATEGORIES.get(request.kind),
        "includeDomains": list(request.include_domains),
        "excludeDomains": list(request.exclude_domains),
        "startPublishedDate": start,
        "endPublishedDate": end,
        "userLocation": None if request.country is None else request.country.upper(),
    }
    if request.depth is not None:
        said["type"] = "deep" if request.depth == "advanced" else "auto"
    if request.wants_content:
        said["contents"] = {"text": _TEXT}
    # Without contents there would be nothing to show of a page but its title.
    usual = {"type": "auto", "contents": {"highlights": True}}
    return payload(said, usual, request.extra, target)


def _days(request: SearchRequest, facts: Facts) -> tuple[str | None, str | None]:
    """Return the first instant and the last one that are wanted."""
    if request.time_range is not None:
        today = datetime.fromtimestamp(facts.now_s, UTC).date()
        return (today - timedelta(days=_DAYS[request.time_range])).isoformat(), None
    start, end = request.start_date, request.end_date
    return None if start is None else start.isoformat(), None if end is None else _end_of(end)


def _end_of(day: date) -> str:
    return f"{day.isoformat()}T23:59:59.999Z"


def _contents(request: SearchRequest, target: Target) -> Exchanges[SearchResult]:
    """Read pages; those that could not be read are told of, and where there is no other, it is an error."""
    said = {"urls": list(request.urls), "query": None, "ids": None}
    reply = yield posted(target, "contents", payload(said, {"text": _TEXT}, request.extra, target))
    found = read_answer(reply, target)
    results, notes = read_hits(found.get("results"), _NAMES, target, None)
    failures = _failures(found.get("statuses"))
    if not results:
        raise _none_read(failures, target)
    told = [f"not read: {url} ({why})" for url, why in list(failures.items())[:_SHOWN_FAILURES]]
    if len(failures) > _SHOWN_FAILURES:
        told.append(f"not read: {len(failures) - _SHOWN_FAILURES} more")
    return SearchResult(
        query=request.query,
        results=tuple(map(_with_snippet, results)),
        pages=min(len(results), len(request.urls)),
        usage=_usage(found),
        notes=(*notes, *told),
        extra=extra_of(found, _TAKEN),
    )


def _failures(statuses: object) -> dict[str, str]:
    """Return the addresses that could not be read, and why."""
    failed: dict[str, str] = {}
    for each in statuses if isinstance(statuses, list) else ():
        if not isinstance(each, dict) or each.get("status") != "error":
            continue
        error = each.get("error")
        tag = error.get("tag") if isinstance(error, dict) else None
        failed[str(each.get("id", ""))[:200]] = str(tag or "unknown")[:80]
    return failed


def _none_read(failures: Mapping[str, str], target: Target) -> ProviderError:
    if not failures:
        return bad_response(target, "holds none of the pages")
    kind = ProviderUnavailable if set(failures.values()) & _PASSING else ProviderRejected
    told = ", ".join(f"{url} ({why})" for url, why in list(failures.items())[:3])
    error = kind(
        f"provider {target.provider!r} could read none of the pages: {told}",
        provider=target.provider,
        model=target.wire_model,
        vendor_code=next(iter(failures.values())),
        param="urls",
    )
    error.is_unbilled = True
    return error


def _answered(request: SearchRequest, target: Target) -> Exchanges[SearchResult]:
    """Have a question answered; the sources are the results."""
    said = {"query": request.query, "text": request.wants_content, "stream": None}
    reply = yield posted(target, "answer", payload(said, {}, request.extra, target))
    found = read_answer(reply, target)
    answer = found.get("answer")
    if not isinstance(answer, str):
        # With a schema of the caller's own, the answer is an object.
        answer = None if answer is None else msgspec.json.encode(answer).decode()
    if text_of(answer) is None:
        raise bad_response(target, "holds no answer")
    results, notes = read_hits(found.get("citations") or [], _NAMES, target, None)
    return SearchResult(
        query=request.query,
        results=tuple(map(_with_snippet, results)),
        answer=text_of(answer),
        usage=_usage(found),
        notes=notes,
        extra=extra_of(found, _TAKEN),
    )


def _with_snippet(hit: SearchHit) -> SearchHit:
    """Return a hit that shows the beginning of its content where the vendor gave nothing shorter."""
    if hit.snippet or hit.content is None:
        return hit
    return structs.replace(hit, snippet=" ".join(hit.content[:_SNIPPET_CHARS].split()))


def _usage(found: Mapping[str, Any]) -> Usage | None:
    """Return what the vendor says that it cost; None where it does not say."""
    cost = found.get("costDollars")
    total = cost.get("total") if isinstance(cost, dict) else None
    is_number = isinstance(total, int | float) and not isinstance(total, bool)
    nanos = read_nanos(repr(total)) if is_number else None
    return None if nanos is None else believed(Usage(vendor_cost_nanos=nanos))


provider = Provider(dialect="exa", decode_error=decode_error, media={"search": ExaSearch()})
