"""The load generator: streams in a closed loop, or whole answers at a fixed rate; prints one JSON object.

It notes the CPU time of the watched process itself, at the edges of the window in which it counts. At a fixed rate
requests go out by the clock, whether or not earlier ones have been answered, each on a connection that is free.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import uvloop

from bench import answers
from bench.figures import percentile
from bench.processes import cpu_nanos, rss_bytes

_OK = 200
_END = b"data: [DONE]\n\n"
_RATE_CONNECTIONS = 16


@dataclass
class Count:
    """What was seen while `is_open`."""

    is_open: bool = False
    events: int = 0
    answers: int = 0
    faults: int = 0
    first_event_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One keep-alive connection that sends the same request again and again."""

    def __init__(self, request: bytes, count: Count, on_answer: Callable[["Caller"], None]) -> None:
        self._request = request
        self._count = count
        self._on_answer = on_answer
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_s = 0.0
        self._is_stream = b'"stream":true' in request
        self._tail = b""
        self.is_busy = False
        self.has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Count a connection that broke in the middle of an answer."""
        self._transport = None
        if self.is_busy:
            self._count.faults += 1

    def send(self) -> None:
        """Send the request."""
        if self._transport is None:
            self._count.faults += 1
            return
        self.is_busy, self.has_begun, self._tail = True, False, b""
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._count.faults += 1
            if self._transport is not None:
                self._transport.close()

    def on_body(self, body: bytes) -> None:
        """Count the events of a stream; one may be cut anywhere, also between its last two bytes."""
        if not self._is_stream:
            return
        if not self.has_begun:
            self.has_begun = True
            if self._count.is_open:
                self._count.first_event_s.append(time.perf_counter() - self._sent_s)
        if self._count.is_open:
            split = self._tail[-1:] == b"\n" and body[:1] == b"\n" and self._tail[-2:] != b"\n\n"
            self._count.events += body.count(b"\n\n") + split
        self._tail = body[-len(_END) :] if len(body) >= len(_END) else (self._tail + body)[-len(_END) :]

    def on_message_complete(self) -> None:
        """Count the answer."""
        self.is_busy = False
        if self._parser.get_status_code() != _OK or (self._is_stream and self._tail != _END):
            self._count.faults += 1
        elif self._count.is_open:
            self._count.answers += 1
            self._count.answer_s.append(time.perf_counter() - self._sent_s)
        self._on_answer(self)

    def close(self) -> None:
        """Hang up."""
        self.is_busy = False
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True)
class Plan:
    """What to ask, and for how long. With `max_answers` the run ends there, and all of it counts."""

    port: int
    model: str
    stream: bool
    key: str
    warm_s: float
    seconds: float
    max_answers: int | None = None
    watched_pid: int | None = None

    def request(self) -> bytes:
        """Write the request."""
        body = answers.request_body(self.model, stream=self.stream)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Load:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = Count(is_open=plan.max_answers is not None)
        self._callers: list[Caller] = []
        self._free: deque[Caller] = deque()
        self._enough = asyncio.Event()

    async def streams(self, number: int, ramp_s: float) -> dict[str, Any]:
        """Keep a number of streams running, the first ones begun over `ramp_s`."""
        loop = asyncio.get_running_loop()
        for index in range(number):
            caller = await self._connect(self._again)
            loop.call_later(ramp_s * index / number, caller.send)
        return await self._measure()

    async def rate(self, per_s: float) -> dict[str, Any]:
        """Send requests at a fixed rate."""
        for _ in range(_RATE_CONNECTIONS):
            self._free.append(await self._connect(self._free.append))
        clock = asyncio.ensure_future(self._by_the_clock(per_s))
        try:
            return await self._measure()
        finally:
            clock.cancel()

    async def _by_the_clock(self, per_s: float) -> None:
        started_s = time.perf_counter()
        number = 0
        while True:
            caller = self._free.popleft() if self._free else await self._connect(self._free.append)
            caller.send()
            number += 1
            await asyncio.sleep(max(0.0, started_s + number / per_s - time.perf_counter()))

    async def _connect(self, on_answer: Callable[[Caller], None]) -> Caller:
        request = self._plan.request()
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(
            lambda: Caller(request, self._count, on_answer), "127.0.0.1", self._plan.port
        )
        self._callers.append(caller)
        return caller

    def _again(self, caller: Caller) -> None:
        limit = self._plan.max_answers
        if limit is not None and self._count.answers + self._count.faults >= limit:
            self._enough.set()
        else:
            caller.send()

    async def _measure(self) -> dict[str, Any]:
        count, pid = self._count, self._plan.watched_pid
        if self._plan.max_answers is None:
            await asyncio.sleep(self._plan.warm_s)
        started_s, started_nanos = time.perf_counter(), cpu_nanos(pid) if pid else 0
        count.is_open = True
        if self._plan.max_answers is None:
            await asyncio.sleep(self._plan.seconds)
        else:
            await asyncio.wait_for(self._enough.wait(), self._plan.seconds)
        count.is_open = False
        nanos = cpu_nanos(pid) - started_nanos if pid else None
        report = {
            "seconds": time.perf_counter() - started_s,
            "answers": count.answers,
            "events": count.events,
            "faults": count.faults,
            "running": sum(caller.has_begun and caller.is_busy for caller in self._callers),
            "cpu_nanos": nanos,
            "rss_bytes": rss_bytes(pid) if pid else None,
            "answer_p50_s": percentile(count.answer_s, 0.50),
            "answer_p99_s": percentile(count.answer_s, 0.99),
            "first_event_p50_s": percentile(count.first_event_s, 0.50),
            "first_event_p99_s": percentile(count.first_event_s, 0.99),
        }
        for caller in self._callers:
            caller.close()
        return report


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what the command line asks for."""
    plan = Plan(
        port=arguments.port,
        model=arguments.model,
        stream=arguments.streams is not None,
        key=arguments.key,
        warm_s=arguments.warm,
        seconds=arguments.seconds,
        max_answers=arguments.answers,
        watched_pid=arguments.watch,
    )
    load = Load(plan)
    if arguments.streams is not None:
        return await load.streams(arguments.streams, arguments.ramp)
    return await load.rate(arguments.rate)


def main() -> None:
    """Run and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default=answers.MODEL)
    parser.add_argument("--key", default="sk-bench")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--streams", type=int, help="how many streams to keep running")
    kind.add_argument("--rate", type=float, help="whole answers to ask for, per second")
    parser.add_argument("--ramp", type=float, default=0.5, help="seconds over which the first streams begin")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before counting begins")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds in which is counted")
    parser.add_argument("--answers", type=int, help="count from the start and end after so many answers")
    parser.add_argument("--watch", type=int, help="process whose CPU time and memory are reported")
    sys.stdout.write(json.dumps(uvloop.run(run(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
