"""A vendor says nothing, or nonsense, of what an answer used: it is charged at its bound, and marked as an estimate."""

import asyncio
import itertools
import sqlite3
from contextlib import closing

from support.faulty import running_faulty
from support.gateway import running_gateway
from support.traffic import traffic

DIALECTS = ("openai", "anthropic", "gemini")
USAGES = ("plain", "missing", "null", "negative", "absurd", "twice")
SURFACES = ("chat", "chat stream")
PLAIN = {"plain", "twice"}
WORDS, INPUT_TOKENS = 5, 7
PRICES = """
    prices = [
        { unit = "input_tokens", per = 1_000_000, usd = "1" },
        { unit = "output_tokens", per = 1_000_000, usd = "2" },
    ]
"""
EXACT_NANOS = INPUT_TOKENS * 1_000 + WORDS * 2_000
MOST_NANOS = 10**9
"""A dollar is far more than any bound of such a call."""


def test_nonsense_is_charged_at_the_bound():
    """U13, from every dialect, whole and streamed: never less than it was, never without end, and never as measured."""
    kinds = list(itertools.product(DIALECTS, USAGES, SURFACES))
    names = [f"my{dialect}" for dialect in DIALECTS]
    with running_faulty(*names) as faulty:
        toml = "".join(faulty.table(f"my{dialect}", dialect=dialect, models=()) for dialect in DIALECTS)
        model = '[{ name = "m", operations = ["chat"], ' + " ".join(PRICES.split()) + " }]"
        with running_gateway(toml=toml.replace("models = []", f"models = {model}")) as gateway:
            told = asyncio.run(_ask(gateway.url, kinds))
            with closing(sqlite3.connect(gateway.folder / "data" / "llm-gate.db")) as link:
                columns = "request_id, quality, tokens, cost_nanos"
                records = {row[0]: row[1:] for row in link.execute(f"SELECT {columns} FROM usage_record")}  # noqa: S608 - constants
    wrong = []
    for number, kind in enumerate(kinds):
        quality, tokens, cost_nanos = records[f"usage-{number}"]
        if kind[1] in PLAIN:
            is_right = (quality, tokens, cost_nanos) == ("measured", INPUT_TOKENS + WORDS, EXACT_NANOS)
        else:
            is_right = quality != "measured" and EXACT_NANOS <= cost_nanos <= MOST_NANOS
        if not is_right:
            wrong.append((kind, quality, tokens, cost_nanos))

    assert {each.outcome for each in told} == {"answered"}
    assert wrong == []


async def _ask(url, kinds):
    async with traffic(url) as load:
        await load.together(
            len(kinds),
            4,
            lambda n: load.call(f"usage-{n}", kinds[n][2], model=f"my{kinds[n][0]}/m", usage=kinds[n][1]),
        )
        return load.told
