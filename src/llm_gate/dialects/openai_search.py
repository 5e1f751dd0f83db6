"""Searches at `/v1/search`, in the form that clients of OpenAI-like gateways know.

The form is the one of LiteLLM's search endpoint, which follows Perplexity's: https://docs.litellm.ai/docs/search
"""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from llm_gate.dialects._json import is_given, read_as, read_object
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.search_rules import sound_search

CHARS_PER_TOKEN = 4
"""How many characters a token is taken for, where `max_tokens_per_page` bounds a snippet."""

Word = Annotated[str, Meta(min_length=1, max_length=200)]
Query = Annotated[str, Meta(min_length=1, max_length=10_000)]
_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
_RENAMED = {
    "include_domains": "search_domain_filter",
    "exclude_domains": "search_domain_filter",
    "language": "search_language_filter",
    "time_range": "search_recency_filter",
    "start_date": "search_after_date_filter",
    "end_date": "search_before_date_filter",
}


class SearchBody(Struct, frozen=True, kw_only=True):
    """The body of a search. Who searches is `search_tool_name`, `search_provider` or `model`: a provider, model, alias.

    A domain that begins with `-` is excluded. Dates are written 3/1/2026, both days included. What the form does not
    name goes to the vendor as its own field.
    """

    query: Query | Annotated[list[Query], Meta(min_length=1, max_length=1)]
    search_tool_name: Word | None = None
    search_provider: Word | None = None
    model: Word | None = None
    max_results: Annotated[int, Meta(ge=1, le=100)] | None = None
    search_domain_filter: Annotated[list[Word], Meta(max_length=100)] | None = None
    max_tokens_per_page: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    country: Annotated[str, Meta(min_length=2, max_length=2)] | None = None
    search_language_filter: Annotated[list[Word], Meta(max_length=1)] | None = None
    search_recency_filter: Literal["day", "week", "month", "year"] | None = None
    search_after_date_filter: Word | None = None
    search_before_date_filter: Word | None = None
    user: str | None = None


class FoundShape(Struct, frozen=True, kw_only=True):
    """One result. `date` is when it was published, as the vendor says."""

    title: str
    url: str
    snippet: str
    date: str | UnsetType = UNSET


class SearchShape(Struct, frozen=True, kw_only=True):
    """The answer to a search."""

    object: Literal["search"] = "search"
    results: Sequence[FoundShape]


class AskedSearch(Struct, frozen=True, kw_only=True):
    """A search, and how many characters of each snippet are wanted."""

    request: SearchRequest
    most_chars: int | None = None


_decoder = msgspec.json.Decoder(SearchBody)
_modelled = frozenset(each.encode_name for each in msgspec.structs.fields(SearchBody))


def decode_search_request(body: bytes, tool: str | None = None) -> AskedSearch:
    """Read a search; `tool` is the name that stands in the path, if any.

    Raises:
        InvalidRequest: it is malformed, or contradicts itself.
    """
    fields = read_object(body)
    said = read_as(_decoder, body)
    domains = said.search_domain_filter or []
    request = SearchRequest(
        model=_name(said, tool),
        query=said.query if isinstance(said.query, str) else said.query[0],
        max_results=said.max_results,
        include_domains=tuple(each for each in domains if not each.startswith("-")),
        exclude_domains=tuple(each[1:] for each in domains if each.startswith("-")),
        start_date=_day(said.search_after_date_filter, "search_after_date_filter"),
        end_date=_day(said.search_before_date_filter, "search_before_date_filter"),
        time_range=said.search_recency_filter,
        country=said.country,
        language=next(iter(said.search_language_filter or ()), None),
        user=said.user,
        extra=_others(fields),
    )
    try:
        request = sound_search(request)
    except InvalidRequest as refusal:
        name = _RENAMED.get(refusal.param or "")
        if name is None:
            raise
        text = f"{name}{refusal.message.removeprefix(refusal.param or '')}"
        raise InvalidRequest(text, param=name, code=refusal.code) from None
    most = said.max_tokens_per_page
    return AskedSearch(request=request, most_chars=None if most is None else most * CHARS_PER_TOKEN)


def _name(said: SearchBody, tool: str | None) -> str:
    """Return who is to search: one name, wherever it stands."""
    named = {
        "search_tool_name": said.search_tool_name,
        "search_provider": said.search_provider,
        "model": said.model,
    }
    names = {name for name in (tool, *named.values()) if name is not None}
    if len(names) > 1:
        field = next(field for field, name in named.items() if name not in {None, tool})
        raise InvalidRequest(
            f"{field}: another name is given as well: {', '.join(sorted(names))}", param=field
        )
    return next(iter(names), "")


def _day(text: str | None, field: str) -> date | None:
    """Read a date, written month first as the form has it, or as ISO 8601."""
    if text is None:
        return None
    try:
        if match := _DATE.fullmatch(text.strip()):
            return date(int(match[3]), int(match[1]), int(match[2]))
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequest(f"{field}: expected a date such as 3/1/2026", param=field) from None


def _others(fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the fields that the form does not name: the vendor's own."""
    return {
        name: msgspec.json.decode(raw)
        for name, raw in fields.items()
        if name not in _modelled and is_given(raw)
    }


def encode_search(result: SearchResult, most_chars: int | None) -> bytes:
    """Write what was found; a snippet is cut where so many characters are wanted at most."""
    found = [
        FoundShape(
            title=hit.title,
            url=hit.url,
            snippet=hit.snippet[:most_chars],
            date=UNSET if hit.published_at is None else hit.published_at,
        )
        for hit in result.results
    ]
    return msgspec.json.encode(SearchShape(results=found))
