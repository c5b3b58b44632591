"""``sensitivity.html``: the sensitivities of the layers as curves and a table, one file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attar._src.artifact.writer import write_atomically
from attar._src.report.content import PageSection, PageTable
from attar._src.report.figures.plot import Plot
from attar._src.report.figures.sensitivity_curves import sensitivity_curves
from attar._src.report.page import TEMPLATES, page_parts
from attar._src.report.wording import count, number, plural, sensitivity_cells, sensitivity_columns

#: Name of the page in the folder of ``attar sensitivity``.
SENSITIVITY_PAGE = "sensitivity.html"


class _Words(NamedTuple):
    """What a page says of levels of one kind."""

    title: str
    changed: str
    level: str
    needed: str
    use: str


_WORDS = {
    "bits": _Words(
        "What each layer costs with fewer bits",
        "has fewer bits",
        "bits of the weight. Bytes: of the entropy-coded tensor",
        "Bits",
        "attar quantize MODEL --data DATA{scales} --sensitivity FOLDER --size 2.5 -o small.attar",
    ),
    "sparsity": _Words(
        "What each layer costs pruned",
        "is pruned",
        "the share of its elements that are zero. Bytes: of the entropy-coded tensor",
        "Pruned",
        "attar prune MODEL --data DATA --max-bytes 600k --sensitivity FOLDER -o sparse.attar",
    ),
    "channels": _Words(
        "What each layer costs with fewer channels",
        "has fewer channels, heads or hidden units",
        "the share of its channels that are removed, with all that depends on them. Bytes: of all parameters that have "
        "these channels. Multiplications: of the whole network for one example",
        "Removed",
        "attar prune MODEL --data DATA --macs 0.5 --sensitivity FOLDER -o half.safetensors",
    ),
}
#: Signal to noise of the output, one layer changed, for which the table says what is needed.
NEEDED_DB = (20, 30)


def write_sensitivity_page(folder: Path, table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page of a table of sensitivities and return its path; the same table gives the same bytes.

    Args:
        folder: of the page.
        table: the fields of ``sensitivity.json``.
        rows: one for each layer and level, as in ``sensitivity.csv``.

    Raises:
        AttarError: Plotly is not installed.
    """
    path, plot = folder / SENSITIVITY_PAGE, sensitivity_curves(rows, table["what"])
    parts = page_parts({plot.name: plot})
    text = TEMPLATES.get_template("sensitivity.html").render(
        title=_WORDS[table["what"]].title,
        verdict=_verdict(table, rows),
        sections=_sections(table, rows, plot),
        **parts,
    )
    write_atomically(path, text.encode())
    return path


def _verdict(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    hardest = max(rows, key=lambda row: row["error"] or 0.0)
    bits = table["what"] == "bits"
    what = f"{hardest['level']:g} bits" if bits else f"{hardest['level']:.0%} {_WORDS[table['what']].needed.lower()}"
    return (
        f"{plural(len(table['layers']), 'layer')} at {plural(len(table['levels']), 'level')}, each alone, on "
        f"{plural(table['examples'], 'example')}. {hardest['layer']} with {what} costs most: "
        f"{number(hardest['signal_to_noise_db'], 3)} dB of the output {table['output']!r} are left."
    )


def _sections(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], plot: Plot) -> list[PageSection]:
    words = _WORDS[table["what"]]
    text = (
        f"One layer {words.changed}, all others are as they were. The output of the unchanged network is the "
        "reference, so no labels are needed: 30 dB are an error of 3 % of the output's spread, 20 dB of 10 %, and 0 dB "
        "are noise as large as the output. A line that stays high is a layer that can be made small at little cost."
    )
    columns = sensitivity_columns(table["what"])
    cells = [sensitivity_cells(row) for row in rows]
    every = PageTable("Each layer at each level", columns, cells, numbers=range(1, 8), file="sensitivity.csv")
    meaning = (
        f"Level: {words.level}. SNR: signal to noise of the output. KL: divergence of the predictions. Changed: share "
        "of predictions that differ."
    )
    if table["what"] != "channels":
        meaning += " Estimate: what gradients tell without a run."
    scales = f" --scales {table['method']['scales']}" if "scales" in table["method"] else ""
    use = words.use.format(scales=scales)
    return [
        PageSection("sensitivity", "Curves", text, figure=plot.figures[0] if plot.figures else None),
        PageSection("needs", "What each layer needs", tables=[_needs(table, rows)]),
        PageSection("figures-of-layers", "Figures", meaning, tables=[every]),
        PageSection("use", "Each layer its own, under a target", "This folder, with the same model:", use),
    ]


def _needs(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> PageTable:
    """Return a row for each layer: the cheapest level that leaves so many dB, and its bytes."""
    words = _WORDS[table["what"]].needed
    columns = [
        "Layer",
        "Elements",
        *(f"{words} that leave {each} dB" for each in NEEDED_DB),
        f"Bytes for {NEEDED_DB[-1]} dB",
    ]
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    cells = []
    for name, own in layers.items():
        best = [_cheapest(own, decibel) for decibel in NEEDED_DB]
        levels = [sensitivity_cells(each)[1] if each else "none" for each in best]
        cells.append([name, count(own[0]["elements"]), *levels, count(best[-1]["bytes"]) if best[-1] else "none"])
    return PageTable("The cheapest level of each layer", columns, cells, numbers=range(1, 5), file="sensitivity.csv")


def _cheapest(rows: Sequence[Mapping[str, Any]], decibel: float) -> Mapping[str, Any] | None:
    """Return the row with the fewest bytes and at least so many dB; an error of zero has no dB."""
    good = [row for row in rows if row["error"] is not None and row["error"] <= 10 ** (-decibel / 10)]
    return min(good, key=lambda row: row["bytes"], default=None)
