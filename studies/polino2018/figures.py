"""The figures of this study, made from results.json: the mean of a row, and how far its seeds lie apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from tables import PUBLISHED, Entries, average, best, deviation, rows_of

INK, QUIET, OTHER = "#1b6ca8", "#999999", "#c8553d"
SECOND, THIRD = "#5b9bd5", "#3a3a3a"


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw every figure."""
    # The same figures give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    for name, make in FIGURES.items():
        make(results, folder / f"{name}.svg")


def _saved(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _spread(rows: list[Entries]) -> list[float] | None:
    """Return how far the seeds of each row lie apart, nothing for a row of one; None where all are."""
    found = [deviation(row) for row in rows]
    return [each or 0.0 for each in found] if any(each is not None for each in found) else None


def _budgeted(results: dict[str, Any], student: str) -> list[Entries]:
    found = [[entry] for name, entry in results["files"].items() if re.fullmatch(rf"{student}-\d+bit", name)]
    return sorted(found, key=lambda row: float(row[0]["bits_per_weight"]))


def against_size(results: dict[str, Any], path: Path, *, key: str, label: str, scale: float) -> None:
    """Draw accuracy against a size: our files, the paper's methods measured here, and the published figures."""
    figure, all_axes = pyplot.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axes, student in zip(all_axes, PUBLISHED, strict=True):
        here = rows_of(results, f"{student}-paper")
        lines = [("Attar", INK, "o", _budgeted(results, student))]
        for method, mark in (("qd", "s"), ("dq", "^")):
            found = [here[name] for bits in (2, 4) if (name := f"{student}-{method}-{bits}") in here]
            lines += [(f"{method.upper()}, measured here", OTHER, mark, found)] if found else []
        for title, colour, mark, rows in lines:
            axes.errorbar(
                [average(row, key) / scale for row in rows],
                [average(row, "accuracy_percent") for row in rows],
                yerr=_spread(rows),
                fmt=f"{mark}-",
                color=colour,
                label=title,
            )
        if key == "bits_per_weight":
            axes.plot([2, 4], [best(student, bits) for bits in (2, 4)], "x", color=QUIET, label="best published")
        axes.axhline(PUBLISHED[student]["fp"], color=QUIET, lw=0.8, ls=":", label="published, floating point")
        axes.set(title=student.upper(), xlabel=label, ylabel="test accuracy, %")
        axes.legend(frameon=False, fontsize=7)
    _saved(figure, path)


def _curve(axes: Axes, row: Entries, *, after: int = 0, **style: Any) -> tuple[int, float]:
    """Draw held-out accuracy by epoch, counted on from ``after``; return where it ends."""
    curves = [[100 * epoch["validation_accuracy"] for epoch in entry["epochs"]] for entry in row]
    # As far as all seeds go: while a study is done again some may be of an earlier recipe.
    steps = list(zip(*curves, strict=False))
    at, means = range(after + 1, after + 1 + len(steps)), [mean(step) for step in steps]
    axes.plot(at, means, marker=".", **style)
    if len(row) > 1:
        spread = [stdev(step) for step in steps]
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(at, low, high, color=style["color"], alpha=0.15, lw=0)
    return after + len(steps), means[-1]


def convergence(results: dict[str, Any], path: Path) -> None:
    """Draw held-out accuracy by epoch: quantized distillation against differentiable quantization."""
    runs = {run.removesuffix("-paper"): rows_of(results, run) for run in results["runs"] if run.endswith("-paper")}
    runs = {student: found for student, found in runs.items() if any(row[0]["epochs"] for row in found.values())}
    figure, grid = pyplot.subplots(
        1, 2 * max(len(runs), 1), figsize=(4.5 * max(len(runs), 1) + 1, 3.2), layout="constrained", squeeze=False
    )
    for column, (student, found) in enumerate(runs.items()):
        for offset, bits in enumerate((2, 4)):
            axes = grid[0][2 * column + offset]
            for method, colour in (("qd", INK), ("dq", OTHER)):
                for kind, style in (("", "-"), ("-normal", ":")):
                    row = found.get(f"{student}-{method}-{bits}{kind}")
                    if row:
                        label = method.upper() + (", labels alone" if kind else "")
                        _curve(axes, row, label=label, color=colour, ls=style)
            axes.set(title=f"{student.upper()}, {bits} bits", xlabel="epoch", ylabel="held-out accuracy, %")
            if axes.lines:
                axes.legend(frameon=False, fontsize=7)
    _saved(figure, path)


def epochs(results: dict[str, Any], path: Path) -> None:
    """Draw held-out accuracy over all epochs of a student: in floating point, at the start of the budgets, under each.

    What was trained from a file is drawn behind what made that file.
    """
    figure, all_axes = pyplot.subplots(3, 1, figsize=(8, 7.5), layout="constrained")
    for axes, student in zip(all_axes, PUBLISHED, strict=True):
        done, ends = 0, []
        for run, label, colour in (("fp", "floating point", QUIET), ("start", "start", OTHER)):
            for row in list(rows_of(results, f"{student}-{run}").values())[:1]:
                done, end = _curve(axes, row, after=done, color=colour)
                axes.annotate(label, (done, end), (0, 5), textcoords="offset points", ha="right", color=colour)
        for budget, label, colour in (("4bit", "3.8 bits", INK), ("2bit", "2 bits", SECOND), ("1bit", "1 bit", THIRD)):
            if row := rows_of(results, student).get(f"{student}-{budget}"):
                ends.append((*_curve(axes, row, after=done, color=colour), label, colour))
        _labels(axes, ends)
        # The last points are what is asked for, not the way there.
        top = max((max(line.get_ydata()) for line in axes.lines), default=100)
        axes.set_ylim(top - 13, top + 2)
        axes.set(title=student.upper(), xlabel="epoch", ylabel="held-out accuracy, %")
    _saved(figure, path)


def _labels(axes: Axes, ends: list[tuple[int, float, str, str]]) -> None:
    """Name lines beside their ends, each low enough to leave the one above it free."""
    below = float("inf")
    for _, value, label, colour in sorted(ends, key=lambda end: -end[1]):
        below = min(value, below - 1.6)
        last = max(end[0] for end in ends)
        axes.annotate(label, (last, below), (6, 0), textcoords="offset points", va="center", color=colour)


def bars(results: dict[str, Any], path: Path, *, run: str) -> None:
    """Draw the test accuracy of every row of a run."""
    rows = rows_of(results, run)
    figure, axes = pyplot.subplots(figsize=(6, 0.3 * len(rows) + 1), layout="constrained")
    values, spread = [average(row, "accuracy_percent") for row in rows.values()], _spread(list(rows.values()))
    axes.barh(list(rows), values, color=INK, xerr=spread, ecolor=OTHER)
    axes.invert_yaxis()
    if values:
        axes.set_xlim(min(values) - 2, max(values) + max(spread or [0]) + 1)
    axes.set_xlabel("test accuracy, %")
    _saved(figure, path)


def by_bucket(results: dict[str, Any], path: Path) -> None:
    """Draw accuracy and bits per weight against the size of a bucket, rounded after training."""
    found = rows_of(results, "s3-buckets")
    figure, both = pyplot.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
    for bits, colour in ((2, OTHER), (4, INK)):
        rows = [
            (int(name.rsplit("-", 1)[1]), row)
            for name, row in found.items()
            if name.startswith(f"pm-{bits}-") and name.rsplit("-", 1)[1].isdigit()
        ]
        rows.sort(key=lambda row: row[0])
        for axes, key in zip(both, ("accuracy_percent", "bits_per_weight"), strict=True):
            axes.plot(
                [size for size, _ in rows],
                [average(row, key) for _, row in rows],
                "o-",
                color=colour,
                label=f"{bits} bits",
            )
    for axes, label in zip(both, ("test accuracy, %", "bits per weight"), strict=True):
        axes.set(xlabel="bucket size", ylabel=label, xscale="log")
        axes.legend(frameon=False)
    _saved(figure, path)


FIGURES: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "bits": lambda results, path: against_size(results, path, key="bits_per_weight", label="bits per weight", scale=1),
    "bytes": lambda results, path: against_size(results, path, key="file_bytes", label="file, KB", scale=1000),
    "buckets": by_bucket,
    "losses": lambda results, path: bars(results, path, run="s3-losses"),
    "convergence": convergence,
    "epochs": epochs,
    "parts": lambda results, path: bars(results, path, run="s3-parts"),
}
