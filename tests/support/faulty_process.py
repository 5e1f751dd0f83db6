"""The process of support.faulty: its providers, their connections, and what each order does."""

import argparse
import asyncio
import gzip
import json
import random
import re
import socket
import ssl
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from support import wire
from support.wire import Ask

GRACE_S = 0.25
"""How long after a wish for patience a request may still be one that was sent before the wish was read."""

_TLS = Path(__file__).parent / "tls"
_DOORS = frozenset({"refuse", "tls_garbage", "tls_hang", "tls_untrusted"})
_KEPT_ATTEMPTS = 400_000
_BACKLOG = 4096
_RST = struct.pack("ii", 1, 0)
_COMMENT_EVERY_S = 0.05
_GIANT_BYTES = 3 * 2**20
_BLOCK = b"x" * 65_536
_GIANT_BLOCKS = 1100
_BOMB_BYTES = 200 * 2**20
_FORMS = ("seconds", "ms", "date")
_HOURS_S = 5 * 3600
_FOREVER_S = 86_400
_CHANCE = random.Random(1)  # noqa: S311 - cuts and nonsense, not secrets


@dataclass
class Attempt:
    """One request as a provider got it. Times are of the monotonic clock, which all processes share.

    `ended`: "complete" (the last byte was written), "refused" (an error, whole), "cut" (the provider ended it on
    purpose), or "gone" (the caller closed the connection first).
    """

    number: int
    name: str
    dialect: str
    model: str
    is_stream: bool
    call: str
    fault: str | None
    arrived_s: float
    pieces: int = 0
    ended: str | None = None
    ended_s: float | None = None


class _Provider:
    """One provider: its ports, what it was told, and what it counted."""

    def __init__(self, name: str, house: "_House") -> None:
        self.name = name
        self.orders: dict[str, Any] = {}
        self.open: set[_Connection] = set()
        self.counts: dict[str, int] = {}
        self.forget()
        self.ports = [0, 0]
        self._house = house
        self._servers: list[asyncio.Server | None] = [None, None]
        self._due = 0.0
        self._forms = 0
        self._until_s: dict[str, tuple[float, float]] = {}

    def forget(self) -> None:
        """Count from nothing."""
        self.counts = dict.fromkeys(("asked", "connections", "wishes", "undercut", "crossed"), 0)

    async def listen(self, orders: dict[str, Any]) -> None:
        """Do as told: open and close ports as far as that is needed."""
        before, self.orders = self.orders.get("fault"), orders
        now = orders.get("fault")
        if all(self._servers) and (before == now or not {before, now} & _DOORS):
            return
        for server in self._servers:
            if server is not None:
                server.close()
        self._servers = [None, None]
        for connection in list(self.open):
            connection.reset()
        if now != "refuse":
            self._servers = [await self._server(0, None), await self._server(1, now)]
            self.ports = [server.sockets[0].getsockname()[1] for server in self._servers]

    async def _server(self, index: int, fault: str | None) -> asyncio.Server:
        context = None
        if index and fault not in {"tls_garbage", "tls_hang"}:
            certificate = self._house.certificates["tls_untrusted" if fault == "tls_untrusted" else "usual"]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
        loop = asyncio.get_running_loop()
        mode = fault if index and context is None else None
        return await loop.create_server(
            lambda: _Connection(self._house, self, mode),
            "127.0.0.1",
            self.ports[index],
            backlog=_BACKLOG,
            ssl=context,
            reuse_address=True,
        )

    def orders_for(self, ask: Ask) -> dict[str, Any]:
        """Return the orders for a request; a fault only for the share of them that it is for."""
        own = ask.orders if ask.orders.get("only", self.name) == self.name else {}
        orders = {**self.orders, **own}
        self._due += orders.get("share", 1)
        if "fault" in orders and self._due < 1 - 1e-9:
            del orders["fault"]
        elif self._due >= 1 - 1e-9:
            self._due -= 1
        return orders

    def note_arrival(self, model: str, now_s: float) -> None:
        """Count a request, and whether it comes before the patience that was asked for has ended."""
        self.counts["asked"] += 1
        since_s, until_s = self._until_s.get(model, (0.0, 0.0))
        if now_s < until_s:
            self.counts["undercut" if now_s - since_s > GRACE_S else "crossed"] += 1

    def wish(self, ask: Ask, orders: dict[str, Any]) -> tuple[dict[str, str], float | None]:
        """Ask for patience; return the headers that say so, and what the body says."""
        forms = orders.get("forms", _FORMS)
        self._forms += 1
        form, wish_s = forms[self._forms % len(forms)], orders.get("wish_s", 1)
        headers, told_s = {}, None
        now_s = time.time()
        if form == "garbage":
            return {"retry-after": _CHANCE.choice(["soon", "-3", "1e999", "", "NaN"])}, None
        if form == "ms":
            headers = {"retry-after-ms": str(round(wish_s * 1000))}
        elif form == "google":
            told_s = wish_s
        elif form == "date":
            at_s = int(now_s + wish_s) + 1
            headers = {"retry-after": formatdate(at_s, usegmt=True), "date": formatdate(now_s, usegmt=True)}
            wish_s = at_s - now_s
        else:
            wish_s = _HOURS_S if form == "hours" else max(1, round(wish_s))
            headers = {"retry-after": str(wish_s)}
        self.counts["wishes"] += 1
        sent_s = time.monotonic()
        since_s, until_s = self._until_s.get(ask.model, (0.0, 0.0))
        is_new = sent_s >= until_s
        self._until_s[ask.model] = (sent_s if is_new else since_s, max(until_s, sent_s + wish_s))
        return headers, told_s


