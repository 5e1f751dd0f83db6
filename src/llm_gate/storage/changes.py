"""How the operator's changes are written: one at a time, with the revision raised and a line in the audit each.

Theory of operation: a change is one transaction. It first raises the revision, whose row makes all changes wait for
each other; then it reads, computes and writes; each thing that was changed adds a line to the audit, chained to the
line before by its hash. A change that comes to nothing is rolled back whole, the revision with it.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, Connection, Table, Text, cast, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from llm_gate.domain.administration import Act
from llm_gate.storage import schema
from llm_gate.storage.database import Database
from llm_gate.storage.directive_rows import Values, json_text

T = TypeVar("T")

EVERYWHERE = ""
"""The tenant of audit lines about what belongs to none, such as plans."""

_REVISION = "revision"
_HIDDEN = frozenset({"digest", "sealed"})
_CHAINED = ("at_ms", "actor", "action", "tenant", "target", "change")


class _Unchanged(Exception):
    """Rolls a change back that came to nothing; `value` is its result all the same."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Kind(Struct, Generic[T], frozen=True, kw_only=True):
    """A table, and the way from its rows to the values they stand for and back."""

    table: Table
    read: Callable[[Any], T]
    values: Callable[[T], Values]


class Changes:
    """One change under way."""

    def __init__(self, connection: Connection, act: Act) -> None:
        self.connection = connection
        self.act = act
        self.lines = 0

    def put(self, table: Table, values: Values) -> None:
        """Write a row in place of any with the same primary key."""
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in values.items() if name not in keys}
        statement = insert(self.connection, table).values(values)
        self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=rest))

    def note(self, *, tenant: str, target: str, before: object, after: object) -> None:
        """Add a line to the audit, chained to the last one."""
        table = schema.audit
        query = select(table.c.chain).order_by(table.c.number.desc()).limit(1)
        last = self.connection.execute(query).scalar() or ""
        values = {
            "at_ms": self.act.at_ms,
            "actor": self.act.actor,
            "action": self.act.action,
            "tenant": tenant,
            "target": target,
            "change": json_text(_difference(before, after)),
        }
        self.connection.execute(table.insert().values(**values, chain=_link(last, values)))
        self.lines += 1

    def replace(
        self, kind: Kind[T], key: Mapping[str, str], change: Callable[[T | None], T], *, tenant: str
    ) -> T:
        """Store what a row becomes; its primary key is `key`, whose last value names it in the audit."""
        query = select(kind.table).where(*(kind.table.c[name] == value for name, value in key.items()))
        row = self.connection.execute(query).first()
        before = None if row is None else kind.read(row)
        after = change(before)
        if after != before:
            self.put(kind.table, kind.values(after))
            self.note(tenant=tenant, target=list(key.values())[-1], before=before, after=after)
        return after


async def change_store(database: Database, act: Act, work: Callable[[Changes], T]) -> T:
    """Run a change in a thread of the pool."""
    try:
        return await database.write(lambda connection: _run(connection, act, work))
    except _Unchanged as unchanged:
        result: T = unchanged.value
        return result


def change_now(database: Database, act: Act, work: Callable[[Changes], T]) -> T:
    """Run a change in this thread."""
    try:
        return database.change(lambda connection: _run(connection, act, work))
    except _Unchanged as unchanged:
        result: T = unchanged.value
        return result


def insert(connection: Connection, table: Table) -> Any:
    """Return an INSERT that knows ON CONFLICT; both stores spell it alike, SQLAlchemy does not."""
    made = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return made(table)


def stored_revision(connection: Connection) -> int:
    """Return how many changes there have been."""
    query = select(schema.meta.c.value).where(schema.meta.c.name == _REVISION)
    return int(connection.execute(query).scalar() or 0)


def broken_links(connection: Connection) -> list[int]:
    """Return the numbers of the audit's lines that do not follow from what stands before them."""
    table = schema.audit
    previous, broken = "", []
    for row in connection.execute(select(table).order_by(table.c.number)).mappings():
        if row["chain"] != _link(previous, {name: row[name] for name in _CHAINED}):
            broken.append(row["number"])
        previous = row["chain"]
    return broken


def _run(connection: Connection, act: Act, work: Callable[[Changes], T]) -> T:
    _raise_revision(connection)
    changes = Changes(connection, act)
    result = work(changes)
    if changes.lines == 0:
        raise _Unchanged(result)
    return result


def _raise_revision(connection: Connection) -> None:
    """Let every gateway forget what it keeps; whoever did so before and is not done yet is waited for."""
    table = schema.meta
    number = cast(table.c.value, BigInteger) + literal(1, BigInteger)
    statement = insert(connection, table).values(name=_REVISION, value="1")
    connection.execute(
        statement.on_conflict_do_update(index_elements=[table.c.name], set_={"value": cast(number, Text)})
    )


def _link(previous: str, values: Mapping[str, Any]) -> str:
    return sha256(f"{previous}\n{json_text(dict(values))}".encode()).hexdigest()


def _difference(before: object, after: object) -> dict[str, tuple[Any, Any]]:
    old = {} if before is None else msgspec.to_builtins(before, order="deterministic")
    new = {} if after is None else msgspec.to_builtins(after, order="deterministic")
    return {
        name: (old.get(name), new.get(name))
        for name in sorted({*old, *new} - _HIDDEN)
        if old.get(name) != new.get(name)
    }
