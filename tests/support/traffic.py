"""Callers of a gateway, many at a time and bounded: on every surface, whole and streamed, to the end or leaving early.

    async with traffic(gateway.url) as load:
        told = await load.call("c-1", "chat stream", model="both")
        await load.at_rate(100, 3, lambda n: load.call(f"c-{n}", model="both"))
        load.told                      # what every caller was told, in the order in which the calls ended

A call's name is its request id in the gateway's records, and its `call` in the log of support.faulty.
"""

import asyncio
import json
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp

from support.gateway import NATIVE_HEADERS
from support.wire import text_of

T = TypeVar("T")

TIMEOUT_S = 60.0
USER = "someone"

Outcome = Literal["answered", "refused", "told", "broken", "gone"]
"""How a call ended for its caller: with a whole answer, with an error's status, with an error inside a stream, with
neither (a stream that just stops, a connection that breaks), or by its own leaving."""

_RST = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Surface:
    """A way to ask. `end`, `error` and `finish` are what tells a complete stream, a failed one, and a reason to end."""

    path: str
    is_stream: bool
    end: bytes = b""
    error: bytes = b""
    finish: bytes = b""


SURFACES: Mapping[str, Surface] = {
    "chat": Surface("/v1/chat/completions", is_stream=False),
    "messages": Surface("/v1/messages", is_stream=False),
    "responses": Surface("/v1/responses", is_stream=False),
    "native": Surface("/llm-gate/v1/chat", is_stream=False),
    "chat stream": Surface(
        "/v1/chat/completions",
        is_stream=True,
        end=rb"data: \[DONE\]\n\n$",
        error=rb'data: ?\{"error":',
        finish=rb'"finish_reason": ?"',
    ),
    "messages stream": Surface(
        "/v1/messages",
        is_stream=True,
        end=rb"event: message_stop\n",
        error=rb"event: error\n",
        finish=rb'"stop_reason": ?"',
    ),
    "responses stream": Surface(
        "/v1/responses",
        is_stream=True,
        end=rb"event: response\.completed\n",
        error=rb"event: (response\.failed|error)\n",
        finish=rb"event: response\.(completed|incomplete)\n",
    ),
    "native stream": Surface(
        "/llm-gate/v1/chat/stream",
        is_stream=True,
        end=rb'"finishReason":',
        error=rb"event: error\n",
        finish=rb'"finishReason":',
    ),
}
WHOLE = tuple(name for name, surface in SURFACES.items() if not surface.is_stream)
STREAMS = tuple(name for name, surface in SURFACES.items() if surface.is_stream)


def body_of(surface: str, model: str, text: str) -> dict[str, Any]:
    """Return the body of a question."""
    kind = surface.partition(" ")[0]
    streams = {"stream": True} if SURFACES[surface].is_stream else {}
    if kind == "native":
        provider, _, name = model.rpartition("/")
        chosen = {"model": {"name": name}} | ({"name": provider} if provider else {})
        return {"prompt": {"messages": [{"role": "user", "content": text}]}, "provider": chosen}
    if kind == "responses":
        return {"model": model, "input": text, **streams}
    more = {"max_tokens": 1000} if kind == "messages" else {}
    return {"model": model, "messages": [{"role": "user", "content": text}], **more, **streams}


def headers_of(name: str, surface: str) -> dict[str, str]:
    """Return the headers of a question; the name becomes the id of its record."""
    native = NATIVE_HEADERS if surface.startswith("native") else {}
    more = {"x-user-id": USER, "client_id": "load"}
    return {**(native or more), "content-type": "application/json", "x-request-id": name}


@dataclass
class Told:
    """What one caller was told. `took_s` is from the first byte sent to the end; `retry_after` as it came."""

    name: str
    surface: str
    began_s: float
    outcome: Outcome = "broken"
    status: int = 0
    code: str | None = None
    retry_after: str | None = None
    provider: str | None = None
    attempts: int = 0
    took_s: float = 0.0
    has_finish: bool = False
    body: bytes = b""


