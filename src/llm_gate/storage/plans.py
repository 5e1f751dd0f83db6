"""Puts plans into a store that nobody typed in: those it begins with, and those of the configuration file."""

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files

import msgspec
from msgspec import structs

from llm_gate.domain.administration import CONFIGURATION, Act
from llm_gate.domain.plan_tables import PlanTable, plan_from
from llm_gate.domain.plans import Plan
from llm_gate.storage.administration import change_plan
from llm_gate.storage.changes import Changes, change_now
from llm_gate.storage.database import Database
from llm_gate.storage.directives import stored_plans


def shipped_plans() -> Mapping[str, PlanTable]:
    """Return the plans that a new store begins with."""
    text = files("llm_gate.storage").joinpath("plans.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, PlanTable])


def seed_plans(database: Database, at_ms: int) -> None:
    """Add the shipped plans that are missing; those that are there stay as they are."""

    def work(changes: Changes) -> None:
        for name, table in shipped_plans().items():
            change_plan(changes, name, _unless_there(name, table, at_ms))

    change_now(database, Act(actor=CONFIGURATION, action="plan.ship", at_ms=at_ms), work)


def apply_plans(
    database: Database, tables: Mapping[str, PlanTable], at_ms: int, *, releasing: bool = True
) -> None:
    """Make the plans of the configuration file what it says.

    With `releasing`, one that it says no more is the operator's to change from now on.
    """
    if _is_applied(database, tables, at_ms, releasing=releasing):
        return

    def work(changes: Changes) -> None:
        for name, table in tables.items():
            change_plan(changes, name, _as_written(name, table, at_ms))
        for plan in stored_plans(changes.connection):
            if releasing and plan.origin == "file" and plan.name not in tables:
                change_plan(changes, plan.name, _released(plan))

    change_now(database, Act(actor=CONFIGURATION, action="plan.set", at_ms=at_ms), work)


def _is_applied(database: Database, tables: Mapping[str, PlanTable], at_ms: int, *, releasing: bool) -> bool:
    """Tell whether there is nothing to do, without waiting for anyone's change."""
    plans = {plan.name: plan for plan in database.ask(stored_plans)}
    written = all(
        _as_written(name, table, at_ms)(plans.get(name)) is plans.get(name) for name, table in tables.items()
    )
    left = [name for name, plan in plans.items() if plan.origin == "file" and name not in tables]
    return written and not (releasing and left)


def _as_written(name: str, table: PlanTable, at_ms: int) -> Callable[[Plan | None], Plan]:
    return lambda before: plan_from(name, table, before, origin="file", at_ms=at_ms)


def _unless_there(name: str, table: PlanTable, at_ms: int) -> Callable[[Plan | None], Plan]:
    return lambda before: before or plan_from(name, table, None, origin="shipped", at_ms=at_ms)


def _released(plan: Plan) -> Callable[[Plan | None], Plan]:
    return lambda _: structs.replace(plan, origin="operator")