class _House:
    """All providers, the log of attempts, and the trap."""

    def __init__(self, names: list[str], other: list[str] | None) -> None:
        usual = (str(_TLS / "certificate.pem"), str(_TLS / "key.pem"))
        self.certificates = {"usual": usual, "tls_untrusted": tuple(other) if other else usual}
        self.providers = {name: _Provider(name, self) for name in names}
        self.attempts: deque[Attempt] = deque(maxlen=_KEPT_ATTEMPTS)
        self.trapped = 0
        self.trap_port = 0
        self._number = 0
        self._bomb: asyncio.Future[bytes] | None = None

    def note(self, provider: _Provider, ask: Ask, fault: str | None) -> Attempt:
        """Keep a request in the log."""
        now_s = time.monotonic()
        provider.note_arrival(ask.model, now_s)
        self._number += 1
        attempt = Attempt(
            number=self._number,
            name=provider.name,
            dialect=ask.dialect,
            model=ask.model,
            is_stream=ask.is_stream,
            call=ask.call,
            fault=fault,
            arrived_s=now_s,
        )
        self.attempts.append(attempt)
        return attempt

    async def bomb(self) -> bytes:
        """Return much that was squeezed into little."""
        if self._bomb is None:
            self._bomb = asyncio.ensure_future(asyncio.to_thread(gzip.compress, bytes(_BOMB_BYTES), 6))
        return await asyncio.shield(self._bomb)

    async def control(self, path: str, body: bytes) -> Any:
        """Do what a test asks for."""
        _, what, *more = path.split("/")
        if what == "will":
            await self.providers[more[0]].listen(json.loads(body))
        elif what == "attempts":
            since = int(more[0])
            return [asdict(each) for each in self.attempts if each.number >= since]
        elif what == "counts":
            found: dict[str, Any] = {"trapped": self.trapped}
            for name, provider in self.providers.items():
                found[name] = {**provider.counts, "open": len(provider.open)}
            return found
        elif what == "forget":
            self.attempts.clear()
            self.trapped = 0
            for provider in self.providers.values():
                provider.forget()
        return {}


