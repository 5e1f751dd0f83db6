"""The ledger's statements, made from the tables, so that a renamed column cannot be forgotten.

Theory of operation: there is one statement for each table a batch touches, however many rows there are, and what is
read comes back as one row. That is so because every statement and every row that is fetched costs a hand-over between
threads (SQLite) or a part of a round trip (PostgreSQL), which in a busy process is most of the work. PostgreSQL gets
its rows as one JSON text, in which it is quick; SQLite gets them as parameters, in statements for 1, 2, 4, 8 … rows
that are filled up with empty ones.
"""

# ruff: noqa: S608 - what is put into the statements are names of tables, columns and parameters

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Column, Integer, Table

from llm_gate.domain.ledger import JOBS_OWNER
from llm_gate.storage.schema import alert, attempt, balance, process, reservation, usage_record, usage_summary

ENDED = "ended"
"""The part of a batch that lists the ids of reservations that are over."""

FILLED_UP_TO = 256
"""SQLite's statements take so many rows at most."""

_account, _start = balance.c.account.name, balance.c.start_ms.name
_id, _body = reservation.c.id.name, reservation.c.body.name
_owner, _expires = reservation.c.owner.name, reservation.c.expires_ms.name
_record_id = usage_record.c.id.name
_process_id, _lease = process.c.id.name, process.c.lease_until_ms.name


class Part(Struct, frozen=True, kw_only=True):
    """Rows that a batch writes to a table: its `key`, where there may be such rows, and what to do with these.

    `replaced` columns are set; with `adds`, the others are added up; with neither, such a row is left as it is.
    Without a key it is an error.
    """

    name: str
    table: Table
    key: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    adds: bool = False


PARTS = (
    Part(
        name="balances",
        table=balance,
        key=(_account, _start),
        replaced=(balance.c.used.name, balance.c.held.name),
    ),
    # One that is there already was committed by a try that seemed to fail: then the batch is done over.
    Part(name="opened", table=reservation),
    Part(name="moved", table=reservation, key=(_id,), replaced=(_body,)),
    Part(name="records", table=usage_record),
    Part(name="attempts", table=attempt),
    Part(
        name="summaries",
        table=usage_summary,
        key=tuple(column.name for column in usage_summary.primary_key),
        adds=True,
    ),
    Part(name="alerts", table=alert, key=(_account, _start, alert.c.threshold.name)),
)


class Statements(Protocol):
    """SQL for one kind of database, with named parameters in its driver's way; what is read is one row.

    - `reservations` and `records` take `ids`, a JSON list; one gives the bodies of those that are open, the other the
      ids of those that have a record, each as a JSON list without its brackets, or None.
    - `renew` takes `owner`, `now_ms` and `until_ms`, `leave` takes `owners`, a JSON list.
    - `overdue` takes `owner`, `now_ms`, `lapsed_ms`, the JSON lists `dead` and `alive`, and `most`; it gives a JSON
      list of ids, or None: quotes past their end, and calls of other owners that are dead or have no lease.
    """

    reservations: str
    records: str
    now_ms: str
    renew: str
    leave: str
    overdue: str


class SqliteStatements:
    """The statements for SQLite. Those that take rows do so by position."""

    def __init__(self) -> None:
        self.reservations = (
            f"SELECT group_concat({_body}, ',') FROM {reservation} WHERE {_id} IN {_listed('ids')}"
        )
        self.records = (
            f"SELECT group_concat(json_quote({_record_id}), ',') FROM {usage_record}"
            f" WHERE {_record_id} IN {_listed('ids')}"
        )
        self.now_ms = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
        self.renew = _renew(":{}".format)
        self.leave = f"DELETE FROM {process} WHERE {_process_id} IN {_listed('owners')}"
        self.overdue = f"SELECT json_group_array({_id}) FROM ({_overdue(':{}'.format, _listed)})"
        self.end = f"DELETE FROM {reservation} WHERE {_id} IN {_listed(ENDED)}"
        self._made: dict[tuple[str, int], str] = {}

    def balances(self, rows: int) -> str:
        """Return the question for so many balances by account and start: three JSON lists (used, held, seeded).

        Their values are in the order of the parameters, null where there is no such balance.
        """
        found = self._made.get(("", rows))
        if found is None:
            names = (balance.c.used.name, balance.c.held.name, balance.c.seeded.name)
            lists = ", ".join(f"json_group_array({name})" for name in names)
            found = self._made["", rows] = (
                f"SELECT {lists} FROM ({_values(2, rows)}) AS wanted LEFT JOIN {balance}"
                f" ON {_account} = wanted.column1 AND {_start} = wanted.column2"
            )
        return found

    def insert(self, part: Part, rows: int) -> str:
        """Return the statement that writes so many rows of a part; rows that begin with NULL are left out."""
        found = self._made.get((part.name, rows))
        if found is None:
            source = _values(len(part.table.columns), rows)
            found = _insert(part, f"SELECT * FROM ({source}) WHERE column1 IS NOT NULL")
            self._made[part.name, rows] = found
        return found


