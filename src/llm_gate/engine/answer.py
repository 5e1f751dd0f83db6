"""What the gate makes of a call on its way: let in, asked, answered."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from llm_gate.domain.access import CallContext
from llm_gate.domain.cache import CacheWord
from llm_gate.domain.conditions import Tried
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.usage import Usage
from llm_gate.engine.admission import Booking
from llm_gate.engine.estimate import Bound
from llm_gate.engine.holds import Holds
from llm_gate.engine.working import Working

T = TypeVar("T")


class Answer(Struct, Generic[T], frozen=True, kw_only=True):
    """A complete answer and how it came about.

    `usage` and `cost` are of all calls it took; `upstream_s` is the time spent waiting for providers.
    `shown_headers` are those of the provider's answer that the caller is to see, under our names; `tried` is what
    failed, or was left out, before. `cache` says what became of the call at the cache, None while there is none;
    `age_s` is how old a kept answer is.
    """

    result: T
    target: Target
    usage: Usage | None
    cost: Cost | None
    attempts: int
    dropped: tuple[str, ...]
    upstream_s: float
    shown_headers: Mapping[str, str] = {}
    tried: tuple[Tried, ...] = ()
    cache: CacheWord | None = None
    age_s: int | None = None


class Attempted(Struct, Generic[T], frozen=True, kw_only=True):
    """What one target gave: the result, the usage and cost of every call it took, and where these are booked."""

    result: T
    usages: tuple[Usage | None, ...]
    costs: tuple[Cost | None, ...]
    dropped: tuple[str, ...]
    shown_headers: Mapping[str, str]
    booking: Booking


class Admitted(Struct, Generic[T], frozen=True, kw_only=True):
    """A request that was let in, with its place in the ledger and the targets that may answer it.

    `tried` are targets that are left alone for now.
    """

    request: T
    bounds: tuple[Bound, ...]
    holds: Holds
    booking: Booking
    tried: tuple[Tried, ...] = ()


class Asking(Struct, frozen=True, kw_only=True):
    """A chat request on its way to targets, and where what it costs is booked."""

    working: Working
    request: ChatRequest
    booking: Booking
    context: CallContext
