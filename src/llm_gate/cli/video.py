"""`llm-gate video`: a film from words or a picture, made as a job that this process follows; no server is needed."""

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from llm_gate.bootstrap import Gateway
from llm_gate.cli.making import (
    File,
    Told,
    check_places,
    force_option,
    given,
    model_option,
    new_context,
    output_option,
    print_files,
    save,
    size_option,
    sized,
    with_gateway,
    words,
)
from llm_gate.cli.store import settings_of, store_options
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import GateError, NotFound
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.domain.media import Given, Medium, VideoRequest

EXIT_INTERRUPTED = 130

HELP = """Make a film from PROMPT, and from a picture with --image; - reads the prompt from standard input.

A film is a job. This command hands it in, follows it and writes what came of it. Ctrl-C leaves the job running: the
vendor goes on, and bills it. "llm-gate jobs show ID --wait -o FILE" fetches the film later, and "llm-gate jobs cancel
ID" calls the job off. The exit code is 130 then.

\b
Examples:
  llm-gate video "Waves at dawn" -o waves.mp4
  llm-gate video "It begins to rain" -o rain.mp4 --image street.jpg --duration 5 --resolution 720p
"""

_LOOK_S = 0.2
_SHOWN_EVERY = 10
_WHOLE = 100

Show = Callable[[Job], None]


@click.command(help=HELP, short_help="Make a film.")
@click.argument("prompt")
@output_option
@model_option
@click.option("--duration", "duration_s", type=click.IntRange(1), metavar="S", help="How long, in seconds.")
@click.option("--resolution", metavar="STEP", help="The vendor's step, such as 720p.")
@click.option("--aspect-ratio", metavar="W:H", help="Such as 16:9.")
@size_option
@click.option("--image", type=given, metavar="FILE|URL", help="The picture to begin with.")
@click.option("--audio", type=given, metavar="FILE|URL", help="What is to be heard.")
@click.option("--negative", "negative_prompt", metavar="TEXT", help="What is not to be seen.")
@click.option("--guidance-scale", type=float, metavar="X", help="How closely to follow the prompt.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="How many steps to take.")
@click.option("--seed", type=int, metavar="N", help="The same seed tends to give the same film.")
@click.option("--generate-audio/--no-generate-audio", default=None, help="Whether the vendor adds sound.")
@force_option
@store_options
def command(  # noqa: PLR0913 - one for each option
    *,
    prompt: str,
    output: Path,
    model: str,
    image: Given | None,
    audio: Given | None,
    force: bool,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Make a film."""
    settings = settings_of(config, no_env_file, data_dir)
    request = VideoRequest(
        model=model, prompt=words(prompt, "prompt"), image=image, audio=audio, **sized(wish)
    )
    check_places([output], force=force)
    started_s = time.monotonic()

    async def work(gateway: Gateway) -> tuple[Job, bytes]:
        context = new_context()
        job = await _submitted(gateway, request, context, output)
        return await followed(gateway, job, context.caller, output)

    with left_alone():
        job, data = with_gateway(settings, work)
    print_film(job, data, output, force=force, as_json=as_json, time_s=time.monotonic() - started_s)


async def _submitted(gateway: Gateway, request: VideoRequest, context: CallContext, output: Path) -> Job:
    """Hand a film in. Whoever leaves meanwhile still learns of the job: it goes on by itself."""
    submitting = asyncio.ensure_future(gateway.gate.submit(request, context))
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        (job,) = await asyncio.gather(submitting, return_exceptions=True)
        if isinstance(job, Job):
            _say_goes_on(job, output)
        raise


async def followed(gateway: Gateway, job: Job, caller: Caller, output: Path | None) -> tuple[Job, bytes]:
    """Follow a job to its end, showing how far it is, and return it with what it made.

    Raises:
        GateError: it failed or was called off, or what it made is not kept any more.
    """
    click.echo(f"job {job.id}: {job.provider}/{job.model}", err=True)
    try:
        with _progress() as show:
            show(job)
            while not _has_ended(job):
                await asyncio.sleep(_LOOK_S)
                job = gateway.gate.known_job(job.id) or await gateway.gate.jobs.find(job.id, caller)
                show(job)
    except asyncio.CancelledError:
        _say_goes_on(job, output)
        raise
    return job, await film_of(gateway, job)


async def film_of(gateway: Gateway, job: Job) -> bytes:
    """Return what a job made.

    Raises:
        GateError: it has not succeeded (yet), or what it made is not kept any more.
    """
    if job.status != "succeeded" or job.made is None:
        why = f": {job.error_message}" if job.error_message else ""
        raise GateError(f"job {job.id} is {job.status}{why}")
    found = await gateway.keeping.read(job.made.blob)
    if found is None:
        raise NotFound(f"what job {job.id} made is not kept any more")
    return found[1]


def _has_ended(job: Job) -> bool:
    """Tell whether nothing more is to be waited for; a webhook that is told for a day is not."""
    return job.is_over or (job.status in TERMINAL and job.webhook is not None)


def _say_goes_on(job: Job, output: Path | None) -> None:
    place = "FILE" if output is None else shlex.quote(str(output))
    click.echo(
        f"\njob {job.id} goes on at {job.provider}; to fetch what it makes:"
        f" llm-gate jobs show {job.id} --wait -o {place}",
        err=True,
    )


@contextmanager
def left_alone() -> Iterator[None]:
    """Let Ctrl-C end the process with the exit code that shells know for it."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


@contextmanager
def _progress() -> Iterator[Show]:
    """Show on standard error how far a job is: a bar in a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    with click.progressbar(
        length=_WHOLE, file=sys.stderr, show_eta=False, item_show_func=lambda message: message or ""
    ) as bar:
        yield lambda job: bar.update(max(0, int(job.progress) - bar.pos), job.message)


def _lines() -> Show:
    """Return what writes a line where a job's words change, or where it is a good way further."""
    shown: tuple[str, int] | None = None

    def show(job: Job) -> None:
        nonlocal shown
        state = (job.message, int(job.progress) // _SHOWN_EVERY)
        if state != shown:
            shown = state
            click.echo(f"{job.progress:3.0f} %  {job.message}", err=True)

    return show


def print_film(job: Job, data: bytes, output: Path, *, force: bool, as_json: bool, time_s: float) -> None:
    """Write what a job made, and say who made it."""
    made = job.made
    assert made is not None  # noqa: S101 - it was read
    facts = {"width": made.width, "height": made.height, "duration_s": made.duration_s}
    file = File(path=save(output, data, force=force), medium=Medium(data=data, type=made.type), facts=facts)
    told = Told(
        provider=job.provider,
        model=job.model,
        nanos=job.charged_nanos,
        synthetic=job.synthetic,
        time_s=time_s,
    )
    print_files(told, [file], as_json=as_json, more={"job": job.id})
