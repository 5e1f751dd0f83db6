"""`llm-gate research`: a question answered from the web, in this process; no server is needed."""

import sys
import time
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from llm_gate.bootstrap import Gateway
from llm_gate.cli.making import model_option, new_context, with_gateway, words
from llm_gate.cli.output import emphasised, print_json, write_through
from llm_gate.cli.store import settings_of, store_options
from llm_gate.domain.money import format_usd, usd_decimal
from llm_gate.domain.research import (
    MOST_QUERIES,
    MOST_RESULTS,
    AnswerDelta,
    Planning,
    Reading,
    ResearchEvent,
    ResearchRequest,
    ResearchResult,
    Searching,
)
from llm_gate.domain.search import TimeRange
from llm_gate.engine.quotes import Quoting
from llm_gate.engine.research import Research

HELP = """Answer QUESTION from what a web search finds; - reads it from standard input.

The answer stands on standard output with the sources that it cites; what happens meanwhile, what was noted and what it
cost, on standard error.

\b
Examples:
  llm-gate research "Which heat pumps suit old houses?"
  llm-gate research "Who won yesterday?" --time-range day --queries 3
  llm-gate research "What is new in Ruby?" -m provider/ --search grounding --json
"""

_day = click.DateTime(formats=["%Y-%m-%d"])


@click.command(help=HELP, short_help="Answer a question from the web, with citations.")
@click.argument("question")
@model_option
@click.option("--search", "search_model", default="", metavar="NAME", help="Who searches, or `grounding`.")
@click.option("--queries", type=click.IntRange(1, MOST_QUERIES), default=1, help="How many searches.")
@click.option("--max-results", type=click.IntRange(1, MOST_RESULTS), help="Results of each.")
@click.option("--include-domain", "include_domains", multiple=True, metavar="HOST", help="Only from there.")
@click.option("--exclude-domain", "exclude_domains", multiple=True, metavar="HOST", help="Not from there.")
@click.option("--start-date", type=_day, metavar="DAY", help="Published on or after it: 2026-01-31.")
@click.option("--end-date", type=_day, metavar="DAY", help="Published on or before it.")
@click.option("--time-range", type=click.Choice(get_args(TimeRange)), help="Published since then.")
@click.option("--country", metavar="CODE", help="Such as fr.")
@click.option("--language", metavar="NAME", help="Which language to answer in.")
@click.option("--instructions", metavar="TEXT", help="How the answer is to be written.")
@click.option(
    "--max-tokens", "max_output_tokens", type=click.IntRange(1), metavar="N", help="How long at most."
)
@store_options
def command(
    *,
    question: str,
    model: str,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Answer a question from the web."""
    settings = settings_of(config, no_env_file, data_dir)
    fields: dict[str, Any] = {
        name: value.date() if isinstance(value, datetime) else value for name, value in wish.items()
    }
    request = ResearchRequest(question=words(question, "question"), model=model, stream=not as_json, **fields)
    started_s = time.monotonic()

    async def work(gateway: Gateway) -> ResearchResult:
        return await _asked(gateway, request, show=not as_json)

    result = with_gateway(settings, work)
    if as_json:
        document: dict[str, Any] = msgspec.to_builtins(result)
        cost = result.cost_nanos
        print_json({**document, "cost_usd": None if cost is None else usd_decimal(cost)})
        return
    _print_end(result, time.monotonic() - started_s)


async def _asked(gateway: Gateway, request: ResearchRequest, *, show: bool) -> ResearchResult:
    gate = gateway.gate
    quoting = Quoting(standings=gate.access, admission=gate.admission, quotes=gateway.stores.quotes)
    result: ResearchResult | None = None
    async with aclosing(Research(gate=gate, quoting=quoting).events(request, new_context())) as events:
        async for event in events:
            if isinstance(event, ResearchResult):
                result = event
            elif show:
                _print(event)
    assert result is not None  # noqa: S101 - a research ends with its result
    return result


def _print(event: ResearchEvent) -> None:
    match event:
        case Planning():
            _say("writing queries")
        case Searching():
            _say(f"searching: {event.query}")
        case Reading():
            _say(f"reading {len(event.sources)} sources")
        case AnswerDelta():
            write_through(event.text)
        case _:
            pass


def _say(text: str) -> None:
    click.echo(emphasised(" ".join(text.split()), sys.stderr, dim=True), err=True)


def _print_end(result: ResearchResult, time_s: float) -> None:
    write_through("" if result.answer.endswith("\n") else "\n")
    if result.citations:
        write_through("\n")
    for each in result.citations:
        write_through(f"[{each.index}] {' '.join(each.title.split())}\n    {each.url}\n")
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    answerer = result.answerer
    parts = [
        "nobody" if answerer is None else f"{answerer.provider}/{answerer.model}",
        "cost unknown" if result.cost_nanos is None else f"${format_usd(result.cost_nanos)}",
        f"{time_s:.1f} s",
    ]
    _say(" | ".join(parts))
