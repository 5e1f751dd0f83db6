"""`llm-gate plans`."""

from typing import Any

import click

from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.shapes import limit_text, pairs, plan_document
from llm_gate.cli.store import now_ms, settings_of, store_options, stored
from llm_gate.configuration import read_directory
from llm_gate.domain.administration import COMMAND_LINE, Act
from llm_gate.domain.errors import NotFound
from llm_gate.domain.money import format_usd
from llm_gate.domain.plan_tables import patched, read_patch
from llm_gate.domain.plans import Plan
from llm_gate.storage.opening import Store

HELP = """List, show and change plans: which limits a user has who holds them.

A limit is a whole number, US dollars where it is money, or `unlimited`; 0 means that the plan does not include the
thing. A change keeps what it does not name, makes the plan if there is none of that name, and reaches a running
gateway within a second.

\b
Examples:
  llm-gate plans list
  llm-gate plans show free
  llm-gate plans set team --set monthly_cost_usd=20 --set requests_per_minute=60 --set mode=strict
  llm-gate plans set team --set image_calls=0 --set text_calls=unlimited
"""


@click.group(help=HELP, short_help="List, show and change plans.")
def command() -> None:
    """Take a sub-command."""


@command.command("list")
@store_options
def list_plans(*, as_json: bool, **where: Any) -> None:
    """List plans, the cheapest first."""
    plans = stored(lambda store: store.directives.plans(), **where)
    if as_json:
        print_json([plan_document(plan) for plan in plans])
        return
    print_table(
        ("NAME", "TIER", "$/MONTH", "COST CAP", "TEXT", "IMAGES", "MODE", "ORIGIN"), list(map(_row, plans))
    )


@command.command()
@click.argument("name")
@store_options
def show(*, name: str, as_json: bool, **where: Any) -> None:
    """Show a plan with all its limits."""
    name = name.lower()

    async def work(store: Store) -> Plan:
        plan = await store.directives.plan(name)
        if plan is None:
            known = ", ".join(each.name for each in await store.directives.plans())
            raise NotFound(f"there is no plan {name!r}; there are {known}")
        return plan

    _print_plan(stored(work, **where), as_json=as_json)


@command.command("set")
@click.argument("name")
@click.option(
    "--set", "changes", multiple=True, required=True, metavar="NAME=VALUE", help="A limit or a property."
)
@store_options
def set_plan(*, name: str, changes: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Change a plan, or make one."""
    settings = settings_of(where["config"], where["no_env_file"], where["data_dir"])
    patch = read_patch(pairs(changes, "--set"), read_directory(settings).catalog.providers)
    name, at_ms = name.lower(), now_ms()
    act = Act(actor=COMMAND_LINE, action="plan.set", at_ms=at_ms)

    async def work(store: Store) -> Plan:
        return await store.administration.change_plan(
            name, lambda before: patched(before, name, patch, at_ms), act
        )

    _print_plan(stored(work, **where), as_json=as_json)


def _row(plan: Plan) -> tuple[str, ...]:
    limits = plan.limits.values
    cost = limits.get("monthly_cost_usd")
    return (
        plan.name,
        plan.tier,
        format_usd(plan.price_monthly_nanos),
        "unlimited" if cost is None else format_usd(cost),
        limit_text("text_calls", limits.get("text_calls")),
        limit_text("image_calls", limits.get("image_calls")),
        plan.mode,
        plan.origin,
    )


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan_document(plan))
        return
    output = "unlimited" if plan.max_output_tokens is None else f"{plan.max_output_tokens:,}"
    heads = {
        "plan": f"{plan.name} ({plan.label}), tier {plan.tier}, {plan.origin}",
        "price": f"{format_usd(plan.price_monthly_nanos)} USD a month, {format_usd(plan.price_yearly_nanos)} a year",
        "mode": plan.mode,
        "max_output_tokens": output,
        "allowed_models": ", ".join(plan.allowed_models) or "all",
        "features": ", ".join(plan.features) or "-",
    }
    for head, text in heads.items():
        click.echo(f"{head:<18} {text}")
    click.echo()
    rows = [(name, limit_text(name, value)) for name, value in sorted(plan.limits.values.items())]
    if rows:
        print_table(("LIMIT", "VALUE"), rows, right=(1,))
    else:
        click.echo("no limits")