class PostgresqlStatements:
    """The statements for PostgreSQL; those that take rows do so as one JSON list of lists.

    - `balances` takes `places`, a JSON list of [account, start_ms], locks them and gives a JSON list of
      [account, start_ms, used, held, seeded], or None.
    - `new_balances` takes `balances`: rows that must be there before they can be locked.
    - `write` takes rows for each of `PARTS` by its name, and `ended`.
    """

    prepare = "; ".join(
        # A few rows of large tables are asked for by their keys; the plan for that is made while they are small.
        f"SET {name} = off"
        for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
    )

    def __init__(self) -> None:
        # Rows are locked in the order of their keys, so that no two batches wait for each other.
        locked = f"SELECT {_body} FROM {reservation} WHERE {_id} IN {_texts('ids')} ORDER BY {_id} FOR UPDATE"
        self.reservations = f"SELECT string_agg({_body}, ',') FROM ({locked}) AS found"
        # A question of its own: it must see what was committed while the locks were waited for.
        self.records = (
            f"SELECT string_agg(to_json({_record_id})::text, ',') FROM {usage_record}"
            f" WHERE {_record_id} IN {_texts('ids')}"
        )
        self.now_ms = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
        self.renew = _renew("%({})s".format)
        self.leave = f"DELETE FROM {process} WHERE {_process_id} IN {_texts('owners')}"
        self.overdue = f"SELECT json_agg({_id})::text FROM ({_overdue('%({})s'.format, _texts)}) AS found"
        columns = (_account, _start, balance.c.used.name, balance.c.held.name, balance.c.seeded.name)
        self.balances = (
            f"SELECT json_agg(json_build_array({', '.join(f'found.{name}' for name in columns)}))::text FROM ("
            f"SELECT {', '.join(f'{balance}.{name}' for name in columns)} FROM {balance}"
            f" JOIN {_elements('places')} AS place"
            f" ON {balance}.{_account} = place ->> 0 AND {balance}.{_start} = (place ->> 1)::bigint"
            f" ORDER BY {balance}.{_account}, {balance}.{_start} FOR UPDATE OF {balance}) AS found"
        )
        new = Part(name="balances", table=balance, key=(_account, _start))
        self.new_balances = _insert(new, _postgresql_rows(new))
        writes = [_insert(part, _postgresql_rows(part)) for part in PARTS]
        writes.append(f"DELETE FROM {reservation} WHERE {_id} IN {_texts(ENDED)}")
        self.write = f"WITH {', '.join(f'w{n} AS ({text})' for n, text in enumerate(writes))} SELECT 1"


def _insert(part: Part, rows: str) -> str:
    table = part.table
    columns = [column.name for column in table.columns]
    text = f"INSERT INTO {table} ({', '.join(columns)}) {rows}"
    if not part.key:
        return text
    changes = [f"{name} = excluded.{name}" for name in part.replaced]
    if part.adds:
        changes += [f"{name} = {table}.{name} + excluded.{name}" for name in columns if name not in part.key]
    change = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
    return f"{text} ON CONFLICT ({', '.join(part.key)}) DO {change}"


def _values(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


def _postgresql_rows(part: Part) -> str:
    columns = enumerate(part.table.columns)
    values = ", ".join(f"(line ->> {number}){_cast(column)}" for number, column in columns)
    return f"SELECT {values} FROM {_elements(part.name)} AS line"


def _cast(column: "Column[object]") -> str:
    kinds: Sequence[tuple[type[object], str]] = (
        (BigInteger, "bigint"),
        (Integer, "integer"),
        (Boolean, "boolean"),
    )
    return next((f"::{name}" for kind, name in kinds if isinstance(column.type, kind)), "")


def _listed(parameter: str) -> str:
    return f"(SELECT value FROM json_each(:{parameter}))"


def _texts(parameter: str) -> str:
    return f"(SELECT jsonb_array_elements_text(%({parameter})s::text::jsonb))"


def _elements(parameter: str) -> str:
    return f"jsonb_array_elements(%({parameter})s::text::jsonb)"


def _renew(named: Callable[[str], str]) -> str:
    columns = f"{_process_id}, {process.c.started_ms.name}, {_lease}"
    values = ", ".join(map(named, ("owner", "now_ms", "until_ms")))
    return (
        f"INSERT INTO {process} ({columns}) VALUES ({values})"
        f" ON CONFLICT ({_process_id}) DO UPDATE SET {_lease} = excluded.{_lease}"
    )


def _overdue(named: Callable[[str], str], listed: Callable[[str], str]) -> str:
    leased = (
        f"SELECT 1 FROM {process} WHERE {process}.{_process_id} = {reservation}.{_owner}"
        f" AND {_lease} >= {named('lapsed_ms')}"
    )
    is_gone = f"{_owner} IN {listed('dead')} OR ({_owner} NOT IN {listed('alive')} AND NOT EXISTS ({leased}))"
    return (
        f"SELECT {_id} FROM {reservation} WHERE {_expires} <= {named('now_ms')}"
        # Those of jobs are nobody's: whoever takes the job over settles them.
        f" OR ({_expires} IS NULL AND {_owner} NOT IN ({named('owner')}, '{JOBS_OWNER}') AND ({is_gone}))"
        f" ORDER BY {_id} LIMIT {named('most')}"
    )
