"""`llm-gate keys`."""

from pathlib import Path
from typing import Any, cast, get_args

import click

from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.shapes import Duration, day_text, key_document, key_state, names, read_limits, time_text
from llm_gate.cli.store import keys_of, now_ms, settings_of, store_options, stored, tenant_option
from llm_gate.configuration import read_directory
from llm_gate.domain.access import KeyScope, VirtualKey
from llm_gate.domain.errors import NotFound
from llm_gate.engine.keys import OVERLAP_S, IssuedKey, KeyRequest
from llm_gate.storage.opening import Store

HELP = """Create, list, rotate and revoke the keys that callers present.

As soon as one key exists, every caller must present one: as `Authorization: Bearer KEY` or `x-api-key: KEY`. A key
is shown once, when it is created, and kept nowhere. Changes reach a running gateway within a second.

\b
Examples:
  llm-gate keys create --admin
  llm-gate keys create --client shop --user ann --limit requests_per_minute=60
  llm-gate keys list
  llm-gate keys rotate key_0123456789abcdef
  llm-gate keys revoke key_0123456789abcdef
"""
_PAGE = 500
_OPERATION = click.argument("key_id", metavar="ID")
_ANY_TENANT = click.option("--tenant", metavar="T", help="Only a key of this tenant.  [default: any]")


@click.group(help=HELP, short_help="Create, list, rotate and revoke keys.")
def command() -> None:
    """Take a sub-command."""


