"""Brings a database to the tables this version needs. Alembic is loaded only where there is something to do.

The version is looked up as plain text first, since loading Alembic takes longer than most commands run.
"""

from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, inspect, text

from llm_gate.domain.errors import GateFault
from llm_gate.storage.database import Database

HEAD = "0004"
"""The last step of migrations/versions."""

State = Literal["empty", "older", "current", "unknown"]
"""What a database is to this version: "unknown" was made by a later one."""

VERSIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"
# Any number will do that nobody else in the database uses: "LLM Gate" in ASCII.
_LOCK = 0x4C4C_4D20_4761_7465


class StoreOutdated(GateFault):
    """The database has the tables of another version, and is not changed without being asked."""

    code = "store_outdated"


def state_of(database: Database) -> State:
    """Return what a database is to this version.

    Raises:
        StoreUnavailable: it cannot be reached.
    """
    return database.ask(_state)


def needs_migration(database: Database) -> bool:
    """Tell whether a database lacks tables of this version."""
    return state_of(database) in {"empty", "older"}


def migrate(database: Database) -> bool:
    """Bring a database to the tables of this version; tells whether there was something to do.

    Any number of processes may do so at once: one works, the others wait for it.

    Raises:
        StoreOutdated: the database was made by a later version.
        StoreUnavailable: it cannot be reached.
    """
    return database.change(_upgrade)


def prepare(database: Database) -> bool:
    """Make a database usable if nobody can object, and refuse to go on if somebody might.

    The embedded one is migrated, and an empty one filled. Tells whether there was something to do.

    Raises:
        StoreOutdated: somebody has to run `llm-gate migrate`, or a later version.
        StoreUnavailable: it cannot be reached.
    """
    state = state_of(database)
    if state == "current":
        return False
    if state == "older" and database.kind != "sqlite":
        raise StoreOutdated(
            "the database has the tables of an older version: stop the gateways of that version, make a backup, "
            "run `llm-gate migrate`, and start again"
        )
    return migrate(database)


def _state(connection: Connection) -> State:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return "empty"
    found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    if found is None:
        return "empty"
    if found == HEAD:
        return "current"
    return "older" if found < HEAD else "unknown"


def _upgrade(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        # Large tables take their time, and whoever waits for the lock waits as long.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    state = _state(connection)
    if state == "current":
        return False
    if state == "unknown":
        raise StoreOutdated("the database was made by a later version of llm-gate: run that version")
    _run(connection)
    return True


def _run(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - loaded only where there is something to migrate
    from alembic.config import Config  # noqa: PLC0415 - same

    attributes: dict[str, Any] = {"connection": connection}
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(VERSIONS).replace("%", "%%"))
    command.upgrade(config, "head")
