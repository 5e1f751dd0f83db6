"""`llm-gate providers`."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from msgspec import Struct

from llm_gate.bootstrap import Gateway, build
from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import print_json, print_table
from llm_gate.configuration import ask_directory, placed_faults
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import GateError, ProviderError
from llm_gate.domain.messages import Conversation, Message, TextPart
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.policy import AttemptPolicy
from llm_gate.domain.pricing import Cost
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.engine.answer import Answer
from llm_gate.engine.resolve import Directory
from llm_gate.settings import Settings

EXIT_FAILURES = 1
CHECK_TIMEOUT_S = 30.0

HELP = """List every provider the gateway knows: whether it can be used now, and if not, what is missing.

A provider becomes usable when its key is set in the environment or in the file .env. Providers of your own
are written in llm-gate.toml. One that runs on a machine of your own is asked whether it is there.

With --check, each usable provider is asked once: for its list of models where the gateway knows how, else its default
model for an answer of at most 16 tokens, which the vendor charges and the ledger records. The exit code is 1 when one
of them does not answer.

\b
Examples:
  llm-gate providers
  llm-gate providers --check
  llm-gate providers --json | jq -r '.[] | select(.enabled) | .name'
"""

# The smallest limit that every vendor takes.
_MOST_TOKENS = 16
_ONCE = AttemptPolicy(tries=1, last_tries=1)


class Checked(Struct, frozen=True, kw_only=True):
    """What came of asking one provider. `is_ok` is None where there was nothing to ask for."""

    name: str
    asked: str
    is_ok: bool | None
    reason: str = ""
    time_ms: float | None = None
    is_charged: bool = True
    cost: Cost | None = None


@click.command(help=HELP)
@click.option("--check", is_flag=True, help="Ask each usable provider once; vendors charge a little for it.")
@configuration_options
@json_option
def command(config: Path | None, no_env_file: bool, *, check: bool, as_json: bool) -> None:
    """List the providers."""
    settings = source_of(config, no_env_file).read()
    if check:
        _check(settings, as_json=as_json)
        return
    directory = ask_directory(settings)
    entries = sorted(
        directory.catalog.providers.values(),
        key=lambda entry: (not directory.is_enabled(entry.name), entry.name),
    )
    found = [
        {
            "name": entry.name,
            "label": entry.label,
            "enabled": directory.is_enabled(entry.name),
            "hint": None if directory.is_enabled(entry.name) else directory.hint(entry.name),
            "aliases": list(entry.spec.aliases),
            "synthetic": entry.spec.synthetic,
        }
        for entry in entries
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        (str(row["name"]), str(row["label"]), "yes" if row["enabled"] else "no", str(row["hint"] or ""))
        for row in found
    ]
    print_table(("NAME", "LABEL", "ENABLED", "TO ENABLE"), rows)


def _check(settings: Settings, *, as_json: bool) -> None:
    # What fails is said once, in the table; without a handler, warnings would be printed as well.
    logging.getLogger("llm_gate").addHandler(logging.NullHandler())
    # Who is there at all is asked beforehand, with connections of its own.
    there = ask_directory(settings)
    with placed_faults(settings):
        checked = asyncio.run(_check_all(settings, there))
    if as_json:
        print_json([_document(each) for each in checked])
    else:
        print_table(
            ("NAME", "ASKED FOR", "OK", "MS", "USD", ""), [_row(each) for each in checked], right=(3, 4)
        )
        click.echo(_sum(checked))
    if any(each.is_ok is False for each in checked):
        sys.exit(EXIT_FAILURES)


async def _check_all(settings: Settings, there: Directory) -> list[Checked]:
    gateway = build(settings)
    try:
        await gateway.start()
        return await asyncio.gather(*(_check_one(name, gateway, there) for name in sorted(there.deployments)))
    finally:
        await gateway.close()


async def _check_one(name: str, gateway: Gateway, there: Directory) -> Checked:
    """Ask one provider: who can be asked for its models was asked already, the others give a short answer."""
    if there.deployments[name][0].codecs.presence is not None:
        trouble = there.presence.trouble(name)
        return Checked(
            name=name, asked="its models", is_ok=trouble is None, reason=trouble or "", is_charged=False
        )
    model = there.default_model(name, "chat")
    if model is not None:
        return await _ask(
            gateway,
            name,
            ChatRequest(
                model=f"{name}/{model}",
                conversation=Conversation(lambda: (Message(role="user", parts=(TextPart(text="Hi"),)),)),
                max_output_tokens=_MOST_TOKENS,
            ),
        )
    model = there.default_model(name, "embedding")
    if model is not None:
        return await _ask(gateway, name, EmbeddingRequest(model=f"{name}/{model}", inputs=("Hi",)))
    return Checked(name=name, asked="", is_ok=None, reason="it has no default model", is_charged=False)


async def _ask(gateway: Gateway, name: str, request: ChatRequest | EmbeddingRequest) -> Checked:
    context = CallContext(
        request_id=str(uuid4()),
        caller=Caller(application="cli"),
        received_at=datetime.now(UTC),
        headers={},
        timeout_s=CHECK_TIMEOUT_S,
        policy=_ONCE,
    )
    started_s = time.monotonic()
    gate = gateway.gate
    answer: Answer[Any]
    try:
        if isinstance(request, ChatRequest):
            answer = await gate.chat(request, context)
        else:
            answer = await gate.embed(request, context)
    except GateError as error:
        return Checked(name=name, asked=request.model, is_ok=False, reason=_text(error), is_charged=False)
    time_ms = round((time.monotonic() - started_s) * 1000, 1)
    return Checked(name=name, asked=request.model, is_ok=True, time_ms=time_ms, cost=answer.cost)


def _text(error: GateError) -> str:
    detail = error.detail if isinstance(error, ProviderError) else ""
    text = error.message if detail in error.message else f"{error.message}: {detail}"
    return " ".join(text.split())


def _row(checked: Checked) -> tuple[str, ...]:
    word = "-" if checked.is_ok is None else "yes" if checked.is_ok else "no"
    time_ms = "" if checked.time_ms is None else f"{checked.time_ms:.0f}"
    return (checked.name, checked.asked, word, time_ms, _usd(checked), checked.reason)


def _usd(checked: Checked) -> str:
    if not checked.is_charged:
        return ""
    return "unknown" if checked.cost is None else format_usd(checked.cost.nanos)


def _sum(checked: list[Checked]) -> str:
    costs = [each.cost for each in checked if each.is_charged]
    known = sum(cost.nanos for cost in costs if cost is not None)
    unknown = sum(cost is None for cost in costs)
    rest = f", and what {unknown} more cost is unknown" if unknown else ""
    return f"The check cost {format_usd(known)} USD{rest}."


def _document(checked: Checked) -> dict[str, Any]:
    cost = checked.cost
    return {
        "name": checked.name,
        "asked": checked.asked or None,
        "ok": checked.is_ok,
        "reason": checked.reason or None,
        "time_ms": checked.time_ms,
        "cost_usd": None if cost is None else usd_decimal(cost.nanos),
    }
