"""`llm-gate migrate`."""

from typing import Any

import click

from llm_gate.cli.output import print_json
from llm_gate.cli.store import store_options, stored
from llm_gate.storage.migrate import HEAD
from llm_gate.storage.opening import Store

HELP = """Bring the store to the tables that this version needs.

The embedded database and an empty PostgreSQL database are filled and brought up to date by themselves. With
PostgreSQL, stop the gateways of the older version first, and make a backup: there is no way back.

\b
Examples:
  llm-gate migrate
  LLM_GATE_DATABASE_URL=postgresql://gate@db/gate llm-gate migrate
"""


@click.command(help=HELP)
@store_options
def command(*, as_json: bool, **where: Any) -> None:
    """Bring the store up to date."""

    async def work(store: Store) -> bool:
        return store.was_migrated

    was_migrated = stored(work, migrating=True, **where)
    if as_json:
        print_json({"migrated": was_migrated, "version": HEAD})
    else:
        click.echo(f"{'migrated to' if was_migrated else 'already at'} version {HEAD}")
