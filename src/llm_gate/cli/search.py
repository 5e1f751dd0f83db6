"""`llm-gate search`: a search of the web, in this process; no server is needed."""

from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from llm_gate.cli.making import document, make, model_option, print_told, told_of, words
from llm_gate.cli.output import print_json, write_through
from llm_gate.cli.store import settings_of, store_options
from llm_gate.domain.catalog import SearchKind
from llm_gate.domain.search import SearchHit, SearchRequest, SearchResult, TimeRange

HELP = """Search for QUERY; - reads it from standard input.

What was found stands on standard output, who searched and what it cost on standard error. It was written by strangers.
Without a provider, every search provider that is configured may be asked, in their order, until one answers.

\b
Examples:
  llm-gate search "heat pumps in old houses" --max-results 5
  llm-gate search "election results" --kind news --time-range week --country fr
  llm-gate search --kind contents --url https://example.org/report --json
"""

_day = click.DateTime(formats=["%Y-%m-%d"])


@click.command(help=HELP, short_help="Search the web.")
@click.argument("query", default="")
@click.option("--provider", metavar="NAME", help="Who searches: a provider's name.")
@model_option
@click.option("--kind", type=click.Choice(get_args(SearchKind)), default="web", show_default=True)
@click.option("--url", "urls", multiple=True, metavar="URL", help="A page to read, with --kind contents.")
@click.option("--max-results", type=click.IntRange(1, 100), metavar="N", help="How many results at most.")
@click.option("--include-domain", "include_domains", multiple=True, metavar="HOST", help="Only from there.")
@click.option("--exclude-domain", "exclude_domains", multiple=True, metavar="HOST", help="Not from there.")
@click.option("--start-date", type=_day, metavar="DAY", help="Published on or after it: 2026-01-31.")
@click.option("--end-date", type=_day, metavar="DAY", help="Published on or before it.")
@click.option("--time-range", type=click.Choice(get_args(TimeRange)), help="Published since then.")
@click.option("--country", metavar="CODE", help="Such as fr.")
@click.option("--language", metavar="CODE", help="Such as fr.")
@click.option("--depth", type=click.Choice(("basic", "advanced")), help="How thoroughly.")
@click.option("--answer", "wants_answer", is_flag=True, help="With the vendor's own answer.")
@click.option("--content", "wants_content", is_flag=True, help="With the text of the pages.")
@store_options
def command(
    *,
    query: str,
    provider: str | None,
    model: str,
    as_json: bool,
    config: Path | None,
    no_env_file: bool,
    data_dir: Path | None,
    **wish: Any,
) -> None:
    """Search the web."""
    if provider is not None and (model or "/" in provider):
        raise click.UsageError("name the provider, or with --model provider/model, not both")
    settings = settings_of(config, no_env_file, data_dir)
    fields: dict[str, Any] = {
        name: value.date() if isinstance(value, datetime) else value for name, value in wish.items()
    }
    request = SearchRequest(
        model=model if provider is None else f"{provider}/",
        query=query if wish["kind"] == "contents" and not query else words(query, "query"),
        **fields,
    )
    made = make(settings, request)
    result = made.answer.result
    assert isinstance(result, SearchResult)  # noqa: S101 - the operation's own result
    told = told_of(made)
    if as_json:
        print_json({**_document(result), **document(told)})
        return
    write_through(_text(result))
    print_told(told)


def _document(result: SearchResult) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(result, builtin_types=(msgspec.Raw,))
    return {name: found[name] for name in ("query", "answer", "results", "requests", "pages", "extra")}


def _text(result: SearchResult) -> str:
    """Return what was found for people: title, address and snippet, one after the other."""
    blocks = [result.answer] if result.answer else []
    blocks += [_block(number, hit) for number, hit in enumerate(result.results, 1)]
    return (
        "".join(f"{block}\n\n" for block in blocks).rstrip("\n") + "\n" if blocks else "nothing was found\n"
    )


def _block(number: int, hit: SearchHit) -> str:
    head = f"{number}. {' '.join(hit.title.split()) or hit.url}"
    when = f" ({hit.published_at})" if hit.published_at else ""
    lines = [f"{head}{when}", f"   {hit.url}", *(f"   {line}" for line in hit.snippet.split("\n") if line)]
    if hit.content is not None:
        lines += ["", *(f"   {line}" for line in hit.content.split("\n"))]
    return "\n".join(lines)
