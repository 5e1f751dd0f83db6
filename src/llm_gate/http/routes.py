"""The route table: one row per method and path, from which router, OpenAPI document and tests are made."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import MethodNotAllowed, NotFound
from llm_gate.http.exchange import Exchange
from llm_gate.http.failures import Failure

Endpoint = Callable[[Exchange], Awaitable[None]]


class Surface(Protocol):
    """How one family of routes writes errors."""

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun."""


class Parameter(Struct, frozen=True, kw_only=True):
    """A header or path value, for the documentation."""

    name: str
    place: Literal["header", "path"]
    description: str
    required: bool = True
    format: str | None = None


class Route(Struct, frozen=True, kw_only=True):
    """One row. A path may end in `{name}`, which takes the rest of the path, slashes included.

    policy "open" needs no key, "caller" one where keys are configured. `reads_json` routes take a JSON body.
    `stream` says whether the answer may be, or always is, a stream of events.
    """

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    surface: Surface
    summary: str
    tag: str
    policy: Literal["open", "caller"] = "caller"
    operation: Operation | None = None
    request_type: Any = None
    response_type: Any = None
    error_type: Any = None
    parameters: tuple[Parameter, ...] = ()
    example: Any = None
    stream: Literal["never", "asked", "always"] = "never"
    documented: bool = True

    @property
    def reads_json(self) -> bool:
        """Whether the route takes a JSON body."""
        return self.request_type is not None


class Router:
    """Finds the row for a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        self._open_ended: list[tuple[str, Route]] = []
        for route in routes:
            prefix, brace, _ = route.path.partition("{")
            if brace:
                self._open_ended.append((prefix, route))
            else:
                self._exact.setdefault(route.path, {})[route.method] = route

    def find(self, exchange: Exchange) -> Route:
        """Return the row for a request, and set its path value.

        Raises:
            NotFound: no row has this path.
            MethodNotAllowed: rows have it, with other methods.
        """
        method = "GET" if exchange.method == "HEAD" else exchange.method
        rows: Mapping[str, Route] | None = self._exact.get(exchange.path)
        if rows is None:
            rows = self._open_rows(exchange)
        if not rows:
            raise NotFound(f"there is nothing at {exchange.path}", code="not_found")
        if method not in rows:
            raise MethodNotAllowed(f"{exchange.method} is not possible here", allowed=tuple(rows))
        return rows[method]

    def _open_rows(self, exchange: Exchange) -> Mapping[str, Route]:
        found: dict[str, Route] = {}
        for prefix, route in self._open_ended:
            if exchange.path.startswith(prefix) and len(exchange.path) > len(prefix):
                found[route.method] = route
                exchange.path_value = exchange.path[len(prefix) :]
        return found
