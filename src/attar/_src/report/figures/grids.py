"""Grids: how the weights of a file spread, with the points of their grids marked. Part of ``report.figures``."""

from __future__ import annotations

from typing import Any

from attar._src.report.figures.histogram import weight_histogram
from attar._src.report.figures.plot import Figure, Plot, axis, largest
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, number, plural, share

#: Tensors of a file that can be looked into; the page says so where there are more.
MOST_TENSORS = 60

#: Element types of dense tensors that hold real values; compressed tensors have none, and always do.
_REAL = frozenset({None, "f32", "f16", "bf16"})


def grids(story: Story) -> Plot:
    """Return a figure for every weight of every file, the main one first."""
    return Plot("weights", ("File", "Tensor"), [figure for model in story.main_first for figure in _grids(model)])


def _grids(model: ReportedModel) -> list[Figure]:
    """A histogram of each weight, with the points of its grid."""
    records = [
        item
        for item in model.contents["tensors"]
        if item["elements"] and (len(item["shape"]) > 1 or item["kind"] != "dense") and item.get("dtype") in _REAL
    ]
    kept = [records[i] for i in largest([item["elements"] for item in records], MOST_TENSORS)]
    more = len(records) - len(kept)
    cut = f" The {len(kept)} largest of {len(records)} tensors can be chosen." if more else ""
    return [_grid(model, item["name"], "x".join(map(str, item["shape"])), cut) for item in kept]


def _grid(model: ReportedModel, name: str, shape: str, cut: str) -> Figure:
    found = weight_histogram(model.artifact.tensor(name))
    top = int(found.counts.max(initial=0))
    tall = found.zeros > 1.5 * top > 0
    high = (1.35 * top if tall else 1.12 * max(top, found.zeros)) or 1
    width = float(found.centres[1] - found.centres[0])
    bar = {"type": "bar", "hoverinfo": "text", "textposition": "none"}
    data: list[dict[str, Any]] = [
        {
            **bar,
            "name": "values",
            "x": _round(found.centres),
            "y": found.counts.tolist(),
            "width": width,
            "marker": {"color": "--series-0"},
            "hovertext": [f"about {number(x, 3)}: {n:,}" for x, n in zip(found.centres, found.counts, strict=True)],
        }
    ]
    zeros = f"exactly zero: {count(found.zeros)} ({share(found.zeros / found.elements)})"
    if found.zeros:
        zero = {**bar, "name": "exactly zero", "x": [0], "y": [found.zeros], "width": width}
        data.append({**zero, "marker": {"color": "--muted"}, "hovertext": [zeros]})
    if found.points.size:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "points of the grid",
                "x": _round(found.points),
                "y": [-0.045 * high] * found.points.size,
                "marker": {"symbol": "line-ns-open", "size": 9, "color": "--series-1", "line": {"width": 1.2}},
                "hovertext": [f"grid point {number(x)}" for x in found.points],
                "hoverinfo": "text",
            }
        )
    layout: dict[str, Any] = {
        "height": 380,
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": axis("decoded value", zeroline=False),
        "yaxis": axis("how many", range=[-0.09 * high, high], zeroline=True),
        "annotations": [],
    }
    if tall:
        # The bar of zeros goes on beyond the plot, or nothing else could be seen.
        above = {"x": 0, "y": high, "text": zeros, "showarrow": False, "xanchor": "left", "xshift": 8, "yanchor": "top"}
        layout["annotations"].append(above)
    note = f"{shape}, {found.grid}."
    if found.codes.size:
        layout |= _steps(data, layout["yaxis"], found.codes, found.uses)
    if found.points.size < found.all_points:
        note += f" {count(found.points.size)} of {count(found.all_points)} points of the grid are drawn, evenly chosen."
    if tall:
        note += " The bar of zeros goes on beyond the top."
    alt = f"Histogram of {name} of {model.name}: {plural(found.elements, 'value')}, {zeros}; {found.grid}."
    return Figure((model.name, name), data, layout, alt, note + cut)


def _steps(data: list[dict[str, Any]], above: dict[str, Any], codes: Any, uses: Any) -> dict[str, Any]:
    """Add a second panel, the multiples of a step, and return the layout of both."""
    inner = uses[codes != 0]
    top, zeros = int(inner.max(initial=0)), int(uses[codes == 0].sum())
    high = (1.35 * top if zeros > 1.5 * top > 0 else 1.12 * max(top, zeros)) or 1
    total = max(int(uses.sum()), 1)
    data.append(
        {
            "type": "bar",
            "name": "codes",
            "showlegend": False,
            "x": codes.tolist(),
            "y": uses.tolist(),
            "xaxis": "x2",
            "yaxis": "y2",
            "width": 0.62,
            "marker": {"color": ["--muted" if code == 0 else "--series-0" for code in codes]},
            "hovertext": [
                f"{code} steps: {count(n)} ({share(n / total)})" for code, n in zip(codes.tolist(), uses, strict=True)
            ],
            "hoverinfo": "text",
            "textposition": "none",
        }
    )
    return {
        "height": 620,
        "xaxis": axis("decoded value", zeroline=False, anchor="y"),
        "yaxis": axis("how many", range=above["range"], domain=[0.54, 1], anchor="x"),
        "xaxis2": axis("steps from zero: code less zero point", zeroline=False, anchor="y2", showgrid=False),
        "yaxis2": axis("how many", range=[0, high], domain=[0, 0.38], anchor="x2"),
    }


def _round(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
