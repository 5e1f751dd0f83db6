"""`llm-gate models`."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import print_json, print_table
from llm_gate.configuration import ask_directory
from llm_gate.domain.catalog import Model
from llm_gate.domain.money import format_usd, round_half_even, usd_decimal
from llm_gate.domain.pricing import Unit, price_for
from llm_gate.domain.usage import Usage
from llm_gate.engine.resolve import Directory

HELP = """List the models that can be used now, with their operations, context window and prices.

Prices are in US dollars for a million tokens; a dash means that the catalog knows none. Models that are not
listed can be used as well, under their provider's name: provider/model.

\b
Examples:
  llm-gate models
  llm-gate models --provider second --all
  llm-gate models --json | jq -r '.[].name'
"""

_MILLION = 1_000_000


class _Row(Struct, frozen=True, kw_only=True):
    model: Model
    enabled: bool
    input_nanos: int | None
    output_nanos: int | None
    replacement: str | None


@click.command(help=HELP)
@click.option("--provider", metavar="P", help="Only the models of this provider.")
@click.option("--all", "everything", is_flag=True, help="Also of providers that cannot be used now.")
@configuration_options
@json_option
def command(
    *, provider: str | None, everything: bool, config: Path | None, no_env_file: bool, as_json: bool
) -> None:
    """List the models."""
    directory = ask_directory(source_of(config, no_env_file).read())
    only = None if provider is None else _canonical(directory, provider)
    if only is not None and not everything and not directory.is_enabled(only):
        click.echo(
            f"provider {only!r} is not enabled: {directory.hint(only)}; --all lists its models",
            err=True,
        )
    today = datetime.now(UTC).date()
    rows = [row for row in _rows(directory, only, today) if row.enabled or everything]
    if as_json:
        print_json([_document(row) for row in rows])
        return
    print_table(
        ("NAME", "OPERATIONS", "CONTEXT", "IN $/1M", "OUT $/1M", ""),
        [_cells(row) for row in rows],
        right=(2, 3, 4),
    )


def _canonical(directory: Directory, given: str) -> str:
    catalog = directory.catalog
    name = catalog.provider_aliases.get(given.lower(), given.lower())
    if name not in catalog.providers:
        known = ", ".join(sorted(catalog.providers))
        raise click.BadParameter(f"{given!r} is none of {known}", param_hint="--provider")
    return name


def _rows(directory: Directory, only: str | None, today: date) -> Iterator[_Row]:
    for offer in directory.offers():
        if only not in {None, offer.entry.name}:
            continue
        for model in offer.models:
            yield _Row(
                model=model,
                enabled=offer.has(model),
                input_nanos=_per_million(model, "input_tokens", today),
                output_nanos=_per_million(model, "output_tokens", today),
                replacement=model.replacement if model.is_retired(today) else None,
            )


def _per_million(model: Model, unit: Unit, today: date) -> int | None:
    price = price_for(model.prices, unit, Usage(), today)
    return None if price is None else round_half_even(price.nanos * _MILLION / price.per)


def _cells(row: _Row) -> tuple[str, ...]:
    model = row.model
    return (
        f"{model.provider}/{model.name}",
        ", ".join(model.operations),
        "-" if model.context_window is None else f"{model.context_window:,}",
        "-" if row.input_nanos is None else format_usd(row.input_nanos),
        "-" if row.output_nanos is None else format_usd(row.output_nanos),
        "" if row.replacement is None else f"retired: {row.replacement} answers",
    )


def _document(row: _Row) -> dict[str, Any]:
    model = row.model
    return {
        "name": f"{model.provider}/{model.name}",
        "provider": model.provider,
        "label": model.label,
        "enabled": row.enabled,
        "operations": model.operations,
        "abilities": sorted(model.abilities),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "input_usd_per_million": None if row.input_nanos is None else usd_decimal(row.input_nanos),
        "output_usd_per_million": None if row.output_nanos is None else usd_decimal(row.output_nanos),
        "retired_on": model.retired_on,
        "replacement": row.replacement,
    }
