"""Who calls, and in what frame: identity, limits in time, and what was said beside the body."""

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from llm_gate.domain.conditions import AttemptWatch
from llm_gate.domain.ledger import Result
from llm_gate.domain.plans import Limits
from llm_gate.domain.policy import AttemptPolicy
from llm_gate.domain.tracing import NO_SPAN, Span

KeyScope = Literal["inference", "usage:read", "metrics:read", "admin", "operator"]
"""What a key may do. "admin" acts within the key's own tenant; with "operator" beside it, in every tenant.

"metrics:read" shows figures of the whole gateway, none of them by tenant or user.
"""

DEFAULT_TENANT = "default"
LOCAL_APPLICATION = "local"
"""The application of a caller who names none and needs no key."""


class VirtualKey(Struct, frozen=True, kw_only=True):
    """A key issued by the gateway. The key itself is kept nowhere; `digest` is its keyed hash, `prefix` is shown.

    A key bound to a `user` acts for nobody else. `limits` and `allowed_models` bind beside the plan's.
    `retires_at_ms` is when a rotated key stops working, `expires_at_ms` when any does.
    """

    id: str
    digest: bytes
    prefix: str
    name: str = ""
    tenant: str = DEFAULT_TENANT
    application: str
    user: str | None = None
    scopes: frozenset[KeyScope] = frozenset({"inference"})
    allowed_models: tuple[str, ...] = ()
    limits: Limits = Limits()
    created_at_ms: int = 0
    expires_at_ms: int | None = None
    retires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    replaced_by: str | None = None

    def is_valid(self, at_ms: int) -> bool:
        """Tell whether the key works at an instant."""
        ends = (self.expires_at_ms, self.retires_at_ms, self.revoked_at_ms)
        return all(end is None or at_ms < end for end in ends)


class Identity(Struct, frozen=True, kw_only=True):
    """Who presented what: a key, the operator's own, or nothing where none is needed.

    `application` is None where the caller may name it.
    """

    tenant: str = DEFAULT_TENANT
    application: str | None = None
    user: str | None = None
    key: VirtualKey | None = None
    scopes: frozenset[KeyScope] = frozenset({"inference", "usage:read", "metrics:read"})


ANYONE = Identity()
"""A caller in local mode."""


class Caller(Struct, frozen=True, kw_only=True):
    """The subject of a call: `application` is the client id, `user` the id it gave, or the application itself."""

    tenant: str = DEFAULT_TENANT
    application: str = LOCAL_APPLICATION
    user: str = LOCAL_APPLICATION
    key: VirtualKey | None = None

    @property
    def key_id(self) -> str | None:
        """The id of the key that was presented."""
        return None if self.key is None else self.key.id


class Tally(Protocol):
    """Keeps what calls came to, for whoever adds several of them up."""

    def add(self, ended: "Awaitable[Result]") -> None:
        """Take the end of a call, which is written down when it is awaited."""


class CallContext(Struct, frozen=True, kw_only=True):
    """One call's frame. `headers` are the inbound headers by lower-case name.

    `timeout_s` bounds the whole call, in seconds from its start, where the caller says; `hops` lists the gateways it
    came through. `endpoint` is the route's path, for the records. `quote_id` names a quote whose hold the call spends
    from. `fallbacks` are names to try after the one that was asked for, `sticky` is what keeps calls at one place,
    `policy` stands in for the configured one, `watch` follows the attempts, `tally` adds up what calls came to, and
    `span` is the work it belongs to.
    """

    request_id: str
    caller: Caller
    received_at: datetime
    headers: Mapping[str, str]
    correlation_id: str | None = None
    timeout_s: float | None = None
    hops: tuple[str, ...] = ()
    endpoint: str = ""
    quote_id: str | None = None
    fallbacks: tuple[str, ...] = ()
    sticky: str | None = None
    policy: AttemptPolicy | None = None
    watch: AttemptWatch | None = None
    tally: Tally | None = None
    span: Span = NO_SPAN
