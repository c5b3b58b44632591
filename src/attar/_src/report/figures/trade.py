"""Test metric against file size, one point for each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attar._src.core.format_bytes import format_bytes
from attar._src.report.figures.plot import SYMBOLS, Figure, Plot, axis, colour, text
from attar._src.report.story import Story
from attar._src.report.wording import count, is_share, metric, milliseconds, number, short


def trade_plot(story: Story) -> Plot:
    """Return the test metric against the file size; bars span the seeds."""
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
    """Return the limits of an axis: the values with a margin, at most ``most``."""
    low, high = min(values), max(values)
    room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, min(high + room, most)]
