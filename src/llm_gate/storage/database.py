"""Where the tables live: SQLite in the data folder, or PostgreSQL by its address; connections and their rules.

The ledger has a connection and a thread of its own (`connect`). Everything else goes through `read` and `write`, which
run a function in a small pool of threads, so that a slow question never holds up admission or the event loop. Nobody
waits for ever: a server that keeps its connections open and says nothing is as good as away.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, socket
from threading import Timer
from typing import Any, Literal, TypeVar
from weakref import WeakSet

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.secret import Secret

T = TypeVar("T")
Kind = Literal["sqlite", "postgresql"]

FILE_NAME = "llm-gate.db"
_THREADS = 4
_SURVEY_THREADS = 2
_BUSY_S = 5.0
_CONNECT_S = 3
_STATEMENT_MS = 30_000
_READ_S, _WRITE_S, _SURVEY_S = 5.0, 10.0, 60.0
_CLOSE_S = 3.0
_UNWRITABLE = ("readonly", "read-only")
_NETWORK_RULES = {
    # A host that has gone without a word is noticed within about this time.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SQLITE_RULES = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",
)


class Database:
    """One database and the ways to it. `cut_off` ends the waiting of all who wait for the server."""

    def __init__(
        self,
        *,
        kind: Kind,
        engine: Engine,
        connect: Callable[[], Any],
        cut_off: Callable[[], None] = lambda: None,
    ) -> None:
        self._cut_off = cut_off
        self.kind = kind
        self.engine = engine
        self.connect = connect
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="store")
        self._surveyors = ThreadPoolExecutor(max_workers=_SURVEY_THREADS, thread_name_prefix="survey")

    async def read(self, question: Callable[[Connection], T]) -> T:
        """Ask something in a thread of the pool, in one consistent view.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        return await _within(_READ_S, self._threads, lambda: self.ask(question))

    async def survey(self, question: Callable[[Connection], T]) -> T:
        """Ask something that may look at many rows: its own few threads keep it out of the way of callers.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        return await _within(_SURVEY_S, self._surveyors, lambda: self.ask(question))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Change something in a thread of the pool, in one transaction.

        Raises:
            StoreUnavailable: the database cannot be reached; nothing has changed, unless it fell silent in the very
                moment of the commit.
        """
        is_given_up = False

        def work(connection: Connection) -> T:
            found = change(connection)
            if is_given_up:
                raise StoreUnavailable("nobody waits for this change any more")
            return found

        try:
            return await _within(_WRITE_S, self._threads, lambda: self.change(work))
        except StoreUnavailable:
            is_given_up = True
            raise

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Ask something in this thread."""
        return self._guarded(lambda: self._in_transaction(question, writes=False))

    def change(self, change: Callable[[Connection], T]) -> T:
        """Change something in this thread, in one transaction."""
        return self._guarded(lambda: self._in_transaction(change, writes=True))

    def _in_transaction(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        with self.engine.connect() as plain:
            # Whoever will write says so at the start: on SQLite a reader cannot become a writer without risk.
            connection = plain.execution_options(writes=writes)
            with connection.begin():
                return work(connection)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (OperationalError, InterfaceError, InternalError, PoolTimeout) as error:
            raise StoreUnavailable(f"the store cannot be reached: {reason_of(error)}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise StoreUnavailable("the store closed the connection") from error
            if type(error) is DatabaseError:
                # The plain class is what SQLite says of a file that is no database, or not any more.
                raise StoreUnavailable("the store cannot be read: its file is damaged") from error
            raise

    def close(self) -> None:
        """Close every connection of the pool; whoever still waits for a silent server is cut off after a moment."""
        cutting = Timer(_CLOSE_S, self._cut_off)
        cutting.start()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._surveyors.shutdown(wait=True, cancel_futures=True)
        cutting.cancel()
        self.engine.dispose()


async def _within(patience_s: float, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Do work in a thread, and wait for it so long at most; what has not begun by then is not done at all."""
    try:
        async with asyncio.timeout(patience_s):
            return await asyncio.get_running_loop().run_in_executor(threads, work)
    except TimeoutError:
        raise StoreUnavailable("the store cannot be reached: it did not answer in time") from None


def open_sqlite(data_dir: Path) -> Database:
    """Open the embedded database of a data folder; the file is made when it is first written to."""
    path = data_dir / FILE_NAME

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        for rule in _SQLITE_RULES:
            connection.execute(rule)
        return connection

    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
        pool_size=_THREADS + _SURVEY_THREADS,
        poolclass=sqlalchemy.QueuePool,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # SQLAlchemy begins transactions itself; the driver's own way would begin them too late for reads.
        connection.isolation_level = None
        for rule in _SQLITE_RULES:
            connection.execute(rule)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
        )

    _let_go_of_failed(engine)
    return Database(kind="sqlite", engine=engine, connect=connect)


def open_postgresql(address: Secret) -> Database:
    """Open a PostgreSQL database by its address, `postgresql://user:password@host/name`."""
    import psycopg  # noqa: PLC0415 - an optional driver: nobody else pays for loading it

    url = sqlalchemy.make_url(address.reveal()).set(drivername="postgresql+psycopg")
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    options = f"-c statement_timeout={_STATEMENT_MS} -c idle_in_transaction_session_timeout={_STATEMENT_MS}"

    rules: dict[str, Any] = {"connect_timeout": _CONNECT_S, "options": options, **_NETWORK_RULES}

    def connect() -> Any:
        return psycopg.connect(plain, autocommit=True, **rules)

    engine = sqlalchemy.create_engine(
        url,
        pool_size=_THREADS + _SURVEY_THREADS,
        max_overflow=0,
        pool_timeout=_BUSY_S,
        pool_pre_ping=True,
        connect_args=rules,
    )
    connections: WeakSet[Any] = WeakSet()
    event.listen(engine, "connect", lambda connection, _record: connections.add(connection))

    def cut_off() -> None:
        for connection in list(connections):
            with suppress(OSError, psycopg.Error), socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(SHUT_RDWR)

    _let_go_of_failed(engine)
    return Database(kind="postgresql", engine=engine, connect=connect, cut_off=cut_off)


def _let_go_of_failed(engine: Engine) -> None:
    """Keep no connection that was opened while the store could only be read: it would stay so after that has ended."""

    @event.listens_for(engine, "handle_error")
    def let_go(context: ExceptionContext) -> None:
        if any(sign in str(context.original_exception).lower() for sign in _UNWRITABLE):
            context.is_disconnect = True


def reason_of(error: Exception) -> str:
    """Say in a few words what is wrong; the driver's own words may quote an address with its password."""
    text = str(getattr(error, "orig", error)).lower()
    known = {
        "locked": "the database is locked",
        "disk is full": "the disk is full",
        "disk i/o error": "the disk cannot be read or written",
        **dict.fromkeys(_UNWRITABLE, "the database cannot be written to"),
        "too many": "all its connections are taken",
        "connection slots": "all its connections are taken",
        "unable to open": "the database file cannot be opened",
        "password authentication": "the password is not accepted",
        'role "': "there is no such user",
        "does not exist": "the database or a table of it does not exist",
        "timeout": "it did not answer in time",
    }
    return next((words for sign, words in known.items() if sign in text), "no connection")
