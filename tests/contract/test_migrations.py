"""A database becomes what this version needs, from any version, whoever asks and how many at once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.secret import Secret
from llm_gate.storage.migrate import (
    HEAD,
    VERSIONS,
    StoreOutdated,
    migrate,
    needs_migration,
    prepare,
    state_of,
)
from llm_gate.storage.opening import open_store
from llm_gate.storage.plans import shipped_plans
from llm_gate.storage.schema import metadata
from support.stores import KINDS, any_database, postgresql_address, postgresql_name

PEPPER = Secret("p" * 40)


def alembic_config(connection=None):
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(VERSIONS))
    return config


STEPS = [step.revision for step in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    with any_database(request.param, tmp_path, with_tables=False) as found:
        yield found


def differences(database):
    def compare(connection):
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    return database.ask(compare)


def test_the_last_step_is_the_known_one():
    """The version that is looked up without Alembic is the one that Alembic leads to; the steps are one line."""
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]
    assert sorted(STEPS) == STEPS


@pytest.mark.parametrize("start", [None, *STEPS])
def test_from_every_version_on_the_tables_become_those_of_the_schema(database, start):
    """After a migration there is no difference between the database and the schema, where it began notwithstanding."""
    if start is not None:
        database.change(lambda connection: command.upgrade(alembic_config(connection), start))

    assert needs_migration(database) is (start != HEAD)
    assert migrate(database) is (start != HEAD)
    assert state_of(database) == "current"
    assert migrate(database) is False
    assert differences(database) == []


def test_a_lacking_column_would_be_noticed(database):
    """The comparison above does see differences."""
    migrate(database)
    database.change(lambda connection: connection.execute(text("ALTER TABLE plan DROP COLUMN updated_ms")))
    database.change(lambda connection: connection.execute(text("DROP INDEX subscription_held")))

    assert {found[0] for found in differences(database)} == {"add_column", "add_index"}


def test_who_holds_a_subscription_is_unique_on_both_stores(database):
    """The partial index, which Alembic does not compare in full, is there with its condition."""
    migrate(database)
    (index,) = database.ask(lambda connection: inspect(connection).get_indexes("subscription"))

    assert index["unique"]
    assert "ended_ms IS NULL" in str(index["dialect_options"][f"{database.kind}_where"])


def test_an_older_database_is_changed_on_request(database):
    """The embedded store is brought up to date by itself; PostgreSQL waits for `llm-gate migrate`."""
    migrate(database)
    database.change(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    )

    assert needs_migration(database)
    if database.kind == "sqlite":
        # Nothing leads on from a version that never was: what counts is that it is tried.
        with pytest.raises(Exception, match="0000"):
            prepare(database)
    else:
        with pytest.raises(StoreOutdated, match="run `llm-gate migrate`"):
            prepare(database)


def test_a_newer_database_is_left_alone(database):
    """Tables of a later version are neither used nor changed."""
    migrate(database)
    database.change(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    )

    assert not needs_migration(database)
    for attempt in (prepare, migrate):
        with pytest.raises(StoreOutdated, match="later version"):
            attempt(database)


@pytest.mark.parametrize("kind", KINDS)
def test_several_first_starts_at_once_make_one_store(kind, tmp_path):
    """However many open an empty store together, it is migrated and filled once, with one pepper."""

    def opening(address):
        given = None if address is None else PEPPER
        store = open_store(data_dir=tmp_path, database_url=address, pepper=given, at_ms=1)
        with closing(store):
            return store.pepper.fingerprint, store.was_migrated

    def all_at_once(address):
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(opening, [address] * 6))
        assert len({fingerprint for fingerprint, _ in found}) == 1
        assert sum(was_migrated for _, was_migrated in found) == 1
        assert opening(address)[1] is False

    if kind == "sqlite":
        all_at_once(None)
        return
    with postgresql_name() as name:
        all_at_once(Secret(postgresql_address(name)))


def test_a_new_store_has_the_shipped_plans_once(tmp_path):
    """The shipped plans are there from the start; what the operator makes of them stays."""

    def opened():
        return closing(open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1))

    with opened() as store:
        names = store.database.ask(
            lambda connection: connection.execute(text("SELECT name FROM plan")).scalars().all()
        )
        assert set(names) == set(shipped_plans()) == {"free", "basic", "pro", "enterprise", "unlimited"}
        store.database.change(lambda connection: connection.execute(text("UPDATE plan SET updated_ms = 7")))
    with opened() as store:
        times = store.database.ask(
            lambda connection: (
                connection.execute(text("SELECT DISTINCT updated_ms FROM plan")).scalars().all()
            )
        )
        assert times == [7]


def test_alembic_is_loaded_for_the_first_start_only(tmp_path):
    """Later starts do without it, which spares them a third of a second."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from llm_gate.storage.opening import open_store\n"
        f"open_store(data_dir=Path({str(tmp_path)!r}), database_url=None, pepper=None, at_ms=1).close()\n"
        "print('alembic' in sys.modules)\n"
    )

    def start():
        environment = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout.strip()

    assert [start(), start()] == ["True", "False"]


def test_a_file_that_is_no_database_is_told(tmp_path):
    """A damaged file of the embedded store is an error of its own, and stays as it is."""
    file = tmp_path / "llm-gate.db"
    file.write_bytes(b"no database " * 500)

    with pytest.raises(StoreUnavailable, match="damaged"):
        open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)
    assert file.read_bytes() == b"no database " * 500
