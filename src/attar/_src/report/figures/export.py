"""The figures of the page as files, for papers and slides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.report.figures.plot import Plot

_VARIABLE = re.compile(r"(--[\w-]+): (#[0-9a-f]{6});")


def save(plots: Mapping[str, Plot], folder: Path, css: str) -> None:
    """Write ``NAME.json`` for every plot: its figures, each with ``data`` and ``layout`` for Plotly.

    Args:
        plots: by name.
        folder: created if it is missing.
        css: style sheet of the page with the colours, those of light pages first.

    Raises:
        OSError: a file cannot be written.
    """
    colours: dict[str, str] = {}
    for name, value in _VARIABLE.findall(css):
        colours.setdefault(name, value)
    folder.mkdir(exist_ok=True)
    for name, plot in plots.items():
        write_atomically(folder / f"{name}.json", f"{json.dumps(_painted(plot.as_dict(), colours))}\n".encode())


def _painted(value: Any, colours: Mapping[str, str]) -> Any:
    """Return a value with the names of colours replaced by colours."""
    if isinstance(value, str):
        return colours.get(value, value)
    if isinstance(value, dict):
        return {key: _painted(item, colours) for key, item in value.items()}
    return [_painted(item, colours) for item in value] if isinstance(value, list | tuple) else value
