"""A fake provider that keeps its own book of what it bills, to hold the gateway's records against.

It runs as a process of its own, needs nothing but the standard library and knows nothing of the gateway:

    with running_oracle(folder) as oracle:
        ... a gateway whose provider has base_url = f"{oracle.url}/first/v1", dialect "openai" ...
        oracle.attempts()

It answers POST /{name}/v1/chat/completions, whole and streamed; `name` is any, and stands for the provider in the
book. `max_tokens` is honoured. What it counts is random and yet the same every time for the same seed, call and name:
at most as many input tokens as the messages have bytes, and 1 to `max_tokens` output tokens, each one a piece of the
stream. The text of the last message may begin with a line `oracle {...}` (see `marked`) that says:

    call      the caller's own name of the call, noted in the book
    fault     "500": fails with that status and bills nothing
              "cut": breaks off in the middle; a stream bills the pieces it sent, a whole answer bills all
              "hang": bills all and never answers
    only      the fault is for the provider of that name alone
    delay_s   wait so long before answering; pause_s: and so long before each piece of a stream

The book has JSON lines in three kinds, in order for each attempt: "asked" at its arrival, "billed" (on disk before
the last byte of the answer goes out, or when the caller was found to be gone), "ended". A stream whose caller leaves
bills the pieces sent so far; a whole answer is billed even where nobody waits for it any more.
"""

import argparse
import asyncio
import json
import os
import queue
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LISTENS = re.compile(r"oracle listens on (http://\S+)")
_PATH = re.compile(r"/(\w+)/v1/chat/completions")
_DEFAULT_MAX_TOKENS = 32
_BACKLOG = 4096
_FOREVER_S = 86_400


def marked(call: str, text: str = "Hello", **orders: Any) -> str:
    """Return a message that tells the oracle what to do, and whose call it is."""
    return f"oracle {json.dumps({'call': call, **orders})}\n{text}"


@dataclass
class Attempt:
    """One attempt as the book has it. `ended`: "complete" (the last byte was written), "cut", "refused" or "gone"."""

    number: int
    call: str
    provider: str
    model: str
    is_stream: bool
    max_tokens: int
    is_billed: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    ended: str | None = None


class Oracle:
    """The oracle as a test sees it."""

    def __init__(self, url: str, book: Path) -> None:
        self.url = url
        self.book = book

    def ended_attempts(self, patience_s: float = 20.0) -> list[Attempt]:
        """Read the book when every attempt in it has ended."""
        deadline = time.monotonic() + patience_s
        while open_ones := [each for each in self.attempts() if each.ended is None]:
            assert time.monotonic() < deadline, f"these have not ended: {open_ones}"
            time.sleep(0.05)
        return self.attempts()

    def attempts(self) -> list[Attempt]:
        """Read the book."""
        found: dict[int, Attempt] = {}
        for line in self.book.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # being written
            entry = json.loads(line)
            kind, number = entry.pop("what"), entry["number"]
            if kind == "asked":
                found[number] = Attempt(**entry)
            elif kind == "billed":
                found[number].is_billed = True
                found[number].input_tokens = entry["input_tokens"]
                found[number].output_tokens = entry["output_tokens"]
            else:
                found[number].ended = entry["how"]
        return list(found.values())


