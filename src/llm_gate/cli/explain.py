"""`llm-gate explain`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import uuid4

import click
import msgspec
from msgspec import structs

from llm_gate.bootstrap import build, memory_stores
from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import print_json, print_table
from llm_gate.configuration import placed_faults
from llm_gate.dialects.native_status import ExplainReply, explanation
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.catalog import Ability, Operation
from llm_gate.settings import PlanSettings, Settings

EXIT_NOBODY = 1

HELP = """Show who would be asked for MODEL, in order, and why each one was taken or left.

MODEL is what a call names: an alias, provider/model, a provider, a model's name, or default. Nobody is asked: this is
what the configuration says, without plans, and without what a running gateway knows of outages. For that, ask the
gateway: POST /llm-gate/v1/routes/explain. The exit code is 1 when there is nobody.

\b
Examples:
  llm-gate explain default
  llm-gate explain best --needs tools --needs json_schema
  llm-gate explain best --fallback sandbox/ --json | jq -r '.targets[].name'
"""


@click.command(help=HELP, short_help="Show who would be asked for a model, and why.")
@click.argument("model")
@click.option(
    "--operation",
    type=click.Choice(get_args(Operation)),
    default="chat",
    show_default=True,
    help="What is to be done.",
)
@click.option(
    "--needs", type=click.Choice(get_args(Ability)), multiple=True, help="What the model must be able to do."
)
@click.option("--fallback", "fallbacks", metavar="MODEL", multiple=True, help="A name to try then.")
@configuration_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    model: str,
    operation: Operation,
    needs: tuple[Ability, ...],
    fallbacks: tuple[str, ...],
    config: Path | None,
    no_env_file: bool,
    as_json: bool,
) -> None:
    """Explain a name."""
    settings = source_of(config, no_env_file).read()
    with placed_faults(settings):
        found = asyncio.run(_explain(settings, model, operation, frozenset(needs), fallbacks))
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _print(found)
    if not found.targets:
        context.exit(EXIT_NOBODY)


async def _explain(
    settings: Settings,
    model: str,
    operation: Operation,
    needs: frozenset[Ability],
    fallbacks: tuple[str, ...],
) -> ExplainReply:
    # Plans stand in the store, which need not be there for this.
    gateway = build(structs.replace(settings, plans=PlanSettings()), stores=memory_stores())
    context = CallContext(
        request_id=str(uuid4()), caller=Caller(application="cli"), received_at=datetime.now(UTC), headers={}
    )
    try:
        found = await gateway.gate.explain(model, operation, context, needs=needs, fallbacks=fallbacks)
    finally:
        await gateway.close()
    return explanation(
        model,
        found.strategy,
        [(step.target, step.reason) for step in found.taken],
        [(left.name, left.reason) for left in found.left],
    )


def _print(found: ExplainReply) -> None:
    rows = [(str(each.position), each.name, each.deployment, each.reason) for each in found.targets]
    rows += [("-", each.name, "", f"left out: {each.reason}") for each in found.left]
    print_table(("", "NAME", "DEPLOYMENT", "WHY"), rows, right=(0,))
    if len(found.targets) > 1:
        click.echo(f"Strategy: {found.strategy}.")
