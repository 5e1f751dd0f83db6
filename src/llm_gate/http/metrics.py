"""The metrics, for collectors: figures of the whole gateway, none of them by tenant or user. No provider is asked."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.routes import Route, Surface

Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Returns what was counted and its content type, as an Accept header wants it."""

UNROUTED = "none"
"""Stands for the route of a request that has none."""

_CLIENT_GONE_STATUS = 499
_NOBODY = "none"
_KEPT = frozenset({"hit", "semantic"})


class EdgeMeters(Protocol):
    """Counts what was served. Called at the end of every request, so that it must cost next to nothing."""

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request by its route's template."""

    def call(  # noqa: PLR0913 - what one call came to
        self,
        *,
        operation: str,
        provider: str,
        model: str,
        outcome: str,
        seconds: float,
        first_event_s: float | None,
        input_tokens: int | None,
        output_tokens: int | None,
        cost_nanos: int | None,
    ) -> None:
        """Count a model call; `outcome` is "ok", "left", or an error's code. Cost is None where nobody knows it."""


def count_call(meters: EdgeMeters, operation: Operation, exchange: Exchange) -> None:
    """Count what a request for a model came to, by what the log will say of it."""
    log = exchange.log
    outcome = log.get("error_code")
    if outcome is None:
        has_left = log.get("status", _CLIENT_GONE_STATUS) == _CLIENT_GONE_STATUS or log.get("stream") == "cut"
        outcome = "left" if has_left else "ok"
    provider = log.get("provider")
    if provider is None and outcome == "ok":
        # The answer to an earlier request was shown again: nobody was called.
        return
    # What a kept answer used was used, and counted, when it was made.
    is_kept = log.get("cache") in _KEPT
    first_event_ms = log.get("first_event_ms")
    meters.call(
        operation=operation,
        provider=provider or _NOBODY,
        model=log.get("model") or _NOBODY,
        outcome=outcome,
        seconds=exchange.elapsed_s,
        first_event_s=None if first_event_ms is None else first_event_ms / 1000,
        input_tokens=None if is_kept else log.get("input_tokens"),
        output_tokens=None if is_kept else log.get("output_tokens"),
        cost_nanos=log.get("cost_nanos"),
    )


class MetricsRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint that collectors read."""

    scrape: Scrape
    surface: Surface

    async def metrics(self, exchange: Exchange) -> None:
        """Tell what was counted, as Prometheus text or as OpenMetrics."""
        body, content_type = await self.scrape(exchange.headers.get("accept", ""))
        headers = {"cache-control": "no-store", "vary": "accept"}
        await exchange.reply(Reply(body=body, content_type=content_type, headers=headers))

    def routes(self) -> list[Route]:
        """Return the row."""
        return [
            Route(
                method="GET",
                path="/metrics",
                endpoint=self.metrics,
                surface=self.surface,
                summary="Tell what was counted, for collectors",
                tag="Health",
                needs="metrics:read",
                documented=False,
            )
        ]
