"""Bytes of each file by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from attar._src.report.figures.plot import Figure, Plot, axis, categories, largest, series, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, share

#: Layers drawn at most; the page says so.
MOST_ROWS = 40
#: Layer -> part -> bytes.
_Rows = dict[str, dict[str, int]]

_PARTS = {"weight": "weights", "bias": "biases"}
_PART_COLOURS = {
    "weights": "--series-0",
    "biases": "--series-2",
    "other tensors": "--series-4",
    "tables": "--series-3",
    "graph": "--series-1",
    "manifest": "--series-5",
    "overhead": "--muted",
}


def bytes_plot(story: Story) -> Plot:
    """Return a figure for each file, whose bars add up to it: one for each layer, the graph and the rest."""
    return Plot("bytes", ("File",), [_bytes_of(model) for model in story.main_first])


def _bytes_of(model: ReportedModel) -> Figure:
    of = model.contents
    rows, note = _largest_layers(_layers(of))
    rows |= {
        "coding tables": {"tables": sum(table["bytes"] for table in of["tables"])},
        "graph": {"graph": of["graph_bytes"]},
        "manifest": {"manifest": of["overhead"]["manifest"]},
        "header, padding, footer": {"overhead": of["overhead_bytes"] - of["overhead"]["manifest"]},
    }
    rows = {name: row for name, row in rows.items() if sum(row.values())}
    layout = {
        "height": 130 + 30 * len(rows),
        "barmode": "stack",
        "bargap": 0.35,
        "xaxis": axis("bytes", tickformat="~s", rangemode="tozero"),
        "yaxis": categories(list(rows), autorange="reversed", automargin=True, showgrid=False),
        "legend": {"traceorder": "normal"},
    }
    first = sorted(rows, key=lambda name: -sum(rows[name].values()))[:3]
    listing = ", ".join(f"{name} {count(sum(rows[name].values()))}" for name in first)
    whole = count(of["file_bytes"])
    alt = f"Bytes of {model.name} by layer, {whole} in all; the largest: {listing}."
    parts = [part for part in _PART_COLOURS if any(row.get(part) for row in rows.values())]
    data = [_bars(rows, part, of["file_bytes"]) for part in parts]
    return Figure((model.name,), data, layout, alt, f"{note}All bars add up to {whole} bytes.")


def _layers(contents: Mapping[str, Any]) -> _Rows:
    rows: _Rows = defaultdict(dict)
    for tensor in contents["tensors"]:
        layer, _, leaf = tensor["name"].rpartition(".")
        part = _PARTS.get(leaf, "weights" if len(tensor["shape"]) > 1 else "other tensors")
        row = rows[layer or tensor["name"]]
        row[part] = row.get(part, 0) + tensor["payload_bytes"]
    return dict(rows)


def _largest_layers(rows: _Rows) -> tuple[_Rows, str]:
    """Return the largest layers, the others as one row, and a note about them."""
    layers = list(rows)
    if len(layers) <= MOST_ROWS:
        return rows, ""
    sizes = [sum(row.values()) for row in rows.values()]
    kept = [layers[i] for i in largest(sizes, MOST_ROWS)]
    others, rest = len(layers) - MOST_ROWS, sum(sizes) - sum(sum(rows[layer].values()) for layer in kept)
    note = f"The {MOST_ROWS} largest of {len(layers)} layers; the other {others} are one bar. "
    return {layer: rows[layer] for layer in kept} | {f"{others} other layers": {"other tensors": rest}}, note


def _bars(rows: _Rows, part: str, whole: int) -> dict[str, Any]:
    at = {i: name for i, name in enumerate(rows) if rows[name].get(part)}
    sizes = [rows[name][part] for name in at.values()]
    hover = [
        text(name, f"{part}: {count(size)} bytes, {share(size / whole)} of the file")
        for name, size in zip(at.values(), sizes, strict=True)
    ]
    style = {"orientation": "h", "marker": {"color": _PART_COLOURS[part]}, "textposition": "none"}
    return series("bar", part, sizes, list(at), hover, **style)
