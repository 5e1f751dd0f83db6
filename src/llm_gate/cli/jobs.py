"""`llm-gate jobs`: the films that were handed in on this machine, how they stand, and their end."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from llm_gate.bootstrap import Gateway
from llm_gate.cli.making import check_places, force_option, new_context, with_gateway
from llm_gate.cli.output import print_json, print_table
from llm_gate.cli.store import settings_of, store_options
from llm_gate.cli.video import film_of, followed, left_alone, print_film
from llm_gate.dialects.native_jobs import job_reply
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.domain.money import format_usd
from llm_gate.domain.windows import instant

HELP = """List, show and call off jobs: the films that the commands of this machine, or local callers, handed in.

A job goes on at its vendor whoever looks. It is brought to its end here by "llm-gate video", by a running gateway, or
by "llm-gate jobs show ID --wait"; until then it is shown as it was last seen.

\b
Examples:
  llm-gate jobs list
  llm-gate jobs show ID --wait -o film.mp4
  llm-gate jobs cancel ID
"""

_MOST_LISTED = 100
_PROMPT_CHARS = 40
_LOOK_S = 0.2
# A little longer than a gateway that works on the job takes to see that it is not wanted.
_CANCEL_WITHIN_S = 4.0


@click.group(help=HELP, short_help="List, show and call off jobs.")
def command() -> None:
    """Take the options that come before the command."""


@command.command("list")
@click.option(
    "--limit", type=click.IntRange(1, _MOST_LISTED), default=20, show_default=True, help="How many."
)
@store_options
def list_jobs(*, limit: int, as_json: bool, **where: Any) -> None:
    """List jobs, the newest first."""

    async def work(gateway: Gateway) -> tuple[Job, ...]:
        return await gateway.gate.jobs.listed(new_context().caller, limit=limit)

    found = with_gateway(settings_of(**where), work, starting=False)
    if as_json:
        print_json([job_reply(job) for job in found])
    else:
        _print(found)


@command.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Follow it to its end.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write what it made.",
)
@force_option
@store_options
def show(*, job_id: str, wait: bool, output: Path | None, force: bool, as_json: bool, **where: Any) -> None:
    """Show how a job stands; with -o, write what it made."""
    if output is not None:
        check_places([output], force=force)
    started_s = time.monotonic()

    async def work(gateway: Gateway) -> tuple[Job, bytes | None]:
        caller = new_context().caller
        job = await gateway.gate.jobs.find(job_id, caller)
        if wait and job.status not in TERMINAL:
            return await followed(gateway, job, caller, output)
        return job, await film_of(gateway, job) if output is not None else None

    with left_alone():
        job, data = with_gateway(settings_of(**where), work, starting=wait)
    if output is not None and data is not None:
        print_film(job, data, output, force=force, as_json=as_json, time_s=time.monotonic() - started_s)
    else:
        _show(job, as_json=as_json)


@command.command()
@click.argument("job_id", metavar="ID")
@store_options
def cancel(*, job_id: str, as_json: bool, **where: Any) -> None:
    """Call a job off. A vendor that offers no way to stop it bills it all the same."""

    async def work(gateway: Gateway) -> Job:
        jobs, caller = gateway.gate.jobs, new_context().caller
        job = await jobs.cancel(job_id, caller)
        until_s = time.monotonic() + _CANCEL_WITHIN_S
        while job.status not in TERMINAL and time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
            job = await jobs.find(job_id, caller)
        return job

    job = with_gateway(settings_of(**where), work)
    _show(job, as_json=as_json)
    if job.status not in TERMINAL:
        click.echo("It will be called off by the gateway that works on it, or by the next one.", err=True)


def _print(jobs: Sequence[Job]) -> None:
    rows = [
        (
            job.id,
            job.status,
            f"{job.progress:.0f}",
            f"{job.provider}/{job.model}" if job.provider else job.model,
            instant(job.made_ms).strftime("%Y-%m-%d %H:%M"),
            _usd(job),
            _short(str(job.asked.get("prompt", ""))),
        )
        for job in jobs
    ]
    print_table(("ID", "STATUS", "%", "MODEL", "CREATED", "USD", "PROMPT"), rows, right=(2, 5))


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job_reply(job))
        return
    _print([job])
    said = job.error_message or job.message
    if said:
        click.echo(said)


def _usd(job: Job) -> str:
    """Return what a job came to, or what it will."""
    nanos = job.charged_nanos if job.status in TERMINAL else job.cost_nanos
    return "unknown" if nanos is None else format_usd(nanos)


def _short(text: str) -> str:
    """Return the beginning of a prompt, on one line and without what a terminal would obey."""
    plain = "".join(mark for mark in " ".join(text.split()) if mark.isprintable())
    return plain if len(plain) <= _PROMPT_CHARS else f"{plain[: _PROMPT_CHARS - 1]}…"
