"""The route table: one row per method and path, from which router, OpenAPI document and tests are made."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from llm_gate.domain.access import KeyScope
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import MethodNotAllowed, NotFound
from llm_gate.http.exchange import Exchange
from llm_gate.http.failures import Failure

Endpoint = Callable[[Exchange], Awaitable[None]]


class Surface(Protocol):
    """How one family of routes writes errors.

    `id_header` is the header in which its callers look for the request id, beside x-request-id; `content_type` is
    that of an error's body.
    """

    id_header: str | None
    content_type: str

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun."""


class SurfaceRow(Struct, frozen=True, kw_only=True):
    """Whose errors a caller gets where no route is found: by path, and by a header only its callers send."""

    prefix: str
    surface: Surface
    header: str | None = None

    def covers(self, exchange: Exchange) -> bool:
        """Tell whether a request belongs to this surface."""
        has_header = self.header is None or self.header in exchange.headers
        return has_header and exchange.path.startswith(self.prefix)


class Parameter(Struct, frozen=True, kw_only=True):
    """A header, path value or query field, for the documentation."""

    name: str
    place: Literal["header", "path", "query"]
    description: str
    required: bool = True
    format: str | None = None


class Route(Struct, frozen=True, kw_only=True):
    """One row. A path may hold one `{name}`, which takes all that stands in its place, slashes included.

    policy "open" needs no key, "caller" one where there are keys; `needs` is the scope that key must have.
    `reads_json` routes take a JSON body; those with a `form` (its main fields) look at the body's type themselves.
    `content` is the type of an answer that is no JSON, `success` its status.
    `stream` says whether the answer may be, or always is, a stream of events. A row with `header` is only for
    requests that carry it, and goes before the row that has the same path without one.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    endpoint: Endpoint
    surface: Surface
    summary: str
    tag: str
    policy: Literal["open", "caller"] = "caller"
    needs: KeyScope | None = None
    operation: Operation | None = None
    request_type: Any = None
    response_type: Any = None
    error_type: Any = None
    parameters: tuple[Parameter, ...] = ()
    example: Any = None
    stream: Literal["never", "asked", "always"] = "never"
    form: Mapping[str, Literal["text", "file"]] = {}
    content: str | None = None
    success: int = 200
    documented: bool = True
    header: str | None = None

    @property
    def scope(self) -> KeyScope | None:
        """The scope that a key must have; what reaches providers always needs "inference"."""
        return "inference" if self.operation is not None else self.needs

    @property
    def reads_form(self) -> bool:
        """Whether the route takes a form with files."""
        return bool(self.form)

    @property
    def reads_json(self) -> bool:
        """Whether the route takes a JSON body."""
        return self.request_type is not None


class _Table:
    """Rows by path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[tuple[str, str], dict[str, Route]] = {}
        for route in routes:
            prefix, brace, rest = route.path.partition("{")
            if brace:
                patterns.setdefault((prefix, rest.partition("}")[2]), {})[route.method] = route
            else:
                self._exact.setdefault(route.path, {})[route.method] = route
        # What says more about the path goes first.
        self._patterns = sorted(patterns.items(), key=lambda each: (-len(each[0][0]), -len(each[0][1])))

    def rows(self, exchange: Exchange) -> Mapping[str, Route]:
        """Return the rows of a request's path by method, and set its path value."""
        exact = self._exact.get(exchange.path)
        return self._open_rows(exchange) if exact is None else exact

    def _open_rows(self, exchange: Exchange) -> Mapping[str, Route]:
        path = exchange.path
        for (prefix, suffix), rows in self._patterns:
            end = len(path) - len(suffix)
            if path.startswith(prefix) and path.endswith(suffix) and end > len(prefix):
                exchange.path_value = path[len(prefix) : end]
                return rows
        return {}


class Router:
    """Finds the row for a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        names = dict.fromkeys(route.header for route in routes if route.header is not None)
        self._by_header = {name: _Table([r for r in routes if r.header == name]) for name in names}
        self._plain = _Table([route for route in routes if route.header is None])

    def rows(self, exchange: Exchange) -> tuple[Route, ...]:
        """Return every row that has a request's path, whatever its method and header.

        Raises:
            NotFound: there is none.
        """
        tables = (*self._by_header.values(), self._plain)
        rows = tuple(row for table in tables for row in table.rows(exchange).values())
        if not rows:
            raise NotFound(f"there is nothing at {exchange.path}", code="not_found")
        return rows

    def find(self, exchange: Exchange) -> Route:
        """Return the row for a request, and set its path value.

        Raises:
            NotFound: no row has this path.
            MethodNotAllowed: rows have it, with other methods.
        """
        method = "GET" if exchange.method == "HEAD" else exchange.method
        for header, table in self._by_header.items():
            if header in exchange.headers and (row := table.rows(exchange).get(method)) is not None:
                return row
        rows = self._plain.rows(exchange)
        if not rows:
            raise NotFound(f"there is nothing at {exchange.path}", code="not_found")
        if method not in rows:
            raise MethodNotAllowed(f"{exchange.method} is not possible here", allowed=tuple(rows))
        return rows[method]
