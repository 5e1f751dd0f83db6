"""`llm-gate users`."""

from typing import Any

import click

from llm_gate.cli.output import print_json
from llm_gate.cli.shapes import day_text, plan_document, subscription_document, time_text
from llm_gate.cli.store import new_id, now_ms, settings_of, store_options, stored, tenant_option
from llm_gate.domain.administration import Change
from llm_gate.domain.plans import Cycle, Subscription
from llm_gate.engine.subscriptions import Subscriptions, SubscriptionStatus
from llm_gate.storage.opening import Store
from llm_gate.storage.reports import StoredReports

HELP = """Give users plans, and show which they have.

Users need not be created: a user is whoever a key or the header X-User-Id names. One without a subscription has the
plan of `[plans] default`. Changes reach a running gateway within a second.

\b
Examples:
  llm-gate users subscribe ann --plan pro
  llm-gate users subscribe bob --plan basic --cycle yearly --no-renew
  llm-gate users show ann
  llm-gate users cancel ann
"""


@click.group(help=HELP, short_help="Give users plans, and show which they have.")
def command() -> None:
    """Take a sub-command."""


@command.command()
@click.argument("user")
@click.option("--plan", metavar="NAME", required=True, help="The plan.")
@click.option(
    "--cycle",
    type=click.Choice(["monthly", "yearly"]),
    default="monthly",
    show_default=True,
    help="The term.",
)
@click.option("--no-renew", is_flag=True, help="End the subscription with its term.")
@tenant_option
@store_options
def subscribe(
    *, user: str, plan: str, cycle: Cycle, no_renew: bool, tenant: str, as_json: bool, **where: Any
) -> None:
    """Give a user a plan from now on; its periods begin now."""

    async def work(store: Store) -> Change:
        return await _subscriptions(store, where).subscribe(
            user, plan.lower(), tenant=tenant, cycle=cycle, auto_renew=not no_renew
        )

    change = stored(work, **where)
    held, line = change.subscription, change.renewal
    if as_json:
        history = (
            None if line is None else {"type": line.kind, "count": line.number, "from": line.previous_plan}
        )
        print_json(
            {
                "user": user,
                "tenant": tenant,
                "plan": held.plan,
                "subscription": subscription_document(held),
                "renewal": history,
            }
        )
        return
    click.echo(f"{user} has plan {held.plan} from {day_text(held.start_ms)} UTC, {_end(held)}")


@command.command()
@click.argument("user")
@tenant_option
@store_options
def show(*, user: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Show which plan a user has."""

    async def work(store: Store) -> SubscriptionStatus:
        return await _subscriptions(store, where).status(user, tenant=tenant)

    status = stored(work, **where)
    held, plan = status.subscription, status.plan
    if as_json:
        print_json(
            {
                "user": user,
                "tenant": tenant,
                "active": plan is not None and not status.has_lapsed,
                "plan": None if plan is None else plan_document(plan),
                "subscription": None if held is None else subscription_document(held),
                "period_start": time_text(status.period_start_ms),
                "period_end": time_text(status.period_end_ms),
            }
        )
        return
    name = "a plan that is gone" if plan is None else f"plan {plan.name}"
    if held is None:
        click.echo(f"{user} has no subscription: {name} applies")
        return
    lapsed = "which has run out; " if status.has_lapsed else ""
    click.echo(
        f"{user} has {name}, {lapsed}since {day_text(held.start_ms)} UTC, {_end(held)}; the present period ends "
        f"{day_text(status.period_end_ms)} UTC"
    )


@command.command()
@click.argument("user")
@tenant_option
@store_options
def cancel(*, user: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Let a user's subscription end with its present term."""
    _set_renewal(user, tenant, as_json, auto_renew=False, where=where)


@command.command()
@click.argument("user")
@tenant_option
@store_options
def resume(*, user: str, tenant: str, as_json: bool, **where: Any) -> None:
    """Let a user's subscription go on after its present term."""
    _set_renewal(user, tenant, as_json, auto_renew=True, where=where)


def _set_renewal(user: str, tenant: str, as_json: bool, *, auto_renew: bool, where: dict[str, Any]) -> None:
    async def work(store: Store) -> Subscription:
        return await _subscriptions(store, where).set_renewal(user, auto_renew=auto_renew, tenant=tenant)

    held = stored(work, **where)
    if as_json:
        print_json({"user": user, "tenant": tenant, "subscription": subscription_document(held)})
    else:
        click.echo(f"{user} has plan {held.plan}, {_end(held)}")


def _subscriptions(store: Store, where: dict[str, Any]) -> Subscriptions:
    settings = settings_of(where["config"], where["no_env_file"], where["data_dir"])
    return Subscriptions(
        directives=store.directives,
        administration=store.administration,
        usage=StoredReports(store.database),
        default_plan=settings.plans.default,
        now_ms=now_ms,
        new_id=new_id,
    )


def _end(held: Subscription) -> str:
    return f"{held.cycle}" if held.auto_renew else f"until {day_text(held.term_end_ms)} UTC"
