"""``report.json``: measurements of files, beside them, keyed by the SHA-256 of the file each was made on.

Never in the file: the same recipe, data and machine give the same bytes however fast the machine was that day. Beside
the files, under the key ``run``, stands what a whole run of a recipe measured; ``report.page`` makes a page of
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError

NAME = "report.json"
#: The one key that is no SHA-256: what a run of a recipe measured on all its models.
RUN = "run"


def remember(artifact: Path, sha256: str, measured: Mapping[str, Any]) -> Path:
    """Merge ``measured`` into the report beside ``artifact`` and return the report's path.

    What is known of other files and of the run there stays, except of an earlier file of the same name, which is gone.

    Raises:
        AttarError: the report beside the file is not one of ours.
    """
    path = artifact.parent / NAME
    known = read_report(path) if path.exists() else {}
    known = {key: entry for key, entry in known.items() if key in (sha256, RUN) or entry.get("file") != artifact.name}
    known[sha256] = {**known.get(sha256, {}), "file": artifact.name, **measured}
    return _write(path, known)


def remember_run(folder: Path, run: Mapping[str, Any]) -> Path:
    """Put what a run measured into the report of its folder, in place of an earlier run's; return the report's path.

    Raises:
        AttarError: the report that is there is not one of ours.
    """
    path = folder / NAME
    return _write(path, {**(read_report(path) if path.exists() else {}), RUN: dict(run)})


def _write(path: Path, known: Mapping[str, Any]) -> Path:
    write_atomically(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
    return path


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return a report: SHA-256 of a file -> what was measured on it; ``run`` -> what a run measured, if there was one.

    Raises:
        AttarError: the file is not a report.
    """
    try:
        known = json.loads(path.read_bytes())
    except ValueError as error:
        raise AttarError(f"{path} is not a report ({error}); move it away or write the model elsewhere") from error
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise AttarError(f"{path} is not a report: it should map the SHA-256 of each file to what was measured on it")
    return known
