"""Methods of a comparison: what each loses against the bytes of its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar._src.report.figures.plot import SERIES, SYMBOLS, Figure, Plot, axis, colour, series, text
from attar._src.report.wording import count, number

_DASHES = ("solid", "dash", "dot", "dashdot")


def method_curves(result: Mapping[str, Any]) -> Plot:
    """Return a figure with a line for each variant of a method, of the fields of ``compare.json``."""
    lines: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for each in result["tries"]:
        if not each["failed"]:
            lines.setdefault((each["method"], each["variant"]), []).append(each)
    methods = list(dict.fromkeys(method for method, _ in lines))
    data = []
    for (method, variant), tries in lines.items():
        place = methods.index(method)
        tries = sorted(tries, key=lambda each: -each["file_bytes"])
        hover = [
            text(method, f"{count(each['file_bytes'])} bytes", f"{number(each['drop'], 3)} {each['unit']} lost")
            for each in tries
        ]
        turn = place // len(SERIES)
        style = {
            "mode": "lines+markers",
            "line": {"width": 1.5, "color": colour(place), "dash": _DASHES[turn % len(_DASHES)]},
            "marker": {"size": 7, "color": colour(place), "symbol": SYMBOLS[turn % len(SYMBOLS)]},
            "legendgroup": text(method),
            "showlegend": variant == min(own for name, own in lines if name == method),
        }
        values = [each["drop"] for each in tries]
        data.append(series("scatter", method, [each["file_bytes"] for each in tries], values, hover, **style))
    layout = {
        "height": 520,
        "hovermode": "closest",
        "xaxis": axis("bytes of the file", type="log"),
        "yaxis": axis(f"{result['unit']} lost on the validation examples", zeroline=True),
    }
    said = "; ".join(f"{row['method']} {_said(row)}" for target in result["targets"] for row in target["rows"])
    figure = Figure(("All",), data, layout, f"What each method loses against the bytes of its files: {said}.")
    return Plot("curves", ("Methods",), [figure])


def _said(row: Mapping[str, Any]) -> str:
    return f"{count(row['file_bytes'])} bytes, {number(row['drop'], 3)} lost" if row["holds"] else row["why"]