class _Connection(asyncio.Protocol):
    """One connection: reads requests, and has each answered by a task that ends with the connection."""

    def __init__(self, house: _House, provider: _Provider | None, mode: str | None = None) -> None:
        self._house = house
        self._provider = provider
        self._mode = mode
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._provider is not None:
            self._provider.counts["connections"] += 1
            self._provider.open.add(self)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._provider is not None:
            self._provider.open.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        if self._mode == "tls_garbage":
            self._transport.write(b"HTTP/1.0 400 This is no TLS\r\n\r\n")
            self._transport.close()
        elif self._mode != "tls_hang":
            self._buffer += data
            self._begin()

    def _begin(self) -> None:
        if self._task is not None and not self._task.done():
            return
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        path = head.split(b" ")[1].decode("latin-1")
        self._task = asyncio.get_running_loop().create_task(self._answer(path, rest[:size]))
        self._task.add_done_callback(self._answered)

    def _answered(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is None and not self._transport.is_closing():
            self._task = None
            self._begin()

    async def _answer(self, path: str, body: bytes) -> None:
        if self._provider is None:
            document = await self._house.control(path, body)
            await self.head(200, body=json.dumps(document).encode())
            return
        ask = wire.read_ask(path, body)
        if ask is None:
            await self.head(404, body=b'{"error":{"message":"not found"}}')
            return
        orders = self._provider.orders_for(ask)
        attempt = self._house.note(self._provider, ask, orders.get("fault"))
        turn = _Turn(self, self._house, self._provider, ask, orders, attempt)
        try:
            attempt.ended = await turn.run()
        except asyncio.CancelledError:
            attempt.ended = "gone"
            raise
        finally:
            attempt.ended_s = time.monotonic()

    async def write(self, data: bytes) -> None:
        """Send bytes, when there is room for them."""
        await self._may_write.wait()
        self._transport.write(data)
        await asyncio.sleep(0)

    async def head(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        *,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> None:
        """Send the head of an answer: with its whole body, or to be followed by chunks."""
        named = {"content-type": kind, **(headers or {})}
        if body is None:
            named["transfer-encoding"] = "chunked"
        else:
            named.setdefault("content-length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        await self.write(f"HTTP/1.1 {status} Ordered\r\n{lines}\r\n".encode() + (body or b""))

    async def chunk(self, data: bytes) -> None:
        """Send a chunk; an empty one is the last."""
        await self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def close(self) -> None:
        """Close once all is sent."""
        self._transport.close()

    def reset(self) -> None:
        """Tear the connection down with RST."""
        sock = self._transport.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self._transport.abort()


class _Trap(asyncio.Protocol):
    def __init__(self, house: _House) -> None:
        house.trapped += 1


class _Turn:
    """One attempt on its way."""

    def __init__(
        self,
        link: _Connection,
        house: _House,
        provider: _Provider,
        ask: Ask,
        orders: dict[str, Any],
        attempt: Attempt,
    ) -> None:
        self._link = link
        self._house = house
        self._provider = provider
        self._ask = ask
        self._orders = orders
        self._attempt = attempt
        self._fault = orders.get("fault")
        self._pause_s = orders.get("pause_s", 0)

    async def run(self) -> str:
        """Answer as ordered; returns how it ended."""
        await asyncio.sleep(self._orders.get("delay_s", 0))
        link, fault = self._link, self._fault
        if fault in {"limited", "status"}:
            return await self._refuse()
        if fault == "no_headers":
            return await _forever()
        if fault == "redirect":
            url = f"http://127.0.0.1:{self._house.trap_port}/elsewhere"
            await link.head(self._orders.get("status", 307), {"location": url}, body=b"")
            return "refused"
        bodies = {"html": b"<html><body>Down for maintenance</body></html>", "empty": b"", "null": b"null"}
        if fault in bodies:
            kind = "text/html" if fault == "html" else "application/json"
            await link.head(200, body=bodies[fault], kind=kind)
            return "refused"
        if fault in {"endless", "bomb", "false_length"}:
            return await self._too_much()
        return await (self._stream() if self._ask.is_stream else self._whole())

    async def _refuse(self) -> str:
        orders, headers, told_s = self._orders, {}, None
        status = orders.get("status", 429 if self._fault == "limited" else 500)
        if self._fault == "limited":
            headers, told_s = self._provider.wish(self._ask, orders)
        body = wire.failure(self._ask.dialect, status, code=orders.get("code"), wish_s=told_s)
        await self._link.head(status, headers, body=json.dumps(body).encode())
        return "refused"

    async def _too_much(self) -> str:
        link = self._link
        if self._fault == "false_length":
            await link.head(200, {"content-length": "100000"}, body=b'{"id":')
            link.close()
            return "cut"
        kind = "text/event-stream" if self._ask.is_stream else "application/json"
        if self._fault == "bomb":
            await link.head(200, {"content-encoding": "gzip"}, body=await self._house.bomb(), kind=kind)
            return "complete"
        await link.head(200, kind=kind)
        await link.chunk(b'{"text":"' if not self._ask.is_stream else b"data: ")
        while True:
            await link.chunk(_BLOCK)

    async def _whole(self) -> str:
        link, fault, orders = self._link, self._fault, self._orders
        document = wire.whole(self._ask, orders.get("words", 5), orders.get("usage", "plain"))
        data = json.dumps(document, ensure_ascii=False).encode()
        kind = "text/plain" if fault == "wrong_type" else "application/json"
        if fault == "wrong_type":
            data = b"it works, but in words"
        elif fault == "malformed":
            data = data[:-3] + b"]]}"
        elif fault == "giant":
            return await self._giant(data)
        elif fault == "error_event":
            data = json.dumps(wire.failure(self._ask.dialect, 503)).encode()
        elif fault in {"stall", "comments", "trickle", "rst", "fin", "cut"}:
            await link.head(200, {"content-length": str(len(data) + 10**6 * (fault == "comments"))}, body=b"")
            if fault in {"rst", "fin", "cut", "stall"}:
                await link.write(data[: len(data) // 2])
            return await self._misbehave(data, is_chunked=False)
        await link.head(200, body=data, kind=kind)
        return "complete"

    async def _giant(self, data: bytes) -> str:
        await self._link.head(200)
        await self._link.chunk(data[:-1] + b',"x":"')
        for _ in range(_GIANT_BLOCKS):
            await self._link.chunk(_BLOCK)
        await self._link.chunk(b'"}')
        await self._link.chunk(b"")
        return "complete"

    async def _stream(self) -> str:
        link, orders = self._link, self._orders
        end = "\r\n" if orders.get("crlf") else "\n"
        frames = wire.streamed(self._ask, orders.get("words", 5), orders.get("usage", "plain"), end)
        kind = "text/plain" if self._fault == "wrong_type" else "text/event-stream"
        await link.head(200, kind=kind)
        after = orders.get("after", 0)
        if self._fault and after == 0 and self._fault != "late":
            return await self._misbehave(b"".join(frames.opening + frames.pieces + frames.closing))
        for each in frames.opening:
            await self._chunk(each)
        for number, each in enumerate(frames.pieces):
            if self._fault and self._fault != "late" and number == after:
                return await self._misbehave(b"".join(frames.pieces[number:] + frames.closing))
            await asyncio.sleep(self._pause_s)
            await self._chunk(each)
            self._attempt.pieces += 1
        for each in frames.closing:
            await self._chunk(each)
        await link.chunk(b"")
        return "complete"

    async def _chunk(self, data: bytes) -> None:
        if not self._orders.get("split"):
            await self._link.chunk(data)
            return
        while data:
            size = _CHANCE.randint(1, 9)
            await self._link.chunk(data[:size])
            data = data[size:]

    async def _misbehave(self, rest: bytes, *, is_chunked: bool = True) -> str:
        """Go on as no answer should. `rest` is what a good one would have gone on with."""
        link, fault = self._link, self._fault
        send = link.chunk if is_chunked else link.write
        if fault == "stall":
            return await _forever()
        if fault == "comments":
            while True:
                await send(b": still here\n\n" if is_chunked else b" ")
                await asyncio.sleep(_COMMENT_EVERY_S)
        if fault == "trickle":
            for place in range(len(rest)):
                await send(rest[place : place + 1])
                await asyncio.sleep(self._pause_s or 1)
            return "complete"
        if fault == "rst":
            await asyncio.sleep(0.01)
            link.reset()
            return "cut"
        last = {
            "error_event": wire.failure_frame(self._ask.dialect),
            "malformed": b'data: {"choices":[{"index"\n\n',
            "giant": b"data: " + b"y" * _GIANT_BYTES + b"\n\n",
            "wrong_type": b"it works, but in words",
        }.get(fault or "", b"")
        if last:
            await send(last)
        if fault != "cut" and is_chunked:
            await link.chunk(b"")
            return "cut"
        link.close()
        return "cut"


async def _forever() -> str:
    await asyncio.sleep(_FOREVER_S)
    return "complete"


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--other", nargs=2)
    chosen = parser.parse_args()
    house = _House(chosen.names, chosen.other)
    loop = asyncio.get_running_loop()
    for provider in house.providers.values():
        await provider.listen({})
    trap = await loop.create_server(lambda: _Trap(house), "127.0.0.1", 0)
    control = await loop.create_server(lambda: _Connection(house, None), "127.0.0.1", 0)
    house.trap_port = trap.sockets[0].getsockname()[1]
    ports = {
        "control": control.sockets[0].getsockname()[1],
        "trap": house.trap_port,
        "names": {name: provider.ports for name, provider in house.providers.items()},
    }
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.sleep(_FOREVER_S)


if __name__ == "__main__":
    asyncio.run(_main())
