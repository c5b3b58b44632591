"""Figures: the plots of the page, from the story; as Plotly's JSON, with no need of Plotly to make them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from attar._src.report.curves import curves
from attar._src.report.grids import grids
from attar._src.report.histogram import largest
from attar._src.report.plot import SYMBOLS, Figure, Plot, axis, categories, colour, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import (
    count,
    format_bytes,
    is_share,
    metric,
    milliseconds,
    number,
    plural,
    points,
    share,
    short,
)

#: Layers and classes of a chart: at most so many are drawn, and the page says so.
MOST_ROWS = 40
MOST_CLASSES = 40

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


def plots(story: Story) -> dict[str, Plot]:
    """Return every plot the story has numbers for, by its place on the page."""
    made = [_trade(story), _bytes(story), grids(story), curves(story), _classes(story)]
    return {plot.name: plot for plot in made if plot.figures}


def _trade(story: Story) -> Plot:
    """The test metric against the length of the file, a point for each model."""
    name = story.run.metric
    known = [(i, model) for i, model in enumerate(story.models) if model.measured.metric_mean is not None]
    known = [(i, model) for i, model in known if math.isfinite(model.measured.metric_mean or 0)]
    if not known:
        return Plot("trade", (), ())
    factor = 100 if is_share(name) else 1
    sizes = [math.log10(model.file_bytes) for _, model in known]
    low, high = min(sizes), max(sizes)
    middle = (low + high) / 2
    data: list[dict[str, Any]] = []
    for i, model in known:
        mean = factor * (model.measured.metric_mean or 0)
        seeds = [factor * value for value in model.measured.metric_per_seed if math.isfinite(value)] or [mean]
        lines = [
            f"{model.name}",
            f"{name}: {metric(model.measured.metric_mean, name)}",
            f"file: {count(model.file_bytes)} bytes",
            f"bits per weight: {number(model.bits_per_weight)}",
            f"latency: {milliseconds(model.measured.median_ms)}",
        ]
        error = {"type": "data", "symmetric": False, "array": [max(seeds) - mean], "arrayminus": [mean - min(seeds)]}
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": text(short(model.name)),
                "x": [model.file_bytes],
                "y": [mean],
                "error_y": {**error, "thickness": 1.2, "width": 5, "color": colour(i)},
                "text": [f"  {text(short(model.name, 24))}  "],
                "textposition": "middle right" if math.log10(model.file_bytes) <= middle else "middle left",
                "cliponaxis": False,
                "hovertext": [text(*lines)],
                "hoverinfo": "text",
                "marker": {"size": 13, "color": colour(i), "symbol": SYMBOLS[i % len(SYMBOLS)]},
            }
        )
    room = max(0.25 * (high - low), 0.3)
    unit = " (%)" if factor == 100 else ""
    layout = {
        "height": 400,
        "showlegend": False,
        "xaxis": axis(
            "file, bytes (logarithmic)",
            type="log",
            range=[low - room, high + room],
            tickformat="~s",
            dtick="D2" if high - low < 1.5 else 1,
        ),
        "yaxis": axis(
            f"test {name}{unit}",
            range=_room([value for trace in data for value in _ends(trace)], 101 if factor == 100 else math.inf),
        ),
    }
    told = "; ".join(
        f"{m.name} {metric(m.measured.metric_mean, name)} in {format_bytes(m.file_bytes)}" for _, m in known
    )
    several = any(len(model.measured.metric_per_seed) > 1 for _, model in known)
    note = "Bars span the seeds. " if several else ""
    missing = [model.name for model in story.models if model not in [model for _, model in known]]
    note += f"Without a measured {name}, not drawn: {', '.join(missing)}." if missing else ""
    alt = f"Test {name} against bytes of the file: {told}."
    return Plot("trade", (), [Figure((), data, layout, alt, note.strip())])


def _ends(trace: dict[str, Any]) -> tuple[float, float]:
    error = trace["error_y"]
    return trace["y"][0] - error["arrayminus"][0], trace["y"][0] + error["array"][0]


def _room(values: Sequence[float], most: float) -> list[float]:
    """Return the ends of an axis with room beside the values, but for what no value can reach."""
    low, high = min(values), max(values)
    room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, min(high + room, most)]


def _bytes(story: Story) -> Plot:
    return Plot("bytes", ("File",), [_bytes_of(model) for model in story.main_first])


def _bytes_of(model: ReportedModel) -> Figure:
    """A bar for each layer, the graph and the rest of the file; they add up to the file."""
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


def _classes(story: Story) -> Plot:
    """Accuracy of each class, the baseline beside the others."""
    labels = shown_classes(story)
    if not labels:
        return Plot("classes", (), ())
    of_all = story.baseline.measured.per_class or {}
    data: list[dict[str, Any]] = []
    order = [story.baseline, *story.others]
    for slot, model in enumerate(order):
        per_class = model.measured.per_class or {}
        at = [i for i, label in enumerate(labels) if label in per_class]
        if not at:
            continue
        i = story.models.index(model)
        gone = {change.label: change for change in story.collapsed.get(model.name, ())}
        hover = [
            text(
                f"class {labels[k]}",
                f"{model.name}: {share(per_class[labels[k]])}",
                *([f"collapsed: {points(gone[labels[k]].change)} points"] if labels[k] in gone else []),
            )
            for k in at
        ]
        aside = 0.5 * ((slot + 0.5) / len(order) - 0.5)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": text(short(model.name)),
                "x": [k + aside for k in at],
                "y": [100 * per_class[labels[k]] for k in at],
                "marker": {
                    "opacity": 1,
                    "size": [15 if labels[k] in gone else 10 for k in at],
                    "symbol": ["x" if labels[k] in gone else SYMBOLS[i % len(SYMBOLS)] for k in at],
                    "color": ["--alarm" if labels[k] in gone else colour(i) for k in at],
                },
                "hovertext": hover,
                "hoverinfo": "text",
            }
        )
    values = [value for trace in data for value in trace["y"]]
    low = max(0.0, min(values) - 5)
    layout = {
        "height": 380,
        "xaxis": categories(labels, "class", showgrid=False),
        "yaxis": axis("test accuracy (%)", range=[low, 100 + 0.04 * (100 - low)], zeroline=False),
    }
    lost = [f"{change.label} of {name}" for name, changes in story.collapsed.items() for change in changes]
    alt = f"Test accuracy of {plural(len(labels), 'class')} for {plural(len(data), 'model')}. "
    alt += f"Collapsed: {', '.join(lost)}." if lost else "No class collapsed."
    cut = len(of_all) - len(labels)
    note = f"The {len(labels)} classes that changed most, of {len(of_all)}; all are in report.json." if cut else ""
    return Plot("classes", (), [Figure((), data, layout, alt, note)])


def shown_classes(story: Story) -> list[str]:
    """Return the classes that are shown: all of them, or those that lost most in any model."""
    labels = list(story.baseline.measured.per_class or {})
    if len(labels) <= MOST_CLASSES:
        return labels
    worst: dict[str, float] = defaultdict(float)
    for changes in story.changes.values():
        for change in changes:
            worst[change.label] = max(worst[change.label], -change.change)
    first = set(sorted(labels, key=lambda label: -worst[label])[:MOST_CLASSES])
    return [label for label in labels if label in first]
