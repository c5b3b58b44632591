"""``sensitivity.html``: the sensitivities of the layers as curves and a table, one file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.report.content import PageSection, PageTable
from attar._src.report.figures.plot import Plot
from attar._src.report.figures.sensitivity_curves import sensitivity_curves
from attar._src.report.page import TEMPLATES, page_parts
from attar._src.report.wording import number, plural, sensitivity_cells

#: Name of the page in the folder of ``attar sensitivity``.
SENSITIVITY_PAGE = "sensitivity.html"


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
        title=f"Each layer alone: {table['what']}",
        verdict=_verdict(table, rows),
        sections=_sections(rows, plot),
        **parts,
    )
    write_atomically(path, text.encode())
    return path


def _verdict(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    hardest = max(rows, key=lambda row: row["error"] or 0.0)
    return (
        f"{plural(len(table['layers']), 'layer')} at {plural(len(table['levels']), 'level')}, "
        f"{plural(table['examples'], 'example')}. {hardest['layer']} at {hardest['level']:g} costs most: "
        f"{number(hardest['signal_to_noise_db'], 3)} dB of the output {table['output']!r} are left."
    )


def _sections(rows: Sequence[Mapping[str, Any]], plot: Plot) -> list[PageSection]:
    columns = ["Layer", "Level", "Bytes", "Signal to noise, dB", "KL, nats", "Changed", "Metric", "Estimate"]
    cells = [sensitivity_cells(row) for row in rows]
    table = PageTable("Each layer at each level", columns, cells, numbers=range(1, 8))
    text = (
        "All layers but one are as they were. The output of the unchanged network is the reference. Bytes are those of "
        "the entropy-coded tensor."
    )
    return [
        PageSection("sensitivity", "Curves", text, figure=plot.figures[0] if plot.figures else None),
        PageSection("figures-of-layers", "Figures", tables=[table]),
    ]