@dataclass
class Load:
    """Callers with one pool of connections. `most` calls are under way at most; more wait for their turn."""

    session: aiohttp.ClientSession
    url: str
    most: int = 500
    told: list[Told] = field(default_factory=list)
    waited: int = 0
    _under_way: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def outcomes(self) -> Counter:
        """Count how calls ended: outcome and status."""
        return Counter((each.outcome, each.status) for each in self.told)

    async def call(
        self,
        name: str,
        surface: str = "chat",
        *,
        model: str = "both",
        timeout_s: float = TIMEOUT_S,
        headers: Mapping[str, str] = {},
        **orders: Any,
    ) -> Told:
        """Make one call and note what was told; orders are for the vendor."""
        body = json.dumps(body_of(surface, model, text_of(name, **orders)))
        told = Told(name, surface, time.monotonic())
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self.session.post(
                self.url + SURFACES[surface].path,
                data=body,
                headers={**headers_of(name, surface), **headers},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                told.status = answer.status
                told.retry_after = answer.headers.get("retry-after")
                told.provider = answer.headers.get("x-llm-gate-provider")
                told.attempts = int(answer.headers.get("x-llm-gate-attempts", "0"))
                await _read(answer, told)
        told.took_s = time.monotonic() - told.began_s
        self.told.append(told)
        return told

    async def at_rate(
        self, rate: float, seconds: float, make: Callable[[int], Awaitable[T]], *, first: int = 0
    ) -> list[T]:
        """Begin calls at a fixed rate, whatever becomes of those before, wait for all, and return their results."""
        loop = asyncio.get_running_loop()
        begun_s, tasks = loop.time(), []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(begun_s + number / rate - loop.time())
            while len(self._under_way) >= self.most:
                self.waited += 1
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.ensure_future(make(first + number))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            tasks.append(task)
        return await asyncio.gather(*tasks)

    async def together(self, count: int, at_once: int, make: Callable[[int], Awaitable[Any]]) -> None:
        """Make calls, so many at a time."""
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await make(number)

        await asyncio.gather(*(caller() for _ in range(at_once)))


async def _read(answer: aiohttp.ClientResponse, told: Told) -> None:
    surface = SURFACES[told.surface]
    data = b""
    try:
        while piece := await answer.content.readany():
            data += piece
    finally:
        # What broke off has been told up to there.
        told.body = data
        told.has_finish = bool(surface.finish and re.search(surface.finish, data))
    if answer.status != 200:
        told.outcome = "refused"
        told.code = _code_of(data)
    elif not surface.is_stream:
        told.outcome = "answered" if data else "broken"
    elif re.search(surface.error, data):
        told.outcome = "told"
    elif re.search(surface.end, data):
        told.outcome = "answered"


def _code_of(data: bytes) -> str | None:
    with suppress(ValueError, TypeError, KeyError, IndexError, AttributeError):
        document = json.loads(data)
        if "errorDetails" in document:
            return document["errorDetails"][0]["details"]
        return document["error"].get("code") or document["error"]["type"]
    return None


@asynccontextmanager
async def traffic(url: str, *, most: int = 500) -> AsyncIterator[Load]:
    """Open a pool of connections to a gateway."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Load(session, url, most)


# ---- callers who leave


async def leave(
    url: str,
    name: str,
    surface: str,
    *,
    model: str,
    after_s: float,
    after_bytes: int = 0,
    sent_part: float = 1.0,
    is_rude: bool = False,
    **orders: Any,
) -> float | None:
    """Make a call over a connection of its own and leave it; return when, None where the answer was there before.

    Left is `after_s` after the request was sent (or as much of it as `sent_part` says), but not before `after_bytes`
    of the answer have come. A rude caller resets the connection.
    """
    data = json.dumps(body_of(surface, model, text_of(name, **orders))).encode()
    parts = urlsplit(url)
    lines = [
        f"POST {SURFACES[surface].path} HTTP/1.1",
        f"host: {parts.netloc}",
        f"content-length: {len(data)}",
        *(f"{key}: {value}" for key, value in headers_of(name, surface).items()),
    ]
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data[: round(len(data) * sent_part)])
        await writer.drain()
        received = b""
        while len(received) < after_bytes:
            piece = await asyncio.wait_for(reader.read(65_536), TIMEOUT_S)
            if not piece:
                return None
            received += piece
        await asyncio.sleep(after_s)
        if is_rude:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()
        return time.monotonic()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def quantile(values: list[float], part: float) -> float:
    """Return the value that this part of the values does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def say(figure: str, **values: Any) -> None:
    """Print what was found as one line of JSON, which pytest shows with -rP."""
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}))  # noqa: T201 - the figures are for somebody to read
