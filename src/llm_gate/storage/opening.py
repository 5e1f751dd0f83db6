"""Opens a store with all that belongs to it: the database, its tables and plans, the pepper, and the ways to them."""

from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from sqlalchemy import Connection, select

from llm_gate.domain.errors import GateFault
from llm_gate.domain.secret import Secret
from llm_gate.storage.administration import StoredAdministration
from llm_gate.storage.credentials import StoredCredentials
from llm_gate.storage.database import Database, open_postgresql, open_sqlite
from llm_gate.storage.directives import StoredDirectives
from llm_gate.storage.migrate import migrate, prepare
from llm_gate.storage.pepper import Pepper, open_pepper
from llm_gate.storage.plans import seed_plans
from llm_gate.storage.schema import plan


class Store(Struct, frozen=True, kw_only=True):
    """An open store; `was_migrated` tells whether it was changed to this version's tables just now."""

    database: Database
    pepper: Pepper
    directives: StoredDirectives
    administration: StoredAdministration
    credentials: StoredCredentials
    was_migrated: bool = False

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def open_database(*, data_dir: Path, database_url: Secret | None) -> Database:
    """Open PostgreSQL where an address is given, else the embedded database of a data folder.

    Raises:
        GateFault: the folder cannot be made.
    """
    if database_url is not None:
        return open_postgresql(database_url)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GateFault(f"cannot make the data folder {data_dir}: {error.strerror}") from error
    return open_sqlite(data_dir)


def open_store(
    *, data_dir: Path, database_url: Secret | None, pepper: Secret | None, at_ms: int, migrating: bool = False
) -> Store:
    """Open a store that is ready to use; `migrating` is the operator's word to change an older one.

    Raises:
        StoreOutdated: the tables are of another version, and nobody said to change them.
        PepperFault: the pepper is missing, not safe, or not the one of this store.
        StoreUnavailable: the database cannot be reached.
    """
    with ExitStack() as on_failure:
        database = open_database(data_dir=data_dir, database_url=database_url)
        on_failure.callback(database.close)
        changed = migrate(database) if migrating else prepare(database)
        if changed or database.ask(_lacks_plans):
            seed_plans(database, at_ms)
        secret = open_pepper(database, given=pepper, data_dir=data_dir)
        on_failure.pop_all()
    return Store(
        database=database,
        pepper=secret,
        directives=StoredDirectives(database),
        administration=StoredAdministration(database),
        credentials=StoredCredentials(database, secret.derive("credentials")),
        was_migrated=changed,
    )


def _lacks_plans(connection: Connection) -> bool:
    return connection.execute(select(plan.c.name).limit(1)).first() is None
