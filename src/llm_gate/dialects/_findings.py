"""Reading what search vendors answer: one careful way from strangers' JSON to hits, for every vendor's names.

Nothing of it is trusted: what has another type than it should counts as absent, and what has no address is left out and
told of. No address is ever fetched here.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import HttpReply, HttpRequest, Send, Target
from llm_gate.domain.search import SearchHit

MOST_HITS = 1_000
"""More than any vendor gives for one search."""

MOST_CREDITS = 10
"""More than any search costs: a vendor that says so is not believed."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}.*)?)?")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3})[a-z]*\.? ([0-9]{1,2}), ([0-9]{4})")
_DAY_FIRST = re.compile(r"([0-9]{1,2}) ([A-Za-z]{3})[a-z]*\.? ([0-9]{4})")
_URL = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)


class Names(Struct, frozen=True, kw_only=True):
    """What a vendor calls the parts of a hit, the likelier name first."""

    url: str
    snippet: tuple[str, ...]
    published: tuple[str, ...]
    title: str = "title"
    content: str | None = None
    score: str | None = None


def posted(target: Target, path: str, body: Mapping[str, Any]) -> Send:
    """Return the exchange that posts a search, which the vendor bills."""
    return Send(
        request=HttpRequest(
            method="POST",
            url=f"{target.deployment.base_url}/{path}",
            headers={"content-type": "application/json", "accept": "application/json"},
            body=msgspec.json.encode(body),
        ),
        is_paid=True,
    )


def payload(
    said: Mapping[str, Any], usual: Mapping[str, Any], extra: Mapping[str, Any], target: Target
) -> dict[str, Any]:
    """Return a body: what the caller said, the vendor's own fields, and what is usual where these do not say it.

    Raises:
        InvalidRequest: a field of the vendor's own is one that the gateway sets itself.
    """
    set_here = {name: value for name, value in said.items() if value not in (None, [], "", False)}
    for name in extra:
        if name in said:
            raise InvalidRequest(
                f"extra.{name}: {target.name} is told this by a field of the request itself",
                param=f"extra.{name}",
                code="unsupported_parameter",
            )
    return {**usual, **extra, **set_here}


def read_answer(reply: HttpReply | None, target: Target) -> dict[str, Any]:
    """Read an answer as one JSON object.

    Raises:
        BadProviderResponse: it is none: a page, nothing, a list.
    """
    status = None if reply is None else reply.status
    try:
        body = msgspec.json.decode(b"" if reply is None else reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_response(target, "is no JSON", status=status) from None
    if not isinstance(body, dict):
        raise bad_response(target, "is no JSON object", status=status)
    return body


def read_hits(
    found: object, names: Names, target: Target, most: int | None
) -> tuple[tuple[SearchHit, ...], tuple[str, ...]]:
    """Return at most so many hits of a list, and in words what was left out of it.

    Raises:
        BadProviderResponse: it is no list.
    """
    if not isinstance(found, list):
        raise bad_response(target, "holds no list of results")
    known = [hit for hit in (_hit(each, names) for each in found[:MOST_HITS]) if hit is not None]
    without = min(len(found), MOST_HITS) - len(known)
    notes = (
        (f"left out: {without} of {len(found)} results, which have no http(s) address",) if without else ()
    )
    return tuple(known[:most]), notes


def _hit(found: object, names: Names) -> SearchHit | None:
    if not isinstance(found, dict):
        return None
    url = text_of(found.get(names.url))
    if url is None or not _URL.fullmatch(url):
        return None
    # What has another type than it should stays with the vendor's other fields.
    content = None if names.content is None else text_of(found.get(names.content))
    score = None if names.score is None else number_of(found.get(names.score))
    title, (snippet, told), (published, dated) = (
        text_of(found.get(names.title)),
        _first(found, names.snippet),
        _first(found, names.published),
    )
    taken = {names.url, told, dated}
    taken |= {name for name, value in ((names.title, title), (names.content, content)) if value is not None}
    taken |= {names.score} if score is not None else set()
    return SearchHit(
        title=title or "",
        url=url,
        snippet=snippet or "",
        content=content,
        score=score,
        published_at=None if published is None else plain_date(published),
        extra=extra_of(found, taken),
    )


def first_text(found: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of several fields that holds text, or the texts of a list."""
    return _first(found, names)[0]


def _first(found: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the first text among several fields, and the field that holds it."""
    for name in names:
        value = found.get(name)
        if isinstance(value, list):
            value = " … ".join(each.strip() for each in value if isinstance(each, str) and each.strip())
        if (text := text_of(value)) is not None:
            return text, name
    return None, None


def text_of(value: object) -> str | None:
    """Return a text without the blanks around it; None where there is none. A year may come as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return (value.strip() or None) if isinstance(value, str) else None


def number_of(value: object) -> float | None:
    """Return a number; None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def credits_of(value: object) -> int | None:
    """Return how many credits a vendor says that a search cost; None where that cannot be."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and isinstance(value, int) and 1 <= value <= MOST_CREDITS else None


def extra_of(found: Mapping[str, Any], taken: Collection[str | None]) -> dict[str, Raw]:
    """Return the fields that have no place of their own, as raw JSON; what holds nothing is left out."""
    return {
        name: Raw(msgspec.json.encode(value))
        for name, value in found.items()
        if name not in taken and value is not None and value not in ([], {})
    }


def plain_date(text: str) -> str:
    """Return a date as ISO 8601 has it where it can be read, else as the vendor wrote it ("3 days ago")."""
    if _ISO.fullmatch(text):
        return text
    if match := _MONTH_FIRST.fullmatch(text):
        return _joined(match[3], match[1], match[2]) or text
    if match := _DAY_FIRST.fullmatch(text):
        return _joined(match[3], match[2], match[1]) or text
    try:
        return parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return text


def _joined(year: str, month: str, day: str) -> str | None:
    try:
        return date(int(year), _MONTHS.index(month.lower()) + 1, int(day)).isoformat()
    except ValueError:
        return None
