"""What :mod:`coding` found, as tables and as a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

NAMES = ("nnc", "auto", "context", "rans", "zstd -19 packed", "constriction ANS")


def show(found: dict[str, Any], console: Console) -> None:
    """Print a table of each kind of figure, a column for each case, and one of trained weights."""
    for title, rows in _tables(found):
        table = Table(title=title)
        for place, cell in enumerate(rows[0]):
            table.add_column(cell, justify="right" if place else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    for part in ("weights", "pruned"):
        if part not in found:
            console.print(f"{part}: ATTAR_DATA lacks these weights, which were not measured")


def as_markdown(found: dict[str, Any]) -> str:
    """Return the same tables in Markdown."""
    texts = []
    for title, (head, *rows) in _tables(found):
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        texts.append(title + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(texts)


def _tables(found: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    cases = found["cases"]
    head = [_kind(case) for case in cases]
    entropy = ["entropy, bits", *(f"{case['entropy_bits']:.4f}" for case in cases)]
    over = [["% over", *head], entropy, *_rows(cases, lambda row: f"{row['overhead_percent']:.3f}")]
    decoded = _rows(cases, lambda row: f"{_speed(row['decode_msymbols_per_s'])} ({row['decode_time_over_rans']:.2f})")
    encoded = _rows(cases, lambda row: _speed(row["encode_msymbols_per_s"]))
    tables = [
        ("size, % over the entropy", over),
        ("million symbols decoded a second, and time over that of rans", [["decoded M/s", *head], *decoded]),
        ("million symbols encoded a second", [["encoded M/s", *head], *encoded]),
    ]
    if "weights" in found:
        files = found["weights"]
        tables.append(("trained weights: bytes (M symbols decoded a second)", _weights([*files, _sum(files)])))
    if "pruned" in found:
        tables.append(("pruned weights: bytes (M symbols decoded a second)", _weights(found["pruned"])))
    return tables


def _kind(case: dict[str, Any]) -> str:
    return f"{case['bits']} bit, " + (f"{100 * case['zeros']:.0f} % zeros" if case["zeros"] else "dense")


def _rows(cases: list[dict[str, Any]], figure: Callable[[dict[str, Any]], str]) -> list[list[str]]:
    """Return a row for each coder, with a figure of each case."""
    return [[row[0]["coder"], *map(figure, row)] for row in zip(*(case["coders"] for case in cases), strict=True)]


def _speed(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _sum(files: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {"file": "all"}
    for name in ("symbols", "entropy_bytes"):
        whole[name] = sum(file[name] for file in files)
    for name in NAMES:
        whole[name] = {figure: sum(file[name][figure] for file in files) for figure in files[0][name]}
    return whole


def _weights(files: list[dict[str, Any]]) -> list[list[str]]:
    names = [name for name in NAMES if name in files[0]]
    rows = [["bytes", "symbols", "entropy", *names]]
    for file in files:
        cells = [file["file"], f"{file['symbols']:,}", f"{file['entropy_bytes']:,.0f}"]
        for name in names:
            seconds = file[name].get("decode_seconds")
            cells.append(
                f"{file[name]['bytes']:,}" + (f" ({_speed(file['symbols'] / seconds / 1e6)})" if seconds else "")
            )
        rows.append(cells)
    return rows


def draw(cases: list[dict[str, Any]], path: Path) -> None:
    """Draw bits over the entropy against decoding speed, a point for each coder and case."""
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for row in zip(*(case["coders"] for case in cases), strict=True):
        speeds = [item["decode_msymbols_per_s"] for item in row]
        # An exact hit would have no place on a logarithmic axis.
        over = [max(item["overhead_percent"], 1e-3) for item in row]
        axes.plot(speeds, over, "o", label=row[0]["coder"], alpha=0.8)
    axes.set(
        xscale="log", yscale="log", xlabel="decoded, million symbols a second, one core", ylabel="% over the entropy"
    )
    axes.set_title("2, 4 and 8 bits, dense and with zeros: right and down is better")
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
