"""The folder of ``attar sensitivity``: a journal while it measures, then the table in several forms."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import SpecError
from attar._src.methods.allocate.sensitivity_table import TABLE, LayerSensitivity, SensitivityTable
from attar._src.pipeline.journal import Journal
from attar._src.report.sensitivity_page import write_sensitivity_page

JOURNAL = "journal.jsonl"
CSV = "sensitivity.csv"


class SensitivityFolder:
    """A folder with the layers measured so far.

    Args:
        path: made if it is missing.

    Raises:
        SpecError: it is a file.
        AttarError: its journal is damaged.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise SpecError(f"{path} is a file; name a folder for the results")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._journal = Journal(path / JOURNAL, writes=True)

    def resume(self, begun: SensitivityTable) -> dict[str, LayerSensitivity]:
        """Return the layers that are measured; ``begun`` is the table without layers.

        Raises:
            SpecError: the folder has another measurement; the message has what differs.
        """
        head = begun.model_dump(mode="json", exclude={"layers"})
        before = self._journal.find("begin")
        if not before:
            self._journal.add("begin", table=head)
        elif differing := [key for key in head if before[0]["table"].get(key) != head[key]]:
            raise SpecError(
                f"{self.path} has a measurement with another {' and '.join(differing)}; name another folder, or remove "
                "this one to measure again"
            )
        return {row["layer"]["name"]: _layer(row["layer"]) for row in self._journal.find("layer")}

    def add(self, layer: LayerSensitivity) -> None:
        """Write a layer to the journal."""
        self._journal.add("layer", layer=layer.model_dump(mode="json"))

    def finish(self, table: SensitivityTable) -> None:
        """Write the table as JSON, CSV and a page; the same table gives the same bytes."""
        rows = list(table.rows())
        write_atomically(self.path / TABLE, table.text().encode())
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / CSV, text.getvalue().encode())
        write_sensitivity_page(self.path, table.model_dump(mode="json"), rows)


def _layer(row: dict[str, Any]) -> LayerSensitivity:
    return LayerSensitivity.model_validate(row)
