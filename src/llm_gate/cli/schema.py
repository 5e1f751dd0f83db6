"""`llm-gate schema`."""

import click

from llm_gate.cli.output import print_json
from llm_gate.settings.published import config_schema


@click.command(
    help="""Print the JSON Schema of llm-gate.toml.

Editors complete and check the file with it: name it in the first line, as
`#:schema ./llm-gate.schema.json`.

\b
Example:
  llm-gate schema > llm-gate.schema.json
"""
)
def command() -> None:
    """Print the JSON Schema of llm-gate.toml."""
    print_json(config_schema())
