"""Histograms of the weights of each file, with the points of their grids."""

from __future__ import annotations

from typing import Any

from attar._src.report.figures.histogram import WeightHistogram, weight_histogram
from attar._src.report.figures.plot import Figure, Plot, axis, largest, series
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, number, plural, share

#: Tensors of a file that can be chosen; the page says so if there are more.
MOST_TENSORS = 60
#: Types of dense tensors with real values; None is that of compressed tensors, which are always real.
_REAL = frozenset({None, "f32", "f16", "bf16"})


def grids(story: Story) -> Plot:
    """Return a figure for each weight of each file, the main file first."""
    return Plot("weights", ("File", "Tensor"), [figure for model in story.main_first for figure in _grids(model)])


def _grids(model: ReportedModel) -> list[Figure]:
    records = [
        item
        for item in model.contents["tensors"]
        if item["elements"] and (len(item["shape"]) > 1 or item["kind"] != "dense") and item.get("dtype") in _REAL
    ]
    kept = [records[i] for i in largest([item["elements"] for item in records], MOST_TENSORS)]
    cut = f" The {len(kept)} largest of {len(records)} tensors can be chosen." if len(kept) < len(records) else ""
    return [_grid(model, item["name"], "x".join(map(str, item["shape"])), cut) for item in kept]


def _grid(model: ReportedModel, name: str, shape: str, cut: str) -> Figure:
    found = weight_histogram(model.artifact.tensor(name))
    high, tall = _height(int(found.counts.max(initial=0)), found.zeros)
    zeros = f"exactly zero: {count(found.zeros)} ({share(found.zeros / found.elements)})"
    data = _values(found, zeros)
    if found.points.size:
        data.append(_grid_points(found, -0.045 * high))
    layout: dict[str, Any] = {
        "height": 380,
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": axis("decoded value", zeroline=False),
        "yaxis": axis("how many", range=[-0.09 * high, high], zeroline=True),
        "annotations": [],
    }
    if tall:
        above = {"x": 0, "y": high, "text": zeros, "showarrow": False, "xanchor": "left", "xshift": 8, "yanchor": "top"}
        layout["annotations"].append(above)
    if found.codes.size:
        data.append(_codes(found))
        layout |= _two_panels(found, layout["yaxis"]["range"])
    note = f"{shape}, {found.grid}."
    if found.points.size < found.all_points:
        note += f" {count(found.points.size)} of {count(found.all_points)} points of the grid are drawn, evenly chosen."
    note += " The bar of zeros is cut at the top." if tall else ""
    alt = f"Histogram of {name} of {model.name}: {plural(found.elements, 'value')}, {zeros}; {found.grid}."
    return Figure((model.name, name), data, layout, alt, note + cut)


def _height(top: int, zeros: int) -> tuple[float, bool]:
    """Return the upper limit of an axis, and whether it cuts the bar of zeros, which would dwarf the others."""
    tall = zeros > 1.5 * top > 0
    return (1.35 * top if tall else 1.12 * max(top, zeros)) or 1, tall


def _values(found: WeightHistogram, zeros: str) -> list[dict[str, Any]]:
    style = {"textposition": "none", "width": float(found.centres[1] - found.centres[0])}
    hover = [f"about {number(x, 3)}: {n:,}" for x, n in zip(found.centres, found.counts, strict=True)]
    x, counts = _round(found.centres), found.counts.tolist()
    data = [series("bar", "values", x, counts, hover, marker={"color": "--series-0"}, **style)]
    if found.zeros:
        data.append(series("bar", "exactly zero", [0], [found.zeros], [zeros], marker={"color": "--muted"}, **style))
    return data


def _grid_points(found: WeightHistogram, y: float) -> dict[str, Any]:
    hover = [f"grid point {number(x)}" for x in found.points]
    marker = {"symbol": "line-ns-open", "size": 9, "color": "--series-1", "line": {"width": 1.2}}
    x, ys = _round(found.points), [y] * found.points.size
    return series("scatter", "points of the grid", x, ys, hover, mode="markers", marker=marker)


def _codes(found: WeightHistogram) -> dict[str, Any]:
    """Return the bars of the second panel, one for each multiple of the step."""
    codes, uses, total = found.codes.tolist(), found.uses.tolist(), max(int(found.uses.sum()), 1)
    hover = [f"{code} steps: {count(n)} ({share(n / total)})" for code, n in zip(codes, uses, strict=True)]
    marker = {"color": ["--muted" if code == 0 else "--series-0" for code in codes]}
    style = {"xaxis": "x2", "yaxis": "y2", "showlegend": False, "width": 0.62, "textposition": "none"}
    return series("bar", "codes", codes, uses, hover, marker=marker, **style)


def _two_panels(found: WeightHistogram, above: list[float]) -> dict[str, Any]:
    inner = found.uses[found.codes != 0]
    high, _ = _height(int(inner.max(initial=0)), int(found.uses[found.codes == 0].sum()))
    return {
        "height": 620,
        "xaxis": axis("decoded value", zeroline=False, anchor="y"),
        "yaxis": axis("how many", range=above, domain=[0.54, 1], anchor="x"),
        "xaxis2": axis("steps from zero: code less zero point", zeroline=False, anchor="y2", showgrid=False),
        "yaxis2": axis("how many", range=[0, high], domain=[0, 0.38], anchor="x2"),
    }


def _round(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
