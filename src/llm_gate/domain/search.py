"""Web search: what callers ask for and what comes of it, whatever wire format it came in.

Everything in a result was written by strangers: it is data, and nothing in it is ever acted upon.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, ClassVar, Literal

from msgspec import Raw, Struct

from llm_gate.domain.catalog import Operation, SearchKind
from llm_gate.domain.usage import Usage

TimeRange = Literal["day", "week", "month", "year"]


class SearchRequest(Struct, frozen=True, kw_only=True):
    """A question to the web. None means that the caller did not say.

    `urls` go with kind "contents" alone. Domains are host names, each with everything below it. Dates are days, both
    included; `time_range` counts back from today. `country` is an ISO 3166 code, `language` an ISO 639 one, both in
    lower case. `extra` holds vendors' own fields by their wire names. A filter that a vendor does not know is refused
    by it, never left out.
    """

    operation: ClassVar[Operation] = "search"
    model: str = ""
    query: str = ""
    kind: SearchKind = "web"
    urls: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    max_results: int | None = None
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
    n: int = 1
    user: str | None = None
    extra: Mapping[str, Any] = {}


class SearchHit(Struct, frozen=True, kw_only=True):
    """One thing that was found. `score` is the vendor's own, comparable within one result at most.

    `published_at` is as the vendor says it, ISO 8601 where it can be read as that. `extra` holds the vendor's other
    fields, raw JSON under their wire names.
    """

    title: str
    url: str
    snippet: str = ""
    content: str | None = None
    score: float | None = None
    published_at: str | None = None
    extra: Mapping[str, Raw] = {}


class SearchResult(Struct, frozen=True, kw_only=True):
    """What was found, best first. `answer` is the vendor's own summary.

    `requests` is how many searches the vendor bills (its credits where it counts those), `pages` how many pages it
    bills beside. `usage.vendor_cost_nanos` is what the vendor says it cost. `extra` is as in `SearchHit`.
    """

    query: str
    results: tuple[SearchHit, ...]
    answer: str | None = None
    requests: int = 1
    pages: int = 0
    usage: Usage | None = None
    model: str | None = None
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Raw] = {}
