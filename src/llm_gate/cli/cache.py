"""`llm-gate cache`: what is kept of answers, and how it is thrown away."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from llm_gate.bootstrap.caching import cache_store
from llm_gate.cli.output import print_json
from llm_gate.cli.store import settings_of, store_options, stored
from llm_gate.domain.cache import CacheStats, CacheStore
from llm_gate.domain.windows import instant
from llm_gate.storage.opening import Store

HELP = """Show what is kept of answers, or throw it away.

The answers are those of the store that the gateway uses: Redis where LLM_GATE_REDIS_URL is set, else the database.
A gateway may be running meanwhile; what is thrown away is given to nobody after about a second.

\b
Examples:
  llm-gate cache stats
  llm-gate cache clear --tenant acme --yes
"""

# A command may wait longer than a call.
_REDIS_S = 5.0
_MIB = 1024 * 1024

T = TypeVar("T")

_tenant_option = click.option("--tenant", metavar="T", help="Only this tenant's.  [default: all tenants]")


@click.group(help=HELP, short_help="Show what is kept of answers, or throw it away.")
def command() -> None:
    """Take the name of what is to be done."""


@command.command()
@_tenant_option
@store_options
def stats(
    *, tenant: str | None, as_json: bool, config: Path | None, no_env_file: bool, data_dir: Path | None
) -> None:
    """Show how many answers are kept, and how large they are."""

    async def ask(store: CacheStore) -> CacheStats:
        return await store.stats(tenant)

    found = _with_cache(ask, config=config, no_env_file=no_env_file, data_dir=data_dir)
    if as_json:
        print_json(found)
        return
    line = f"{found.entries} answers, {found.with_vectors} of them by meaning, {found.bytes / _MIB:.1f} MiB"
    if found.oldest_ms is not None:
        line += f", the oldest from {instant(found.oldest_ms).strftime('%Y-%m-%d %H:%M:%S')} UTC"
    click.echo(line)


@command.command()
@_tenant_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
def clear(
    *,
    tenant: str | None,
    yes: bool,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
) -> None:
    """Throw kept answers away."""
    if not yes:
        whose = "of all tenants" if tenant is None else f"of the tenant {tenant!r}"
        click.confirm(f"Throw the kept answers {whose} away?", abort=True, err=True)

    async def ask(store: CacheStore) -> int:
        return await store.clear(tenant)

    gone = _with_cache(ask, config=config, no_env_file=no_env_file, data_dir=data_dir)
    if as_json:
        print_json({"cleared": gone})
    else:
        click.echo(f"{gone} answers thrown away")


def _with_cache(
    work: Callable[[CacheStore], Awaitable[T]],
    *,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
) -> T:
    """Open the store of answers that the options name, do some work with it, and close it."""
    settings = settings_of(config, no_env_file, data_dir)

    async def working(opened: Store) -> T:
        store = cache_store(settings, opened, operation_s=_REDIS_S)
        try:
            return await work(store)
        finally:
            await store.close()

    return stored(working, config=config, no_env_file=no_env_file, data_dir=data_dir)
