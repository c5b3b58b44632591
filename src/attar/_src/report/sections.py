"""The sections of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping

from attar._src.report.content import Details, PageSection, PageTable
from attar._src.report.figures.classes import shown_classes
from attar._src.report.figures.plot import Figure, Plot
from attar._src.report.headline import class_title
from attar._src.report.pruning import pruning
from attar._src.report.results import results
from attar._src.report.story import Measured, Story
from attar._src.report.wording import NONE, count, fidelity_words, metric, plural, points, share


def sections(story: Story, plots: Mapping[str, Plot]) -> list[PageSection]:
    """Return the sections that have content, in order."""
    first = {name: plot.figures[0] for name, plot in plots.items()}
    made = [
        results(story),
        PageSection("trade", f"{story.run.metric.capitalize()} against bytes", figure=first.get("trade")),
        pruning(story),
        _bytes(story, first),
        _weights(first),
        PageSection("curves", "Training", figure=first.get("curves")),
        _classes(story, first),
        _fidelity(story),
        _integer_layers(story),
        _float_layers(story),
        _reproduction(story),
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
            text = f"{points(change.change)}{' collapsed' if change.collapsed else ''}" if change else NONE
            row += [share(change.after) if change else NONE, text]
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
    how = "" if story.run.class_examples else " Test examples are assumed to be equally many in each class."
    return f"{said} {rule}{how}"


def _fidelity(story: Story) -> PageSection:
    rows = [row for model in story.models for row in _fidelity_rows(model.measured)]
    if not rows:
        return PageSection("fidelity", "")
    text = (
        "Each file beside its model in floating point, on the same validation examples (calibration inputs without "
        "that split). Predictions count where an output has scores; signal to noise is the variance of the "
        "floating-point outputs over the mean squared difference. A model that was trained since differs for that "
        "reason, too: its metric is the measure."
    )
    columns = ["Model", "Output", "Difference", story.run.metric.capitalize(), "Examples", "Compared with"]
    table = PageTable("Files against floating point", columns, rows, numbers=[4])
    return PageSection("fidelity", "Against floating point", text, tables=[table])


def _fidelity_rows(model: Measured) -> list[list[str]]:
    """Return a row for each output of a file; the metric is beside the one that it judges."""
    found = model.fidelity
    if not found:
        return []
    changes, judged = {}, found.get("metric")
    if judged:
        before, after = (metric(judged[each], judged["name"]) for each in ("floating", "file"))
        changes[judged.get("output", next(iter(found["outputs"])))] = f"{before} to {after}"
    with_what = found["compared_with"] + (", and was trained since" if found["trained_since"] else "")
    rows = []
    for name, seen in found["outputs"].items():
        change = changes.get(name, NONE)
        rows.append([model.name, name, fidelity_words(seen), change, count(found["examples"]), with_what])
    return rows


def _integer_layers(story: Story) -> PageSection:
    folds = []
    for model in story.models:
        if layers := model.measured.layers:
            rows = [[each.name, each.kernel, "integer" if each.integer else "float", each.reason] for each in layers]
            table = PageTable(f"Layers of {model.name}", ["Layer", "Kernel", "Ran in", "Why not"], rows)
            title = f"{sum(each.integer for each in layers)} of {plural(len(layers), 'layer')} ran in integers"
            folds.append(Details(title, model.name, table, opened=model is story.main))
    text = "As the runtime's own profile of one run says, layer by layer." if folds else ""
    return PageSection("integers", "What ran in integers", text, folds=folds)


def _float_layers(story: Story) -> PageSection:
    folds = []
    for model in story.models:
        if kept := list(model.measured.left_in_floating_point.items()):
            table = PageTable(f"Left in floating point in {model.name}", ["What", "Why"], kept)
            folds.append(Details(plural(len(kept), "tensor or value"), model.name, table, opened=model is story.main))
        if notes := list(model.measured.notes.items()):
            table = PageTable(f"Notes on {model.name}", ["What", "Note"], notes)
            folds.append(Details(plural(len(notes), "note"), model.name, table, opened=model is story.main))
    said = any(model.measured.left_in_floating_point for model in story.models)
    text = "" if said else "The run left nothing in floating point that it was asked to quantize."
    return PageSection("floats", "What was left in floating point", text, folds=folds)


def _reproduction(story: Story) -> PageSection:
    run = story.run
    facts = [["Seeds", ", ".join(map(str, run.seeds)) or NONE], *map(list, run.versions.items())]
    files = [[model.measured.file, count(model.file_bytes), model.measured.sha256] for model in story.models]
    same = "Files: the same recipe, data and versions on the same machine give the same bytes"
    tables = [
        PageTable("Seeds and versions", ["What", "Which"], facts),
        PageTable(same, ["File", "Bytes", "SHA-256"], files, numbers=[1], code=[2]),
    ]
    recipe = run.recipe_yaml or (json.dumps(run.recipe, indent=2) if run.recipe else "")
    folds = [Details("The recipe as it was run", text=recipe, opened=True)] if recipe else []
    for model in story.models:
        if record := model.measured.record:
            folds.append(Details(f"What each stage did to {model.name}", text=json.dumps(record, indent=2)))
    return PageSection("again", "How to do it again", command=run.command, tables=tables, folds=folds)
