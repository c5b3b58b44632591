"""How the commands print: JSON alone on standard output, or tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

_COLUMNS = 80
_EIGHTHS = " ▏▎▍▌▋▊▉"


def as_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object, and nothing else."""
    typer.echo(json.dumps(values, indent=2, allow_nan=False))


def console() -> Console:
    """Return where tables go: standard output, without colouring numbers that nobody asked to be coloured.

    At least 80 columns, in which every table has all its figures: a narrower terminal breaks lines by itself.
    """
    out = Console(highlight=False)
    out.width = max(out.width, _COLUMNS)
    return out


def print_table(*columns: str, title: str | None = None) -> Table:
    """Return a table without lines; columns that start with ``>`` are aligned to the right and stay on one line."""
    made = Table(
        title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True, header_style="bold"
    )
    for column in columns:
        # Names give way before numbers do, and what does not fit even so is seen to be cut.
        if column.startswith(">"):
            made.add_column(column.removeprefix(">"), justify="right", no_wrap=True, overflow="ellipsis")
        else:
            made.add_column(column, overflow="fold")
    return made


def bar(share: float, width: int = 20) -> str:
    """Return a bar that fills ``share`` of ``width`` cells."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
