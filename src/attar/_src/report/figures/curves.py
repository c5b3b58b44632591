"""Training of each model, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.report.figures.plot import Figure, Plot, axis, colour, series, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import number, plural, short

#: Columns of a row that are not curves.
_PLACES = frozenset({"stage", "epoch", "step", "seconds", "seed", "rank"})


def curves(story: Story) -> Plot:
    """Return a figure for each trained model: losses above, validation below, stages marked."""
    figures = [_figure(model) for model in story.main_first if model.measured.curves]
    return Plot("curves", ("Model",), [figure for figure in figures if figure.data])


def _figure(model: ReportedModel) -> Figure:
    rows = model.measured.curves
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in _PLACES]
    lines = {key: [_finite(row, key) for row in rows] for key in keys}
    lines = {key: ys for key, ys in lines.items() if any(y is not None for y in ys)}
    below = [key for key in lines if key.startswith("validation") and not key.endswith("loss")]
    above = [key for key in lines if key.endswith("loss")]
    hidden = [key for key in lines if key not in above and key not in below]
    # Curves visible at first come first, so that their colours differ.
    panels = {**dict.fromkeys(above, "y"), **dict.fromkeys(below, "y2" if above else "y"), **dict.fromkeys(hidden, "y")}
    data = [
        _curve(rows, name, lines[name], colour(i))
        | {"yaxis": panel, "visible": "legendonly" if name in hidden else True}
        for i, (name, panel) in enumerate(panels.items())
    ]
    starts = {i: _stage(row) for i, row in enumerate(rows) if i == 0 or _begins(rows[i - 1], row)}
    seconds = sum(value for row in rows if (value := _finite(row, "seconds")) is not None)
    note = plural(len(rows), "epoch") + (f" in {seconds:,.0f} s" if seconds >= 1 else "") + "."
    note += " Names that are grey in the legend are drawn on a click." if hidden else ""
    ends = ", ".join(f"{name} {number(lines[name][-1])}" for name in [*above, *below])
    stages = f"{plural(len(starts), 'stage')} ({', '.join(starts.values())})"
    alt = f"Training of {model.name} through {stages}; at the end {ends}."
    return Figure((model.name,), data, _layout(bool(above), bool(below), starts), alt, note)


def _curve(rows: Sequence[Mapping[str, Any]], name: str, ys: list[float | None], shade: str) -> dict[str, Any]:
    places = [f"{_stage(row)}, epoch {row.get('epoch', '?')}" for row in rows]
    hover = [text(place, f"{name}: {number(y)}") for place, y in zip(places, ys, strict=True)]
    style = {"mode": "lines+markers", "line": {"width": 2, "color": shade}, "marker": {"size": 4, "color": shade}}
    return series("scatter", name.replace("_", " "), list(range(1, len(rows) + 1)), ys, hover, **style)


def _layout(losses: bool, validation: bool, starts: Mapping[int, str]) -> dict[str, Any]:
    both = losses and validation
    layout: dict[str, Any] = {
        "height": 520 if both else 360,
        "hovermode": "closest",
        "xaxis": axis("epochs, all stages", rangemode="tozero", anchor="y2" if both else "y", zeroline=False),
        "yaxis": axis("loss" if losses else "validation", domain=[0.56, 1] if both else [0, 1], rangemode="tozero"),
        "shapes": [_line(i) for i in starts if i],
        "legend": {"y": 1.08},
        "annotations": [_label(i, stage) for i, stage in starts.items()],
    }
    return layout | {"yaxis2": axis("validation", domain=[0, 0.44])} if both else layout


def _finite(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if ok else None


def _begins(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Return whether a stage begins: the name changes, or epochs start again."""
    last, now = _finite(before, "epoch"), _finite(row, "epoch")
    return _stage(before) != _stage(row) or (last is not None and now is not None and now <= last)


def _stage(row: Mapping[str, Any]) -> str:
    return str(row.get("stage", ""))


def _line(start: int) -> dict[str, Any]:
    at = {"x0": start + 0.5, "x1": start + 0.5, "y0": 0, "y1": 1}
    return {"type": "line", **at, "yref": "paper", "line": {"color": "--muted", "width": 1, "dash": "dot"}}


def _label(start: int, stage: str) -> dict[str, Any]:
    where = {"x": start + 0.5, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "bottom", "xshift": 3}
    return {**where, "text": text(short(stage)), "showarrow": False, "font": {"size": 12}}
