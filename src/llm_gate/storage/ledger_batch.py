"""One batch of the ledger in one transaction: lock and load what steps touch, apply the rules, write changes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Dialect

from llm_gate.domain.book import Balance, Book, Place
from llm_gate.domain.ledger import Hold, Reserve, Result, Step
from llm_gate.storage.ledger_rows import batch_rows, load_reservations
from llm_gate.storage.ledger_seeds import needs_seed, seed_question
from llm_gate.storage.statements import Statements

_ids = msgspec.json.Decoder(frozenset[str])


class Applied(Struct, frozen=True, kw_only=True):
    """What came of a batch. `finished` are those of its reservations that had a record before it."""

    results: Sequence[Result] = ()
    finished: frozenset[str] = frozenset()


class Session(ABC):
    """A connection of the ledger's own, and what it does with it.

    `last` is what came of the last batch, also of one whose commit seemed to fail and may have succeeded.
    """

    def __init__(self, connection: Any, statements: Statements, dialect: Dialect) -> None:
        self.last = Applied()
        self.statements = statements
        self._connection = connection
        self._dialect = dialect

    @abstractmethod
    def apply(self, steps: Sequence[Step], new_id: Callable[[], str]) -> Applied:
        """Apply a batch in one transaction. When this returns, it is on disk; when it raises, the session is spent."""

    @abstractmethod
    def _load_balances(self, book: Book, places: Mapping[Place, Hold]) -> None:
        """Lock balances and put them into the book; one that is not in the store begins at its seed."""

    @abstractmethod
    def _write(self, rows: Mapping[str, Sequence[Any]]) -> None:
        """Write the rows of every part of a batch."""

    def ask(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> Any:
        """Run a statement and return its one row."""
        return self._ask(statement, parameters).fetchone()

    def _ask(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any]) -> Any:
        return self._connection.execute(statement, parameters)

    def tell(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> None:
        """Run a statement that gives no rows."""
        self._connection.execute(statement, parameters)

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._connection.close()

    def _apply(self, steps: Sequence[Step], new_id: Callable[[], str]) -> Applied:
        """Do what is to be done inside the transaction."""
        ids = json_text(sorted({id_ for step in steps for id_ in _named(step)}))
        # Both go out together where the connection can do that.
        asked = [
            self._ask(text, {"ids": ids}) for text in (self.statements.reservations, self.statements.records)
        ]
        (bodies,), (records,) = [one.fetchone() for one in asked]
        loaded = load_reservations(bodies)
        finished: frozenset[str] = _ids.decode(f"[{records}]") if records else frozenset()
        book = Book(loaded, finished)
        places = book.places(steps)
        if places:
            self._load_balances(book, places)
        results = [book.apply(step) for step in steps]
        self.last = Applied(results=results, finished=finished)
        self._write(batch_rows(book, loaded, new_id))
        return self.last

    def _new_balance(self, hold: Hold) -> Balance:
        seed = 0
        if needs_seed(hold):
            question = seed_question(hold).compile(dialect=self._dialect)
            (found,) = self.ask(str(question), question.params)
            seed = int(found or 0)
        balance = Balance(used=seed, seeded=seed, end_ms=hold.end_ms)
        balance.is_changed = seed > 0
        return balance


def json_text(value: object) -> str:
    """Write a value as JSON."""
    return msgspec.json.encode(value).decode()


def _named(step: Step) -> Iterable[str]:
    """Return the reservations that a step names."""
    if not isinstance(step, Reserve):
        return (step.id,)
    call = step.call
    return (call.id,) if call.quote_id is None else (call.id, call.quote_id)
