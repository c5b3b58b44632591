"""Sections: what the page says in words and tables; the plots stand between them.

Story, Plots  -->  [Section(anchor, title, body), ...]  -->  page.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attar._src.report.figures import shown_classes
from attar._src.report.layers import left, ran
from attar._src.report.markup import Html, join, table_markup, tag
from attar._src.report.plot import Plot
from attar._src.report.reproduce import again
from attar._src.report.story import ReportedModel, Story
from attar._src.report.verdict import noise
from attar._src.report.wording import (
    NONE,
    count,
    format_bytes,
    listed,
    metric,
    milliseconds,
    number,
    plural,
    points,
    share,
    times,
)


@dataclass(frozen=True)
class PageSection:
    """A part of the page under a heading of its own."""

    anchor: str
    title: str
    body: Html


def sections(story: Story, plots: Mapping[str, Plot]) -> list[PageSection]:
    """Return the sections the story has something to say in."""
    made = [
        PageSection("results", "Results", _results(story)),
        PageSection("trade", f"{story.run.metric.capitalize()} against bytes", _trade(plots)),
        PageSection("bytes", "Where the bytes go", _bytes(story, plots)),
        PageSection("weights", "Weights and their grids", _weights(plots)),
        PageSection("curves", "Training", _figure(plots, "curves")),
        PageSection("classes", "Class by class", _classes(story, plots)),
        PageSection("integers", "What ran in integers", ran(story)),
        PageSection("floats", "What was left in floating point", left(story)),
        PageSection("again", "How to do it again", again(story)),
    ]
    return [section for section in made if section.body]


def alarm(story: Story) -> Html:
    """Return a warning that names every class that collapsed; nothing where none did."""
    items = []
    for name, changes in story.collapsed.items():
        told = [f"{_class(story, c.label)} ({share(c.before)} to {share(c.after)})" for c in changes]
        items.append(tag("li", tag("strong", name), f" lost {listed(told)}."))
    if not items:
        return Html("")
    # The words stand beside the colour: not everyone sees it, and not every printer prints it.
    head = tag("h2", "Classes collapsed")
    why = tag(
        "p",
        "The mean hides it: each of these classes lost more than ten points beyond what the others lost, and more than "
        "chance would explain. Look at them before this file is used.",
    )
    return tag("aside", head, tag("ul", *items), why, class_="alarm", role="alert")


def tiles(story: Story) -> Html:
    """Return the few figures people look for first."""
    main, baseline = story.main, story.baseline
    name = story.run.metric
    found = [("whole file", format_bytes(main.file_bytes), f"{count(main.file_bytes)} bytes")]
    found.append(("smaller", times(main.times_smaller), f"than the FP32 weights of {baseline.name}"))
    if main.measured.metric_mean is not None:
        beside = f"on {count(story.run.examples)} test examples" if story.run.examples else "on the test set"
        if main is not baseline and baseline.measured.metric_mean is not None:
            beside = f"{baseline.name}: {metric(baseline.measured.metric_mean, name)}"
        found.append((f"test {name}", metric(main.measured.metric_mean, name), beside))
    if main is not baseline and main.times_faster is not None:
        told = f"than {baseline.name}, median"
        gain = main.times_faster
        found.append(("faster", times(gain), told) if gain >= 1 else ("slower", times(1 / gain), told))
    each = [
        tag("div", tag("dt", what), tag("dd", value, class_="value"), tag("dd", more, class_="more"))
        for what, value, more in found
    ]
    return tag("dl", *each, class_="tiles")


def _results(story: Story) -> Html:
    name, baseline = story.run.metric, story.baseline.name
    columns = [
        "Model",
        f"Test {name}",
        "Lowest to highest seed",
        "Parameters",
        "Non-zero",
        "Bits per weight",
        "File, bytes",
        "Times smaller",
        "Latency, median",
        "Times faster",
    ]
    rows = [_row(model, name) for model in story.models]
    notes = [
        "Everything here was measured on the decoded files, on the runtime that serves them.",
        "Bits per weight count the whole file but its graph. “Times smaller” is the whole file, graph included, "
        f"against four bytes for each parameter of {baseline}; “times faster” is against the median of {baseline}.",
    ]
    timed = story.main.measured.latency
    if timed is not None:
        notes.append(
            f"Latencies are medians of {count(timed.rounds)} interleaved rounds, with their spread beside them: the "
            "interquartile range over the median."
        )
    if any(len(model.measured.metric_per_seed) > 1 for model in story.models):
        notes.append(
            f"Test {name} is the mean over the seeds, with the lowest and the highest beside it; sizes and latencies "
            "are of the files of the first."
        )
    doubt = noise(story)
    if doubt is not None:
        notes.append(
            f"With {count(story.run.examples)} test examples, differences in accuracy below about {100 * doubt:.1f} "
            "points lie within two standard errors of what another test set of this size might give."
        )
    made = table_markup("Every model of the run", columns, rows, numbers=range(1, len(columns)))
    return join([made, tag("p", " ".join(notes), class_="note")])


def _row(model: ReportedModel, name: str) -> list[str]:
    measured = model.measured
    seeds = [value for value in measured.metric_per_seed if math.isfinite(value)]
    span = f"{metric(min(seeds), name)} to {metric(max(seeds), name)}" if len(seeds) > 1 else str(len(seeds) or NONE)
    speed = NONE
    if measured.latency is not None:
        speed = f"{milliseconds(measured.latency.median_ms)} (spread {share(measured.latency.spread, 0)})"
    return [
        model.name,
        metric(measured.metric_mean, name),
        span,
        count(measured.parameters),
        share(measured.nonzero_share),
        number(model.bits_per_weight),
        count(model.file_bytes),
        times(model.times_smaller),
        speed,
        times(model.times_faster),
    ]


def _figure(plots: Mapping[str, Plot], name: str) -> Html:
    """Return the place of a plot; the script puts in the selectors, the plot and its words."""
    if name not in plots:
        return Html("")
    first = plots[name].figures[0]
    return tag(
        "figure",
        tag("div", class_="choices"),
        tag("div", class_="plot", role="img", aria_label=first.alt),
        tag("figcaption", first.note, aria_live="polite"),
        tag("noscript", tag("p", first.alt)),
        id=f"plot-{name}",
    )


def _trade(plots: Mapping[str, Plot]) -> Html:
    return _figure(plots, "trade")


def _weights(plots: Mapping[str, Plot]) -> Html:
    if "weights" not in plots:
        return Html("")
    said = tag(
        "p",
        "The values a file decodes to, above the points its grid has: a value can lie nowhere else. Below, the same in "
        "steps of each channel's own grid, where codes that nothing uses show as gaps.",
    )
    return join([said, _figure(plots, "weights")])


def _bytes(story: Story, plots: Mapping[str, Plot]) -> Html:
    rows = []
    for model in story.models:
        of = model.contents
        tables = sum(item["bytes"] for item in of["tables"])
        parts = [sum(item["payload_bytes"] for item in of["tensors"]), tables, of["graph_bytes"]]
        parts += [of["overhead"]["manifest"], of["overhead_bytes"] - of["overhead"]["manifest"]]
        rows.append([model.name, *(f"{count(part)}" for part in parts), count(of["file_bytes"])])
    columns = ["File", "Tensors", "Coding tables", "Graph", "Manifest", "Header, padding, footer", "Whole file"]
    return join(
        [_figure(plots, "bytes"), table_markup("Bytes of each file by part", columns, rows, numbers=range(1, 7))]
    )


def _class(story: Story, label: str) -> str:
    """Return a class by its label and, where the file names it otherwise, its name."""
    names: Sequence[str] = story.main.contents["class_names"]
    if not label.isdecimal():
        return label
    name = names[int(label)] if int(label) < len(names) else label
    return f"class {label}" if name == label else f"class {label} ({name})"


def _classes(story: Story, plots: Mapping[str, Plot]) -> Html:
    if "classes" not in plots:
        return Html("")
    baseline, labels = story.baseline, shown_classes(story)
    before = baseline.measured.per_class or {}
    columns = ["Class", baseline.name]
    for name in story.changes:
        columns += [name, "change, points"]
    by_label = {name: {change.label: change for change in changes} for name, changes in story.changes.items()}
    rows: list[list[str]] = []
    loud: list[int] = []
    for label in labels:
        row = [_class(story, label).removeprefix("class "), share(before.get(label))]
        found = [by_label[name].get(label) for name in by_label]
        for change in found:
            row.append(share(change.after) if change else NONE)
            row.append(f"{points(change.change)}{' collapsed' if change.collapsed else ''}" if change else NONE)
        if any(change and change.collapsed for change in found):
            loud.append(len(rows))
        rows.append(row)
    said = (
        f"{plural(sum(map(len, story.collapsed.values())), 'class')} collapsed."
        if loud
        else f"No class of {plural(len(before), 'class')} collapsed."
        if story.changes
        else ""
    )
    rule = (
        " A class counts as collapsed when it lost more than ten points beyond what the other classes lost together, "
        "and more than three standard errors (more where there are many classes)."
    )
    how = "" if story.counted or not story.changes else " Test examples are taken to be equally many in each class."
    made = table_markup("Test accuracy of each class", columns, rows, numbers=range(1, len(columns)), marked=loud)
    return join([tag("p", f"{said}{rule if story.changes else ''}{how}"), _figure(plots, "classes"), made])
