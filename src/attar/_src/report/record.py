"""``report.json``: measurements of the files beside it, by the SHA-256 of each file.

Measurements are not in the files, so that their bytes do not depend on the speed of a machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError

NAME = "report.json"
#: The key of the measurements of a whole run.
RUN = "run"


def remember(artifact: Path, sha256: str, measured: Mapping[str, Any]) -> Path:
    """Merge ``measured`` into the report beside ``artifact`` and return the report's path.

    Entries of other files stay, except that of an earlier file of the same name.
    """
    path = artifact.parent / NAME
    known = read_report(path) if path.exists() else {}
    known = {key: entry for key, entry in known.items() if key in (sha256, RUN) or entry.get("file") != artifact.name}
    known[sha256] = {**known.get(sha256, {}), "file": artifact.name, **measured}
    return _write(path, known)


def remember_run(folder: Path, run: Mapping[str, Any]) -> Path:
    """Write the measurements of a run into the report of its folder, replacing an earlier run; return its path."""
    path = folder / NAME
    return _write(path, {**(read_report(path) if path.exists() else {}), RUN: dict(run)})


def _write(path: Path, known: Mapping[str, Any]) -> Path:
    write_atomically(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
    return path


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return a report: SHA-256 of a file -> its measurements, and ``run`` -> those of the run, if any.

    Raises:
        AttarError: the file is not a report.
    """
    try:
        known = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AttarError(f"{path} is not a report ({error}); move it away or write the model elsewhere") from error
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise AttarError(f"{path} is not a report: it should map the SHA-256 of each file to its measurements")
    return known
