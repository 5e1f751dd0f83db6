"""A vendor that takes batches in OpenAI's wire format, and plain calls in two formats; it notes what it was asked."""

import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

CREATED_S = 1_795_000_000
PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 1_000, 200, 50
"""What every chat of a batch counts."""

EMBEDDED_TOKENS = 9
_DONE = ("completed",)
THOROUGH = ("validating", "in_progress", "finalizing", "completed")
"""What the looks at a batch tell that goes through every state."""

_PART = re.compile(rb'name="(\w+)"[^\r\n]*(?:\r\n[^\r\n]+)*\r\n\r\n(.*)\r\n\Z', re.DOTALL)


@dataclass
class VendorBatch:
    """A batch at the vendor: the lines that were handed in, and how many looks it has had."""

    id: str
    endpoint: str
    file: str
    lines: list[dict[str, Any]]
    states: list[str]
    looks: int = 0
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """How it stands at this look."""
        return self.states[min(self.looks, len(self.states) - 1)]


def chat_answer(body: dict[str, Any], *, usage: bool = True) -> dict[str, Any]:
    """Answer a chat: the text says what was asked."""
    answer: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"You said: {body['messages'][-1]['content']}"},
            }
        ],
    }
    if usage:
        answer["usage"] = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
    return answer


def embedding_answer(body: dict[str, Any]) -> dict[str, Any]:
    """Answer a question for vectors."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    return {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": index, "embedding": [0.5, -0.25]}
            for index, _ in enumerate(texts)
        ],
        "usage": {"prompt_tokens": EMBEDDED_TOKENS, "total_tokens": EMBEDDED_TOKENS},
    }


def message_answer(body: dict[str, Any]) -> dict[str, Any]:
    """Answer a message in Anthropic's format."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": f"You said: {text}"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
    }


def line_answer(line: dict[str, Any]) -> dict[str, Any]:
    """Answer a line of a batch as the vendor writes it."""
    body = line["body"]
    answer = embedding_answer(body) if line["url"].endswith("embeddings") else chat_answer(body)
    response = {"status_code": 200, "request_id": "fake", "body": answer}
    return {
        "id": f"batch_req_{line['custom_id']}",
        "custom_id": line["custom_id"],
        "response": response,
        "error": None,
    }


