"""Sensitivities: a line for each layer over the levels, for each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.report.figures.plot import SERIES, SYMBOLS, Figure, Plot, axis, colour, largest, series, text
from attar._src.report.wording import count, number, plural

#: Key of a row -> its words and the type of its axis.
MEASURES = {
    "signal_to_noise_db": ("signal to noise of the output, dB", "linear"),
    "kl": ("KL of the predictions, nats", "log"),
    "changed": ("share of changed predictions", "linear"),
    "metric": ("metric", "linear"),
    "estimate": ("estimate from gradients", "log"),
    "macs": ("multiplications of the network", "linear"),
    "bits_per_weight": ("coded bits per weight", "linear"),
}
#: What levels are, on the axis across.
LEVELS_ACROSS = {
    "bits": "bits of the weight",
    "sparsity": "share of pruned elements",
    "channels": "share of removed channels",
}
#: Of the first six lines, the next six, and so on.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: Lines of a figure; a legend of more cannot be read.
MOST_LINES = 60


def sensitivity_curves(rows: Sequence[Mapping[str, Any]], what: str) -> Plot:
    """Return a figure for each measure that the rows have: of ``rows``, one for each layer, level and rate.

    Lines are those of the lowest rate; the table has the others.
    """
    rates = sorted({row["rate"] for row in rows})
    rows = [row for row in rows if row["rate"] == rates[0]]
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    names = [*layers]
    shown = [names[i] for i in largest([layers[name][0]["elements"] for name in names], MOST_LINES)]
    figures = []
    for key, (words, scale) in MEASURES.items():
        if any(row[key] is not None for row in rows):
            data = [_line(i, name, layers[name], key) for i, name in enumerate(shown)]
            left_out = len(names) - len(shown)
            note = f"The {len(shown)} largest layers; {plural(left_out, 'other')} in the table. " if left_out else ""
            note += f"At the rate {rates[0]:g}; other rates are in the table." if rates[1:] else ""
            figures.append(Figure((words,), data, _layout(what, words, scale), _alt(layers, key, words), note))
    return Plot("sensitivity", ("Measure",), figures)


def _line(i: int, name: str, rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    hover = [
        text(
            name, f"level {row['level']:g}", f"{key.replace('_', ' ')}: {number(row[key])}", f"{count(row['bytes'])} B"
        )
        for row in rows
    ]
    values = [row[key] if row[key] != 0 or MEASURES[key][1] == "linear" else None for row in rows]
    # Colours repeat after six layers, with other dashes and symbols.
    turn = i // len(SERIES)
    line = {"width": 1.5, "color": colour(i), "dash": DASHES[turn % len(DASHES)]}
    style = {"line": line, "marker": {"size": 6, "color": colour(i), "symbol": SYMBOLS[turn % len(SYMBOLS)]}}
    return series("scatter", name, [row["level"] for row in rows], values, hover, mode="lines+markers", **style)


def _layout(what: str, words: str, scale: str) -> dict[str, Any]:
    across = axis(LEVELS_ACROSS[what], zeroline=False)
    return {"height": 520, "hovermode": "closest", "xaxis": across, "yaxis": axis(words, type=scale)}


def _alt(layers: Mapping[str, Sequence[Mapping[str, Any]]], key: str, words: str) -> str:
    ends = "; ".join(f"{name} {number(rows[0][key])} to {number(rows[-1][key])}" for name, rows in layers.items())
    return f"{words[0].upper()}{words[1:]} from the first level to the last, each layer alone: {ends}."
