"""The ASGI application: every request passes the guard, one route, one catch-all, and leaves one log line."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from secrets import token_hex
from typing import Any

from msgspec import Struct

from llm_gate.domain.access import ANYONE
from llm_gate.domain.errors import (
    GateError,
    GateFault,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ShuttingDown,
)
from llm_gate.domain.tracing import NoTracer, Tracer
from llm_gate.engine.access import Access
from llm_gate.http.cors import is_preflight, preflight_headers, sharing_headers
from llm_gate.http.exchange import ClientGone, Exchange, Receive, Reply, Scope, Send, require_json
from llm_gate.http.failures import failure_of
from llm_gate.http.guard import Guard
from llm_gate.http.metrics import UNROUTED, EdgeMeters, count_call
from llm_gate.http.overload import Traffic
from llm_gate.http.routes import Endpoint, Route, Router, Surface, SurfaceRow

Hook = Callable[[], Awaitable[None]]
Keyed = Callable[[Exchange, Endpoint], Awaitable[None]]
KEY_HEADER = "idempotency-key"

_logger = logging.getLogger("llm_gate.http")
_CLIENT_GONE_STATUS = 499
_WATCH_AFTER_S = 0.05
# What is told to callers as a matter of course is no fault to look into.
_EXPECTED = (Overloaded, ShuttingDown)


class EdgeRules(Struct, frozen=True, kw_only=True):
    """What the configuration says about every request; a reload swaps all of it at once.

    `max_in_flight` is how many model calls may be under way at a time, None for any number.
    """

    guard: Guard
    control_headers: tuple[str, ...]
    shown_headers: tuple[str, ...]
    max_body_bytes: int
    max_in_flight: int | None = None
    log_prompts: bool
    log_access: Callable[[Mapping[str, Any]], None]


class Application:
    """The gateway as an ASGI application. `on_start` and `on_stop` run inside its event loop.

    `serve_keyed` runs the endpoint of a request that costs money and carries an idempotency key; `traffic` counts the
    model calls under way, `meters` what was served, and `tracer` makes traces of it.
    """

    def __init__(  # noqa: PLR0913 - what the edge is made of
        self,
        *,
        router: Router,
        surfaces: Sequence[SurfaceRow],
        rules: EdgeRules,
        access: Access,
        on_start: Hook,
        on_stop: Hook,
        serve_keyed: Keyed | None = None,
        traffic: Traffic | None = None,
        meters: EdgeMeters | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.router = router
        self.rules = rules
        self.traffic = traffic or Traffic()
        self._access = access
        self._surfaces = tuple(surfaces)
        self._on_start = on_start
        self._on_stop = on_stop
        self._serve_keyed = serve_keyed
        self._meters = meters
        self._tracer = tracer or NoTracer()
        # Unique over processes and restarts, without asking the system for chance at every request.
        self._id_prefix = token_hex(8)
        self._serial = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            rules = self.rules
            exchange = Exchange(
                scope,
                receive,
                send,
                fresh_id=f"req_{self._id_prefix}{next(self._serial):016x}",
                max_body_bytes=rules.max_body_bytes,
                log_prompts=rules.log_prompts,
                is_leaving=self._is_leaving,
            )
            await self._serve(exchange, rules)
        else:
            # A web socket: refused before the handshake.
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._on_start()
                except GateError as error:
                    await send({"type": "lifespan.startup.failed", "message": f"llm-gate: {error.message}"})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._on_stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, exchange: Exchange, rules: EdgeRules) -> None:
        surface = self._surface_of(exchange)
        exchange.span = self._tracer.request(exchange.method, exchange.headers)
        route: Route | None = None
        origin = exchange.headers.get("origin")
        try:
            if origin is not None:
                if rules.guard.shares_with(origin):
                    exchange.sharing_headers = sharing_headers(origin, rules.shown_headers)
                if is_preflight(exchange):
                    await self._preflight(exchange, rules)
                    return
            route = self.router.find(exchange)
            surface = route.surface
            exchange.id_header = surface.id_header
            rules.guard.check(exchange)
            if route.policy != "open":
                await self._identify(exchange, route)
            if route.reads_json:
                require_json(exchange)
            if route.operation is None:
                await route.endpoint(exchange)
            else:
                await self._call(exchange, route, rules)
        except GateError as error:
            await self._fail(exchange, surface, error)
        except ClientGone:
            exchange.log["status"] = _CLIENT_GONE_STATUS
        except Exception:  # the edge's catch-all: whatever was not foreseen is logged and answered in form
            _logger.exception("unforeseen error", extra={"request_id": exchange.request_id})
            await self._fail(
                exchange, surface, GateFault("the gateway failed; the request id leads to its log")
            )
        finally:
            self._end(exchange, route, rules)

    def _end(self, exchange: Exchange, route: Route | None, rules: EdgeRules) -> None:
        """Log the request, count it, and end its span."""
        _log(exchange, rules)
        path = None if route is None else route.path
        status = exchange.log.get("status", _CLIENT_GONE_STATUS)
        exchange.span.end(route=path, status=status)
        if self._meters is not None:
            self._meters.request(path or UNROUTED, exchange.method, status, exchange.elapsed_s)
            if route is not None and route.operation is not None:
                count_call(self._meters, route.operation, exchange)

    async def _call(self, exchange: Exchange, route: Route, rules: EdgeRules) -> None:
        """Run the endpoint of a model call, if there is room for one more.

        Raises:
            Overloaded: there is none.
            ShuttingDown: the gateway is about to end, or ended the call.
        """
        traffic = self.traffic
        try:
            task = traffic.enter(rules.max_in_flight)
        except Overloaded:
            exchange.leave_body()
            raise
        try:
            if KEY_HEADER in exchange.headers and self._serve_keyed is not None:
                await self._serve_keyed(exchange, route.endpoint)
            else:
                await route.endpoint(exchange)
        except asyncio.CancelledError:
            if traffic.was_ended(task):
                raise ShuttingDown("the gateway is being stopped, and ended the call") from None
            raise
        finally:
            traffic.leave(task)

    def _is_leaving(self) -> bool:
        return self.traffic.is_shut

    async def _identify(self, exchange: Exchange, route: Route) -> None:
        """Find out who calls, and whether they may use a route.

        Raises:
            NotAuthenticated: a key is needed, and none that is accepted was presented.
            NotAllowed: the key may not be used for this.
        """
        identity = await self._access.authenticate(exchange.credential, exchange.place)
        exchange.identity = identity
        needed = route.scope
        if needed is None or needed in identity.scopes:
            return
        if identity is ANYONE:
            make = "llm-gate keys create" + (" --admin" if needed == "admin" else "")
            raise NotAuthenticated(f"this needs a key with scope {needed!r}: make one with `{make}`")
        raise NotAllowed(f"the key lacks the scope {needed!r}", code="scope_missing")

    async def _preflight(self, exchange: Exchange, rules: EdgeRules) -> None:
        # Browsers send no key with it; the request itself is checked when it comes.
        rules.guard.check(exchange)
        rows = self.router.rows(exchange)
        await exchange.reply_empty(preflight_headers(exchange, rows, rules.control_headers))

    async def _fail(self, exchange: Exchange, surface: Surface, error: GateError) -> None:
        failure = failure_of(error, request_id=exchange.request_id)
        exchange.id_header = surface.id_header
        exchange.log |= {"error_code": failure.code}
        if isinstance(error, GateFault) and not isinstance(error, _EXPECTED):
            _logger.error("gateway fault", extra={"request_id": exchange.request_id, "error": error.message})
        if exchange.is_answered and not exchange.is_worded:
            # Left without its end, the answer is cut: the server closes the connection.
            return
        if exchange.is_answered:
            write = exchange.write_stream_error or surface.stream_error
            await exchange.send_piece(write(failure))
            await exchange.end_stream()
            return
        reply = Reply(
            status=failure.status,
            body=surface.error(failure),
            content_type=surface.content_type,
            headers=failure.headers,
        )
        await exchange.reply(reply)

    def _surface_of(self, exchange: Exchange) -> Surface:
        return next(row.surface for row in self._surfaces if row.covers(exchange))


async def watched(exchange: Exchange, work: Awaitable[None]) -> None:
    """Do the work of an answer in this task, and stop it at once when the caller leaves.

    Work that outlives its caller goes on: the server drops what is sent to one who left.

    Raises:
        ClientGone: the caller left first.
    """
    if exchange.outlives_caller:
        await work
        return
    loop = asyncio.get_running_loop()
    worker = asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    is_watching, has_left = True, False

    def leave(done: asyncio.Task[None]) -> None:
        nonlocal has_left
        if is_watching and not done.cancelled() and worker is not None:
            has_left = True
            worker.cancel()

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(exchange.until_gone())
        watcher.add_done_callback(leave)

    # What is answered sooner than this needs no watching: the task would cost more than it could save.
    timer = loop.call_later(_WATCH_AFTER_S, watch)
    try:
        await work
    except asyncio.CancelledError:
        if has_left and worker is not None and worker.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        is_watching = False
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


def _log(exchange: Exchange, rules: EdgeRules) -> None:
    rules.log_access(
        {
            "request_id": exchange.request_id,
            "correlation_id": exchange.correlation_id,
            "user": exchange.headers.get("x-user-id"),
            "client": exchange.client_id,
            "method": exchange.method,
            "path": exchange.path,
            "total_ms": round(exchange.elapsed_s * 1000, 2),
            **exchange.log,
        }
    )
