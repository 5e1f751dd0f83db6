"""`llm-gate preflight`."""

import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
import msgspec

from llm_gate.bootstrap import access_rules
from llm_gate.cli.output import print_table
from llm_gate.cli.store import now_ms, settings_of, store_options, stored, tenant_option
from llm_gate.configuration import read_directory
from llm_gate.dialects.native_quotes import decode_quote, encode_quote
from llm_gate.dialects.subscription_preflight import decode_preflight, encode_preflight
from llm_gate.domain.access import LOCAL_APPLICATION, Caller
from llm_gate.domain.money import format_usd
from llm_gate.domain.preflight import Asked, Line, Preflight
from llm_gate.engine.access import Access
from llm_gate.engine.preflight import named, preflight
from llm_gate.storage.ledger import StoredLedger
from llm_gate.storage.opening import Store

EXIT_REFUSED = 1

HELP = """Say whether planned operations may be done, and what they will cost.

FILE is JSON (`-` reads it from standard input): the body of `POST /llm-gate/v1/quotes`, or that of `POST
/api/subscription/preflight-check`. Nothing is sent or held. The exit code is 1 when one operation may not be done.

\b
Examples:
  llm-gate preflight plan.json --user ann
  echo '{"operations": [{"operation": "image", "count": 4}]}' | llm-gate preflight - --json
"""


@click.command(help=HELP, short_help="Say whether planned operations may be done, and what they cost.")
@click.argument("file", type=click.File("rb"))
@click.option("--user", metavar="USER", default=LOCAL_APPLICATION, help="On whose behalf.")
@click.option("--client", metavar="ID", default=LOCAL_APPLICATION, help="The application that would call.")
@tenant_option
@store_options
def command(*, file: BinaryIO, user: str, client: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Look at the operations of a file."""
    settings = settings_of(**where)
    directory = read_directory(settings)
    body = file.read()
    listed = decode_preflight(body, directory) if _is_subscriptions(body) else None
    asked: list[Asked] = decode_quote(body, directory)[1] if listed is None else listed[1]
    operations = [named(index, each, directory) for index, each in enumerate(asked)]

    async def look(store: Store) -> Preflight:
        access = Access(
            directives=store.directives,
            digest=store.pepper.key_hash,
            rules=access_rules(settings),
            now_ms=now_ms,
        )
        await access.start()
        try:
            return await preflight(
                operations,
                caller=Caller(tenant=tenant, application=client, user=user),
                standings=access,
                ledger=StoredLedger(store.database, owner="", new_id=str),
                directory=directory,
                at=datetime.now(UTC),
            )
        finally:
            await access.close()

    found = stored(look, **where)
    if as_json:
        reply = encode_quote(found) if listed is None else encode_preflight(listed[0], found)
        click.echo(msgspec.json.format(reply, indent=2).decode())
    else:
        _print(found)
    if not found.can_proceed:
        sys.exit(EXIT_REFUSED)


def _is_subscriptions(body: bytes) -> bool:
    """Tell whether a body is that of the subscription API: it calls providers by a word alone."""
    try:
        operations = msgspec.json.decode(body).get("operations")
        return bool(operations) and isinstance(operations[0]["provider"], str)
    except (msgspec.DecodeError, AttributeError, LookupError, TypeError):
        return False


def _print(found: Preflight) -> None:
    heads = ("", "OPERATION", "MODEL", "AT LEAST", "EXPECTED", "AT MOST", "")
    print_table(heads, [_row(line) for line in found.lines], right=(3, 4, 5))
    for index, line in enumerate(found.lines):
        if line.refusal is not None:
            click.echo(f"operations[{index}]: {line.refusal.message}")
    cost = found.cost
    total = "unknown: a price is missing" if cost is None else f"at most {format_usd(cost.max_nanos)} USD"
    verdict = "may be done" if found.can_proceed else "may not all be done"
    click.echo(f"Under plan {found.standing.plan.name} they {verdict}; they cost {total}.")


def _row(line: Line) -> tuple[str, ...]:
    cost, model = line.cost, line.estimate.model
    figures = (
        ("-", "-", "-")
        if cost is None
        else tuple(map(format_usd, (cost.min_nanos, cost.expected_nanos, cost.max_nanos)))
    )
    return (
        "yes" if line.is_allowed else "no",
        line.estimate.operation,
        f"{model.provider}/{model.name}",
        *figures,
        "" if line.estimate.is_configured else "not configured",
    )
