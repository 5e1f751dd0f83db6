"""What a search product's entry in the catalog says of a search: it is carried out as asked, or refused.

A wish that a product does not know is never left out in silence: the product is left out instead, and the next one of
the chain is asked.
"""

import re
from collections.abc import Sequence

from msgspec import Struct, structs

from llm_gate.domain.catalog import Model, SearchInput, SearchSpec
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.search import SearchRequest

MOST_URL_CHARS = 2_000
"""How long an address may be whose page is to be read."""

_HOST = re.compile(r"(?=.{3,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_COUNTRY = re.compile(r"[a-z]{2}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{2,8})?")
_URL = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#][^\s\\]*)?", re.IGNORECASE)


class Billed(Struct, frozen=True, kw_only=True):
    """What a search comes to at most: `requests` (credits where the vendor counts those), and pages beside."""

    requests: int
    pages: int


def fit_search(request: SearchRequest, model: Model) -> SearchRequest:
    """Return a search as a product takes it.

    Raises:
        InvalidRequest: it contradicts itself, or the product cannot do what is asked.
    """
    request = sound_search(request)
    name = f"{model.provider}/{model.name}"
    spec = model.search
    if spec is None:
        raise _refused("model", f"{name} is not known to search the web", code="model_not_suitable")
    takes = spec.kinds.get(request.kind)
    if takes is None:
        raise _refused("kind", f"{name} looks for {', '.join(spec.kinds)}, not {request.kind!r}")
    for wish in _wishes(request):
        if wish not in takes:
            raise _refused(wish, f"{name} has no way to do that for kind {request.kind!r}")
    _check_amounts(request, spec, name)
    if request.country is not None and spec.countries:
        word = spec.countries.get(request.country)
        if word is None:
            raise _refused("country", f"{name} does not know {request.country!r}")
        request = structs.replace(request, country=word)
    return request


def billed(request: SearchRequest, model: Model) -> Billed:
    """Return what a fitted search comes to at a product, at most."""
    if request.kind == "contents":
        return Billed(requests=1, pages=len(request.urls))
    spec = model.search
    if spec is None:
        return Billed(requests=1, pages=0)
    each = spec.advanced_credits if request.depth == "advanced" else 1
    beyond = beyond_included(request.max_results or 0, model)
    return Billed(requests=max(each, spec.wide_credits) if beyond else each, pages=beyond)


def beyond_included(results: int, model: Model) -> int:
    """Return how many results are more than a request's price includes."""
    included = None if model.search is None else model.search.included_results
    return 0 if included is None else max(0, results - included)


def sound_search(request: SearchRequest) -> SearchRequest:
    """Return a search with its words in their plain form, whoever is to carry it out.

    Raises:
        InvalidRequest: it contradicts itself, or something in it is not what it should be.
    """
    if request.n != 1:
        raise _refused("n", "a search is made once")
    if request.kind == "contents":
        if not request.urls:
            raise _refused("urls", "kind 'contents' needs the addresses of the pages", code="missing_field")
    elif request.urls:
        raise _refused("urls", "they belong to kind 'contents'")
    elif not request.query.strip():
        raise _refused("query", "there is nothing to look for", code="missing_field")
    for url in request.urls:
        if len(url) > MOST_URL_CHARS or not _URL.fullmatch(url):
            raise _refused("urls", f"not an http(s) address of at most {MOST_URL_CHARS} characters")
    if request.max_results is not None and request.max_results < 1:
        raise _refused("max_results", "must be at least 1")
    _check_dates(request)
    included = _hosts(request.include_domains, "include_domains")
    excluded = _hosts(request.exclude_domains, "exclude_domains")
    if both := sorted(set(included) & set(excluded)):
        raise _refused("exclude_domains", f"{both[0]!r} is both wanted and not wanted")
    return structs.replace(
        request,
        include_domains=included,
        exclude_domains=excluded,
        country=_code(request.country, "country", _COUNTRY),
        language=_code(request.language, "language", _LANGUAGE),
    )


def _check_dates(request: SearchRequest) -> None:
    start, end = request.start_date, request.end_date
    if start is not None and end is not None and start > end:
        raise _refused("start_date", f"{start} is after {end}")
    if request.time_range is not None and (start is not None or end is not None):
        raise _refused("time_range", "it stands in the place of start and end date: give one or the other")


def _hosts(names: Sequence[str], field: str) -> tuple[str, ...]:
    """Return host names in lower case, each once; anything else could say more than a name to a vendor."""
    plain = tuple(dict.fromkeys(name.strip().rstrip(".").lower() for name in names))
    for name in plain:
        if not _HOST.fullmatch(name):
            raise _refused(field, f"{name!r} is no host name (such as example.org)")
    return plain


def _code(text: str | None, field: str, form: re.Pattern[str]) -> str | None:
    if text is None:
        return None
    plain = text.strip().lower()
    if not form.fullmatch(plain):
        kind = "ISO 3166 code of a country" if field == "country" else "ISO 639 code of a language"
        raise _refused(field, f"{text!r} is no {kind}")
    return plain


def _wishes(request: SearchRequest) -> list[SearchInput]:
    """Return what a search says beside its query and kind."""
    said: dict[SearchInput, object] = {
        "max_results": request.max_results,
        "include_domains": request.include_domains,
        "exclude_domains": request.exclude_domains,
        "start_date": request.start_date,
        "end_date": request.end_date,
        "time_range": request.time_range,
        "country": request.country,
        "language": request.language,
        # What is usual needs no word for it.
        "depth": None if request.depth == "basic" else request.depth,
        "answer": request.wants_answer and request.kind != "answer",
        "content": request.wants_content and request.kind != "contents",
    }
    return [name for name, value in said.items() if value]


def _check_amounts(request: SearchRequest, spec: SearchSpec, name: str) -> None:
    amounts: tuple[tuple[str, int, int | None, str], ...] = (
        ("max_results", request.max_results or 0, spec.most_results, "results"),
        ("query", len(request.query), spec.most_characters, "characters"),
        ("include_domains", len(request.include_domains), spec.most_included_domains, "domains"),
        ("exclude_domains", len(request.exclude_domains), spec.most_excluded_domains, "domains"),
        ("urls", len(request.urls), spec.most_urls, "addresses"),
    )
    for field, amount, most, what in amounts:
        if most is not None and amount > most:
            raise _refused(field, f"{name} takes at most {most} {what}, not {amount}")


def _refused(field: str, message: str, *, code: str = "unsupported_input") -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", param=field, code=code)
