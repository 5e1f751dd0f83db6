"""A WaveSpeed of our own on a real socket: it keeps tasks, lets them proceed look by look, and serves what they made.

How a model behaves is planned before it is called; what was asked of it can be read afterwards.
"""

import json
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

KEY = "wavespeed-test-key"
SYNC_TIMED_OUT = 5004


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How tasks of a model go.

    `states` are those that successive looks see, the last for good; `at_once` is the one that a submission in sync
    mode tells (None: the wait for it was too long). `look_statuses` are the HTTP statuses of the first looks, before
    the states begin. `refusal` answers submissions with an HTTP status, a code and a message. `error` and `code` are
    those of a failed task. `body` replaces the answer to a submission, `look_body` that to a look.
    """

    states: tuple[str, ...] = ("created", "processing", "completed")
    at_once: str | None = "completed"
    look_statuses: tuple[int, ...] = ()
    refusal: tuple[int, int, str] | None = None
    error: str = "the model broke down"
    code: int = 1405
    nsfw: bool = False
    outputs: int = 1
    output_type: str | None = None
    body: bytes | None = None
    look_body: bytes | None = None


@dataclass(kw_only=True)
class Task:
    """A task: what it was asked, how often it was looked at, and where what it made lies."""

    id: str
    model: str
    payload: dict[str, Any]
    plan: Plan
    outputs: list[str]
    looks: int = 0

    @property
    def state(self) -> str:
        """How it stands after the looks so far."""
        seen = self.looks - len(self.plan.look_statuses)
        return self.plan.states[min(max(seen, 1), len(self.plan.states)) - 1]


@dataclass(kw_only=True)
class Submission:
    """A submission as it came in, also one that was refused."""

    model: str
    payload: dict[str, Any]
    headers: Mapping[str, str]


@dataclass
class WaveSpeedFake:
    """The server. Use it as a context manager; `base_url` is that of the API, `root` that of the official client."""

    plans: dict[str, Plan] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    submissions: list[Submission] = field(default_factory=list)
    looks: Counter[str] = field(default_factory=Counter)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    fetched: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __enter__(self) -> Self:
        fake = self

        class Handler(_Handler):
            server_state = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def root(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """The address of the API."""
        return f"{self.root}/api/v3"

    def plan(self, model: str, **how: Any) -> None:
        """Say how tasks of a model go from now on."""
        self.plans[model] = Plan(**how)

    def count(self, model: str) -> int:
        """Return how often tasks were handed in for a model."""
        return sum(1 for each in self.submissions if each.model == model)

    def submit(self, model: str, payload: dict[str, Any], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Take a task in, and answer."""
        with self.lock:
            self.submissions.append(Submission(model=model, payload=payload, headers=headers))
            plan = self.plans.get(model, Plan())
            if plan.refusal is not None:
                status, code, message = plan.refusal
                return status, _json({"code": code, "message": message, "data": None})
            task = Task(id=f"task{len(self.tasks):028d}", model=model, payload=payload, plan=plan, outputs=[])
            self.tasks[task.id] = task
            for number in range(plan.outputs):
                type_, data = _made(model, payload, plan.output_type)
                name = f"{task.id}-{number}"
                self.files[name] = (type_, data)
                task.outputs.append(f"{self.root}/files/{name}")
            if plan.body is not None:
                return 200, plan.body
            if not payload.get("enable_sync_mode"):
                return 200, self._shown(task, "created")
            if plan.at_once is not None:
                return 200, self._shown(task, plan.at_once)
            return 200, self._shown(
                task,
                "processing",
                code=SYNC_TIMED_OUT,
                error="Sync mode timed out; ask for the result later.",
            )

    def look(self, task_id: str) -> tuple[int, bytes]:
        """Show how a task stands."""
        with self.lock:
            self.looks[task_id] += 1
            task = self.tasks.get(task_id)
            if task is None:
                return 404, _json({"code": 404, "message": "prediction not found"})
            task.looks += 1
            if task.looks <= len(task.plan.look_statuses):
                status = task.plan.look_statuses[task.looks - 1]
                return status, _json({"code": status, "message": "not now"})
            if task.plan.look_body is not None:
                return 200, task.plan.look_body
            return 200, self._shown(task, task.state)

    def _shown(self, task: Task, state: str, code: int = 0, error: str = "") -> bytes:
        is_done = state == "completed"
        if state == "failed":
            code, error = task.plan.code, task.plan.error
        data = {
            "id": task.id,
            "model": task.model,
            "status": state,
            "code": code,
            "outputs": task.outputs if is_done else [],
            # Where it says the result is, there is none: looks go to the address that is documented.
            "urls": {"get": f"{self.root}/elsewhere/{task.id}"},
            "has_nsfw_contents": [task.plan.nsfw] * len(task.outputs) if is_done else [],
            "created_at": "2026-11-20T10:00:00.000Z",
            "error": error,
            "timings": {"inference": 1200 if is_done else 0},
        }
        return _json({"code": 200, "message": "success", "data": data})


