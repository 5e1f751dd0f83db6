"""What the commands that make media share: what is given, the gateway, the files, and what is said of them."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar
from uuid import uuid4

import click
from msgspec import Struct

from llm_gate.bootstrap import Gateway, build
from llm_gate.cli.output import emphasised, print_json
from llm_gate.configuration import placed_faults
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import GateError
from llm_gate.domain.media import Given, ImageResult, Link, MediaRequest, MediaResult, Medium, Picture
from llm_gate.domain.media_types import UNKNOWN, type_of
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.operations import parse_size
from llm_gate.engine.answer import Answer
from llm_gate.engine.media import MOST_INPUT_BYTES
from llm_gate.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_MB = 1024 * 1024
_MOST_PICTURES = 10
_ENDINGS: dict[str, tuple[str, ...]] = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "video/quicktime": (".mov",),
    "audio/mpeg": (".mp3",),
    "audio/wav": (".wav",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "audio/opus": (".opus", ".ogg"),
    "audio/flac": (".flac",),
    "audio/aac": (".aac",),
    "audio/mp4": (".m4a", ".mp4"),
}


def given(value: str) -> Given:
    """Read a file, or take an http(s) address, which the gateway fetches.

    Raises:
        BadParameter: it cannot be read, is empty, or is larger than what is taken.
    """
    if value.startswith(("http://", "https://")):
        return Link(url=value)
    path = Path(value)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_INPUT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise click.BadParameter(f"{value!r} cannot be read: {reason}") from None
    if not data:
        raise click.BadParameter(f"{value!r} is empty")
    if len(data) > MOST_INPUT_BYTES:
        raise click.BadParameter(f"{value!r} is larger than {MOST_INPUT_BYTES // _MB} MiB")
    return Medium(data=data, type=type_of(data) or UNKNOWN, name=path.name)


def size(value: str) -> tuple[int, int]:
    """Read a size in pixels, such as 1024x768, as width and height.

    Raises:
        BadParameter: it is none.
    """
    found = parse_size(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no size; one is written as 1024x1024")
    return found


model_option = click.option(
    "--model", "-m", default="", metavar="MODEL", help="provider/model, a model's name, or an alias."
)
force_option = click.option("--force", is_flag=True, help="Overwrite files that are there already.")
output_option = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="Where to write what was made.",
)
size_option = click.option("--size", type=size, metavar="WxH", help="Width and height in pixels: 1024x1024.")
_PICTURE_OPTIONS = (
    size_option,
    click.option("-n", "n", type=click.IntRange(1, _MOST_PICTURES), default=1, help="How many pictures."),
    click.option("--aspect-ratio", metavar="W:H", help="Such as 16:9."),
    click.option("--resolution", metavar="STEP", help="The vendor's step, such as 2K."),
    click.option("--quality", metavar="WORD", help="The vendor's word, such as high."),
    click.option("--style", metavar="WORD", help="The vendor's word, such as vivid."),
    click.option("--background", metavar="WORD", help="transparent, opaque or auto."),
    click.option("--format", metavar="WORD", help="png, jpeg or webp."),
    click.option("--negative", "negative_prompt", metavar="TEXT", help="What is not to be seen."),
    click.option("--guidance-scale", type=float, metavar="X", help="How closely to follow the prompt."),
    click.option("--steps", type=click.IntRange(1), metavar="N", help="How many steps to take."),
    click.option("--seed", type=int, metavar="N", help="The same seed tends to give the same picture."),
)


def picture_options(command: F) -> F:
    """Give a command the options that pictures and edits share; they arrive under the names of ImageRequest."""
    for option in reversed(_PICTURE_OPTIONS):
        command = option(command)
    return command


def sized(wish: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that options name, with the size as width and height in pixels."""
    width, height = wish.pop("size") or (None, None)
    return {**wish, "width": width, "height": height}


def words(text: str, name: str) -> str:
    """Return a text from the command line; - stands for standard input.

    Raises:
        UsageError: it is empty, or not valid UTF-8.
    """
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not valid UTF-8") from None
    if not text.strip():
        raise click.UsageError(f"the {name} is empty")
    return text


class Made(Struct, frozen=True, kw_only=True):
    """What a call made, and how long it took, in seconds."""

    answer: Answer[MediaResult]
    time_s: float


class File(Struct, frozen=True, kw_only=True):
    """A medium that was written. `facts` are further fields of its JSON."""

    path: Path
    medium: Medium
    facts: dict[str, Any] = {}


class Told(Struct, frozen=True, kw_only=True):
    """Who made something, and what it cost, in billionths of a dollar (None: unknown)."""

    provider: str
    model: str
    nanos: int | None
    synthetic: bool
    time_s: float
    notes: tuple[str, ...] = ()


def told_of(made: Made) -> Told:
    """Return what is said of a call."""
    answer = made.answer
    return Told(
        provider=answer.target.provider,
        model=answer.target.model.name,
        nanos=None if answer.cost is None else answer.cost.nanos,
        synthetic=answer.target.deployment.spec.synthetic,
        time_s=made.time_s,
        notes=answer.result.notes,
    )


