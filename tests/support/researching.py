"""A gateway in front of a fake search vendor and a fake model, with a plan of its own and its records at hand."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from llm_gate.configuration import Source
from llm_gate.storage.database import Database, open_sqlite
from llm_gate.storage.schema import reservation, usage_record
from support.gateway import NATIVE_HEADERS, PLAIN, running_gateway
from support.upstream import Answer, FakeUpstream, fake_upstream
from support.web import TRUSTS_NOBODY

PATH = "/llm-gate/v1/research"
SEARCH_NANOS = 1_000_000
"""What a search costs here, in nano-dollars."""

INPUT_NANOS, OUTPUT_NANOS = 100, 400
"""What a token costs here that goes in, and one that comes out, in nano-dollars."""

_TOML = """
[plans]
default = "mine"
[plans.custom.mine]
mode = "{mode}"
[plans.custom.mine.limits]
{limits}

[timeouts]
heartbeat_s = 0.3
total_s = 10.0
headers_s = 8.0
idle_s = 8.0

[providers.tavily]
base_url = "{search}"

[providers.talker]
dialect = "openai"
base_url = "{chat}/v1"
auth = {{ kind = "bearer", env = "TALKER_API_KEY" }}
rank = 1
defaults = {{ chat = "m" }}
[[providers.talker.models]]
name = "m"
max_output_tokens = 2_000
prices = [
  {{ unit = "input_tokens", per = 1_000_000, usd = "0.1" }},
  {{ unit = "output_tokens", per = 1_000_000, usd = "0.4" }},
]
{more}
"""


def found(*pages: Mapping[str, Any], billed: int = 1) -> Answer:
    """Return a search vendor's answer with these pages."""
    return Answer.json({"query": "q", "results": list(pages), "usage": {"credits": billed}})


def page(number: int, content: str = "", **more: Any) -> dict[str, Any]:
    """Return a page that was found."""
    return {
        "title": f"Page {number}",
        "url": f"https://found.example/{number}",
        "content": content or f"What page {number} says.",
        "score": 0.5,
        **more,
    }


def says(text: str, read: int = 100, written: int = 10, finish: str = "stop") -> Answer:
    """Return a model's whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return Answer.json({"id": "c", "model": "m", "created": 1, "choices": [choice], "usage": usage})


def streams(*pieces: str, read: int = 100, written: int = 10, **more: Any) -> Answer:
    """Return a model's streamed answer; with `cut` it never comes to its end."""
    chunks = [_chunk({"content": piece}) for piece in pieces]
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    end = [_chunk({}, finish="stop"), _event({**_HEAD, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return Answer.events(*chunks, *([] if more.get("cut") else end), **more)


_HEAD = {"id": "c", "object": "chat.completion.chunk", "model": "m", "created": 1}


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    return _event({**_HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@dataclass
class Bench:
    """The gateway, both fakes, and the gateway's records."""

    url: str
    search: FakeUpstream
    chat: FakeUpstream
    database: Database

    def ask(self, body: Mapping[str, Any], *, user: str = "ann", **headers: str) -> httpx.Response:
        """Ask for a research."""
        return httpx.post(
            self.url + PATH, json=body, headers=headers_of(user, headers), timeout=30, verify=TRUSTS_NOBODY
        )

    def records(self, user: str = "ann") -> Sequence[Any]:
        """Return a user's records, in their order."""
        wanted = select(usage_record).where(usage_record.c.user_id == user).order_by(usage_record.c.id)
        return self.database.ask(lambda c: c.execute(wanted).all())

    def spent_nanos(self, user: str = "ann") -> int:
        """Return what a user's records add up to."""
        return sum(record.cost_nanos for record in self.records(user))

    def open_reservations(self) -> int:
        """Count what is still held."""
        return self.database.ask(lambda c: c.execute(select(func.count()).select_from(reservation)).scalar())

    def settled(self, patience_s: float = 5.0) -> None:
        """Wait until nothing is held any more."""
        end = time.monotonic() + patience_s
        while left := self.open_reservations():
            assert time.monotonic() < end, f"{left} reservations are still open"
            time.sleep(0.02)


def headers_of(user: str, more: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the headers of a native call; underscores in names stand for hyphens."""
    return {
        **NATIVE_HEADERS,
        "X-User-Id": user,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


@contextmanager
def research_bench(
    folder: Path,
    *,
    limits: str = "",
    mode: str = "strict",
    more: str = "",
    environment: Mapping[str, str] = {},
) -> Iterator[Bench]:
    """Run a gateway whose searches and models are fakes; `limits` are lines of the plan that everybody has."""
    with fake_upstream() as search, fake_upstream() as chat:
        toml = _TOML.format(mode=mode, limits=limits, search=search.url, chat=chat.url, more=more)
        keys = {
            "TAVILY_API_KEY": "tvly-0123456789abcdef",
            "TALKER_API_KEY": "talker-0123456789",
            **environment,
        }
        with running_gateway(keys, toml=toml, arguments=("--data-dir", str(folder))) as gateway:
            database = open_sqlite(folder)
            try:
                yield Bench(gateway.url, search, chat, database)
            finally:
                database.close()


@dataclass
class Inside:
    """The same in this process: where the library finds its configuration, both fakes, and the records."""

    source: Source
    search: FakeUpstream
    chat: FakeUpstream
    database: Database

    def left(self) -> tuple[int, Sequence[Any]]:
        """Return how many reservations are open, and all records."""
        open_ones = self.database.ask(
            lambda c: c.execute(select(func.count()).select_from(reservation)).scalar()
        )
        return open_ones, self.database.ask(lambda c: c.execute(select(usage_record)).all())


@contextmanager
def research_inside(folder: Path, *, limits: str = "", mode: str = "strict") -> Iterator[Inside]:
    """Prepare the library with fakes for searches and models; TAVILY_API_KEY and TALKER_API_KEY must be set."""
    folder.mkdir(exist_ok=True)
    with fake_upstream() as search, fake_upstream() as chat:
        file = folder / "llm-gate.toml"
        text = _TOML.format(mode=mode, limits=limits, search=search.url, chat=chat.url, more=PLAIN)
        file.write_text(text, encoding="utf-8")
        database = open_sqlite(folder)
        try:
            source = Source(config_file=file, overrides={"data_dir": folder})
            yield Inside(source, search, chat, database)
        finally:
            database.close()


def events_of(text: str) -> list[tuple[str, Any]]:
    """Return the events of a stream: their names ("" where there is none) and documents."""
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        name = next((line.removeprefix("event: ") for line in lines if line.startswith("event: ")), "")
        data = "".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        if data:
            found.append((name, json.loads(data)))
    return found
