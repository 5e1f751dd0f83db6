"""`llm-gate count`: how many tokens a text has for a model, without asking it; no server is needed."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import uuid4

import click

from llm_gate.bootstrap import build, memory_stores
from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import print_json
from llm_gate.configuration import placed_faults
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.counting import CountSource, TokenCount
from llm_gate.domain.messages import Conversation, Message, TextPart
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.counting import Counting
from llm_gate.settings import Settings

HELP = """Say how many tokens a text has for a model.

TEXT is one message of a user; without it, or with -, it is read from standard input. Without --by, the model's own
tokenizer counts where it is public and the extra "tokens" is installed, and else it is an estimate. With --by vendor,
the vendor is asked, which costs nothing; one that offers no counting is not asked.

\b
Examples:
  llm-gate count "Why is the sky blue?"
  llm-gate count -m provider/model < report.txt
  llm-gate count -m provider/model --by vendor --json "Hello"
"""


@click.command(help=HELP, short_help="Say how many tokens a text has.")
@click.argument("text", required=False)
@click.option(
    "--model", "-m", default="", metavar="MODEL", help="provider/model, a model's name, or an alias."
)
@click.option("--by", "source", type=click.Choice(get_args(CountSource)), help="Who is to count.")
@configuration_options
@json_option
def command(
    *,
    text: str | None,
    model: str,
    source: CountSource | None,
    config: Path | None,
    no_env_file: bool,
    as_json: bool,
) -> None:
    """Count a text."""
    messages = (Message(role="user", parts=(TextPart(text=_read(text)),)),)
    settings = source_of(config, no_env_file).read()
    request = ChatRequest(model=model, conversation=Conversation(lambda: messages))
    logging.getLogger("llm_gate").addHandler(logging.NullHandler())
    with placed_faults(settings):
        count = asyncio.run(_count(settings, request, source))
    if as_json:
        print_json(
            {
                "input_tokens": count.input_tokens,
                "least_tokens": count.least_tokens,
                "most_tokens": count.most_tokens,
                "source": count.source,
                "model": f"{count.provider}/{count.model}",
            }
        )
    else:
        click.echo(_line(count))


def _read(text: str | None) -> str:
    if text is None and sys.stdin.isatty():
        raise click.UsageError("there is no text: give it as an argument or on standard input")
    if text in {None, "-"}:
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not valid UTF-8") from None
    if not text:
        raise click.UsageError("the text is empty")
    return text


async def _count(settings: Settings, request: ChatRequest, source: CountSource | None) -> TokenCount:
    # Only what is asked of a vendor is recorded.
    gateway = build(settings, stores=None if source == "vendor" else memory_stores())
    context = CallContext(
        request_id=str(uuid4()), caller=Caller(application="cli"), received_at=datetime.now(UTC), headers={}
    )
    try:
        await gateway.start()
        answer = await Counting(gateway.gate, gateway.tokenizers).count(request, context, source)
    finally:
        await gateway.close()
    return answer.result


def _line(count: TokenCount) -> str:
    band = (
        ""
        if count.source == "vendor"
        else f", likely {count.least_tokens} to {count.most_tokens} by the vendor's count"
    )
    return f"{count.input_tokens} tokens for {count.provider}/{count.model} ({count.source}{band})"
