"""``attar report``: the page of a finished run."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from attar._src.cli import show
from attar._src.core.format_bytes import format_bytes
from attar._src.report.page import build_page
from attar._src.report.record import NAME, RUN, read_report, warnings_by_model


def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the path of the page as JSON.")] = False,
) -> None:
    """Rebuild report.html of a finished run, one page that opens offline.

    The page is made from report.json and the files beside it; nothing is trained or measured.

    Example:

        attar report runs/demo
    """
    page, warnings = build_page(run), warnings_by_model(read_report(run / NAME)[RUN])
    if json:
        show.as_json({"page": str(page), "bytes": page.stat().st_size, "warnings": warnings})
    else:
        show.warnings_first(warnings)
        show.console().print(f"{page}: {format_bytes(page.stat().st_size)}", soft_wrap=True, markup=False)
    if open_:
        webbrowser.open(page.resolve().as_uri())
