"""The arithmetic of the figures: percentiles, medians of rounds, ratios within a round, and the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

REFERENCE, SUBJECT, DIRECT = "nginx", "gateway", "direct"

Round = Mapping[str, Mapping[str, float]]
"""One round: for each contender its measured values by name."""


@dataclass(frozen=True)
class Figure:
    """One row of the table. `scale` turns seconds, nanoseconds or bytes into the unit shown.

    `added` rows show what a contender adds to the direct way. `reference` is the value of nginx to compare with,
    where it has another name.
    """

    name: str
    title: str
    scale: float
    digits: int
    added: bool = False
    reference: str | None = None


FIGURES = (
    Figure("openai", "unary, same dialect: CPU µs per request", 1e-3, 1),
    Figure("gemini", "unary, OpenAI to Gemini: CPU µs per request", 1e-3, 1, reference="openai"),
    Figure("anthropic", "unary, OpenAI to Anthropic: CPU µs per request", 1e-3, 1, reference="openai"),
    Figure("chunk", "stream of 64 chunks: CPU µs per chunk", 1e-3, 1),
    Figure("latency_p50", "added latency at 200 requests/s, p50: ms", 1e3, 2, added=True),
    Figure("latency_p99", "added latency at 200 requests/s, p99: ms", 1e3, 2, added=True),
    Figure("first_event", "time to first event added, 20 streams, p50: ms", 1e3, 2, added=True),
    Figure("rss_idle", "resident memory, idle: MB", 1e-6, 0),
    Figure("rss_streams", "resident memory, 1,000 slow streams: MB", 1e-6, 0),
    Figure("start", "start to ready: s", 1.0, 2),
    Figure("import", "`import llm_gate`: ms", 1e3, 1),
    Figure("import_serve", "import of all that `serve` needs: ms", 1e3, 0),
    Figure("unrecorded", "unary without a ledger: CPU µs per request", 1e-3, 1, reference="openai"),
    Figure(
        "engine",
        "attempts, cooldown and metrics where nothing fails: CPU µs added",
        1e-3,
        1,
        reference="openai",
    ),
    Figure("ledger_cpu", "CPU with the durable ledger ÷ without", 1.0, 2),
    Figure("ledger_kept", "requests/s with the durable ledger ÷ without", 1.0, 2),
    Figure("hit", "unary, an exact hit in the cache: CPU µs per request", 1e-3, 1, reference="openai"),
    Figure("hit_share", "CPU of an exact hit ÷ of a miss, both with the cache on", 1.0, 2),
    Figure("growth", "CPU with 1,000,000 records and 20,000 keys ÷ with none", 1.0, 2),
    Figure("per_second", "unary, same dialect: requests/s seen", 1.0, 0),
)


@dataclass(frozen=True)
class Row:
    """A figure's medians over the rounds, in the unit shown; None where it was not measured."""

    figure: Figure
    reference: float | None
    subject: float | None
    ratio: float | None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which a share of the values lies (nearest rank); None without values."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summarise(rounds: Sequence[Round]) -> list[Row]:
    """Return the rows of the table: medians over the rounds, and the median of the rounds' own ratios."""
    rows: list[Row] = []
    for figure in FIGURES:
        pairs = [(_value(r, figure, REFERENCE), _value(r, figure, SUBJECT)) for r in rounds]
        ratios = [subject / reference for reference, subject in pairs if reference and subject is not None]
        if figure.added:
            # What nginx adds is the small difference of two near values: nothing to divide by.
            ratios = []
        rows.append(
            Row(
                figure=figure,
                reference=_median([reference for reference, _ in pairs]),
                subject=_median([subject for _, subject in pairs]),
                ratio=median(ratios) if ratios else None,
            )
        )
    return rows


def _value(measured: Round, figure: Figure, contender: str) -> float | None:
    name = figure.reference or figure.name if contender == REFERENCE else figure.name
    value = measured.get(contender, {}).get(name)
    if value is None:
        return None
    if figure.added:
        value -= measured[DIRECT][name]
    return value * figure.scale


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(rows: Sequence[Row]) -> str:
    """Write the rows as a Markdown table."""
    lines = ["| figure | nginx | LLM Gate | ratio |", "|---|---:|---:|---:|"]
    for row in rows:
        digits = row.figure.digits
        cells = [_cell(row.reference, digits), _cell(row.subject, digits), _cell(row.ratio, 1)]
        lines.append(f"| {row.figure.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
