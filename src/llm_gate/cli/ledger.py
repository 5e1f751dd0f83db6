"""`llm-gate ledger`."""

import sys
from typing import Any

import click

from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.store import store_options, stored
from llm_gate.domain.money import format_usd
from llm_gate.domain.windows import instant
from llm_gate.storage.checks import LedgerCheck, ledger_check
from llm_gate.storage.opening import Store

EXIT_DRIFT = 1
HELP = "Look after the ledger."
CHECK_HELP = """Compute every balance anew from the records, and show where it differs from what the ledger has.

The gateway may be running meanwhile. Exit codes: 0 everything agrees, 1 something differs.

\b
Examples:
  llm-gate ledger check
  llm-gate ledger check --json | jq .drift_nanos
"""


@click.group(help=HELP)
def command() -> None:
    """Take the name of what is to be done."""


@command.command(help=CHECK_HELP)
@store_options
def check(*, as_json: bool, **where: Any) -> None:
    """Check the ledger."""

    async def ask(store: Store) -> LedgerCheck:
        return await store.database.survey(ledger_check)

    found = stored(ask, **where)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.is_sound:
        sys.exit(EXIT_DRIFT)


def _print(found: LedgerCheck) -> None:
    click.echo(
        f"{found.records} records, {found.balances} balances, {found.open_reservations} open reservations: "
        + ("all agree" if found.is_sound else f"{len(found.drifts)} balances differ")
    )
    if found.is_sound:
        return
    rows = [
        (
            each.account,
            instant(each.start_ms).strftime("%Y-%m-%d %H:%M"),
            *map(str, (each.used, each.used_by_rows, each.held, each.held_by_rows)),
        )
        for each in found.drifts
    ]
    heads = ("ACCOUNT", "SINCE", "USED", "BY RECORDS", "HELD", "BY RESERVATIONS")
    print_table(heads, rows, right=(2, 3, 4, 5))
    click.echo(f"money is off by {format_usd(found.drift_nanos)} USD")
