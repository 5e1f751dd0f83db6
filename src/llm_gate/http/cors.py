"""What browsers are told so that web pages of the origins the operator lists may call: CORS, and no more of it."""

import re
from collections.abc import Sequence

from llm_gate.http.exchange import Exchange, printable
from llm_gate.http.routes import Route

_ALLOWED = (
    "authorization",
    "content-type",
    "x-api-key",
    "x-client-id",
    "client_id",
    "idempotency-key",
    "x-correlation-id",
    "x-request-id",
    "x-user-id",
    "cache-control",
    "x-llm-gate-batch",
    "x-llm-gate-cache-threshold",
    "x-llm-gate-count",
    "x-llm-gate-fallbacks",
    "x-llm-gate-quote",
    "x-llm-gate-repair",
    "x-llm-gate-sticky",
    "x-llm-gate-timeout-ms",
)
# Official clients describe themselves in headers of this family, and add to it.
_CLIENT_HEADER = re.compile(r"x-stainless-[a-z0-9-]+")
_EXPOSED = (
    "x-llm-gate-provider",
    "x-llm-gate-model",
    "x-llm-gate-attempts",
    "x-llm-gate-tried",
    "x-llm-gate-cache",
    "age",
    "x-llm-gate-cost-usd",
    "x-llm-gate-dropped",
    "x-llm-gate-synthetic",
    "idempotency-replayed",
    "x-request-id",
    "request-id",
    "x-correlation-id",
    "x-should-retry",
    "retry-after",
)
_MAX_AGE_S = 600


def is_preflight(exchange: Exchange) -> bool:
    """Tell whether a browser asks beforehand what a page may do."""
    return exchange.method == "OPTIONS" and "access-control-request-method" in exchange.headers


def sharing_headers(origin: str, shown_headers: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that let a page of an origin read an answer.

    `shown_headers` are those of ours that show headers of a provider's answer.
    """
    return (
        (b"access-control-allow-origin", printable(origin).encode()),
        (b"access-control-expose-headers", ", ".join((*_EXPOSED, *shown_headers)).encode()),
        (b"vary", b"origin"),
    )


def preflight_headers(
    exchange: Exchange, rows: Sequence[Route], control_headers: Sequence[str]
) -> dict[str, str]:
    """Return what a page may send to a path, whose rows are given; which page is said by `sharing_headers`.

    `control_headers` are those that providers take from callers.
    """
    asked = exchange.headers.get("access-control-request-headers", "").lower().split(",")
    clients = [name for name in map(str.strip, asked) if _CLIENT_HEADER.fullmatch(name)]
    # A row's own header must come through, or nobody could reach it.
    own = [row.header for row in rows if row.header is not None]
    return {
        "access-control-allow-methods": ", ".join(dict.fromkeys(row.method for row in rows)),
        "access-control-allow-headers": ", ".join(
            dict.fromkeys([*_ALLOWED, *control_headers, *own, *clients])
        ),
        "access-control-max-age": str(_MAX_AGE_S),
    }
