"""`llm-gate version`."""

import platform

import click

from llm_gate import __version__
from llm_gate.cli.output import print_json


@click.command(
    help="""Print the version of the gateway.

\b
Example:
  llm-gate version
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(as_json: bool) -> None:
    """Print the version of the gateway."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        click.echo(f"llm-gate {__version__}")