def new_context() -> CallContext:
    """Return the frame of a call by the local user."""
    return CallContext(
        request_id=str(uuid4()), caller=Caller(application="cli"), received_at=datetime.now(UTC), headers={}
    )


def with_gateway(settings: Settings, work: Callable[[Gateway], Awaitable[T]], *, starting: bool = True) -> T:
    """Do some work with a gateway in this process; one that is not started only looks at what is stored.

    Raises:
        GateError: the gateway cannot be started, or the work failed.
        KeyboardInterrupt: somebody does not want to wait any longer.
    """
    # What fails is said once, by the error itself; without a handler, warnings would be printed as well.
    logging.getLogger("llm_gate").addHandler(logging.NullHandler())

    async def working() -> T:
        gateway = build(settings)
        try:
            if starting:
                await gateway.start()
            return await work(gateway)
        finally:
            await gateway.close()

    with placed_faults(settings):
        return asyncio.run(working())


def make(settings: Settings, request: MediaRequest) -> Made:
    """Have something made.

    Raises:
        GateError: as every call of the gate.
    """
    started_s = time.monotonic()

    async def work(gateway: Gateway) -> Answer[MediaResult]:
        return await gateway.gate.make(request, new_context())

    answer = with_gateway(settings, work)
    return Made(answer=answer, time_s=time.monotonic() - started_s)


def numbered(path: Path, count: int) -> list[Path]:
    """Return the names of so many files: a single one's is the path itself, several have numbers before the ending."""
    return [path] if count == 1 else [_with_number(path, index) for index in range(1, count + 1)]


def _with_number(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def check_places(paths: Sequence[Path], *, force: bool) -> None:
    """Find out whether files can be written, before anything is paid for.

    Raises:
        UsageError: one of them is there already, or its folder cannot be written to.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise click.UsageError(f"there is no folder {str(path.parent)!r}")
        if not os.access(path.parent, os.W_OK):
            raise click.UsageError(f"nothing can be written to the folder {str(path.parent)!r}")
        if path.is_dir():
            raise click.UsageError(f"{str(path)!r} is a folder")
        if path.exists() and not force:
            raise click.UsageError(f"{str(path)!r} is there already; --force overwrites it")


def save(path: Path, data: bytes, *, force: bool) -> Path:
    """Write a file, whole or not at all, and return where.

    Without `force`, one that has come to be there meanwhile is left alone, and the new one gets a number: it was paid
    for.

    Raises:
        GateError: it cannot be written.
    """
    part = path.with_name(f".llm-gate-{token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(data)
            place, number = path, 1
            while not force and place.exists():
                number += 1
                place = _with_number(path, number)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise GateError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
    return place


def save_pictures(made: Made, path: Path, *, count: int, force: bool) -> list[File]:
    """Write the pictures that were made; `count` is how many were asked for."""
    result = made.answer.result
    assert isinstance(result, ImageResult)  # noqa: S101 - the operation's own result
    # Vendors may give more or fewer than were asked for.
    paths = numbered(path, max(count, len(result.pictures)))
    return [
        File(path=save(place, picture.medium.data, force=force), medium=picture.medium, facts=_facts(picture))
        for place, picture in zip(paths, result.pictures, strict=False)
    ]


def _facts(picture: Picture) -> dict[str, Any]:
    return {
        "width": picture.width,
        "height": picture.height,
        "seed": picture.seed,
        "revised_prompt": picture.revised_prompt,
    }


def print_files(
    told: Told, files: Sequence[File], *, as_json: bool, more: dict[str, Any] | None = None
) -> None:
    """Print the paths of files, and on standard error who made them; as JSON, with `more` fields, all in one."""
    if as_json:
        listed = [
            {"path": str(file.path), "type": file.medium.type, "size": len(file.medium.data), **file.facts}
            for file in files
        ]
        print_json({"files": listed, **document(told), **(more or {})})
        return
    for file in files:
        click.echo(str(file.path))
        endings = _ENDINGS.get(file.medium.type)
        if endings is not None and file.path.suffix.lower() not in endings:
            click.echo(f"note: {file.path.name} holds {file.medium.type}", err=True)
    print_told(told)


def document(told: Told) -> dict[str, Any]:
    """Return who made something as fields of JSON."""
    return {
        "provider": told.provider,
        "model": told.model,
        "synthetic": told.synthetic,
        "cost_usd": None if told.nanos is None else usd_decimal(told.nanos),
        "notes": list(told.notes),
    }


def print_told(told: Told) -> None:
    """Say on standard error who made something, what it cost, and what was done otherwise than asked."""
    parts = [
        f"{told.provider}/{told.model}",
        "cost unknown" if told.nanos is None else f"${format_usd(told.nanos)}",
        *(["synthetic"] if told.synthetic else []),
        f"{told.time_s:.1f} s",
    ]
    for note in told.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(emphasised(" | ".join(parts), sys.stderr, dim=True), err=True)
