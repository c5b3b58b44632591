"""Page: ``report.html`` of a run, one file that opens offline; the top of ``report``.

    run folder  -->  story  -->  sections, figures  -->  page.html + page.css + page.js + plotly.js  -->  report.html

Plotly's script is in the page once. A content security policy in the page forbids every request, so that nothing in
it, nor in a script of another's, can reach out.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from attar._src.artifact.writer import write_atomically
from attar._src.core.errors import AttarError
from attar._src.report.export import save
from attar._src.report.figures import plots
from attar._src.report.markup import Html, join, script_json, tag
from attar._src.report.plot import Plot
from attar._src.report.record import NAME
from attar._src.report.sections import PageSection, alarm, sections, tiles
from attar._src.report.story import Story, tell
from attar._src.report.verdict import verdict

#: The page's name in the folder of its run.
PAGE = "report.html"
#: The folder of its figures there.
FIGURES = "figures"


def build_page(folder: Path) -> Path:
    """Write the page of a run and its figures into its folder and return the page's path.

    The same folder gives the same bytes. The figures lie beside the page, in ``figures/``.

    Args:
        folder: of a finished run: ``report.json`` with a run in it, and the files it names.

    Raises:
        AttarError: something is missing or does not fit together, and how to mend it; Plotly is not installed; or the
            page cannot be written.
    """
    story = tell(folder)
    figures = plots(story)
    path, text = folder / PAGE, render(story, figures)
    try:
        save(figures, folder / FIGURES, _resource("page.css"))
        write_atomically(path, text.encode())
    except OSError as error:
        raise AttarError(f"{path} cannot be written ({error.strerror}); what was measured is in {NAME}") from error
    return path


def render(story: Story, figures: Mapping[str, Plot]) -> str:
    """Return the page of a story with its figures.

    Raises:
        AttarError: Plotly is not installed.
    """
    made = sections(story, figures)
    links = [tag("li", tag("a", section.title, href=f"#{section.anchor}")) for section in made]
    body = [_section(each) for each in made]
    title = f"{story.main.name} on {story.data}" if story.data else story.main.name
    return Template(_resource("page.html")).substitute(
        title=tag("title", f"{title}: compression report"),
        heading=tag("h1", title),
        folder=join([story.folder]),
        verdict=tag("p", verdict(story), class_="verdict"),
        alarm=alarm(story),
        tiles=tiles(story),
        contents=tag("ol", *links),
        body=join(body),
        version=join([story.run.versions.get("attar", "")]),
        style=_resource("page.css"),
        plotly=_plotly() if figures else "",
        figures=script_json({name: plot.as_dict() for name, plot in figures.items()}),
        script=_resource("page.js"),
    )


def _section(section: PageSection) -> Html:
    # The heading names the section, for those who go from one to the next without seeing them.
    name = f"{section.anchor}-title"
    return tag("section", tag("h2", section.title, id=name), section.body, id=section.anchor, aria_labelledby=name)


def _resource(name: str) -> Html:
    return Html(resources.files("attar._src.report").joinpath(name).read_text(encoding="utf-8"))


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 -- optional, and only its script is needed
    except ModuleNotFoundError as error:
        raise AttarError(f"the page needs Plotly ({error}): pip install 'attar[compress]'") from error
    return str(get_plotlyjs())
