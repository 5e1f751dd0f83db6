"""The sandbox's searches: made-up results that depend on the request alone, obey its filters, and say what they are."""

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._findings import Names, extra_of, read_answer, read_hits, text_of
from llm_gate.domain.catalog import SearchKind
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import Exchanges, Facts, HttpRequest, LocalReply, Send, Target
from llm_gate.domain.search import SearchRequest, SearchResult, TimeRange
from llm_gate.providers.sandbox.control import with_control

NOTE = "synthetic: made by the LLM Gate sandbox"
HOSTS = ("sandbox.example", "sandbox.test", "sandbox.invalid")
"""Names that nobody can own; the first that is not excluded is where results are said to stand."""

_PATH = "/search"
_USUAL_RESULTS = 5
_SHOWN_QUERY = 200
_FIRST_DAY, _DAYS = date(2024, 1, 1), 700
_DAYS_BACK: dict[TimeRange, int] = {"day": 1, "week": 7, "month": 30, "year": 365}
_KINDS: dict[SearchKind, str] = {
    "web": "page",
    "news": "report",
    "images": "picture",
    "scholar": "paper",
    "contents": "page",
    "answer": "source",
}
_JSON = {"content-type": "application/json"}
_NAMES = Names(url="url", snippet=("snippet",), published=("published_at",), content="content", score="score")
_TAKEN = frozenset({"answer", "results", "synthetic"})


class SearchOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order for results; dates are days, both included."""

    model: str
    query: str
    kind: SearchKind
    urls: tuple[str, ...] = ()
    max_results: int = _USUAL_RESULTS
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    start_date: date | None = None
    end_date: date | None = None
    time_range: TimeRange | None = None
    country: str | None = None
    language: str | None = None
    depth: Literal["basic", "advanced"] | None = None
    wants_answer: bool = False
    wants_content: bool = False


class SandboxSearch:
    """Asks the sandbox's own side for results, as a vendor would be asked."""

    def run(self, request: SearchRequest, target: Target, facts: Facts) -> Exchanges[SearchResult]:
        """Ask for the results and read them."""
        del facts
        order = SearchOrder(
            model=target.wire_model,
            query=request.query,
            kind=request.kind,
            urls=request.urls,
            max_results=_USUAL_RESULTS if request.max_results is None else request.max_results,
            include_domains=request.include_domains,
            exclude_domains=request.exclude_domains,
            start_date=request.start_date,
            end_date=request.end_date,
            time_range=request.time_range,
            country=request.country,
            language=request.language,
            depth=request.depth,
            wants_answer=request.wants_answer,
            wants_content=request.wants_content,
        )
        sent = HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}{_PATH}",
            headers=_JSON,
            body=msgspec.json.encode(order),
        )
        reply = yield Send(request=with_control(sent, target), is_paid=True)
        found = read_answer(reply, target)
        if found.get("synthetic") is not True:
            raise bad_response(target, "does not say that it is synthetic")
        results, notes = read_hits(found.get("results"), _NAMES, target, None)
        unheeded = ", ".join(request.extra)
        return SearchResult(
            query=request.query,
            results=results,
            answer=text_of(found.get("answer")),
            model=target.wire_model,
            notes=(NOTE, *notes, *((f"the sandbox did not carry out: {unheeded}",) if unheeded else ())),
            extra=extra_of(found, _TAKEN),
        )


def respond_search(request: HttpRequest, now_s: float) -> LocalReply | None:
    """Answer an order for results; None for any other request.

    Raises:
        InvalidRequest: the order cannot be read.
    """
    if not request.url.endswith(_PATH):
        return None
    try:
        order = msgspec.json.decode(request.body, type=SearchOrder)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    today = datetime.fromtimestamp(now_s, UTC).date()
    results = _pages(order) if order.kind == "contents" else _results(order, today)
    answer = {"synthetic": True, "results": results}
    if order.wants_answer or order.kind == "answer":
        answer["answer"] = (
            f"This is a synthetic answer from the LLM Gate sandbox; nothing was searched. You asked: {_asked(order)}"
        )
    return LocalReply(status=200, headers=_JSON, chunks=iter((msgspec.json.encode(answer),)))


def _results(order: SearchOrder, today: date) -> list[dict[str, Any]]:
    hosts = [host for host in order.include_domains or HOSTS if not _is_below(host, order.exclude_domains)]
    if not order.include_domains:
        hosts = hosts[:1]
    span = _span(order, today)
    if not hosts or span is None:
        return []
    first, days = span
    return [
        _result(order, number, hosts[(number - 1) % len(hosts)], first, days)
        for number in range(1, order.max_results + 1)
    ]


def _span(order: SearchOrder, today: date) -> tuple[date, int] | None:
    """Return the first day that results may have, and how many days there are; None where there is none."""
    first, last = order.start_date, order.end_date
    if order.time_range is not None:
        first, last = today - timedelta(days=_DAYS_BACK[order.time_range]), today
    if first is None:
        first = _FIRST_DAY if last is None or last >= _FIRST_DAY else last
    if last is None:
        last = first + timedelta(days=min(_DAYS, (date.max - first).days))
        if first <= today:
            last = min(last, today)
    return (first, (last - first).days + 1) if first <= last else None


def _result(order: SearchOrder, number: int, host: str, first: date, days: int) -> dict[str, Any]:
    key = hashlib.sha256(f"{order.kind}\n{order.query}\n{number}".encode()).hexdigest()
    what, asked = _KINDS[order.kind], _asked(order)
    url = f"https://{host}/{order.kind}/{key[:12]}"
    result = {
        "title": f"Synthetic {what} {number}: {asked}",
        "url": url,
        "snippet": f"Made up by the LLM Gate sandbox: {what} {number} for {asked!r}. Nothing was searched.",
        "score": round(1 - number / (order.max_results + 1), 4),
        "published_at": (first + timedelta(days=int(key[:8], 16) % days)).isoformat(),
    }
    if order.wants_content:
        result["content"] = _content(what, number, asked)
    if order.kind == "images":
        result["imageUrl"] = f"{url}.png"
    return result


def _pages(order: SearchOrder) -> list[dict[str, Any]]:
    """Return what is said to stand at the addresses; nobody looks."""
    return [
        {
            "title": f"Synthetic page {number}",
            "url": url,
            "snippet": f"Made up by the LLM Gate sandbox for {url}; nobody looked at it.",
            "content": _content("page", number, url),
        }
        for number, url in enumerate(order.urls, 1)
    ]


def _content(what: str, number: int, about: str) -> str:
    return (
        f"This is the synthetic text of {what} {number} about {about!r}, made up by the LLM Gate sandbox. "
        "It holds no facts. Nothing was searched, and nobody was asked."
    )


def _asked(order: SearchOrder) -> str:
    return " ".join(order.query.split())[:_SHOWN_QUERY]


def _is_below(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
