"""`llm-gate credentials`."""

import sys
from typing import Any

import click

from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.shapes import day_text, time_text
from llm_gate.cli.store import now_ms, settings_of, store_options, stored, tenant_option
from llm_gate.configuration import read_directory
from llm_gate.domain.administration import COMMAND_LINE, Act
from llm_gate.domain.secret import Secret
from llm_gate.storage.opening import Store

HELP = """Store vendors' keys, so that the gateway calls them with those of the tenant.

A tenant's own credential goes before the one of the environment. It is stored encrypted and never shown again.

\b
Examples:
  llm-gate credentials set openai < key.txt
  printf %s "$KEY" | llm-gate credentials set openai --tenant acme
  llm-gate credentials list
  llm-gate credentials remove openai --tenant acme
"""
_LONGEST_CHARS = 16_384


@click.group(help=HELP, short_help="Store vendors' keys, encrypted.")
def command() -> None:
    """Take a sub-command."""


@command.command("set")
@click.argument("provider")
@tenant_option
@store_options
def set_credential(*, provider: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Store a provider's credential; its value is read from standard input."""
    name = _provider(provider, where)
    secret = _value()
    act = Act(actor=COMMAND_LINE, action="credential.set", at_ms=now_ms())

    async def work(store: Store) -> None:
        await store.credentials.put(tenant, name, secret, act)

    stored(work, **where)
    if as_json:
        print_json({"tenant": tenant, "provider": name, "created_at": time_text(act.at_ms)})
    else:
        click.echo(f"the credential of {name} is stored for tenant {tenant}")


@command.command("list")
@click.option("--tenant", metavar="T", help="Only this tenant.  [default: all]")
@store_options
def list_credentials(*, tenant: str | None, as_json: bool, **where: Any) -> None:
    """List which credentials are stored; never what they are."""
    entries = stored(lambda store: store.credentials.entries(tenant), **where)
    if as_json:
        print_json(
            [
                {
                    "tenant": entry.tenant,
                    "provider": entry.provider,
                    "created_at": time_text(entry.created_at_ms),
                }
                for entry in entries
            ]
        )
        return
    rows = [(entry.tenant, entry.provider, day_text(entry.created_at_ms)) for entry in entries]
    if rows:
        print_table(("TENANT", "PROVIDER", "STORED"), rows)
    else:
        click.echo("No credentials are stored; those of the environment are used.")


@command.command()
@click.argument("provider")
@tenant_option
@store_options
def remove(*, provider: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Remove a provider's credential."""
    name = _provider(provider, where)
    act = Act(actor=COMMAND_LINE, action="credential.remove", at_ms=now_ms())
    was_there = stored(lambda store: store.credentials.remove(tenant, name, act), **where)
    if as_json:
        print_json({"tenant": tenant, "provider": name, "removed": was_there})
    else:
        click.echo(f"{'removed' if was_there else 'there was none'}: {name} of tenant {tenant}")


def _provider(given: str, where: dict[str, Any]) -> str:
    settings = settings_of(where["config"], where["no_env_file"], where["data_dir"])
    catalog = read_directory(settings).catalog
    name = catalog.provider_aliases.get(given.lower(), given.lower())
    if name not in catalog.providers:
        known = ", ".join(sorted(catalog.providers))
        raise click.BadParameter(f"{given!r} is none of {known}", param_hint="PROVIDER")
    return name


def _value() -> Secret:
    # On a terminal nothing is echoed; otherwise the value is what is piped in, without its line break.
    typed = sys.stdin.isatty()
    text = click.prompt("Credential", hide_input=True) if typed else sys.stdin.read(_LONGEST_CHARS + 1)
    text = text.strip()
    if not text or len(text) > _LONGEST_CHARS or not text.isprintable():
        raise click.UsageError("expected the credential on standard input: one line of printable characters")
    return Secret(text)
