"""What :mod:`training` found, as tables and as bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table


def show(found: dict[str, Any], console: Console) -> None:
    """Print a table for each part that was timed, and what was left out."""
    machine = f"batch {found['batch']}, {found['threads']} threads"
    if "steps" in found:
        console.print(_steps(found["steps"], f"a step, ResNet-20, {machine}: milliseconds"))
    if "peers" in found:
        versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
        console.print(_peers(found["peers"], f"a step with 4-bit weights, {machine} ({versions})"))
        for name in found["absent"]:
            console.print(f"{name} is not installed (pip install 'attar[bench]'): left out")
    if "forwards" in found:
        model = found["forwards"]["model"]
        console.print(
            _forwards(found["forwards"]["teachers"], f"{model} as a teacher, {machine}: milliseconds a batch")
        )


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw each part that was timed as bars."""
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    drawn: dict[str, Callable[[Any, Any], None]] = {
        "steps": _draw_steps,
        "peers": _draw_peers,
        "forwards": _draw_forwards,
    }
    parts = [part for part in drawn if part in found]
    figure, row = pyplot.subplots(1, len(parts), figsize=(4.5 * len(parts), 3.6), layout="constrained", squeeze=False)
    for axes, part in zip(row[0], parts, strict=True):
        drawn[part](found[part], axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _steps(cases: list[dict[str, Any]], title: str) -> Table:
    names = list(cases[0]["steps"])
    table = _table(title, *names, "quantized / taught")
    for case in cases:
        rows = case["steps"]
        table.add_row(_setting(case), *(_time(rows[name]) for name in names), _ratio(rows["quantized"]))
    return table


def _peers(cases: list[dict[str, Any]], title: str) -> Table:
    plain, lsq, *peers = cases[0]["steps"]
    beside = [f"{name} / plain" for name in (lsq, *peers)]
    table = _table(title, "plain, ms", *beside, *(f"lsq / {name}" for name in peers))
    for case in cases:
        rows = case["steps"]
        cells = [f"{rows[name]['ratio']:.3f}" for name in (lsq, *peers)]
        cells += [_ratio(rows[name]["lsq"]) for name in peers]
        table.add_row(f"{case['network']}, {_setting(case)}", _time(rows[plain]), *cells)
    return table


def _forwards(rows: dict[str, Any], title: str) -> Table:
    table = _table(title, "ms", "/ PyTorch bf16")
    for name, row in rows.items():
        table.add_row(name, f"{row['ms']:.2f} ±{50 * row['spread']:.0f} %", _ratio(row))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _setting(case: dict[str, Any]) -> str:
    return f"{case['precision']}, {case['layout']}"


def _time(row: dict[str, Any]) -> str:
    return f"{row['ms']:.0f} ±{50 * row['spread']:.0f} %"


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["quartiles"]
    return f"{row['ratio']:.3f} ({low:.3f} to {high:.3f})"


def _draw_steps(cases: list[dict[str, Any]], axes: Any) -> None:
    names = [_setting(case).replace(", ", "\n") for case in cases]
    for place, name in enumerate(cases[0]["steps"]):
        heights = [case["steps"][name]["ms"] for case in cases]
        axes.bar(np.arange(len(names)) + 0.27 * (place - 1), heights, 0.25, label=name)
    axes.set_xticks(range(len(names)), names, fontsize=6)
    axes.set(ylabel="ms a step", title="ResNet-20")
    axes.legend(fontsize=8)


def _draw_peers(cases: list[dict[str, Any]], axes: Any) -> None:
    names = [f"{case['network']}, {case['precision']}\n{case['layout']}" for case in cases]
    trainings = list(cases[0]["steps"])[1:]
    thick = 0.8 / len(trainings)
    for place, name in enumerate(trainings):
        widths = [case["steps"][name]["ratio"] for case in cases]
        axes.barh(np.arange(len(names)) + thick * (place + 0.5) - 0.4, widths, thick, label=name)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.invert_yaxis()
    axes.set(xlabel="a step / a plain step", title="4-bit weights, beside others")
    axes.legend(fontsize=7, loc="lower right")


def _draw_forwards(found: dict[str, Any], axes: Any) -> None:
    rows = found["teachers"]
    axes.barh(list(rows), [row["ms"] for row in rows.values()], color="tab:gray")
    axes.axvline(rows["PyTorch bf16"]["ms"] / 4, color="tab:red", lw=1, label="a quarter of PyTorch bf16")
    axes.invert_yaxis()
    axes.set(xlabel="ms a batch", title=f"{found['model']} as a teacher", xscale="log")
    axes.set_xlim(left=0.05)
    axes.legend(fontsize=7, loc="lower right")
