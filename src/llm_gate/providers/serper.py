"""Serper: what Google finds, as JSON: pages, news, pictures and papers, each under a path of its own."""

from typing import Any

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, plain_text, retry_after_s, typed_error
from llm_gate.dialects._findings import (
    Names,
    credits_of,
    extra_of,
    first_text,
    payload,
    posted,
    read_answer,
    read_hits,
)
from llm_gate.domain.errors import InvalidRequest, ProviderError
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, Provider, Target
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.search_rules import billed

_PATHS = {"web": "search", "news": "news", "images": "images", "scholar": "scholar"}
_LISTS = {"web": "organic", "news": "news", "images": "images", "scholar": "organic"}
_NAMES = Names(url="link", snippet=("snippet",), published=("date", "year"))
_RANGES = {"day": "qdr:d", "week": "qdr:w", "month": "qdr:m", "year": "qdr:y"}
_TAKEN = frozenset({"credits", "organic", "news", "images"})
# The account's end comes as a plain 400; only its text tells it from a faulty request.
_NO_CREDITS = "credits"


class _Failure(Struct, frozen=True, kw_only=True):
    """An error body."""

    message: Any = None


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    try:
        said = msgspec.json.decode(reply.body, type=_Failure).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    message = said if isinstance(said, str) else plain_text(reply)
    is_spent = reply.status in {400, 403} and _NO_CREDITS in message.lower()
    return typed_error(
        VendorFailure(
            status=reply.status,
            message=message,
            codes=("insufficient_quota",) if is_spent else (),
            retry_after_s=retry_after_s(reply.headers),
        ),
        target,
    )


class SerperSearch:
    """Searches pages, news, pictures or papers. Domains are filtered by words of the query that Google knows."""

    def run(self, request: SearchRequest, target: Target, facts: Facts) -> Exchanges[SearchResult]:
        """Search.

        Raises:
            InvalidRequest: a field of the vendor's own is one that the gateway sets.
            ProviderError: the answer holds no results, or tells of a failure.
        """
        del facts
        # What the catalog lets pass has a path; an operator's own entry may say more than there is.
        path, name = _PATHS.get(request.kind), _LISTS.get(request.kind, "")
        if path is None:
            raise InvalidRequest(f"kind: {target.name} has no way to look for {request.kind}", param="kind")
        reply = yield posted(target, path, _payload(request, target))
        found = read_answer(reply, target)
        if name not in found and "searchParameters" not in found:
            raise bad_response(target, "holds no results")
        results, notes = read_hits(found.get(name, []), _NAMES, target, request.max_results)
        box = found.get("answerBox")
        counted = credits_of(found.get("credits"))
        return SearchResult(
            query=request.query,
            results=results,
            answer=first_text(box, ("answer", "snippet")) if isinstance(box, dict) else None,
            requests=billed(request, target.model).requests if counted is None else counted,
            notes=notes,
            extra=extra_of(found, _TAKEN),
        )


def _payload(request: SearchRequest, target: Target) -> dict[str, Any]:
    said = {
        "q": _query(request),
        "gl": request.country,
        "hl": request.language,
        "num": request.max_results,
        **({} if (span := _span(request)) is None else {"tbs": span}),
    }
    return payload(said, {}, request.extra, target)


def _query(request: SearchRequest) -> str:
    wanted = " OR ".join(f"site:{domain}" for domain in request.include_domains)
    parts = [request.query, *([f"({wanted})"] if len(request.include_domains) > 1 else [wanted])]
    parts += [f"-site:{domain}" for domain in request.exclude_domains]
    return " ".join(filter(None, parts))


def _span(request: SearchRequest) -> str | None:
    """Return the span of time as Google writes it, both days included; None where nobody asks for one."""
    if request.time_range is not None:
        return _RANGES[request.time_range]
    ends = (("cd_min", request.start_date), ("cd_max", request.end_date))
    days = [f"{name}:{day.month}/{day.day}/{day.year}" for name, day in ends if day is not None]
    return ",".join(["cdr:1", *days]) if days else None


provider = Provider(dialect="serper", decode_error=decode_error, media={"search": SerperSearch()})
