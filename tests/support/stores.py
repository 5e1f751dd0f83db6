"""Databases for tests: a SQLite file of one's own, a PostgreSQL database that is made and dropped again."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy

from llm_gate.domain.secret import Secret
from llm_gate.storage.database import Database, open_postgresql, open_sqlite
from llm_gate.storage.schema import metadata
from support.servers import postgresql_url

KINDS = ("sqlite", "postgresql")


def postgresql_address(name: str) -> str:
    """Return the address of one database of the server."""
    url = sqlalchemy.make_url(postgresql_url()).set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


@contextmanager
def postgresql_name() -> Iterator[str]:
    """Make an empty private database, and drop it in the end whoever is still connected."""
    name = f"llm_gate_test_{uuid.uuid4().hex}"
    server = psycopg.connect(postgresql_url(), autocommit=True, connect_timeout=5)
    with server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield name
        finally:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def sqlite_database(folder: Path, *, with_tables: bool = True) -> Iterator[Database]:
    """Open the SQLite database of a folder, with the tables as they are now unless told otherwise."""
    database = open_sqlite(folder)
    try:
        if with_tables:
            metadata.create_all(database.engine)
        yield database
    finally:
        database.close()


@contextmanager
def postgresql_database(*, with_tables: bool = True) -> Iterator[Database]:
    """Open a private PostgreSQL database, with the tables as they are now unless told otherwise."""
    with postgresql_name() as name:
        database = open_postgresql(Secret(postgresql_address(name)))
        try:
            if with_tables:
                metadata.create_all(database.engine)
            yield database
        finally:
            database.close()


@contextmanager
def any_database(kind: str, folder: Path, *, with_tables: bool = True) -> Iterator[Database]:
    """Open an empty database of one of `KINDS`."""
    if kind == "sqlite":
        with sqlite_database(folder, with_tables=with_tables) as database:
            yield database
    else:
        with postgresql_database(with_tables=with_tables) as database:
            yield database


@contextmanager
def openings(kind: str, folder: Path) -> Iterator[Callable[[], Database]]:
    """Yield a way to open the same database any number of times, as several processes do."""
    opened: list[Database] = []
    with any_database(kind, folder) as first:
        address = None if kind == "sqlite" else postgresql_address(str(first.engine.url.database))

        def again() -> Database:
            database = open_sqlite(folder) if address is None else open_postgresql(Secret(address))
            opened.append(database)
            return database

        try:
            yield again
        finally:
            for database in opened:
                database.close()


def reopen(kind: str, address: str) -> Database:
    """Open a database that is there already by the address SQLAlchemy shows, in another process for instance."""
    if kind == "sqlite":
        return open_sqlite(Path(str(sqlalchemy.make_url(address).database)).parent)
    return open_postgresql(Secret(address))
