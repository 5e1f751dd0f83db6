"""`llm-gate edit`: pictures changed, or a face put into one, in this process; no server is needed."""

from pathlib import Path
from typing import Any, get_args

import click

from llm_gate.cli.making import (
    check_places,
    force_option,
    given,
    make,
    model_option,
    numbered,
    output_option,
    picture_options,
    print_files,
    save_pictures,
    sized,
    told_of,
    words,
)
from llm_gate.cli.store import settings_of, store_options
from llm_gate.domain.catalog import EditTask
from llm_gate.domain.media import FaceSwapRequest, Gender, Given, ImageEditRequest

HELP = """Change pictures: each IMAGE is a file or an http(s) address.

--prompt says what is to become of them, --operation what kind of change it is, --mask where. Vendors differ in what a
mask marks: some change what is white, some what is transparent.

With --face, the face of that picture is put into IMAGE; of the other options, only --face-index, --gender, --format,
--seed and -n go with it.

\b
Examples:
  llm-gate edit cat.png --prompt "Make it blue" -o blue.png
  llm-gate edit room.png --operation inpaint --mask sofa.png --prompt "A red sofa" -o new.png
  llm-gate edit group.jpg --face me.jpg -o with-me.png
"""

# What makes sense with a face; everything else would be left out in silence.
_WITH_FACE = frozenset({"n", "format", "seed", "face_index", "gender"})
_OF_FACES = ("face_index", "gender")


@click.command(help=HELP, short_help="Change pictures, or put a face into one.")
@click.argument("images", type=given, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--prompt", metavar="TEXT", help="What is to be done; - reads it from standard input.")
@click.option("--operation", "task", type=click.Choice(get_args(EditTask)), help="What kind of change it is.")
@click.option("--mask", type=given, metavar="FILE|URL", help="The picture that marks where.")
@click.option("--face", type=given, metavar="FILE|URL", help="The picture whose face is put into IMAGE.")
@click.option(
    "--face-index", type=click.IntRange(0), metavar="N", help="Whose place it takes: 0 is the largest."
)
@click.option("--gender", type=click.Choice(get_args(Gender)), help="Among whose faces to look.")
@output_option
@model_option
@picture_options
@force_option
@store_options
def command(  # noqa: PLR0913 - one for each option
    *,
    images: tuple[Given, ...],
    prompt: str | None,
    face: Given | None,
    output: Path,
    model: str,
    force: bool,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Change pictures."""
    settings = settings_of(config, no_env_file, data_dir)
    if prompt is not None:
        prompt = words(prompt, "prompt")
    request: ImageEditRequest | FaceSwapRequest
    if face is None:
        request = _edit(model, images, prompt or "", wish)
    else:
        request = _swap(model, images, face, {"prompt": prompt, **wish})
    check_places(numbered(output, request.n), force=force)
    made = make(settings, request)
    files = save_pictures(made, output, count=request.n, force=force)
    print_files(told_of(made), files, as_json=as_json)


def _edit(model: str, images: tuple[Given, ...], prompt: str, wish: dict[str, Any]) -> ImageEditRequest:
    for name in _OF_FACES:
        if wish.pop(name) is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --face only")
    task: EditTask = wish.pop("task") or "general_edit"
    return ImageEditRequest(model=model, images=images, prompt=prompt, task=task, **sized(wish))


def _swap(model: str, images: tuple[Given, ...], face: Given, wish: dict[str, Any]) -> FaceSwapRequest:
    if len(images) != 1:
        raise click.UsageError("a face is put into one picture")
    said = {name: value for name, value in wish.items() if value is not None}
    other = next((name for name in said if name not in _WITH_FACE), None)
    if other is not None:
        written = {"task": "operation", "negative_prompt": "negative"}.get(other, other).replace("_", "-")
        raise click.UsageError(f"--{written} does not go with --face")
    return FaceSwapRequest(model=model, image=images[0], face=face, **said)
