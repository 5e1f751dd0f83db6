"""The ledger's transactions on SQLite: whoever begins to write is alone until the commit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy.dialects.sqlite import dialect

from llm_gate.domain.book import Balance, Book, Place
from llm_gate.domain.ledger import Hold, Step
from llm_gate.storage.ledger_batch import Applied, Session, json_text
from llm_gate.storage.statements import ENDED, FILLED_UP_TO, PARTS, SqliteStatements

_amounts = msgspec.json.Decoder(list[int | None])


class SqliteSession(Session):
    """A session with a connection of the driver that begins no transactions by itself."""

    statements: SqliteStatements

    def __init__(self, connection: Any, statements: SqliteStatements) -> None:
        super().__init__(connection, statements, dialect(paramstyle="named"))

    def apply(self, steps: Sequence[Step], new_id: Callable[[], str]) -> Applied:
        """Apply a batch in one transaction. When this returns, it is on disk; when it raises, the session is spent."""
        self.last = Applied()
        self.tell("BEGIN IMMEDIATE")
        applied = self._apply(steps, new_id)
        self.tell("COMMIT")
        return applied

    def _load_balances(self, book: Book, places: Mapping[Place, Hold]) -> None:
        balances = book.balances
        for wanted in _portions(list(places)):
            found = self.ask(*_filled(self.statements.balances, wanted, 2))
            for place, used, held, seeded in zip(wanted, *map(_amounts.decode, found), strict=False):
                if used is None or held is None or seeded is None:
                    balances[place] = self._new_balance(places[place])
                else:
                    end_ms = places[place].end_ms
                    balances[place] = Balance(used=used, held=held, seeded=seeded, end_ms=end_ms)

    def _write(self, rows: Mapping[str, Sequence[Any]]) -> None:
        for part in PARTS:
            columns = len(part.table.columns)
            statement = partial(self.statements.insert, part)
            for some in _portions(rows[part.name]):
                self.tell(*_filled(statement, some, columns))
        if rows[ENDED]:
            self.tell(self.statements.end, {ENDED: json_text(rows[ENDED])})


def _portions(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), FILLED_UP_TO):
        yield rows[start : start + FILLED_UP_TO]


def _filled(
    statement: Callable[[int], str], rows: Sequence[Sequence[Any]], columns: int
) -> tuple[str, list[Any]]:
    """Return the statement for at least so many rows, and its parameters, filled up with NULL."""
    count = 1 << (len(rows) - 1).bit_length()
    values = list(chain.from_iterable(rows))
    return statement(count), values + [None] * ((count - len(rows)) * columns)
