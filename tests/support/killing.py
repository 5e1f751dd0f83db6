"""A vendor that ends the gateway at a chosen instant of a job, and the places in a store at which such a job stands."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import select, text, update

from llm_gate.domain.jobs import Job
from llm_gate.domain.secret import Secret
from llm_gate.storage.database import Database, open_postgresql, open_sqlite
from llm_gate.storage.schema import attempt, usage_record
from llm_gate.storage.schema import job as job_table
from support.gateway import NATIVE_HEADERS, RunningGateway
from support.spending import Place
from support.stores import postgresql_address, postgresql_name
from support.wavespeed_fake import KEY, WaveSpeedFake, mp4
from support.web import call

MODEL = "wavespeed-ai/hunyuan-video-1.5/text-to-video"
"""The vendor's name of the model that films are asked of."""

SECONDS, NANOS = 8, 8 * 20_000_000
"""How long the film is, in seconds, and what it costs: 0.02 dollars for each of them."""

TOLD_PATH = "/told"
"""Where the vendor's server takes the word that a job has ended."""

Moment = Literal[
    "submission arrives",
    "submission taken",
    "submission answered",
    "look half answered",
    "look answered",
    "completed told",
    "film half sent",
    "film sent",
    "word arrives",
]
"""What the vendor sees of a job, in the order in which it happens."""

_FILM_BYTES = 100_000
_PATIENCE_S = 20.0
_LOOK_S = 0.001


def film(task_id: str) -> bytes:
    """Return the film of a task: no two are alike."""
    return mp4() + (task_id.encode() * _FILM_BYTES)[:_FILM_BYTES]


@dataclass
class KillingVendor(WaveSpeedFake):
    """A vendor that does `blow` once, when `moment` has come. `told` are the words that came about jobs.

    An answer takes `answers_after_s` seconds.
    """

    moment: Moment | None = None
    blow: Callable[[], None] = field(default=lambda: None)
    struck: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)
    answers_after_s: float = 0.0

    def __enter__(self) -> Self:
        super().__enter__()
        self._server.RequestHandlerClass = _hooked(self._server.RequestHandlerClass, self)
        # Whoever is killed leaves its connections.
        self._server.handle_error = lambda *_: None
        return self

    @property
    def host(self) -> str:
        """The server's host and port."""
        return urlsplit(self.root).netloc

    def strike_at(self, moment: Moment, blow: Callable[[], None]) -> None:
        """Do something, once, at a moment to come."""
        self.moment, self.blow, self.struck = moment, blow, False

    def reached(self, moment: Moment) -> bool:
        """Note a moment; True where it was the one, and the blow is done."""
        with self.lock:
            if moment != self.moment:
                return False
            self.moment = None
        self.blow()
        self.struck = True
        return True

    def submit(self, model: str, payload: dict[str, Any], headers: Any) -> tuple[int, bytes]:
        """Take a task in, and answer in one's own time."""
        answer = super().submit(model, payload, headers)
        task = self.tasks[json.loads(answer[1])["data"]["id"]]
        for output in task.outputs:
            self.files[output.rpartition("/")[2]] = ("video/mp4", film(task.id))
        self.reached("submission taken")
        time.sleep(self.answers_after_s)
        return answer

    def words_of(self, job_id: str) -> list[str]:
        """Return the states that a job's caller was told."""
        return [word["status"] for word in self.told if word["id"] == job_id]


def _hooked(plain: Any, vendor: KillingVendor) -> Any:
    """Return the handler of requests that tells the vendor how far each of them is."""

    class Hooked(plain):
        def do_POST(self) -> None:  # noqa: N802 - its name in the library
            if self.path == TOLD_PATH:
                word = json.loads(self._body())
                if not vendor.reached("word arrives"):
                    vendor.told.append(word)
                    self._answer(200, b"")
            elif not vendor.reached("submission arrives"):
                super().do_POST()
                vendor.reached("submission answered")

        def _answer(self, status: int, body: bytes, type_: str = "application/json") -> None:
            is_look, is_film = self.path.endswith("/result"), self.path.startswith("/files/")
            half = "look half answered" if is_look else "film half sent"
            if (is_look or is_film) and vendor.moment == half:
                self.send_response(status)
                self.send_header("content-type", type_)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                vendor.reached(half)
                return
            super()._answer(status, body, type_)
            if is_look:
                vendor.reached("look answered")
            if is_look and b'"completed"' in body:
                vendor.reached("completed told")
            if is_film:
                vendor.reached("film sent")

    return Hooked


@dataclass
class Standing:
    """What the store holds of the only job."""

    job: Job
    owner: str


