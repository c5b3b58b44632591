"""Output of the commands: JSON or tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from attar._src.cli.option_words import in_option_words
from attar._src.core.errors import AttarError
from attar._src.report.wording import plural

#: The least of a terminal, and what a file or pipe has, where nothing need be wrapped for a narrow window.
_COLUMNS, _COLUMNS_OF_FILE = 80, 100
_EIGHTHS = " ▏▎▍▌▋▊▉"
# Control characters but tab and newline, and marks that reverse the direction of text.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class PlainConsole(Console):
    """A console on which strings of a file cannot command the terminal: ESC is printed as ``\\x1b``.

    Licences, class names and messages may hold any character; colours of our own are added after this.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, texts in the words of the command line."""
        super().print(*(in_option_words(each) if isinstance(each, str) else each for each in objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with the commands in texts spelled out."""
        for segment in super().render(renderable, options):
            if segment.control is None and _COMMANDS.search(segment.text):
                text = _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), segment.text)
                yield Segment(text, segment.style)
            else:
                yield segment


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

    It has at least 80 columns, enough for all figures of every table; a narrower terminal wraps lines itself. With 100
    no name of a method or step is wrapped.
    """
    out = PlainConsole(highlight=False)
    out.width = max(out.width, _COLUMNS if out.is_terminal else _COLUMNS_OF_FILE)
    return out


def say(label: str, message: str) -> None:
    """Print a line on standard error: a label with markup, and a message without."""
    PlainConsole(stderr=True, soft_wrap=True, highlight=False).print(label, escape(message))


@contextmanager
def resumable() -> Iterator[None]:
    """Say how to go on, where Ctrl-C interrupts the block."""
    try:
        yield
    except KeyboardInterrupt:
        say("go on with:", "the same command and --resume")
        raise


def warnings_first(by_model: Mapping[str, Sequence[str]]) -> None:
    """Print every warning on standard output, those of a run with the name of their model before them."""
    out = console()
    for name, sentences in by_model.items():
        for sentence in sentences:
            out.print("[bold yellow]warning:[/]", escape(f"{name}: {sentence}" if name else sentence), soft_wrap=True)


def demand_none(by_model: Mapping[str, Sequence[str]], *, strict: bool) -> None:
    """Make warnings an error if ``strict``.

    Raises:
        AttarError: there are some.
    """
    count = sum(map(len, by_model.values()))
    if strict and count:
        raise AttarError(
            f"--strict: {plural(count, 'warning')}; the files are written, and the warnings in their report"
        )


class _PlainTable(Table):
    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(in_option_words(each) if isinstance(each, str) else each for each in cells), **options)


def plain_table(*columns: str, rows: Iterable[Mapping[str, str]] = ()) -> Table:
    """Return a table without lines; a column that starts with ``>`` is aligned to the right and not wrapped."""
    made = _PlainTable(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in columns:
        # Names are wrapped first; numbers that still do not fit end in an ellipsis.
        if column.startswith(">"):
            made.add_column(column.removeprefix(">"), justify="right", no_wrap=True, overflow="ellipsis")
        else:
            made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(row[column] for column in columns))
    return made


def shape(axes: Iterable[Any]) -> str:
    """Return the shape of an array as it is printed: ``1x3x32x32``, ``scalar``."""
    return "x".join(map(str, axes)) or "scalar"


def bar(share: float, width: int = 20) -> str:
    """Return a bar that fills ``share`` of ``width`` cells, of ``#`` where the terminal has no blocks."""
    share = max(0.0, min(share, 1.0))
    if not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf"):
        return "#" * round(share * width)
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