@dataclass
class BatchVendor:
    """The vendor. `states` are what the looks at a new batch tell, one after the other.

    `answered` makes the lines of the output file, `errored` those of the error file. A plain call takes `delay_s`, is
    shown to `on_call` before it is answered, and is refused with what `refusal` returns.
    """

    states: tuple[str, ...] = _DONE
    answered: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda lines: [
        line_answer(line) for line in lines
    ]
    errored: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda _: []
    faults: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0
    refusal: Callable[[dict[str, Any]], tuple[int, dict[str, Any], dict[str, str]] | None] = lambda _: None
    on_call: Callable[[dict[str, Any]], None] = lambda _: None
    on_create: Callable[[], None] = lambda: None
    create_refusal: tuple[int, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._forget_seen()

    def forget(self) -> None:
        """Be as at the beginning."""
        for each in dataclasses.fields(self):
            made = each.default_factory
            setattr(self, each.name, each.default if made is dataclasses.MISSING else made())
        self._forget_seen()

    def _forget_seen(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, VendorBatch] = {}
        self.cancelled: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.at_once = self.most_at_once = 0

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _bound_to(self))
        self._server.daemon_threads = True
        # Whoever is killed leaves its connections.
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What leads a gateway's vendors here."""
        return {
            "OPENAI_API_KEY": "sk-fake-openai-0123456789",
            "LLM_GATE_OPENAI_BASE_URL": f"{self.url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-fake-0123456789",
            "LLM_GATE_ANTHROPIC_BASE_URL": self.url,
        }

    def upload(self, form: bytes, content_type: str) -> dict[str, Any]:
        """Take a file in."""
        boundary = content_type.partition("boundary=")[2].encode()
        found = (_PART.search(part) for part in form.split(b"--" + boundary))
        parts = {match[1].decode(): match[2] for match in found if match is not None}
        assert parts["purpose"] == b"batch"
        file_id = f"file-vendor{len(self.files)}"
        self.files[file_id] = parts["file"]
        return {"object": "file", "id": file_id, "purpose": "batch", "bytes": len(parts["file"])}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Begin a batch."""
        assert body["completion_window"] == "24h"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        batch = VendorBatch(
            id=f"batch_vendor{len(self.batches)}",
            endpoint=body["endpoint"],
            file=body["input_file_id"],
            lines=lines,
            states=list(self.states),
        )
        self.batches[batch.id] = batch
        self.on_create()
        return self.shown(batch)

    def look(self, batch: VendorBatch) -> dict[str, Any]:
        """Show a batch; it is one step further at the next look."""
        if batch.status in {"completed", "expired", "cancelled"} and not batch.outputs:
            for kind, made in (("output", self.answered(batch.lines)), ("error", self.errored(batch.lines))):
                if made:
                    file_id = f"file-{kind}-{batch.id}"
                    self.files[file_id] = b"".join(json.dumps(line).encode() + b"\n" for line in made)
                    batch.outputs[kind] = file_id
        shown = self.shown(batch)
        batch.looks += 1
        return shown

    def cancel(self, batch: VendorBatch) -> dict[str, Any]:
        """Call a batch off."""
        self.cancelled.append(batch.id)
        batch.states, batch.looks = ["cancelling", "cancelled"], 0
        return self.shown(batch)

    def shown(self, batch: VendorBatch) -> dict[str, Any]:
        """Return a batch as the vendor shows it."""
        is_checked = batch.status not in {"validating", "failed"}
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": None,
            "errors": {"object": "list", "data": self.faults} if batch.status == "failed" else None,
            "input_file_id": batch.file,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.outputs.get("output"),
            "error_file_id": batch.outputs.get("error"),
            "created_at": CREATED_S,
            "in_progress_at": None,
            "expires_at": CREATED_S + 86_400,
            "finalizing_at": None,
            "completed_at": None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": len(batch.lines) if is_checked else 0, "completed": 0, "failed": 0},
            "metadata": None,
        }


def _bound_to(vendor: BatchVendor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = self._noted()
            if path.endswith("/content"):
                self._answer(200, vendor.files[path.split("/")[-2]])
                return
            with vendor.lock:
                self._answer(200, vendor.look(vendor.batches[path.rpartition("/")[2]]))

        def do_POST(self) -> None:
            path = self._noted()
            data = self.rfile.read(int(self.headers.get("content-length", 0)))
            if path.endswith("/files"):
                with vendor.lock:
                    self._answer(200, vendor.upload(data, self.headers["content-type"]))
            elif path.endswith("/batches"):
                if vendor.create_refusal is not None:
                    self._answer(*vendor.create_refusal)
                    return
                self._answer(200, vendor.create(json.loads(data)))
            elif path.endswith("/cancel"):
                with vendor.lock:
                    self._answer(200, vendor.cancel(vendor.batches[path.split("/")[-2]]))
            else:
                self._call(path, json.loads(data))

        def _call(self, path: str, body: dict[str, Any]) -> None:
            with vendor.lock:
                vendor.calls.append(body)
                vendor.at_once += 1
                vendor.most_at_once = max(vendor.most_at_once, vendor.at_once)
                refused = vendor.refusal(body)
            try:
                time.sleep(vendor.delay_s)
                vendor.on_call(body)
                if refused is not None:
                    self._answer(*refused)
                elif path.endswith("/messages"):
                    self._answer(200, message_answer(body))
                elif path.endswith("/embeddings"):
                    self._answer(200, embedding_answer(body))
                else:
                    self._answer(200, chat_answer(body))
            finally:
                with vendor.lock:
                    vendor.at_once -= 1

        def _noted(self) -> str:
            path = self.path.partition("?")[0]
            vendor.seen.append((self.command, self.path, dict(self.headers.items())))
            return path

        def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
