"""The folder of a comparison: a journal while it runs, the files, and at the end a page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from attar._src.artifact.writer import write_atomically
from attar._src.report.comparison_page import write_comparison_page
from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.search_folder import FILES, JournaledFolder

#: The result, for scripts.
COMPARISON = "compare.json"


class ComparisonFolder(JournaledFolder):
    """A folder with what was tried so far; arguments and errors as of :class:`JournaledFolder`."""

    what: ClassVar[str] = "comparison"
    command: ClassVar[str] = "attar compare"

    def begin(self, facts: Mapping[str, Any]) -> list[ComparisonTry]:
        """Return what was tried; a file that is missing or damaged counts as not tried.

        Raises:
            SpecError: the folder has another comparison; the message has what differs.
        """
        self._go_on(facts)
        tries = [ComparisonTry.model_validate(row["tried"]) for row in self._journal.find("tried")]
        latest = {(each.method, each.variant, each.strength): each for each in tries}
        return [each for each in latest.values() if each.failed or self.has(each.file, each.sha256)]

    def file_of(self, method: str, variant: int, value: float | None) -> Path:
        """Return the path of a file by its method, variant and the value of the option that is tuned."""
        # All digits: sizes that differ by a byte are two files.
        name = f"{method} {variant}" if value is None else f"{method} {variant} {value:.15g}"
        return self.path / FILES / f"{re.sub(r'[^0-9a-z]+', '-', name.lower())}.attar"

    def add(self, tried: ComparisonTry) -> None:
        """Write a try to the journal."""
        self._journal.add("tried", tried=tried.model_dump(mode="json"), seconds=tried.seconds)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result and the page."""
        write_atomically(self.path / COMPARISON, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        write_comparison_page(self.path, result)
