"""Who calls, and in what frame: identity, limits in time, and what was said beside the body."""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct


class Caller(Struct, frozen=True, kw_only=True):
    """The subject of a call. `application` is the client id, `user` the id the application gave."""

    application: str | None = None
    user: str | None = None


class CallContext(Struct, frozen=True, kw_only=True):
    """One call's frame. `headers` are the inbound headers by lower-case name.

    `deadline_s` bounds the whole call, in seconds from its start; `hops` lists the gateways it came through.
    """

    request_id: str
    caller: Caller
    received_at: datetime
    headers: Mapping[str, str]
    correlation_id: str | None = None
    deadline_s: float = 600.0
    hops: tuple[str, ...] = ()