@contextmanager
def running_oracle(folder: Path, *, seed: int = 1) -> Iterator[Oracle]:
    """Run an oracle on a free port of 127.0.0.1, with its book in a folder."""
    book = folder / "oracle.jsonl"
    book.touch()
    command = [sys.executable, str(Path(__file__)), "--book", str(book), "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            match = _LISTENS.search(process.stdout.readline())
            assert match, "the oracle did not start"
            yield Oracle(match[1], book)
        finally:
            process.kill()


class _Gone(Exception):
    """The caller closed the connection."""


class _Book:
    """Appends lines in a thread, many at a time, and puts them on disk."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - for the life of the process
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    def note(self, what: str, number: int, **more: Any) -> "asyncio.Future[None]":
        """Add a line; whoever awaits it knows that it is on disk."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        line = json.dumps({"what": what, "number": number, **more})
        self._lines.put((line, loop, future))
        return future

    def _write(self) -> None:
        while True:
            batch = [self._lines.get()]
            while not self._lines.empty():
                batch.append(self._lines.get())
            self._file.write("".join(f"{line}\n" for line, _, _ in batch).encode())
            os.fsync(self._file.fileno())
            loop = batch[0][1]
            loop.call_soon_threadsafe(_resolve, [future for _, _, future in batch])


def _resolve(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class _Vendor:
    """Serves connections."""

    def __init__(self, book: _Book, seed: int) -> None:
        self._book = book
        self._seed = seed
        self._number = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other."""
        try:
            while await self._one(reader, writer):
                pass
        except (_Gone, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; returns whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        path = _PATH.fullmatch(head.split(" ")[1])
        if path is None:
            await _send(writer, 404, b'{"error":{"message":"not found"}}')
            return True
        self._number += 1
        return await _Turn(self._book, self._seed, self._number, path[1], json.loads(body)).answer(
            reader, writer
        )


class _Turn:
    """One attempt on its way."""

    def __init__(self, book: _Book, seed: int, number: int, provider: str, body: dict[str, Any]) -> None:
        self._book = book
        self._number = number
        self._body = body
        text = str(body["messages"][-1]["content"])
        line = text.partition("\n")[0]
        orders = json.loads(line[7:]) if line.startswith("oracle {") else {}
        self._orders = orders
        self._fault = orders.get("fault") if orders.get("only", provider) == provider else None
        self._max = body.get("max_tokens") or body.get("max_completion_tokens") or _DEFAULT_MAX_TOKENS
        chance = random.Random(f"{seed}:{orders.get('call')}:{provider}")  # noqa: S311 - to be the same again
        size = sum(len(str(message["content"]).encode()) for message in body["messages"])
        self._input = chance.randint(1, max(1, size))
        self._output = chance.randint(1, self._max)
        book.note(
            "asked",
            number,
            call=str(orders.get("call", "")),
            provider=provider,
            model=body.get("model", ""),
            is_stream=bool(body.get("stream")),
            max_tokens=self._max,
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer as ordered, and keep book; returns whether the connection goes on."""
        await asyncio.sleep(self._orders.get("delay_s", 0))
        if self._fault == "500":
            await self._bill(0, 0)
            await _send(writer, 500, b'{"error":{"message":"ordered","type":"server_error"}}')
            self._end("refused")
            return True
        if self._fault == "hang":
            await self._bill(self._input, self._output)
            while not reader.at_eof():
                await asyncio.sleep(0.05)
            self._end("gone")
            return False
        if self._body.get("stream"):
            return await self._stream(reader, writer)
        return await self._whole(reader, writer)

    async def _whole(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await self._bill(self._input, self._output)
        message = {"role": "assistant", "content": "w " * self._output}
        document = self._document("chat.completion", {"message": message, "finish_reason": self._reason})
        data = json.dumps({**document, "usage": self._usage()}).encode()
        try:
            if self._fault == "cut":
                await _send(writer, 200, data, cut=True)
                self._end("cut")
                return False
            await _send(writer, 200, data)
        except ConnectionError:
            self._end("gone")
            raise
        self._end("gone" if reader.at_eof() else "complete")
        return True

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        sent = 0
        cut_at = max(1, self._output // 2) if self._fault == "cut" else None
        try:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            while sent < self._output:
                await asyncio.sleep(self._orders.get("pause_s", 0))
                if reader.at_eof():
                    raise _Gone  # noqa: TRY301 - as a write would
                sent += 1
                choice = {"delta": {"role": "assistant", "content": "w "}, "finish_reason": None}
                await _event(writer, self._document("chat.completion.chunk", choice))
                if sent == cut_at:
                    await self._bill(self._input, sent)
                    self._end("cut")
                    return False
            await self._bill(self._input, sent)
        except (_Gone, ConnectionError):
            await self._bill(self._input, sent)
            self._end("gone")
            raise
        try:
            await self._finish(writer)
        except ConnectionError:
            self._end("gone")
            raise
        self._end("complete")
        return True

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        closing = self._document("chat.completion.chunk", {"delta": {}, "finish_reason": self._reason})
        await _event(writer, closing)
        if (self._body.get("stream_options") or {}).get("include_usage"):
            await _event(writer, {**closing, "choices": [], "usage": self._usage()})
        data = b"data: [DONE]\n\n"
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
        await writer.drain()

    @property
    def _reason(self) -> str:
        return "length" if self._output == self._max else "stop"

    def _document(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-oracle-{self._number}",
            "object": kind,
            "created": 1_750_000_000,
            "model": self._body.get("model", ""),
            "choices": [{"index": 0, **choice}],
        }

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self._input,
            "completion_tokens": self._output,
            "total_tokens": self._input + self._output,
        }

    async def _bill(self, input_tokens: int, output_tokens: int) -> None:
        await self._book.note("billed", self._number, input_tokens=input_tokens, output_tokens=output_tokens)

    def _end(self, how: str) -> None:
        self._book.note("ended", self._number, how=how)


async def _send(writer: asyncio.StreamWriter, status: int, data: bytes, *, cut: bool = False) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + (data[: len(data) // 2] if cut else data))
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, document: dict[str, Any]) -> None:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--book", required=True)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    vendor = _Vendor(_Book(chosen.book), chosen.seed)
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0, backlog=_BACKLOG)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"oracle listens on http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.sleep(_FOREVER_S)


if __name__ == "__main__":
    asyncio.run(_main())
