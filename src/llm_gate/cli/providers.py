"""`llm-gate providers`."""

from pathlib import Path

import click

from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import print_json, print_table
from llm_gate.configuration import ask_directory

HELP = """List every provider the gateway knows: whether it can be used now, and if not, what is missing.

A provider becomes usable when its key is set in the environment or in the file .env. Providers of your own
are written in llm-gate.toml. One that runs on a machine of your own is asked whether it is there.

\b
Examples:
  llm-gate providers
  llm-gate providers --json | jq -r '.[] | select(.enabled) | .name'
"""


@click.command(help=HELP)
@configuration_options
@json_option
def command(config: Path | None, no_env_file: bool, as_json: bool) -> None:
    """List the providers."""
    directory = ask_directory(source_of(config, no_env_file).read())
    entries = sorted(
        directory.catalog.providers.values(),
        key=lambda entry: (not directory.is_enabled(entry.name), entry.name),
    )
    found = [
        {
            "name": entry.name,
            "label": entry.label,
            "enabled": directory.is_enabled(entry.name),
            "hint": None if directory.is_enabled(entry.name) else directory.hint(entry.name),
            "aliases": list(entry.spec.aliases),
            "synthetic": entry.spec.synthetic,
        }
        for entry in entries
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        (str(row["name"]), str(row["label"]), "yes" if row["enabled"] else "no", str(row["hint"] or ""))
        for row in found
    ]
    print_table(("NAME", "LABEL", "ENABLED", "TO ENABLE"), rows)
