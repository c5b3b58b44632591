"""Bytes of each file by layer; the bars add up to the file."""

from __future__ import annotations

from collections import defaultdict

from attar._src.report.figures.plot import Figure, Plot, axis, categories, largest, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, share

#: Layers drawn at most; the page says so.
MOST_ROWS = 40

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
    """Return a figure for each file: one bar for each layer, the graph, the manifest and the rest."""
    return Plot("bytes", ("File",), [_bytes_of(model) for model in story.main_first])


def _bytes_of(model: ReportedModel) -> Figure:
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    for tensor in model.contents["tensors"]:
        layer, _, leaf = tensor["name"].rpartition(".")
        part = _PARTS.get(leaf, "weights" if len(tensor["shape"]) > 1 else "other tensors")
        row = rows[layer or tensor["name"]]
        row[part] = row.get(part, 0) + tensor["payload_bytes"]
    note, layers = "", list(rows)
    if len(layers) > MOST_ROWS:
        kept = {layers[i] for i in largest([sum(rows[layer].values()) for layer in layers], MOST_ROWS)}
        rest = [layer for layer in layers if layer not in kept]
        rows = {layer: rows[layer] for layer in layers if layer in kept} | {
            f"{len(rest)} other layers": {"other tensors": sum(sum(rows[layer].values()) for layer in rest)}
        }
        note = f"The {MOST_ROWS} largest of {len(layers)} layers; the other {len(rest)} are one bar. "
    of = model.contents
    tables = sum(table["bytes"] for table in of["tables"])
    rows["coding tables"] = {"tables": tables}
    rows["graph"] = {"graph": of["graph_bytes"]}
    rows["manifest"] = {"manifest": of["overhead"]["manifest"]}
    rows["header, padding, footer"] = {"overhead": of["overhead_bytes"] - of["overhead"]["manifest"]}
    names = [name for name in rows if sum(rows[name].values())]
    data = []
    for part, shade in _PART_COLOURS.items():
        at = [i for i, name in enumerate(names) if rows[name].get(part)]
        found = [rows[names[i]][part] for i in at]
        if found:
            hover = [
                text(names[i], f"{part}: {count(n)} bytes, {share(n / of['file_bytes'])} of the file")
                for i, n in zip(at, found, strict=True)
            ]
            bar = {"type": "bar", "orientation": "h", "name": part, "x": found, "y": at, "marker": {"color": shade}}
            data.append({**bar, "hovertext": hover, "hoverinfo": "text", "textposition": "none"})
    layout = {
        "height": 130 + 30 * len(names),
        "barmode": "stack",
        "bargap": 0.35,
        "xaxis": axis("bytes", tickformat="~s", rangemode="tozero"),
        "yaxis": categories(names, autorange="reversed", automargin=True, showgrid=False),
        "legend": {"traceorder": "normal"},
    }
    first = sorted(names, key=lambda name: -sum(rows[name].values()))[:3]
    told = ", ".join(f"{name} {count(sum(rows[name].values()))}" for name in first)
    alt = f"Bytes of {model.name} by layer, {count(of['file_bytes'])} in all; the largest: {told}."
    return Figure((model.name,), data, layout, alt, f"{note}All bars add up to {count(of['file_bytes'])} bytes.")
