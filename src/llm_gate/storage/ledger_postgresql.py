"""The ledger's transactions on PostgreSQL: rows are locked, reservations first, then balances, each in their order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Dialect

from llm_gate.domain.book import Balance, Book, Place
from llm_gate.domain.ledger import Hold, Step
from llm_gate.storage.ledger_batch import Applied, Session, json_text
from llm_gate.storage.statements import PostgresqlStatements

_balances = msgspec.json.Decoder(list[tuple[str, int, int, int, int]])


class PostgresqlSession(Session):
    """A session with a connection that commits by itself what is not in a transaction."""

    statements: PostgresqlStatements

    def __init__(self, connection: Any, statements: PostgresqlStatements, dialect: Dialect) -> None:
        super().__init__(connection, statements, dialect)
        connection.execute(statements.prepare)

    def apply(self, steps: Sequence[Step], new_id: Callable[[], str]) -> Applied:
        """Apply a batch in one transaction. When this returns, it is on disk; when it raises, the session is spent."""
        self.last = Applied()
        # What need not be waited for goes out together with what must be.
        with self._connection.pipeline():
            self.tell("BEGIN")
            applied = self._apply(steps, new_id)
            self.tell("COMMIT")
        return applied

    def _load_balances(self, book: Book, places: Mapping[Place, Hold]) -> None:
        wanted = json_text(list(places))
        self._load(book, places, wanted)
        missing = sorted(places.keys() - book.balances.keys())
        if not missing:
            return
        # A row can be locked only once it is there, and somebody else may be faster.
        rows = []
        for place in missing:
            new = self._new_balance(places[place])
            rows.append((*place, new.end_ms, new.used, new.held, new.seeded))
        self.tell(self.statements.new_balances, {"balances": json_text(rows)})
        self._load(book, places, wanted)

    def _load(self, book: Book, places: Mapping[Place, Hold], wanted: str) -> None:
        (found,) = self.ask(self.statements.balances, {"places": wanted})
        for account, start_ms, used, held, seeded in _balances.decode(found or "[]"):
            place = (account, start_ms)
            book.balances[place] = Balance(used=used, held=held, seeded=seeded, end_ms=places[place].end_ms)

    def _write(self, rows: Mapping[str, Sequence[Any]]) -> None:
        if any(rows.values()):
            self.tell(self.statements.write, {name: json_text(part) for name, part in rows.items()})
