"""The names of limits: what each counts, over which window. One grammar for plans, keys, tenants and applications.

| Name | Counts | Over |
|---|---|---|
| `text_calls`, `image_calls`, … (one per bucket) | calls of the bucket | billing period |
| `PROVIDER_calls`, `PROVIDER_tokens` | calls to, tokens at one provider | billing period |
| `monthly_cost_usd` | nano-dollars | billing period |
| `requests_per_W`, `tokens_per_W`, `cost_usd_per_W` (W: minute, hour, day, month) | calls, tokens, nano-dollars | W |
| `parallel_jobs` | jobs under way | now |

A limit that is None (or not named) is none at all; 0 means that the plan does not include it.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, get_args

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.money import parse_usd
from llm_gate.domain.windows import WindowKind

Bucket = Literal[
    "text", "image", "image_edit", "video", "audio", "transcription", "embedding", "search", "fine_tune"
]
"""What a call counts against, whoever answers it."""

BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
BUCKET_OF: Mapping[Operation, Bucket] = {
    "chat": "text",
    "embedding": "embedding",
    "image": "image",
    "image_edit": "image_edit",
    "face_swap": "image_edit",
    "video": "video",
    "speech": "audio",
    "transcription": "transcription",
    "search": "search",
    "fine_tune": "fine_tune",
}

COST_LIMIT = "monthly_cost_usd"
JOBS_LIMIT = "parallel_jobs"
_RATE = re.compile(r"(requests|tokens|cost_usd)_per_(minute|hour|day|month)")
_NAMED = re.compile(r"([a-z0-9][a-z0-9_\-]*)_(calls|tokens)")
MOST = 2**61
"""No limit may be larger: sums of a few must still fit into what stores can hold."""

Meter = Literal["calls", "tokens", "cost", "requests", "jobs"]
"""What is counted: "calls" are those that came to something, "requests" all that were let in."""


class Limit(Struct, frozen=True, kw_only=True):
    """What one limit counts. `bucket` or `provider` narrows it to some calls; `is_money` has nano-dollars as value."""

    name: str
    meter: Meter
    window: WindowKind
    bucket: Bucket | None = None
    provider: str | None = None

    @property
    def is_money(self) -> bool:
        """Whether the value is written in US dollars and kept in nano-dollars."""
        return self.meter == "cost"


def limit_named(name: str) -> Limit:
    """Return what a limit's name means.

    Raises:
        InvalidRequest: no limit can be called that.
    """
    if name == COST_LIMIT:
        return Limit(name=name, meter="cost", window="period")
    if name == JOBS_LIMIT:
        return Limit(name=name, meter="jobs", window="open")
    if rate := _RATE.fullmatch(name):
        meter: Meter = "requests" if rate[1] == "requests" else "tokens" if rate[1] == "tokens" else "cost"
        window: WindowKind = rate[2]  # type: ignore[assignment]
        return Limit(name=name, meter=meter, window=window)
    named = _NAMED.fullmatch(name)
    if named is None:
        raise InvalidRequest(f"there is no limit called {name!r}", param=name, code="unknown_limit")
    if named[2] == "tokens":
        return Limit(name=name, meter="tokens", window="period", provider=named[1])
    for bucket in BUCKETS:
        if named[1] == bucket:
            return Limit(name=name, meter="calls", window="period", bucket=bucket)
    return Limit(name=name, meter="calls", window="period", provider=named[1])


def read_limit(name: str, text: str) -> int | None:
    """Read a limit's value as people write it: a whole number, dollars for money, "unlimited" or "null" for none.

    Raises:
        InvalidRequest: it is none of these, is negative, or the name is unknown.
    """
    limit = limit_named(name)
    if text.strip().lower() in {"unlimited", "null", "none"}:
        return None
    try:
        amount = parse_usd(text.strip()) if limit.is_money else Fraction(_count(text.strip()))
    except ValueError:
        raise _unreadable(name, limit) from None
    if amount.denominator != 1 or amount > MOST:
        raise _unreadable(name, limit)
    return amount.numerator


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def _unreadable(name: str, limit: Limit) -> InvalidRequest:
    what = "an amount in US dollars" if limit.is_money else "a whole number"
    return InvalidRequest(f"{name}: expected {what}, or `unlimited`", param=name)