class _Handler(BaseHTTPRequestHandler):
    server_state: WaveSpeedFake

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_known():
            return
        path = self.path.removeprefix("/api/v3/")
        if path == "media/uploads":
            self._offer_upload(json.loads(body))
            return
        try:
            payload = json.loads(body)
        except ValueError:
            self._answer(400, _json({"code": 400, "message": "invalid JSON"}))
            return
        self._answer(*self.server_state.submit(path, payload, self._headers()))

    def do_GET(self) -> None:
        if self.path.startswith("/files/"):
            self._serve()
            return
        parts = self.path.split("/")
        is_look = parts[:4] == ["", "api", "v3", "predictions"] and parts[5:] == ["result"]
        if not is_look:
            self._answer(404, _json({"code": 404, "message": "no such route"}))
        elif self._is_known():
            self._answer(*self.server_state.look(parts[4]))

    def do_PUT(self) -> None:
        name = self.path.removeprefix("/files/")
        self.server_state.files[name] = (self.headers.get("content-type", ""), self._body())
        self._answer(200, b"")

    def _offer_upload(self, asked: dict[str, Any]) -> None:
        url = f"{self.server_state.root}/files/upload-{asked['filename']}"
        headers = {"Content-Type": asked.get("content_type", "application/octet-stream")}
        data = {"upload": {"method": "PUT", "url": url, "headers": headers}, "download_url": url}
        self._answer(200, _json({"code": 200, "message": "success", "data": data}))

    def _serve(self) -> None:
        name = self.path.removeprefix("/files/")
        self.server_state.fetched.append((name, self._headers()))
        found = self.server_state.files.get(name)
        if found is None:
            self._answer(404, b"gone", "text/plain")
        else:
            self._answer(200, found[1], found[0])

    def _is_known(self) -> bool:
        if self.headers.get("authorization") == f"Bearer {KEY}":
            return True
        self._answer(401, _json({"code": 401, "message": "Unauthorized: invalid api key"}))
        return False

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def _answer(self, status: int, body: bytes, type_: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", type_)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _made(model: str, payload: Mapping[str, Any], type_: str | None) -> tuple[str, bytes]:
    if "video" in model:
        return type_ or "video/mp4", mp4()
    if "speech" in model:
        is_wav = payload.get("format") == "wav"
        return type_ or ("audio/wav" if is_wav else "audio/mpeg"), wav() if is_wav else mp3()
    return type_ or "image/png", png()


def png(width: int = 4, height: int = 3) -> bytes:
    """Return a picture that is whole."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x20\x80\xc0" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def mp3(frames: int = 40) -> bytes:
    """Return silence: frames of 417 bytes at 128 kbit/s, 26 ms each."""
    return (b"\xff\xfb\x90\x64" + bytes(413)) * frames


def wav(samples: int = 8_000) -> bytes:
    """Return silence of 8,000 samples a second."""
    data = bytes(samples * 2)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16, b"data", len(data))  # fmt: skip  # noqa: E501
    return head + data


def mp4() -> bytes:
    """Return the beginning of a film and some bytes."""
    return b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0\0\0\x10mdat" + bytes(8)
