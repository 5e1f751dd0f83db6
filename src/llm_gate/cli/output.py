"""What the commands print: tables for people, JSON for programs, colour only where somebody sees it."""

import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, TextIO

import click
import msgspec

from llm_gate.settings import SettingsFaults

# Everything a terminal obeys instead of showing, but for line breaks and tabs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_encoder = msgspec.json.Encoder(decimal_format="number")


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    click.echo(msgspec.json.format(_encoder.encode(value), indent=2).decode())


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows in columns as wide as needed; `right` names the columns that are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(placed).rstrip()

    click.echo(emphasised(line(heads), sys.stdout, bold=True))
    for row in rows:
        click.echo(line(row))


def emphasised(text: str, stream: TextIO, **style: bool) -> str:
    """Style a text for a terminal; a pipe, a file and NO_COLOR get it plain."""
    return click.style(text, **style) if stream.isatty() and not os.environ.get("NO_COLOR") else text


def write_through(text: str) -> None:
    """Write a model's text to standard output at once: verbatim to a pipe, harmless to a terminal."""
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper) and stream.errors != "replace":
        stream.reconfigure(errors="replace")
    stream.write(_CONTROL.sub("", text) if stream.isatty() else text)
    stream.flush()


def fault_lines(faults: SettingsFaults) -> str:
    """Return the configuration's faults, one a line, under a heading."""
    count = len(faults.faults)
    return f"llm-gate: the configuration has {count} fault{'' if count == 1 else 's'}:\n{faults}"
