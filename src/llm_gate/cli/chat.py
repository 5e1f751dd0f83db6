"""`llm-gate chat`: one question, asked in this process; no server is needed."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import msgspec

from llm_gate.bootstrap import build
from llm_gate.cli.configuration import configuration_options, json_option, source_of
from llm_gate.cli.output import emphasised, print_json, write_through
from llm_gate.configuration import placed_faults
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.events import TextDelta
from llm_gate.domain.messages import Conversation, Message, Role, TextPart
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.settings import Settings

HELP = """Ask a model and see the answer as it comes.

PROMPT is the question; without it, or with -, it is read from standard input. Below the answer, on standard
error, stand the model that answered, the tokens, the cost and the time. Without --model, the provider that
GPT_PROVIDER or LLM_PRIMARY_PROVIDER names answers, else the first usable one.

\b
Examples:
  llm-gate chat "Why is the sky blue?"
  llm-gate chat -m provider/model --system "Answer in French." "Good morning"
  llm-gate chat --json < question.txt
"""

_ENDINGS = {
    "length": "stopped at the token limit",
    "content_filter": "stopped by the content filter",
}


@click.command(help=HELP)
@click.argument("prompt", required=False)
@click.option(
    "--model", "-m", default="", metavar="MODEL", help="provider/model, a model's name, or an alias."
)
@click.option("--system", metavar="TEXT", help="What the model is told before the prompt.")
@configuration_options
@json_option
def command(
    *,
    prompt: str | None,
    model: str,
    system: str | None,
    config: Path | None,
    no_env_file: bool,
    as_json: bool,
) -> None:
    """Ask a model."""
    question = _question(prompt)
    settings = source_of(config, no_env_file).read()
    messages = (*([_message("system", system)] if system else []), _message("user", question))
    request = ChatRequest(
        model=model, conversation=Conversation(lambda: messages), stream=True, include_usage=True
    )
    # What fails is said once, by the error itself; without a handler, warnings would be printed as well.
    logging.getLogger("llm_gate").addHandler(logging.NullHandler())
    with placed_faults(settings):
        asyncio.run(_ask(settings, request, as_json=as_json))


def _question(prompt: str | None) -> str:
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("there is no prompt: give it as an argument or on standard input")
    if prompt in {None, "-"}:
        try:
            prompt = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise click.UsageError("standard input is not valid UTF-8") from None
    if not prompt or not prompt.strip():
        raise click.UsageError("the prompt is empty")
    return prompt


def _message(role: Role, text: str) -> Message:
    return Message(role=role, parts=(TextPart(text=text),))


async def _ask(settings: Settings, request: ChatRequest, *, as_json: bool) -> None:
    started_s = time.monotonic()
    gateway = build(settings)
    context = CallContext(
        request_id=str(uuid4()), caller=Caller(application="cli"), received_at=datetime.now(UTC), headers={}
    )
    try:
        await gateway.start()
        stream = await gateway.gate.chat_stream(request, context)
        try:
            text = await _read(stream, show=not as_json)
        finally:
            await stream.close()
    finally:
        await gateway.close()
    if as_json:
        print_json(_document(stream, text))
    else:
        line = _summary(stream, time.monotonic() - started_s)
        click.echo(emphasised(line, sys.stderr, dim=True), err=True)


async def _read(stream: AnswerStream, *, show: bool) -> str:
    """Collect the first choice's text; with `show`, print it as it comes."""
    pieces: list[str] = []
    try:
        async for batch in stream.batches():
            new = "".join(event.text for event in batch if isinstance(event, TextDelta) and event.index == 0)
            if new:
                pieces.append(new)
                if show:
                    write_through(new)
    finally:
        if show and pieces and not pieces[-1].endswith("\n"):
            write_through("\n")
    return "".join(pieces)


def _summary(stream: AnswerStream, time_s: float) -> str:
    usage, cost = stream.usage, stream.cost
    parts = [
        stream.target.name,
        "tokens unknown" if usage is None else f"{usage.input_tokens} in, {usage.output_tokens} out",
        "cost unknown" if cost is None else f"${format_usd(cost.nanos)}",
        f"{time_s:.1f} s",
    ]
    if stream.finish_reason in _ENDINGS:
        parts.append(_ENDINGS[stream.finish_reason])
    return " | ".join(parts)


def _document(stream: AnswerStream, text: str) -> dict[str, Any]:
    usage, cost = stream.usage, stream.cost
    counts = None
    if usage is not None:
        counts = {**msgspec.to_builtins(usage), "total_tokens": usage.total_tokens}
    return {
        "text": text,
        "model": stream.target.model.name,
        "provider": stream.target.provider,
        "finish_reason": stream.finish_reason,
        "usage": counts,
        "cost_usd": None if cost is None else usd_decimal(cost.nanos),
    }
