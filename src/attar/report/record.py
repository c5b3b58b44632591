"""``report.json``: measurements of files, beside them, keyed by the SHA-256 of the file each was made on.

Never in the file: the same recipe, data and machine give the same bytes however fast the machine was that day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.artifact.writer import write
from attar.core.errors import AttarError

NAME = "report.json"


def remember(artifact: Path, sha256: str, measured: Mapping[str, Any]) -> Path:
    """Merge ``measured`` into the report beside ``artifact`` and return the report's path.

    What is known of other files there stays, except of an earlier file of the same name, which is gone.

    Raises:
        AttarError: the report beside the file is not one of ours.
    """
    path = artifact.parent / NAME
    known = read(path) if path.exists() else {}
    known = {sha: entry for sha, entry in known.items() if sha == sha256 or entry.get("file") != artifact.name}
    known[sha256] = {**known.get(sha256, {}), "file": artifact.name, **measured}
    write(path, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode())
    return path


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return a report: SHA-256 of a file -> what was measured on it.

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
