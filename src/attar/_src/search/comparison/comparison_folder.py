"""The folder of a comparison: a journal while it runs, the files, and at the end a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import SpecError
from attar._src.pipeline.folder import file_digest
from attar._src.pipeline.journal import Journal
from attar._src.report.comparison_page import write_comparison_page
from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.search_folder import FILES, SEARCH_JOURNAL, demand_search_folder

#: The result, for scripts.
COMPARISON = "compare.json"


class ComparisonFolder:
    """A folder with what was tried so far.

    Args:
        path: made if it is missing.
        resume: go on with what is there.

    Raises:
        SpecError: it is a file, or has a comparison that was not asked to go on.
        AttarError: its journal is damaged.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        demand_search_folder(path, resume=resume)
        (path / FILES).mkdir(parents=True, exist_ok=True)
        self.path = path
        self._journal = Journal(path / SEARCH_JOURNAL, writes=True)

    def begin(self, facts: Mapping[str, Any]) -> list[ComparisonTry]:
        """Return what was tried; a file that is missing or damaged counts as not tried.

        Raises:
            SpecError: the folder has another comparison; the message has what differs.
        """
        before = self._journal.find("begin")
        plain = json.loads(json.dumps(facts))
        if not before:
            self._journal.add("begin", facts=plain)
        elif differing := [key for key in plain if before[0]["facts"].get(key) != plain[key]]:
            raise SpecError(
                f"{self.path} has a comparison with another {' and '.join(differing)}; name another folder, or remove "
                "this one"
            )
        tries = [ComparisonTry.model_validate(row["tried"]) for row in self._journal.find("tried")]
        latest = {(each.method, each.variant, each.strength): each for each in tries}
        return [each for each in latest.values() if each.failed or self._is_there(each)]

    def decide(self, what: str, choose: Callable[[], int]) -> int:
        """Return what was decided before, else what ``choose`` returns, and journal it."""
        before = self._journal.find("decided", what=what)
        return int(self._journal.decide(what, before[-1]["value"] if before else choose()))

    def file_of(self, method: str, variant: int, value: float | None) -> Path:
        """Return the path of a file by its method, variant and the value of the option that is tuned."""
        # All digits: sizes that differ by a byte are two files.
        name = f"{method} {variant}" if value is None else f"{method} {variant} {value:.15g}"
        return self.path / FILES / f"{re.sub(r'[^0-9a-z]+', '-', name.lower())}.attar"

    def add(self, tried: ComparisonTry) -> None:
        """Write a try to the journal."""
        self._journal.add("tried", tried=tried.model_dump(mode="json"))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result and the page."""
        write_atomically(self.path / COMPARISON, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        write_comparison_page(self.path, result)

    def _is_there(self, tried: ComparisonTry) -> bool:
        path = self.path / tried.file
        return path.is_file() and file_digest(path) == tried.sha256
