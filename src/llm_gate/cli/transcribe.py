"""`llm-gate transcribe`: a recording written down, in this process; no server is needed."""

from pathlib import Path

import click
from msgspec import structs

from llm_gate.cli.configuration import configuration_options
from llm_gate.cli.making import Made, given, make, model_option, print_told, told_of
from llm_gate.cli.output import write_through
from llm_gate.cli.store import settings_of
from llm_gate.dialects.openai_transcriptions import encode_transcription
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Given, TranscriptionRequest, TranscriptionResult
from llm_gate.domain.money import format_usd
from llm_gate.settings import Settings

HELP = """Write a recording down: FILE is a file or an http(s) address.

The transcript stands on standard output, who wrote it and what it cost on standard error. Subtitles (srt, vtt) need a
model that tells times; one that does not gets one line over the whole recording.

\b
Examples:
  llm-gate transcribe meeting.mp3
  llm-gate transcribe talk.wav --language fr --format srt > talk.srt
"""

_TIMED = frozenset({"srt", "vtt"})


@click.command(help=HELP, short_help="Write a recording down.")
@click.argument("audio", type=given, metavar="FILE|URL")
@model_option
@click.option("--language", metavar="CODE", help="The language that is spoken, such as fr.")
@click.option("--prompt", metavar="TEXT", help="Words and names that occur.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "srt", "vtt")),
    default="text",
    show_default=True,
    help="What to print.",
)
@configuration_options
def command(
    *,
    audio: Given,
    model: str,
    language: str | None,
    prompt: str | None,
    form: str,
    config: Path | None,
    no_env_file: bool,
) -> None:
    """Write a recording down."""
    settings = settings_of(config, no_env_file, None)
    request = TranscriptionRequest(model=model, audio=audio, language=language, prompt=prompt)
    made = _made(settings, request, is_timed=form in _TIMED)
    result, cost = made.answer.result, made.answer.cost
    assert isinstance(result, TranscriptionResult)  # noqa: S101 - the operation's own result
    usd = None if cost is None else format_usd(cost.nanos)
    body, _ = encode_transcription(result, form, cost_usd=usd)
    text = body.decode()
    write_through(text if text.endswith("\n") else f"{text}\n")
    print_told(told_of(made))


def _made(settings: Settings, request: TranscriptionRequest, *, is_timed: bool) -> Made:
    """Have the recording written down, with times where the model tells them."""
    if is_timed:
        try:
            return make(settings, structs.replace(request, timestamps=("segment",)))
        except InvalidRequest as refusal:
            # Refused before anybody was asked: the whole recording as one subtitle is what is left.
            if refusal.param != "timestamps":
                raise
    return make(settings, request)
