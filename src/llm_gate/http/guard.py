"""What every request must pass before anything reads it: host, origin, loops."""

from collections.abc import Sequence

from msgspec import Struct

from llm_gate.bootstrap import LOOPBACK_NAMES, is_loopback
from llm_gate.domain.errors import InvalidRequest, LoopDetected, NotAllowed
from llm_gate.http.exchange import Exchange

ANY = "*"
MAX_HOPS = 8
"""Gateways a request may have come through."""

_ONCE = frozenset(
    {
        "authorization",
        "client_id",
        "content-type",
        "host",
        "idempotency-key",
        "origin",
        "x-api-key",
        "x-client-id",
        "x-llm-gate-cache-threshold",
        "x-llm-gate-fallbacks",
        "x-llm-gate-quote",
        "x-llm-gate-sticky",
        "x-llm-gate-timeout-ms",
        "x-user-id",
    }
)


class Guard(Struct, frozen=True, kw_only=True):
    """The rules of one listener. `allowed_hosts` and `allowed_origins` may hold "*" for any."""

    allowed_hosts: frozenset[str]
    allowed_origins: frozenset[str]
    instance_id: str

    def shares_with(self, origin: str) -> bool:
        """Tell whether the operator lists the origin, so that its pages may read answers."""
        return ANY in self.allowed_origins or origin in self.allowed_origins

    def check(self, exchange: Exchange) -> None:
        """Let a request pass, or say why not.

        Raises:
            InvalidRequest: the Host header is not one of ours, or a header that says who calls is there twice.
            NotAllowed: a web page of another origin sent it.
            LoopDetected: it has come through this gateway before.
        """
        if exchange.repeated and (twice := sorted(exchange.repeated & _ONCE)):
            # Which of them counts is a matter of taste, and proxies before us may have another.
            raise InvalidRequest(
                f"{twice[0]}: the header was sent more than once", param=twice[0], code="header_repeated"
            )
        host = exchange.headers.get("host", "")
        if ANY not in self.allowed_hosts and host_name(host) not in self.allowed_hosts:
            raise InvalidRequest(
                "the Host header names no host of this gateway (see allowed_hosts in the configuration)",
                param="Host",
                code="host_not_allowed",
            )
        self._check_origin(exchange, host)
        hops = exchange.headers.get("x-llm-gate-hop")
        if hops is not None:
            self._check_hops(hops)

    def _check_origin(self, exchange: Exchange, host: str) -> None:
        origin = exchange.headers.get("origin")
        if origin is not None:
            same = bool(host) and origin.partition("://")[2].lower() == host.lower()
            if not same and not self.shares_with(origin):
                raise NotAllowed("requests from web pages of another origin are not allowed")
        elif exchange.headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            raise NotAllowed("requests from web pages of another origin are not allowed")

    def _check_hops(self, hops: str) -> None:
        seen = [hop.strip() for hop in hops.split(",")]
        if self.instance_id in seen:
            raise LoopDetected(
                "the request has come through this gateway before: a provider's address leads back here"
            )
        if len(seen) > MAX_HOPS:
            raise LoopDetected(f"the request has come through more than {MAX_HOPS} gateways")


def make_guard(
    *,
    bind_host: str,
    hosts: Sequence[str],
    origins: Sequence[str],
    instance_id: str,
) -> Guard:
    """Derive the rules from the settings.

    On loopback only its names are answered, so that no web page can reach the gateway through a name of its
    own; elsewhere any name, unless hosts are listed, since a key is needed there.
    """
    allowed = {host.lower() for host in hosts}
    if is_loopback(bind_host):
        allowed |= {*LOOPBACK_NAMES, bind_host.lower()}
    elif not allowed:
        allowed = {ANY}
    return Guard(
        allowed_hosts=frozenset(allowed),
        # Browsers write an origin in lower case and without a slash at its end; people may not.
        allowed_origins=frozenset(origin.lower().rstrip("/") for origin in origins),
        instance_id=instance_id,
    )


def host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets; all of it where it has not that form."""
    host = host.strip().lower()
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return host if rest.strip(":0123456789") else name
    return host.partition(":")[0] if host.count(":") == 1 else host
