"""Plots, their traces, colours and axes, as Plotly's JSON.

Colours are names of variables of the style sheet, so that one figure serves light and dark pages; ``page.js`` fills
them in.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attar._src.report.wording import short

#: Colours of the models in order, repeated after the last.
SERIES = ("--series-0", "--series-1", "--series-2", "--series-3", "--series-4", "--series-5")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        labels: the selection that shows it, one label for each level of its plot.
        data, layout: for Plotly.
        alt: description in words.
        note: caption; says what was left out.
    """

    labels: tuple[str, ...]
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    alt: str
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A place on the page that shows one of several figures.

    Attributes:
        name: of the place.
        levels: its selectors, such as ``("File", "Tensor")``.
        figures: the first is visible at first.
    """

    name: str
    levels: tuple[str, ...]
    figures: Sequence[Figure]

    def as_dict(self) -> dict[str, Any]:
        """Return the plot as JSON values; NaN and infinities are null."""
        return {"levels": self.levels, "figures": [_finite(asdict(figure)) for figure in self.figures]}


def colour(index: int) -> str:
    """Return the colour of a model."""
    return SERIES[index % len(SERIES)]


def text(*lines: str) -> str:
    """Return lines for Plotly, escaped: it interprets tags in every text."""
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def series(kind: str, name: str, x: list[Any], y: list[Any], hover: list[str], **more: Any) -> dict[str, Any]:
    """Return points (``scatter``) or bars (``bar``), with the text that each shows under the pointer."""
    return {"type": kind, "name": text(short(name)), "x": x, "y": y, "hovertext": hover, "hoverinfo": "text", **more}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": text(title)}, **more}


def categories(names: Sequence[str], title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis of names at 0, 1, 2, ..., so that equal names stay apart and none is read as a number or date."""
    ticks = {"tickvals": list(range(len(names))), "ticktext": [text(short(name)) for name in names]}
    return axis(title, tickmode="array", **ticks, range=[-0.6, len(names) - 0.4], zeroline=False, **more)


def largest(sizes: Sequence[int], most: int) -> list[int]:
    """Return the indices of the ``most`` largest, in their own order."""
    return sorted(sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))[:most])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
