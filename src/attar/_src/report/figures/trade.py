"""Test metric against file size, one point for each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attar._src.core.format_bytes import format_bytes
from attar._src.report.figures.plot import SYMBOLS, Figure, Plot, axis, colour, series, text
from attar._src.report.story import ReportedModel, Story
from attar._src.report.wording import count, is_share, metric, milliseconds, number, short


def trade_plot(story: Story) -> Plot:
    """Return the test metric against the file size; bars span the seeds."""
    known = {i: model for i, model in enumerate(story.models) if math.isfinite(_mean(model))}
    if not known:
        return Plot("trade", (), ())
    name = story.run.metric
    factor = 100 if is_share(name) else 1
    sizes = [math.log10(model.file_bytes) for model in known.values()]
    low, high = min(sizes), max(sizes)
    data = [
        _point(i, model, name, factor, left=size > (low + high) / 2)
        for (i, model), size in zip(known.items(), sizes, strict=True)
    ]
    margin = max(0.25 * (high - low), 0.3)
    bytes_axis = {"type": "log", "range": [low - margin, high + margin], "tickformat": "~s"}
    limits = _limits([value for point in data for value in _ends(point)], 101 if factor == 100 else math.inf)
    layout = {
        "height": 400,
        "showlegend": False,
        "xaxis": axis("file, bytes (logarithmic)", **bytes_axis, dtick="D2" if high - low < 1.5 else 1),
        "yaxis": axis(f"test {name}{' (%)' if factor == 100 else ''}", range=limits),
    }
    listing = "; ".join(f"{m.name} {metric(_mean(m), name)} in {format_bytes(m.file_bytes)}" for m in known.values())
    alt = f"Test {name} against bytes of the file: {listing}."
    return Plot("trade", (), [Figure((), data, layout, alt, _note(story, list(known.values())))])


def _mean(model: ReportedModel) -> float:
    mean = model.measured.metric_mean
    return math.nan if mean is None else mean


def _note(story: Story, known: list[ReportedModel]) -> str:
    notes = ["Bars span the seeds."] if any(len(model.measured.metric_per_seed) > 1 for model in known) else []
    missing = [model.name for model in story.models if model not in known]
    if missing:
        notes.append(f"Without a measured {story.run.metric}, not drawn: {', '.join(missing)}.")
    return " ".join(notes)


def _point(i: int, model: ReportedModel, name: str, factor: float, *, left: bool) -> dict[str, Any]:
    mean = factor * _mean(model)
    seeds = [factor * value for value in model.measured.metric_per_seed if math.isfinite(value)] or [mean]
    lines = [
        f"{model.name}",
        f"{name}: {metric(model.measured.metric_mean, name)}",
        f"file: {count(model.file_bytes)} bytes",
        f"bits per weight: {number(model.contents['bits_per_weight'])}",
        f"latency: {milliseconds(model.measured.median_ms)}",
    ]
    error = {"type": "data", "symmetric": False, "array": [max(seeds) - mean], "arrayminus": [mean - min(seeds)]}
    style = {
        "mode": "markers+text",
        "error_y": {**error, "thickness": 1.2, "width": 5, "color": colour(i)},
        "text": [f"  {text(short(model.name, 24))}  "],
        "textposition": "middle left" if left else "middle right",
        "cliponaxis": False,
        "marker": {"size": 13, "color": colour(i), "symbol": SYMBOLS[i % len(SYMBOLS)]},
    }
    return series("scatter", model.name, [model.file_bytes], [mean], [text(*lines)], **style)


def _ends(point: dict[str, Any]) -> tuple[float, float]:
    error = point["error_y"]
    return point["y"][0] - error["arrayminus"][0], point["y"][0] + error["array"][0]


def _limits(values: Sequence[float], most: float) -> list[float]:
    """Return the limits of an axis: the values with a margin, at most ``most``."""
    low, high = min(values), max(values)
    room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, min(high + room, most)]
