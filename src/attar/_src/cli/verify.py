"""``attar verify``: every check of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar._src.artifact.reader import open_artifact
from attar._src.cli import show
from attar._src.report.wording import plural


def verify_command(file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")]) -> None:
    """Check every byte of a file: checksums and manifest, all tensors decoded, all graphs validated.

    The exit code is 0, or 1 with an error that names the section. Nothing in the file is executed.

    Example:

        attar verify model.attar
    """
    artifact = open_artifact(file)
    artifact.verify()
    parts = f"{plural(len(artifact.names), 'tensor')}, {plural(len(artifact.manifest.graphs), 'graph')}"
    show.console().print(
        f"sound: {artifact.file_bytes:,} bytes, {parts}, SHA-256 {artifact.sha256}",
        soft_wrap=True,
    )
