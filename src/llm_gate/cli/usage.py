"""`llm-gate usage`."""

import csv
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.store import store_options, stored, tenant_option
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.reports import GROUPINGS, Group, Grouping, Selection, Totals, read_moment, total_of
from llm_gate.domain.windows import FOREVER_MS
from llm_gate.engine.reports import all_groups
from llm_gate.storage.opening import Store
from llm_gate.storage.reports import StoredReports

HELP = """Show what was used, and what it cost.

Requests are calls of which at least one attempt was sent; what was refused is none. Failures are attempts that
failed. Times are in UTC: a day as 2026-11-21, a month as 2026-11, or a moment as 2026-11-21T08:30:00Z.

\b
Examples:
  llm-gate usage --since 2026-11
  llm-gate usage --user ann --by model --since 2026-11-01 --until 2026-12-01
  llm-gate usage --by day --csv > usage.csv
  llm-gate usage --user ann --json | jq .cost_nanos
"""

_COLUMNS = ("requests", "attempts", "failures", "input_tokens", "output_tokens")
_NOT_SHOWN = "\N{REPLACEMENT CHARACTER}"
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r]")


class _Moment(click.ParamType[int]):
    """A day, a month, or a moment, in UTC unless it says otherwise; in milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one."""
        if isinstance(value, int):
            return value
        try:
            return read_moment(value)
        except ValueError:
            self.fail("expected a time such as 2026-11, 2026-11-21 or 2026-11-21T08:30:00Z", param, ctx)


@click.command(help=HELP)
@click.option("--user", metavar="U", help="Only this user.")
@click.option("--since", type=_Moment(), metavar="T", help="Only calls from this time on.")
@click.option("--until", type=_Moment(), metavar="T", help="Only calls before this time.")
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    default="provider",
    show_default=True,
    help="Sum up by this.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@tenant_option
@store_options
def command(
    *,
    user: str | None,
    since: int | None,
    until: int | None,
    by: Grouping,
    as_csv: bool,
    as_json: bool,
    tenant: str,
    **where: Any,
) -> None:
    """Show usage."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    selection = Selection(
        tenant=tenant, user=user, since_ms=since or 0, until_ms=FOREVER_MS if until is None else until
    )

    async def load(store: Store) -> tuple[Totals, list[Group], list[Group]]:
        reports = StoredReports(store.database)
        groups = [group async for group in all_groups(reports, selection, (by,))]
        if by == "provider" or not as_json:
            return total_of(group.totals for group in groups), groups, groups
        providers = [group async for group in all_groups(reports, selection, ("provider",))]
        return total_of(group.totals for group in providers), groups, providers

    total, groups, providers = stored(load, **where)
    if as_json:
        said = {"tenant": tenant, "user": user, **_sums(total), "by_provider": _by_name(providers)}
        print_json(said if by == "provider" else said | {f"by_{by}": _by_name(groups)})
    elif as_csv:
        _print_csv(by, groups)
    else:
        rows = [_cells(group.key[0], group.totals) for group in groups]
        heads = (by.upper(), "REQUESTS", "ATTEMPTS", "FAILURES", "IN TOKENS", "OUT TOKENS", "COST $")
        print_table(heads, [*rows, _cells("total", total)], right=range(1, len(heads)))


def _sums(totals: Totals) -> dict[str, Any]:
    return {name: getattr(totals, name) for name in _COLUMNS} | {
        "cost_nanos": totals.cost_nanos,
        "cost_usd": usd_decimal(totals.cost_nanos),
        "unpriced_attempts": totals.unpriced,
    }


def _by_name(groups: Sequence[Group]) -> dict[str, Any]:
    return {group.key[0]: _sums(group.totals) for group in groups}


def _cells(name: str, totals: Totals) -> tuple[str, ...]:
    shown = "".join(char if char.isprintable() else _NOT_SHOWN for char in name)
    counts = (f"{getattr(totals, column):,}" for column in _COLUMNS)
    # A plus says that some attempts are missing from the sum, since nobody knows their price.
    return (shown, *counts, format_usd(totals.cost_nanos) + ("+" if totals.unpriced else ""))


def _print_csv(by: Grouping, groups: Sequence[Group]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((by, *_COLUMNS, "cost_usd", "cost_nanos", "unpriced_attempts"))
    for group in groups:
        totals = group.totals
        counts = (getattr(totals, column) for column in _COLUMNS)
        cost = (format_usd(totals.cost_nanos), totals.cost_nanos, totals.unpriced)
        writer.writerow((_harmless(group.key[0]), *counts, *cost))


def _harmless(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text
