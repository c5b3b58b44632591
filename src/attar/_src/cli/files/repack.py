"""``attar repack``: a file again, in the present format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from attar._src.artifact.packing import AUTO
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.repack import repack
from attar._src.artifact.writer import write_atomically
from attar._src.cli import show
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.cli.output import demand_writable
from attar._src.coding.registry import CODERS


def repack_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; FILE itself replaces it.")],
    coder: Annotated[str, typer.Option(help=f"Entropy coder: {', '.join((AUTO, *CODERS))}.")] = AUTO,
    short: Annotated[
        bool,
        typer.Option("--short", help="Also round scales by at most 0.2 %, and biases to half precision."),
    ] = False,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
) -> None:
    """Write a file again in the present format, which takes fewer bytes; every number in it stays the same.

    With --short scales and biases get fewer digits, as in files that are made today: less than the rounding of the
    weights changes. Compare the accuracy with `attar eval`.

    Example:

        attar repack old.attar new.attar --short
    """
    demand_writable(output)
    artifact = open_artifact(file, limits=raised_limits(max_elements))
    data = repack(artifact, coder=coder, short=short)
    write_atomically(output, data)
    show.console().print(f"{escape(str(output))}: {len(data):,} bytes, {artifact.file_bytes:,} before", soft_wrap=True)
