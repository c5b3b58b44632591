"""``attar verify``: every check of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar._src.artifact.reader import open_artifact
from attar._src.cli import show
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.report.wording import plural
from attar._src.runtime.session import Session


def verify_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    run: Annotated[
        bool, typer.Option("--run", help="Also run every graph once on zeros, in a process of bounded memory and time.")
    ] = False,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
) -> None:
    """Check every byte of a file: checksums and manifest, all tensors decoded, all graphs validated.

    The exit code is 0, or 1 with an error that names the section. Nothing in the file is executed, unless --run asks
    for it: then a crash, a hang or a lack of memory is an error, too.

    Example:

        attar verify model.attar --run
    """
    artifact = open_artifact(file, limits=raised_limits(max_elements))
    artifact.verify()
    parts = f"{plural(len(artifact.names), 'tensor')}, {plural(len(artifact.manifest.graphs), 'graph')}"
    for graph in artifact.manifest.graphs if run else ():
        with Session(artifact, graph=graph.name, threads=1, isolated=True) as session:
            session.run(session.example())
    show.console().print(
        f"{'sound and run' if run else 'sound'}: {artifact.file_bytes:,} bytes, {parts}, SHA-256 {artifact.sha256}",
        soft_wrap=True,
    )
