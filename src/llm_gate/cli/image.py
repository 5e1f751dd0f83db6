"""`llm-gate image`: pictures from words, made in this process; no server is needed."""

from pathlib import Path
from typing import Any

import click

from llm_gate.cli.making import (
    check_places,
    force_option,
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
from llm_gate.domain.media import ImageRequest

HELP = """Make pictures from PROMPT; - reads it from standard input.

Several pictures get numbers before their ending: cat-1.png, cat-2.png. What the model does not take is refused, never
left out in silence. The paths stand on standard output; who made the pictures and what they cost, on standard error.

\b
Examples:
  llm-gate image "A cat wearing a hat" -o cat.png
  llm-gate image "A cat" -o cat.png -n 2 --size 1024x1024 --seed 7
  llm-gate image "A cat" -o cat.webp --format webp -m provider/model --json
"""


@click.command(help=HELP, short_help="Make pictures from words.")
@click.argument("prompt")
@output_option
@model_option
@picture_options
@force_option
@store_options
def command(
    *,
    prompt: str,
    output: Path,
    model: str,
    force: bool,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Make pictures."""
    settings = settings_of(config, no_env_file, data_dir)
    request = ImageRequest(model=model, prompt=words(prompt, "prompt"), **sized(wish))
    check_places(numbered(output, request.n), force=force)
    made = make(settings, request)
    files = save_pictures(made, output, count=request.n, force=force)
    print_files(told_of(made), files, as_json=as_json)