@command.command()
@click.option("--client", metavar="C", help="The application (client_id) that the key is for.")
@click.option("--user", metavar="U", help="Bind the key to one user.  [default: the caller names its users]")
@click.option("--name", metavar="TEXT", default="", help="A name for people.")
@click.option(
    "--scope", "scopes", metavar="S,S", help="inference, usage:read, metrics:read, admin, operator."
)
@click.option("--admin", is_flag=True, help="A key that also administers its tenant.")
@click.option("--all-tenants", is_flag=True, help="With --admin: one that administers every tenant.")
@click.option("--models", metavar="M,M", help="Only these models; `*` at the end stands for any rest.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="A quota of the key's own.")
@click.option(
    "--expires-in", type=Duration(), metavar="TIME", help="When it ends, such as 90d.  [default: never]"
)
@tenant_option
@store_options
def create(
    *,
    client: str | None,
    scopes: str | None,
    admin: bool,
    all_tenants: bool,
    limits: tuple[str, ...],
    expires_in: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Create a key and print it, this once."""
    if client is None and not admin:
        raise click.UsageError(
            "name the application with --client, or make an administrator's key with --admin"
        )
    if all_tenants and not admin:
        raise click.UsageError("--all-tenants goes with --admin")
    own = {name: options.pop(name) for name in ("user", "name", "tenant")}
    models = names(options.pop("models"))
    request = KeyRequest(
        application=client or "admin",
        scopes=_scopes(scopes, admin=admin, all_tenants=all_tenants),
        allowed_models=models,
        limits=read_limits(limits, _providers(options)) if limits else {},
        expires_at_ms=None if expires_in is None else now_ms() + expires_in * 1000,
        **own,
    )
    issued = stored(lambda store: keys_of(store).issue(request), **options)
    if as_json:
        print_json(_issued_document(issued))
        return
    _print_issued(issued)


@command.command("list")
@click.option("--all-tenants", is_flag=True, help="The keys of every tenant.")
@tenant_option
@store_options
def list_keys(*, all_tenants: bool, tenant: str, as_json: bool, **where: Any) -> None:
    """List keys, also those that do not work any more."""
    wanted = None if all_tenants else tenant

    async def work(store: Store) -> list[VirtualKey]:
        found: list[VirtualKey] = []
        while page := await keys_of(store).list(
            tenant=wanted, after=found[-1].id if found else "", limit=_PAGE
        ):
            found += page
        return found

    keys = stored(work, **where)
    now = now_ms()
    if as_json:
        print_json([key_document(key, now) for key in keys])
        return
    if not keys:
        click.echo("There are no keys yet: llm-gate keys create --admin")
        return
    rows = [
        (
            key.id,
            f"{key.prefix}…",
            key.tenant,
            key.application,
            key.user or "any",
            ",".join(sorted(key.scopes)),
            key_state(key, now),
            day_text(key.created_at_ms),
            day_text(key.retires_at_ms or key.expires_at_ms),
            key.name,
        )
        for key in keys
    ]
    print_table(("ID", "KEY", "TENANT", "CLIENT", "USER", "SCOPES", "STATE", "CREATED", "ENDS", "NAME"), rows)


@command.command()
@_OPERATION
@click.option(
    "--overlap",
    type=Duration(),
    default=OVERLAP_S,
    metavar="TIME",
    help="How long the old key goes on working; 0 ends it at once.  [default: 24h]",
)
@_ANY_TENANT
@store_options
def rotate(*, key_id: str, overlap: int, tenant: str | None, as_json: bool, **where: Any) -> None:
    """Create a key in place of another, and print it, this once."""

    async def work(store: Store) -> tuple[IssuedKey, VirtualKey | None]:
        await _check_tenant(store, tenant, key_id)
        issued = await keys_of(store).rotate(key_id, overlap_s=overlap)
        return issued, await store.administration.key(None, key_id)

    issued, old = stored(work, **where)
    ends_ms = None if old is None else old.retires_at_ms
    if as_json:
        document = {"replaces": key_id, "old_key_ends_at": time_text(ends_ms)}
        print_json({**_issued_document(issued), **document})
        return
    _print_issued(issued)
    click.echo(f"{key_id} ends {'now' if overlap == 0 else f'at {day_text(ends_ms)} UTC'}.")


@command.command()
@_OPERATION
@_ANY_TENANT
@store_options
def revoke(*, key_id: str, tenant: str | None, as_json: bool, **where: Any) -> None:
    """End a key at once."""

    async def work(store: Store) -> VirtualKey:
        await _check_tenant(store, tenant, key_id)
        return await keys_of(store).revoke(key_id)

    key = stored(work, **where)
    if as_json:
        print_json(key_document(key, now_ms()))
    else:
        click.echo(f"revoked {key.id} ({key.prefix}…)")


async def _check_tenant(store: Store, tenant: str | None, key_id: str) -> None:
    if tenant is not None and await store.administration.key(tenant, key_id) is None:
        raise NotFound(f"there is no key {key_id!r} in tenant {tenant!r}")


def _scopes(given: str | None, *, admin: bool, all_tenants: bool) -> frozenset[KeyScope]:
    wanted = set(names(given)) if given is not None else {"inference", "usage:read"}
    unknown = wanted - set(get_args(KeyScope))
    if unknown or not wanted:
        raise click.BadParameter(f"expected some of {', '.join(get_args(KeyScope))}", param_hint="--scope")
    wanted |= ({"admin"} if admin else set()) | ({"operator"} if all_tenants else set())
    return cast("frozenset[KeyScope]", frozenset(wanted))


def _providers(where: dict[str, Any]) -> frozenset[str]:
    config: Path | None = where["config"]
    settings = settings_of(config, where["no_env_file"], where["data_dir"])
    return frozenset(read_directory(settings).catalog.providers)


def _issued_document(issued: IssuedKey) -> dict[str, Any]:
    return {"key": issued.text.reveal(), **key_document(issued.key, now_ms())}


def _print_issued(issued: IssuedKey) -> None:
    key = issued.key
    click.echo(f"{issued.text.reveal()}\n")
    click.echo("This key is shown once and kept nowhere.", err=True)
    click.echo(
        f"id {key.id}, tenant {key.tenant}, client {key.application}, user {key.user or 'any'}, "
        f"scopes {', '.join(sorted(key.scopes))}"
    )
