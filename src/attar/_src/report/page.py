"""``report.html`` of a run, one file that opens offline.

    run folder  -->  story  -->  sections, figures  -->  templates + page.css + page.js + plotly.js  -->  report.html

Names and texts that come from files or recipes are escaped by Jinja2. A content security policy forbids every request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError
from attar._src.report.figures.export import save
from attar._src.report.figures.plot import Plot
from attar._src.report.figures.plots import plots
from attar._src.report.headline import alarms, tiles
from attar._src.report.record import NAME
from attar._src.report.sections import sections
from attar._src.report.story import Story, read_story
from attar._src.report.verdict import verdict

#: Name of the page in the folder of its run.
PAGE = "report.html"
#: Folder of its figures there.
FIGURES = "figures"


def build_page(folder: Path) -> Path:
    """Write the page of a finished run and its figures into its folder and return the page's path.

    The same folder gives the same bytes.

    Raises:
        AttarError: something is missing or inconsistent, Plotly is not installed, or the page cannot be written.
    """
    story = read_story(folder)
    figures = plots(story)
    path, text = folder / PAGE, render(story, figures)
    try:
        save(figures, folder / FIGURES, _resource("page.css"))
        write_atomically(path, text.encode())
    except OSError as error:
        raise AttarError(f"{path} cannot be written ({error.strerror}); what was measured is in {NAME}") from error
    return path


def render(story: Story, figures: Mapping[str, Plot]) -> str:
    """Return the HTML of a story with its figures."""
    return TEMPLATES.get_template("page.html").render(
        title=f"{story.main.name} on {story.data}" if story.data else story.main.name,
        folder=story.folder,
        verdict=verdict(story),
        alarms=alarms(story),
        tiles=tiles(story),
        sections=sections(story, figures),
        version=story.run.versions.get("attar", ""),
        **page_parts(figures),
    )


def page_parts(figures: Mapping[str, Plot]) -> dict[str, Markup]:
    """Return what a template puts into a page of these plots: style sheet, Plotly, figures and the script."""
    plots = {name: plot.as_dict() for name, plot in figures.items()}
    return {
        "style": _resource("page.css"),
        "plotly": _plotly() if figures else Markup(),
        "figures": htmlsafe_json_dumps(plots, json.dumps, **_COMPACT),
        "script": _resource("page.js"),
    }


_COMPACT = {"separators": (",", ":"), "allow_nan": False}
TEMPLATES = Environment(
    loader=PackageLoader("attar._src.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def _resource(name: str) -> Markup:
    return Markup(resources.files("attar._src.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 -- optional, and only its script is needed
    except ModuleNotFoundError as error:
        raise AttarError(f"the page needs Plotly ({error}): pip install 'attar[compress]'") from error
    return Markup(get_plotlyjs())
