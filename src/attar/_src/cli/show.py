"""Output of the commands: JSON or tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_COLUMNS = 80
_EIGHTHS = " ▏▎▍▌▋▊▉"


@contextmanager
def any_character() -> Iterator[None]:
    """Let standard output and error escape the characters that their encoding lacks, such as a ü in ASCII."""
    streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, TextIOWrapper)]
    before = [each.errors for each in streams]
    for each in streams:
        each.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for each, errors in zip(streams, before, strict=True):
            if not each.closed:
                each.reconfigure(errors=errors)


def as_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(values, indent=2, allow_nan=False))


def console() -> Console:
    """Return a console for standard output that does not colour numbers.

    It has at least 80 columns, enough for all figures of every table; a narrower terminal wraps lines itself.
    """
    out = Console(highlight=False)
    out.width = max(out.width, _COLUMNS)
    return out


def say(label: str, message: str) -> None:
    """Print a line on standard error: a label with markup, and a message without."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(label, escape(message))


def plain_table(*columns: str, rows: Iterable[Mapping[str, str]] = ()) -> Table:
    """Return a table without lines; a column that starts with ``>`` is aligned to the right and not wrapped."""
    made = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in columns:
        # Names are wrapped first; numbers that still do not fit end in an ellipsis.
        if column.startswith(">"):
            made.add_column(column.removeprefix(">"), justify="right", no_wrap=True, overflow="ellipsis")
        else:
            made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(row[column] for column in columns))
    return made


def bar(share: float, width: int = 20) -> str:
    """Return a bar that fills ``share`` of ``width`` cells, of ``#`` where the terminal has no blocks."""
    share = max(0.0, min(share, 1.0))
    if not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf"):
        return "#" * round(share * width)
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
