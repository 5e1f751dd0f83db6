"""A vendor that trains models, on a real socket, in the shapes of OpenAI's recorded answers; it trains nothing.

How jobs go is planned before they are made; what was asked of the vendor can be read afterwards.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread
from typing import Any, Self

KEY = "sk-fake-openai-0123456789"
BASE = "gpt-4o-mini-2024-07-18"
ENDED = {"succeeded", "failed", "cancelled"}
WIND_DOWN = {
    "error": {
        "message": "Fine-tuning is no longer available to your organization; see the deprecations page.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
}


@dataclass(kw_only=True)
class Training:
    """A job: what was asked, and the states that successive looks see, the last for good."""

    id: str
    asked: dict[str, Any]
    states: list[str]
    tokens: int | None
    error: dict[str, Any]
    model: str
    looks: int = 0
    steered: str | None = None

    @property
    def state(self) -> str:
        """How it stands now."""
        return self.steered or self.states[min(max(self.looks, 1), len(self.states)) - 1]


@dataclass
class TuningFake:
    """The vendor. `calls` are the methods and paths of what was asked; `refusal` answers new jobs."""

    states: list[str] = field(default_factory=lambda: ["succeeded"])
    tokens: int | None = 5_070
    error: dict[str, Any] = field(default_factory=dict)
    refusal: tuple[int, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Training] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    moment: str = ""
    blow: Callable[[], None] = field(default=lambda: None)
    lock: RLock = field(default_factory=RLock)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.handle_error = lambda *_: None
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, method: str, path: str) -> int:
        """Count what was asked."""
        return sum(call == (method, path) for call in list(self.calls))

    def strike_at(self, moment: str, blow: Callable[[], None]) -> None:
        """Do something, once, at a moment to come."""
        self.moment, self.blow = moment, blow

    def reached(self, moment: str) -> None:
        """Note a moment."""
        with self.lock:
            if moment != self.moment:
                return
            self.moment = ""
        self.blow()

    def begin(self, asked: dict[str, Any]) -> Training:
        """Take a job in."""
        number = len(self.jobs)
        name = f"ftjob-V{number:07}"
        suffix = asked.get("suffix") or ""
        job = Training(
            id=name,
            asked=asked,
            states=list(self.states),
            tokens=self.tokens,
            error=dict(self.error),
            model=f"ft:{asked['model']}:acme:{suffix}:8J6LX{number:03}",
        )
        self.jobs[name] = job
        self.files[f"file-R{number:07}"] = b"step,train_loss\n1,0.5\n"
        return job

    def stored(self, name: str) -> dict[str, Any]:
        """Return a file as the recorded vendor shows one."""
        return {
            "object": "file",
            "id": name,
            "purpose": "fine-tune",
            "filename": "training.jsonl",
            "bytes": len(self.files[name]),
            "created_at": 1699998528,
            "status": "processed",
            "status_details": None,
        }

    def shown(self, job: Training) -> dict[str, Any]:
        """Return a job as the recorded vendor shows one."""
        state = job.state
        is_over, number = state in ENDED, int(job.id[-7:])
        return {
            "object": "fine_tuning.job",
            "id": job.id,
            "model": job.asked["model"],
            "created_at": 1728975280,
            "finished_at": 1728975900 if is_over else None,
            "fine_tuned_model": job.model if state == "succeeded" else None,
            "organization_id": "org-of-the-operator",
            "result_files": [f"file-R{number:07}"] if state == "succeeded" else [],
            "status": state,
            "validation_file": job.asked.get("validation_file"),
            "training_file": job.asked["training_file"],
            "hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8},
            "trained_tokens": job.tokens if is_over else None,
            "error": job.error if state == "failed" else {},
            "user_provided_suffix": job.asked.get("suffix"),
            "seed": job.asked.get("seed") or 167471248,
            "estimated_finish": None,
            "integrations": [],
        }


def _events(job: Training) -> list[dict[str, Any]]:
    return [
        {
            "object": "fine_tuning.job.event",
            "id": f"ftevent-{number}",
            "created_at": 1728975280 + number,
            "level": "info",
            "message": message,
            "type": "message",
            "data": {},
        }
        for number, message in enumerate(("Created fine-tuning job", "Job started", f"Job is {job.state}"))
    ][::-1]


def _checkpoints(job: Training) -> list[dict[str, Any]]:
    if job.state != "succeeded":
        return []
    return [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": f"ftckpt_{step}",
            "created_at": 1728975280 + step,
            "fine_tuned_model_checkpoint": f"{job.model}:ckpt-step-{step}",
            "fine_tuning_job_id": job.id,
            "metrics": {"step": step, "train_loss": 0.5},
            "step_number": step,
        }
        for step in (20, 10)
    ]


_PART = re.compile(
    rb'name="(?P<name>\w+)"(?:; filename="(?P<file>[^"]*)")?.*?\r\n\r\n(?P<data>.*)\r\n$', re.DOTALL
)


def _form(body: bytes, content_type: str) -> dict[str, bytes]:
    mark = b"--" + content_type.partition("boundary=")[2].encode()
    found = (_PART.search(part) for part in body.split(mark))
    return {part["name"].decode(): part["data"] for part in found if part is not None}


def _handler(vendor: TuningFake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._serve()

        def do_GET(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0]
            with vendor.lock:
                vendor.calls.append((self.command, path))
            is_known = (
                self.headers.get("authorization") == f"Bearer {KEY}" or self.headers.get("api-key") == KEY
            )
            if not is_known:
                self._answer(401, {"error": {"message": "no such key", "code": "invalid_api_key"}})
                return
            parts = path.removeprefix("/openai").removeprefix("/v1").strip("/").split("/")
            if parts[0] == "files":
                self._file(parts[1:], body)
            elif parts[:2] == ["fine_tuning", "jobs"]:
                self._job(parts[2:], body)
            else:
                self._chat(json.loads(body))

        def _file(self, rest: list[str], body: bytes) -> None:
            if not rest:
                fields = _form(body, self.headers["content-type"])
                name = f"file-V{len(vendor.files):07}"
                vendor.files[name] = fields["file"]
                vendor.bodies.append({"purpose": fields["purpose"].decode()})
                self._answer(200, vendor.stored(name))
                vendor.reached("file taken")
            elif rest[0] not in vendor.files:
                self._answer(404, {"error": {"message": f"No such File object: {rest[0]}", "code": None}})
            elif rest[1:] == ["content"]:
                self._send(200, vendor.files[rest[0]], "application/octet-stream")
                vendor.reached("result sent")
            elif self.command == "DELETE":
                del vendor.files[rest[0]]
                self._answer(200, {"object": "file", "id": rest[0], "deleted": True})
            else:
                self._answer(200, vendor.stored(rest[0]))

        def _job(self, rest: list[str], body: bytes) -> None:
            if not rest:
                vendor.reached("job arrives")
                asked = json.loads(body)
                vendor.bodies.append(asked)
                if vendor.refusal is not None:
                    self._answer(*vendor.refusal)
                    return
                job = vendor.begin(asked)
                vendor.reached("job taken")
                self._answer(
                    200, {**vendor.shown(job), "status": "validating_files", "fine_tuned_model": None}
                )
                return
            job = vendor.jobs.get(rest[0])
            if job is None:
                error = {
                    "message": f"Could not find fine tune: {rest[0]}",
                    "type": "invalid_request_error",
                    "param": "fine_tune_id",
                    "code": "fine_tune_not_found",
                }
                self._answer(404, {"error": error})
            elif rest[1:] == ["events"]:
                self._answer(200, {"object": "list", "data": _events(job), "has_more": False})
            elif rest[1:] == ["checkpoints"]:
                self._answer(200, {"object": "list", "data": _checkpoints(job), "has_more": False})
            elif rest[1:]:
                self._steer(job, rest[1])
            else:
                job.looks += 1
                self._answer(200, vendor.shown(job))
                vendor.reached("look answered")

        def _steer(self, job: Training, way: str) -> None:
            if job.state in ENDED:
                error = {
                    "message": f"Job has already {job.state}",
                    "type": "invalid_request_error",
                    "code": None,
                }
                self._answer(400, {"error": error})
                return
            job.steered = {"cancel": "cancelled", "pause": "paused", "resume": None}[way]
            self._answer(200, vendor.shown(job))

        def _chat(self, body: dict[str, Any]) -> None:
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            message = {"role": "assistant", "content": f"I am {body['model']}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
            self._answer(200, {**answer, "choices": [choice], "usage": usage})

        def _answer(self, status: int, body: Any) -> None:
            self._send(status, json.dumps(body).encode(), "application/json")

        def _send(self, status: int, data: bytes, type_: str) -> None:
            self.send_response(status)
            self.send_header("content-type", type_)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
