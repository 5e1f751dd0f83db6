"""A fake provider over a real socket: answers what it was told to, and remembers every request it got."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"
"""For tests only: its key lies beside it."""


@dataclass(frozen=True)
class Answer:
    """One scripted answer.

    A body goes out whole with its length; `pieces` go out one by one as a chunked stream, `pause_s` apart.
    With `cut` the connection is closed without finishing the answer. `delay_s` passes before the head.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: Sequence[bytes] | None = None
    pause_s: float = 0.0
    delay_s: float = 0.0
    cut: bool = False

    @classmethod
    def json(cls, document: Any, status: int = 200, **headers: str) -> "Answer":
        """Answer with a JSON document."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(
            status=status,
            headers={"content-type": "application/json", **named},
            body=json.dumps(document).encode(),
        )

    @classmethod
    def events(cls, *pieces: bytes, **more: Any) -> "Answer":
        """Answer with an event stream."""
        return cls(headers={"content-type": "text/event-stream"}, pieces=pieces, **more)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class FakeUpstream:
    """Answers in the order given, the last answer again and again; `hung_up_at` tells of lost callers.

    Questions for the list of models that gateways ask by themselves (`GET .../api/tags`) are no part of that order:
    they get `models`, a 404 where that is None, and are only counted.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self.hung_up_at: list[float] = []
        self.sent_pieces = 0
        self.models: list[str] | None = None
        self.asked_for_models = 0
        self._answers: list[Answer] = []
        self._lock = threading.Lock()

    def will(self, *answers: Answer) -> None:
        """Set the answers to come, and forget what was seen."""
        with self._lock:
            self._answers = list(answers)
            self.seen.clear()
            self.hung_up_at.clear()
            self.sent_pieces = 0

    def next_answer(self, seen: Seen) -> Answer:
        """Note a request and return its answer."""
        with self._lock:
            self.seen.append(seen)
            if not self._answers:
                return Answer.json({"error": {"message": "no answer was scripted"}}, 500)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def model_list(self) -> Answer:
        """Count a question for the models and return its answer."""
        self.asked_for_models += 1
        if self.models is None:
            return Answer.json({"error": "not found"}, 404)
        return Answer.json({"models": [{"name": name, "model": name, "size": 1} for name in self.models]})

    @property
    def only(self) -> Seen:
        """The one request that arrived."""
        assert len(self.seen) == 1, self.seen
        return self.seen[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a head and its body wait for each other
    upstream: FakeUpstream

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.upstream.next_answer(
            Seen(method=self.command, path=self.path, headers=headers, body=body)
        )
        try:
            self._answer(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.upstream.hung_up_at.append(time.monotonic())
            self.close_connection = True

    def do_GET(self) -> None:
        if self.path.endswith("/api/tags"):
            self._answer(self.upstream.model_list())
            # Else a server that is no more would go on answering on a connection that was kept.
            self.close_connection = True
        else:
            self.do_POST()

    def _answer(self, answer: Answer) -> None:
        time.sleep(answer.delay_s)
        if any(name.lower() == "date" for name in answer.headers):
            self.send_response_only(answer.status)
        else:
            self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        if answer.pieces is None:
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
        else:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._send_pieces(answer)
        if answer.cut:
            self.close_connection = True

    def _send_pieces(self, answer: Answer) -> None:
        for piece in answer.pieces:
            if piece:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
                self.upstream.sent_pieces += 1
            time.sleep(answer.pause_s)
        if not answer.cut:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_args: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_args: object) -> None:
        """Stay silent: callers who hang up are part of the tests."""


@contextmanager
def fake_upstream(*, tls: bool = False, port: int = 0) -> Iterator[FakeUpstream]:
    """Run a fake provider on 127.0.0.1, on a free port unless one is given.

    With `tls` it has a certificate nobody trusts by default.
    """
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    upstream = FakeUpstream(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
    handler.upstream = upstream
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