@dataclass
class JobPlace(Place):
    """Where gateways keep their jobs."""

    def only_job(self) -> Standing | None:
        """Return the only job there is, as the store has it."""
        rows = self.database.ask(lambda c: c.execute(select(job_table.c.body, job_table.c.owner)).all())
        assert len(rows) <= 1, rows
        return Standing(msgspec.json.decode(rows[0].body, type=Job), rows[0].owner) if rows else None

    def open_jobs(self) -> list[str]:
        """Return the ids of the jobs that are not over."""
        wanted = select(job_table.c.id).where(job_table.c.is_over.is_(False))
        return self.database.ask(lambda c: list(c.execute(wanted).scalars()))

    def end_job_leases(self) -> None:
        """Let every lease of a job have run out."""
        self.database.change(lambda c: c.execute(update(job_table).values(lease_until_ms=0)))

    def states(self) -> list[str]:
        """Return the jobs that are not over, as the store has them."""
        wanted = select(job_table.c.body).where(job_table.c.is_over.is_(False))
        return self.database.ask(lambda c: list(c.execute(wanted).scalars()))

    def records_of(self, job_id: str) -> tuple[list[Any], list[Any]]:
        """Return the records under a job's id, and their attempts."""
        records = select(usage_record).where(usage_record.c.id == job_id)
        attempts = select(attempt).where(attempt.c.record_id == job_id)
        return self.database.ask(lambda c: (list(c.execute(records)), list(c.execute(attempts))))

    def wait_for(self, holds: Callable[[], Any], what: str, within_s: float = _PATIENCE_S) -> Any:
        """Look until something holds, and return it."""
        end = time.monotonic() + within_s
        while not (found := holds()):
            assert time.monotonic() < end, f"{what}: {self.states()}"
            time.sleep(_LOOK_S)
        return found

    @contextmanager
    def unable_to_note_the_end(self) -> Iterator[None]:
        """Refuse to write that a job has ended, as a store that is away: the ledger is ahead of the job then."""
        self.database.change(lambda c: [c.execute(text(each)) for each in _BOLT[self.database.kind]])
        try:
            yield
        finally:
            name = "" if self.database.kind == "sqlite" else " ON job"
            self.database.change(lambda c: c.execute(text(f"DROP TRIGGER bolt{name}")))


_ENDED = """NEW.body LIKE '%"phase":"telling"%'"""
_SMALLEST = "-9223372036854775807 - 1"
_RAISE = "BEGIN RAISE EXCEPTION 'bolted' USING ERRCODE = 'query_canceled'; END"
_BOLT = {
    # The smallest whole number has no opposite: the statement fails as one whose store is away.
    "sqlite": (f"CREATE TRIGGER bolt BEFORE UPDATE ON job WHEN {_ENDED} BEGIN SELECT abs({_SMALLEST}); END",),
    "postgresql": (
        f"CREATE FUNCTION bolted() RETURNS trigger LANGUAGE plpgsql AS $$ {_RAISE} $$",
        f"CREATE TRIGGER bolt BEFORE UPDATE ON job FOR EACH ROW WHEN ({_ENDED}) EXECUTE FUNCTION bolted()",
    ),
}


@contextmanager
def place_for_jobs(kind: str, folder: Path, vendor: KillingVendor, toml: str = "") -> Iterator[JobPlace]:
    """Make a place on SQLite or PostgreSQL, for gateways whose films are made by a vendor."""
    environment = {"WAVESPEED_API_KEY": KEY}
    folder.mkdir(parents=True, exist_ok=True)
    said = f'[media]\ntrusted_hosts = ["{vendor.host}"]\n'
    said += f'[providers.wavespeed]\nbase_url = "{vendor.base_url}"\n{toml}'
    if kind == "sqlite":
        with _opened(open_sqlite(folder)) as database:
            yield JobPlace(folder, environment, database, said)
        return
    with postgresql_name() as name:
        address = postgresql_address(name)
        environment |= {
            "LLM_GATE_DATABASE_URL": address,
            "LLM_GATE_PEPPER": "a pepper for tests, 0123456789abcdef",
        }
        with _opened(open_postgresql(Secret(address))) as database:
            yield JobPlace(folder, environment, database, said)


@contextmanager
def _opened(database: Database) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.close()


def order(vendor: KillingVendor, **more: Any) -> dict[str, Any]:
    """Return the body that asks for a film."""
    said = {"duration": SECONDS, "resolution": "480p"}
    return {
        "prompt": {"message": "Waves at dawn", "parameter": said},
        "webhook": vendor.root + TOLD_PATH,
        **more,
    }


def hand_in(gateway: RunningGateway, vendor: KillingVendor) -> dict[str, Any] | None:
    """Ask for a film, and return the job; None where the gateway was gone before it answered."""
    with suppress(OSError, http.client.HTTPException):
        answer = call(gateway.url, "/llm-gate/v1/videos", order(vendor), NATIVE_HEADERS)
        assert answer.status == 202, answer.body
        return answer.json
    return None


def hand_in_half(gateway: RunningGateway, vendor: KillingVendor) -> None:
    """Send half of what asks for a film; the connection ends with the gateway."""
    body = json.dumps(order(vendor)).encode()
    parts = urlsplit(gateway.url)
    lines = [f"{name}: {value}" for name, value in NATIVE_HEADERS.items()]
    head = ["POST /llm-gate/v1/videos HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    head += ["content-type: application/json", *lines]
    with socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE_S) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body[: len(body) // 2])
        time.sleep(0.2)
        kill(gateway.process)


def kill(process: subprocess.Popen) -> None:
    """End a process as nothing can be prepared for."""
    process.kill()
    process.wait()


def halt(process: subprocess.Popen) -> None:
    """Stop a process where it stands, as a machine that is put to sleep."""
    os.kill(process.pid, signal.SIGSTOP)


def thaw(process: subprocess.Popen) -> None:
    """Let it go on."""
    os.kill(process.pid, signal.SIGCONT)


def shown(gateway: RunningGateway, job_id: str) -> dict[str, Any]:
    """Return a job as its caller sees it."""
    answer = call(gateway.url, f"/llm-gate/v1/jobs/{job_id}", headers=NATIVE_HEADERS)
    assert answer.status == 200, answer.body
    return answer.json
