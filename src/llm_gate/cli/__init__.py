"""The llm-gate command: its sub-commands by name, and what becomes of errors. Each sub-command has its own module."""

import importlib
import sys

import click

from llm_gate import __version__
from llm_gate.cli.output import fault_lines
from llm_gate.domain.errors import GateError, ProviderError
from llm_gate.settings import SettingsFaults

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 2

HELP = """One gateway to every AI vendor: exact costs, honest streams.

Without any configuration it answers through a built-in provider that needs no key. A vendor's key in the
environment, or in a file named .env, makes that vendor usable. Settings may also be written in llm-gate.toml.

\b
Examples:
  llm-gate serve                      run the gateway on 127.0.0.1:8080
  llm-gate chat "Why is the sky blue?"
  llm-gate image "A cat" -o cat.png   make a picture
  llm-gate providers                  what can be used, and what to set for the rest

Exit codes: 0 all went well, 1 the work failed, 2 the command line or the configuration is faulty.
"""

_COMMANDS = {
    "serve": "Run the gateway.",
    "chat": "Ask a model, here in the terminal.",
    "count": "Say how many tokens a text has.",
    "image": "Make pictures from words.",
    "edit": "Change pictures, or put a face into one.",
    "video": "Make a film.",
    "speak": "Read a text out.",
    "transcribe": "Write a recording down.",
    "search": "Search the web.",
    "research": "Answer a question from the web, with citations.",
    "jobs": "List, show and call off jobs.",
    "models": "List models with their prices.",
    "providers": "List providers and what each one lacks, or ask each one.",
    "explain": "Show who would be asked for a model, and why.",
    "keys": "Create, list, rotate and revoke the keys of callers.",
    "plans": "List, show and change plans.",
    "users": "Give users plans, and show which they have.",
    "credentials": "Store vendors' keys, encrypted.",
    "usage": "Show what was used, and what it cost.",
    "preflight": "Say whether planned operations may be done, and what they will cost.",
    "cache": "Show what is kept of answers, or throw it away.",
    "ledger": "Check the ledger.",
    "migrate": "Bring the store to the tables of this version.",
    "check": "Check the configuration.",
    "schema": "Print the JSON Schema of llm-gate.toml.",
    "version": "Print the version.",
}


class _Commands(click.Group):
    """Imports a command's module only when it is asked for: the server takes longer to load than most commands run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help text."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None for a name that is none."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="llm-gate", message="%(prog)s %(version)s")
def llm_gate() -> None:
    """Take the options that come before the command."""


def main() -> None:
    """Run the command line and exit the process."""
    try:
        llm_gate(prog_name="llm-gate")
    except SettingsFaults as faults:
        click.echo(fault_lines(faults), err=True)
        sys.exit(EXIT_CONFIGURATION)
    except GateError as error:
        detail = error.detail if isinstance(error, ProviderError) else ""
        text = error.message if detail in error.message else f"{error.message}: {detail}"
        click.echo(f"llm-gate: {' '.join(text.split())}", err=True)
        sys.exit(EXIT_FAILURE)
