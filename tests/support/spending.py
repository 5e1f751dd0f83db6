"""Spends money through the real gateway in every way a caller can, and holds its records against the vendor's book.

Two providers, `first` and `second`, live at one oracle (support.oracle) at different prices; the alias `both` falls
back from one to the other. A `Place` is where a gateway keeps its records: a data folder, or a PostgreSQL database
besides; gateways, commands and this process look into the same one.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from sqlalchemy import delete, func, select

from llm_gate.domain.secret import Secret
from llm_gate.storage.database import Database, open_postgresql, open_sqlite
from llm_gate.storage.schema import attempt, process, reservation, usage_record
from support.forking import clean_environment, run_command
from support.gateway import running_gateway
from support.oracle import Attempt, marked
from support.stores import postgresql_address, postgresql_name

PRICES = {"first": (150, 600), "second": (300, 900)}
"""Nano-dollars for a token that goes in, and for one that comes out."""

MAX_TOKENS = 20
PLAN = "capped"
KINDS = (
    "whole",
    "whole",
    "stream",
    "stream",
    "leave",
    "hurry",
    "fall back",
    "fall back stream",
    "cut",
    "fail",
)
"""What a caller does, in the shares in which they do it."""

Seen = Literal["answered", "refused", "failed", "broken"]
"""How a call ended for its caller; "broken" where the whole answer did not arrive."""

_TIMEOUT_S = 60.0
_LEAVE_AFTER_BYTES = 300
_HURRY_S = 0.03


def most_nanos(data: bytes) -> int:
    """Return what a call can be held at: as many tokens as the body has bytes, and some besides."""
    input_nanos, output_nanos = PRICES["second"]
    return (len(data) + 100) * input_nanos + MAX_TOKENS * output_nanos


def billed_nanos(each: Attempt) -> int:
    """Return what an attempt costs according to the oracle."""
    input_nanos, output_nanos = PRICES[each.provider]
    return each.input_tokens * input_nanos + each.output_tokens * output_nanos


@dataclass
class Place:
    """Where gateways keep their records."""

    folder: Path
    environment: Mapping[str, str]
    database: Database
    toml: str

    def command(self, *arguments: str) -> Any:
        """Run a command of llm-gate with `--json`, and return what it prints."""
        where = ("--data-dir", str(self.folder), "--no-env-file")
        environment = clean_environment(self.environment)
        done = run_command(*arguments, "--json", *where, folder=self.folder, environment=environment)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def set_cap(self, nanos: int) -> None:
        """Make the plan everybody has: strict, and so much money in a month."""
        whole, rest = divmod(nanos, 10**9)
        usd = f"monthly_cost_usd={whole}.{rest:09}"
        self.command("plans", "set", PLAN, "--set", usd, "--set", "mode=strict")

    def serving(self, *, workers: int = 1, runner: tuple[str, ...] = (), installed: bool = False) -> Any:
        """Return a running gateway that keeps its records here."""
        arguments = ("--data-dir", str(self.folder), "--workers", str(workers))
        return running_gateway(
            self.environment, toml=self.toml, arguments=arguments, runner=runner, installed=installed
        )

    def end_leases(self) -> None:
        """Take from killed gateways what is left of their leases, without the minute's wait; none may be running."""
        self.database.change(lambda c: c.execute(delete(process)))

    def open_reservations(self) -> int:
        """Count the reservations that have not ended."""
        return self.database.ask(lambda c: c.execute(select(func.count()).select_from(reservation)).scalar())

    def records(self) -> list[Any]:
        """Return every record."""
        return self.database.ask(lambda c: c.execute(select(usage_record)).all())

    def attempts(self) -> list[Any]:
        """Return every attempt of every record."""
        return self.database.ask(lambda c: c.execute(select(attempt)).all())

    async def settled(self, patience_s: float) -> None:
        """Wait until no reservation is open."""
        end = asyncio.get_running_loop().time() + patience_s
        while left := self.open_reservations():
            assert asyncio.get_running_loop().time() < end, f"{left} reservations are still open"
            await asyncio.sleep(0.1)


@contextmanager
def place_to_spend(kind: str, folder: Path, oracle_url: str) -> Iterator[Place]:
    """Make a place on SQLite or PostgreSQL, for gateways whose providers live at an oracle."""
    if kind == "sqlite":
        with place_at(None, folder, oracle_url) as place:
            yield place
        return
    with postgresql_name() as name, place_at(postgresql_address(name), folder, oracle_url) as place:
        yield place


@contextmanager
def place_at(address: str | None, folder: Path, oracle_url: str) -> Iterator[Place]:
    """Make a place on the PostgreSQL database of an address, on SQLite where there is none."""
    environment = {"FIRST_API_KEY": "first-fake-0123456789", "SECOND_API_KEY": "second-fake-0123456789"}
    folder.mkdir(parents=True, exist_ok=True)
    if address is not None:
        environment["LLM_GATE_DATABASE_URL"] = address
        environment["LLM_GATE_PEPPER"] = "a pepper for tests, 0123456789abcdef"
    database = open_sqlite(folder) if address is None else open_postgresql(Secret(address))
    try:
        yield Place(folder, environment, database, _toml(oracle_url))
    finally:
        database.close()


