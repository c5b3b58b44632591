"""``attar export``: a file in the format of another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar._src.artifact.reader import open_artifact
from attar._src.backends.registry import BACKENDS
from attar._src.cli import show
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.cli.output import demand_writable
from attar._src.core.errors import SpecError
from attar._src.core.format_bytes import format_bytes


def export_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help=f"Backend: {', '.join(BACKENDS)} or file.py:name.")] = "onnx",
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
) -> None:
    """Convert a file to the format of another runtime.

    Example:

        attar export model.attar --to onnx model.onnx
    """
    backend = BACKENDS[to]
    demand_writable(output)
    artifact = open_artifact(file, limits=raised_limits(max_elements))
    reason = backend.supports(artifact.manifest)
    if reason is not None:
        raise SpecError(f"{file} cannot be exported to {to}: {reason}")
    backend.export(artifact, output)
    show.console().print(f"{output}: {format_bytes(output.stat().st_size)}", soft_wrap=True)
