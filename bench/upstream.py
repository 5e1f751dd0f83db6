"""The fake upstream: OpenAI chat whole and streamed, Gemini and Anthropic whole; prebuilt bytes, keep-alive.

The model `stream-64-10` asks for 64 content events, 10 ms apart. Everything else is answered at once.
"""

import argparse
import asyncio
import re
import sys
from typing import cast

import httptools
import uvloop

from bench import answers

_STREAM = re.compile(rb'"model":\s*"stream-(\d+)-(\d+)"')
_WANTS_STREAM = re.compile(rb'"stream":\s*true')
_TICK_S = 0.001
_STRIDE = 7  # shares no factor with the pauses in use


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    length = str(len(body)).encode()
    head = b"\r\ncontent-type: application/json\r\nx-request-id: req_0123456789\r\ncontent-length: "
    return b"HTTP/1.1 " + status + head + length + b"\r\n\r\n" + body


def _portion(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_WHOLE = {
    "/chat/completions": _whole(answers.OPENAI),
    "/messages": _whole(answers.ANTHROPIC),
    ":generateContent": _whole(answers.GEMINI),
}
_NOT_FOUND = _whole(b'{"error":{"message":"the fake upstream has nothing there"}}', b"404 Not Found")
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_0123456789\r\ntransfer-encoding: chunked\r\n\r\n"
)
_FIRST = _STREAM_HEAD + _portion(answers.FIRST_EVENT)
_NEXT = _portion(answers.NEXT_EVENT)
_LAST = _portion(answers.LAST_EVENTS) + b"0\r\n\r\n"


class Pacer:
    """Sends the next event of every stream that is due; one timer for all, none while nothing streams."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[int, list[Connection]] = {}
        self._now_ms = 0
        self._begun = 0
        self._is_ticking = False

    def add(self, connection: "Connection", after_ms: int) -> None:
        """Call a connection's `next_event` after a while."""
        if not self._is_ticking:
            self._is_ticking = True
            self._now_ms = self._clock_ms()
            self._loop.call_later(_TICK_S, self._tick)
        self._due.setdefault(self._now_ms + max(after_ms, 1), []).append(connection)

    def first_pause_ms(self, pause_ms: int) -> int:
        """Return a first pause between a half and one and a half, so that streams do not fall into step."""
        self._begun += 1
        return pause_ms // 2 + self._begun * _STRIDE % max(pause_ms, 1)

    def _clock_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _tick(self) -> None:
        # Whatever is late gives one event and counts its pause from now: two at once would travel as one.
        before_ms, self._now_ms = self._now_ms, self._clock_ms()
        late = [self._due.pop(at_ms, ()) for at_ms in range(before_ms + 1, self._now_ms + 1)]
        for connections in late:
            for connection in connections:
                connection.next_event()
        self._is_ticking = bool(self._due)
        if self._is_ticking:
            self._loop.call_later(_TICK_S, self._tick)


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body = b""
        self._left = 0
        self._pause_ms = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Stop what was streamed."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self._transport is None:
            return
        path = self._url.decode("latin-1").partition("?")[0]
        asked = _STREAM.search(self._body)
        if asked and path.endswith("/chat/completions") and _WANTS_STREAM.search(self._body):
            self._left, self._pause_ms = int(asked[1]) - 1, int(asked[2])
            self._transport.write(_FIRST)
            self._pacer.add(self, self._pacer.first_pause_ms(self._pause_ms))
            return
        found = (answer for end, answer in _WHOLE.items() if path.endswith(end))
        self._transport.write(next(found, _NOT_FOUND))

    def next_event(self) -> None:
        """Send the next event, or the last ones."""
        if self._transport is None:
            return
        if self._left > 0:
            self._left -= 1
            self._transport.write(_NEXT)
            self._pacer.add(self, self._pause_ms)
        else:
            self._transport.write(_LAST)


async def serve(port: int) -> None:
    """Listen on 127.0.0.1 and say on stdout where."""
    pacer = Pacer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(pacer), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 is any free one")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
