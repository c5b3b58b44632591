"""The sections of the page, in order.

Story, plots  -->  [PageSection, ...]  -->  page.py
"""

from __future__ import annotations

from collections.abc import Mapping

from attar._src.report.content import PageSection, PageTable
from attar._src.report.figures.classes import shown_classes
from attar._src.report.figures.plot import Figure, Plot
from attar._src.report.headline import class_title
from attar._src.report.layers import float_layers, integer_layers
from attar._src.report.reproduce import reproduction
from attar._src.report.results import results
from attar._src.report.story import Story
from attar._src.report.wording import NONE, count, plural, points, share


def sections(story: Story, plots: Mapping[str, Plot]) -> list[PageSection]:
    """Return the sections that have content."""
    first = {name: plot.figures[0] for name, plot in plots.items()}
    made = [
        results(story),
        PageSection("trade", f"{story.run.metric.capitalize()} against bytes", figure=first.get("trade")),
        _bytes(story, first),
        _weights(first),
        PageSection("curves", "Training", figure=first.get("curves")),
        _classes(story, first),
        integer_layers(story),
        float_layers(story),
        reproduction(story),
    ]
    return [section for section in made if section]


def _bytes(story: Story, first: Mapping[str, Figure]) -> PageSection:
    rows = []
    for model in story.models:
        of = model.contents
        tables = sum(item["bytes"] for item in of["tables"])
        parts = [sum(item["payload_bytes"] for item in of["tensors"]), tables, of["graph_bytes"]]
        parts += [of["overhead"]["manifest"], of["overhead_bytes"] - of["overhead"]["manifest"], of["file_bytes"]]
        rows.append([model.name, *map(count, parts)])
    columns = ["File", "Tensors", "Coding tables", "Graph", "Manifest", "Header, padding, footer", "Whole file"]
    table = PageTable("Bytes of each file by part", columns, rows, numbers=range(1, 7))
    return PageSection("bytes", "Where the bytes go", figure=first.get("bytes"), tables=[table])


def _weights(first: Mapping[str, Figure]) -> PageSection:
    text = (
        "The decoded values of a tensor, above the points of its grid: no value lies between them. Below, the same "
        "values in steps of each channel's own grid; codes that no weight uses show as gaps."
    )
    figure = first.get("weights")
    return PageSection("weights", "Weights and their grids", text if figure else "", figure=figure)


def _classes(story: Story, first: Mapping[str, Figure]) -> PageSection:
    if "classes" not in first:
        return PageSection("classes", "")
    before = story.baseline.measured.per_class or {}
    by_label = [{change.label: change for change in changes} for changes in story.changes.values()]
    columns = ["Class", story.baseline.name, *(cell for name in story.changes for cell in (name, "change, points"))]
    rows: list[list[str]] = []
    marked: list[int] = []
    for label in shown_classes(story):
        row = [class_title(story, label).removeprefix("class "), share(before.get(label))]
        found = [changes.get(label) for changes in by_label]
        for change in found:
            row.append(share(change.after) if change else NONE)
            row.append(f"{points(change.change)}{' collapsed' if change.collapsed else ''}" if change else NONE)
        if any(change and change.collapsed for change in found):
            marked.append(len(rows))
        rows.append(row)
    table = PageTable("Test accuracy of each class", columns, rows, numbers=range(1, len(columns)), marked=marked)
    return PageSection("classes", "Class by class", _collapse_text(story), figure=first["classes"], tables=[table])


def _collapse_text(story: Story) -> str:
    if not story.changes:
        return ""
    lost = sum(map(len, story.collapsed.values()))
    classes = len(story.baseline.measured.per_class or {})
    said = f"{plural(lost, 'class')} collapsed." if lost else f"No class of {plural(classes, 'class')} collapsed."
    rule = (
        "A class counts as collapsed if it lost more than ten points beyond what the other classes lost together, "
        "and more than three standard errors (more if there are many classes)."
    )
    how = "" if story.counted else " Test examples are assumed to be equally many in each class."
    return f"{said} {rule}{how}"
