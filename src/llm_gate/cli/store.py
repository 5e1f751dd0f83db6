"""How the commands reach the store: the options that say where it is, and its life around the work of a command."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_bytes, token_hex
from time import time_ns
from typing import Any, TypeVar

import click

from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.domain.access import DEFAULT_TENANT
from llm_gate.engine.keys import Keys
from llm_gate.settings import Settings
from llm_gate.storage.opening import Store, open_store
from llm_gate.storage.plans import apply_plans

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

tenant_option = click.option(
    "--tenant", metavar="T", default=DEFAULT_TENANT, show_default=True, help="The tenant that is meant."
)
_data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder in which the gateway keeps its data.  [default: data]",
)


def store_options(command: F) -> F:
    """Give a command --data-dir, --config, --no-env-file and --json."""
    return _data_dir_option(configuration_options(json_option(command)))


def settings_of(config: Path | None, no_env_file: bool, data_dir: Path | None) -> Settings:
    """Read the configuration that the options name."""
    return source_of(config, no_env_file, data_dir=data_dir).read()


def stored(
    work: Callable[[Store], Awaitable[T]],
    *,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    migrating: bool = False,
) -> T:
    """Open the store that the options name, do some work with it, and close it.

    Raises:
        GateError: the store cannot be used, or the work failed.
    """
    settings = settings_of(config, no_env_file, data_dir)
    store = open_store(
        data_dir=settings.server.data_dir,
        database_url=settings.database_url,
        pepper=settings.pepper,
        at_ms=now_ms(),
        migrating=migrating,
    )

    async def working() -> T:
        return await work(store)

    try:
        # A plan of the file can be named before a gateway has run with it.
        apply_plans(store.database, settings.plans.custom, now_ms(), releasing=False)
        return asyncio.run(working())
    finally:
        store.close()


def keys_of(store: Store) -> Keys:
    """Return the use-cases of keys over a store."""
    return Keys(
        administration=store.administration,
        key_hash=store.pepper.key_hash,
        now_ms=now_ms,
        new_id=new_id,
        randomness=token_bytes,
    )


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return time_ns() // 1_000_000


def new_id() -> str:
    """Return an id that grows with time."""
    return f"{now_ms():012x}{token_hex(6)}"
