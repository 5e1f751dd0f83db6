"""The ASGI application: every request passes the guard, one route, one catch-all, and leaves one log line."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llm_gate.domain.errors import GateError, GateFault
from llm_gate.http.exchange import ClientGone, Exchange, Receive, Reply, Scope, Send, require_json
from llm_gate.http.failures import failure_of
from llm_gate.http.guard import Guard
from llm_gate.http.routes import Router, Surface

Hook = Callable[[], Awaitable[None]]

_logger = logging.getLogger("llm_gate.http")
_CLIENT_GONE_STATUS = 499


class Application:
    """The gateway as an ASGI application."""

    def __init__(
        self,
        *,
        router: Router,
        guard: Guard,
        surfaces: Mapping[str, Surface],
        max_body_bytes: int,
        log_prompts: bool,
        log_access: Callable[[Mapping[str, Any]], None],
        on_stop: Hook,
    ) -> None:
        self.router = router
        self.guard = guard
        self._surfaces = surfaces
        self._max_body_bytes = max_body_bytes
        self._log_prompts = log_prompts
        self._log_access = log_access
        self._on_stop = on_stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(
                scope,
                receive,
                send,
                max_body_bytes=self._max_body_bytes,
                log_prompts=self._log_prompts,
            )
            await self._serve(exchange)
        else:
            # A web socket: refused before the handshake.
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._on_stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, exchange: Exchange) -> None:
        surface = self._surface_of(exchange.path)
        try:
            route = self.router.find(exchange)
            surface = route.surface
            self.guard.check(exchange, needs_key=route.policy == "caller")
            if route.reads_json:
                require_json(exchange)
            await route.endpoint(exchange)
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
            self._log(exchange)

    async def _fail(self, exchange: Exchange, surface: Surface, error: GateError) -> None:
        failure = failure_of(error)
        exchange.log |= {"error_code": failure.code}
        if isinstance(error, GateFault):
            _logger.error("gateway fault", extra={"request_id": exchange.request_id, "error": error.message})
        if exchange.is_answered:
            await exchange.send_piece(surface.stream_error(failure))
            await exchange.end_stream()
            return
        reply = Reply(status=failure.status, body=surface.error(failure), headers=failure.headers)
        await exchange.reply(reply)

    def _surface_of(self, path: str) -> Surface:
        for prefix, surface in self._surfaces.items():
            if path.startswith(prefix):
                return surface
        return self._surfaces[""]

    def _log(self, exchange: Exchange) -> None:
        self._log_access(
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


async def watched(exchange: Exchange, work: Awaitable[None]) -> None:
    """Do the work of an answer in this task, and stop it at once when the caller leaves.

    Raises:
        ClientGone: the caller left first.
    """
    worker = asyncio.current_task()
    is_watching, has_left = True, False

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal has_left
        if is_watching and not watcher.cancelled() and worker is not None:
            has_left = True
            worker.cancel()

    watcher = asyncio.get_running_loop().create_task(exchange.until_gone())
    watcher.add_done_callback(leave)
    try:
        await work
    except asyncio.CancelledError:
        if has_left and worker is not None and worker.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        is_watching = False
        watcher.cancel()
