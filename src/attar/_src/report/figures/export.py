"""Export: the figures of the page as files of their own, for papers and slides; below ``report.page``."""

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
    """Write ``NAME.json`` for every plot: its figures, each with ``data`` and ``layout`` as Plotly takes them.

    Args:
        plots: by name.
        folder: made where it is not there.
        css: the page's style sheet, which has the colours; those of light pages come first in it.

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
    """Return a value with every colour's name filled in."""
    if isinstance(value, str):
        return colours.get(value, value)
    if isinstance(value, dict):
        return {key: _painted(item, colours) for key, item in value.items()}
    return [_painted(item, colours) for item in value] if isinstance(value, list | tuple) else value
