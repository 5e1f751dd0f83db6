"""Batches as a caller has them: files of calls through the official client, followed to their end."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import openai
from openai.types import Batch
from sqlalchemy import select, update

from llm_gate.domain import batches as domain
from llm_gate.domain.secret import Secret
from llm_gate.storage.database import open_postgresql, open_sqlite
from llm_gate.storage.schema import attempt, batch_line, usage_record
from llm_gate.storage.schema import batch as batch_table
from support.batch_vendor import BatchVendor
from support.spending import Place
from support.stores import postgresql_address, postgresql_name

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
ENDED = {"completed", "failed", "expired", "cancelled"}
_PATIENCE_S, _LOOK_S = 30.0, 0.05


def client_of(url: str, key: str = "none", **options: Any) -> openai.OpenAI:
    """Return the official client of a gateway."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, **options)


def chat_line(mark: str, model: str = "default", text: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a line that asks for a chat."""
    body = {"model": model, "messages": [{"role": "user", "content": text or f"Hello {mark}"}], **more}
    return {"custom_id": mark, "method": "POST", "url": CHAT, "body": body}


def chat_lines(count: int, model: str = "default", **more: Any) -> list[dict[str, Any]]:
    """Return lines that ask for chats."""
    return [chat_line(f"line-{number}", model, **more) for number in range(count)]


def embedding_lines(count: int, model: str = "default") -> list[dict[str, Any]]:
    """Return lines that ask for vectors."""
    return [
        {
            "custom_id": f"text-{number}",
            "method": "POST",
            "url": EMBEDDINGS,
            "body": {"model": model, "input": [f"Text {number}", "another"]},
        }
        for number in range(count)
    ]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    """Write lines as a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def hand_in(
    client: openai.OpenAI, lines: list[dict[str, Any]] | bytes, endpoint: Any = CHAT, **more: Any
) -> Batch:
    """Upload a file and make a batch of it."""
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("calls.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def followed(client: openai.OpenAI, batch: Batch, within_s: float = _PATIENCE_S) -> Batch:
    """Look at a batch until it has ended."""
    end = time.monotonic() + within_s
    while batch.status not in ENDED:
        assert time.monotonic() < end, batch
        time.sleep(_LOOK_S)
        batch = client.batches.retrieve(batch.id)
    return batch


def read(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Read a file of lines; none where there is no file."""
    return (
        []
        if file_id is None
        else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    )


def both(client: openai.OpenAI, batch: Batch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read what came of a batch: its output and its errors."""
    return read(client, batch.output_file_id), read(client, batch.error_file_id)


def marks(lines: list[dict[str, Any]]) -> list[str]:
    """Return whose lines they are, in their order."""
    return [line["custom_id"] for line in lines]


@dataclass
class BatchPlace(Place):
    """Where gateways keep their batches."""

    def only_batch(self) -> domain.Batch:
        """Return the only batch there is, as the store has it."""
        rows = self.database.ask(lambda c: c.execute(select(batch_table.c.body)).all())
        assert len(rows) == 1, rows
        return msgspec.json.decode(rows[0].body, type=domain.Batch)

    def change_batch(self, **changed: Any) -> None:
        """Change what the store has of the only batch."""
        batch = msgspec.structs.replace(self.only_batch(), **changed)
        body = msgspec.json.encode(batch).decode()
        self.database.change(lambda c: c.execute(update(batch_table).values(body=body)))

    def bring_forward(self, batch_id: str) -> None:
        """Let a batch's day be over, whoever works on it: they read the time from the row when they take it over."""
        row = batch_table.c.id == batch_id
        body = self.database.ask(lambda c: c.execute(select(batch_table.c.body).where(row)).scalar())
        batch = msgspec.json.decode(body, type=domain.Batch)
        late = msgspec.structs.replace(batch, expires_ms=batch.made_ms + 1, version=batch.version + 1)
        changed = {
            "body": msgspec.json.encode(late).decode(),
            "version": late.version,
            "lease_until_ms": 0,
            "owner": "x",
        }
        self.database.change(lambda c: c.execute(update(batch_table).where(row).values(changed)))

    def stored_lines(self) -> list[tuple[int, bytes]]:
        """Return what is stored of lines, as it is stored."""
        wanted = select(batch_line.c.number, batch_line.c.sealed).order_by(batch_line.c.number)
        return self.database.ask(lambda c: [(row.number, row.sealed) for row in c.execute(wanted)])

    def end_batch_leases(self) -> None:
        """Let every lease of a batch have run out."""
        self.database.change(lambda c: c.execute(update(batch_table).values(lease_until_ms=0)))

    def records_of(self, batch_id: str) -> tuple[list[Any], list[Any]]:
        """Return the records under a batch's id, and their attempts."""
        stem = batch_id.removeprefix("batch_")
        records = select(usage_record).where(usage_record.c.id == stem)
        attempts = select(attempt).where(attempt.c.record_id == stem)
        return self.database.ask(lambda c: (list(c.execute(records)), list(c.execute(attempts))))


@contextmanager
def place_for_batches(
    kind: str, folder: Path, vendor: BatchVendor | None, toml: str = ""
) -> Iterator[BatchPlace]:
    """Make a place on SQLite or PostgreSQL, for gateways whose vendors are one fake."""
    environment = {} if vendor is None else dict(vendor.environment)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        database = open_sqlite(folder)
        try:
            yield BatchPlace(folder, environment, database, toml)
        finally:
            database.close()
        return
    with postgresql_name() as name:
        address = postgresql_address(name)
        environment |= {
            "LLM_GATE_DATABASE_URL": address,
            "LLM_GATE_PEPPER": "a pepper for tests, 0123456789abcdef",
        }
        database = open_postgresql(Secret(address))
        try:
            yield BatchPlace(folder, environment, database, toml)
        finally:
            database.close()
