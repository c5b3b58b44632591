"""The figures of the page as files, for papers and slides."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from attar._src.artifact.writer import write_atomically
from attar._src.report.figures.plot import Plot

_NAME = re.compile(r'"(--[\w-]+)"')
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
    colours = dict(reversed(_VARIABLE.findall(css)))
    folder.mkdir(exist_ok=True)
    for name, plot in plots.items():
        text = _NAME.sub(lambda found: f'"{colours.get(found[1], found[1])}"', json.dumps(plot.as_dict()))
        write_atomically(folder / f"{name}.json", f"{text}\n".encode())
