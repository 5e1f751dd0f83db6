"""`llm-gate speak`: a text read out, in this process; no server is needed."""

from pathlib import Path
from typing import Any

import click

from llm_gate.cli.making import (
    File,
    check_places,
    force_option,
    make,
    model_option,
    output_option,
    print_files,
    save,
    told_of,
    words,
)
from llm_gate.cli.store import settings_of, store_options
from llm_gate.domain.media import SpeechRequest, SpeechResult

HELP = """Read TEXT out; - reads it from standard input.

The path stands on standard output; who spoke and what it cost, on standard error.

\b
Examples:
  llm-gate speak "Good morning" -o morning.wav
  llm-gate speak - -o story.mp3 -m provider/model --voice anna --format mp3 --speed 1.1 < story.txt
"""


@click.command(help=HELP, short_help="Read a text out.")
@click.argument("text")
@output_option
@model_option
@click.option("--voice", metavar="NAME", help="Who speaks.")
@click.option("--format", metavar="WORD", help="mp3, wav, ... as the model takes it.")
@click.option("--speed", type=float, metavar="X", help="How fast; 1 is usual.")
@click.option("--language", metavar="CODE", help="The language of the text, such as fr.")
@click.option("--instructions", metavar="TEXT", help="How to speak.")
@force_option
@store_options
def command(
    *,
    text: str,
    output: Path,
    model: str,
    force: bool,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Read a text out."""
    settings = settings_of(config, no_env_file, data_dir)
    request = SpeechRequest(model=model, text=words(text, "text"), **wish)
    check_places([output], force=force)
    made = make(settings, request)
    result = made.answer.result
    assert isinstance(result, SpeechResult)  # noqa: S101 - the operation's own result
    file = File(
        path=save(output, result.audio.data, force=force),
        medium=result.audio,
        facts={"duration_s": result.duration_s},
    )
    print_files(told_of(made), [file], as_json=as_json)