def _toml(oracle_url: str) -> str:
    text = f'[plans]\ndefault = "{PLAN}"\n[timeouts]\nheaders_s = 20.0\nidle_s = 20.0\ntotal_s = 30.0\n'
    for name, (input_nanos, output_nanos) in PRICES.items():
        text += f"""
            [providers.{name}]
            dialect = "openai"
            base_url = "{oracle_url}/{name}/v1"
            auth = {{ kind = "bearer", env = "{name.upper()}_API_KEY" }}
            [[providers.{name}.models]]
            name = "m"
            operations = ["chat"]
            prices = [
                {{ unit = "input_tokens", per = 1_000_000, usd = "{input_nanos / 1000}" }},
                {{ unit = "output_tokens", per = 1_000_000, usd = "{output_nanos / 1000}" }},
            ]
        """
    return text + '\n[aliases.both]\ntargets = ["first/m", "second/m"]\n'


def request_of(name: str, kind: str) -> dict[str, Any]:
    """Return the body of a call; `name` is its id in every book."""
    streams = kind in {"stream", "leave", "fall back stream", "cut"}
    orders: dict[str, Any] = {}
    if kind.startswith("fall back"):
        orders = {"fault": "500", "only": "first"}
    elif kind in {"cut", "fail"}:
        orders = {"fault": {"cut": "cut", "fail": "500"}[kind]}
    elif kind == "leave":
        orders = {"pause_s": 0.02}
    elif kind == "hurry":
        orders = {"delay_s": 0.1}
    body: dict[str, Any] = {
        "model": "both",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": marked(name, "Say something.", **orders)}],
    }
    return body | ({"stream": True} if streams else {})


class Callers:
    """Callers in this process, on one event loop. `seen` maps the names of calls to how they ended."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.seen: dict[str, Seen] = {}

    async def call(self, user: str, name: str, kind: str) -> Seen:
        """Make one call and note how it ended."""
        found: Seen = "broken"
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            patience = aiohttp.ClientTimeout(total=_HURRY_S if kind == "hurry" else _TIMEOUT_S)
            async with self._session.post(
                f"{self._url}/v1/chat/completions",
                data=json.dumps(request_of(name, kind)),
                headers={
                    "content-type": "application/json",
                    "x-user-id": user,
                    "client_id": "load",
                    "x-request-id": name,
                },
                timeout=patience,
            ) as answer:
                found = await _read(answer, leaves=kind == "leave")
        self.seen[name] = found
        return found

    async def many(
        self, user: str, names: Sequence[str], *, chance: random.Random, most_at_once: int
    ) -> None:
        """Make calls of all kinds, so many at once."""
        waiting = list(reversed(names))

        async def caller() -> None:
            while waiting:
                await self.call(user, waiting.pop(), chance.choice(KINDS))

        await asyncio.gather(*(caller() for _ in range(most_at_once)))


async def _read(answer: aiohttp.ClientResponse, *, leaves: bool) -> Seen:
    if answer.status == 429:
        await answer.read()
        return "refused"
    if answer.status != 200:
        await answer.read()
        return "failed"
    if leaves:
        received = 0
        async for piece in answer.content.iter_any():
            received += len(piece)
            if received > _LEAVE_AFTER_BYTES:
                answer.close()
                return "broken"
        return "answered"
    data = await answer.read()
    if answer.content_type == "text/event-stream" and not data.endswith(b"data: [DONE]\n\n"):
        return "broken"
    return "answered"


def callers_session() -> aiohttp.ClientSession:
    """Return a session for any number of callers."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def differences(place: Place, book: Sequence[Attempt], seen: Mapping[str, Seen]) -> list[str]:
    """Hold the records against the vendor's book and what callers saw; return every contradiction."""
    records = defaultdict(list)
    for record in place.records():
        records[record.request_id].append(record)
    kept = Counter(each.record_id for each in place.attempts())
    billed = defaultdict(list)
    for each in book:
        billed[each.call].append(each)
    found = [f"{name}: {len(rows)} records" for name, rows in records.items() if len(rows) != 1]
    found += [
        f"{name}: no record of {len(mine)} attempts" for name, mine in billed.items() if name not in records
    ]
    for name, (record, *_) in records.items():
        mine = billed[name]
        owed = sum(map(billed_nanos, mine))
        is_sure = seen.get(name) == "answered"
        # One that was about to be sent may be recorded without having been.
        if kept[record.id] < len(mine) or (is_sure and kept[record.id] > len(mine)):
            found.append(f"{name}: {kept[record.id]} attempts recorded, {len(mine)} made ({record.status})")
        if is_sure and (record.status, record.quality) != ("ok", "measured"):
            found.append(f"{name}: answered, but recorded as {record.status} and {record.quality}")
        if is_sure and record.cost_nanos != owed:
            found.append(f"{name}: answered for {owed}, recorded {record.cost_nanos}")
        if (record.cost_nanos or 0) < owed:
            found.append(f"{name}: billed {owed}, recorded {record.cost_nanos} ({record.status})")
        if record.status == "unconfirmed" and record.quality != "upper_bound":
            found.append(f"{name}: unconfirmed, but {record.quality}")
    return found


def spent_nanos(place: Place, user: str) -> int:
    """Return what the records of a user add up to."""
    total = select(func.coalesce(func.sum(usage_record.c.cost_nanos), 0)).where(
        usage_record.c.user_id == user
    )
    return int(place.database.ask(lambda c: c.execute(total).scalar()))
