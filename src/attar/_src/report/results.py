"""The first section of the page: every model with its size, accuracy and latency."""

from __future__ import annotations

import math

from attar._src.report.content import PageSection, PageTable
from attar._src.report.story import ReportedModel, Story
from attar._src.report.verdict import noise
from attar._src.report.wording import NONE, count, metric, milliseconds, number, share, times


def results(story: Story) -> PageSection:
    """Return the section with the table of all models."""
    rows = [_row(model, story.run.metric) for model in story.models]
    cells = [list(row.values()) for row in rows]
    warned = [index for index, model in enumerate(story.models) if model.measured.warnings]
    table = PageTable("Every model of the run", list(rows[0]), cells, numbers=range(1, len(rows[0])), marked=warned)
    return PageSection("results", "Results", tables=[table], note=" ".join(_notes(story)))


def _notes(story: Story) -> list[str]:
    name, baseline = story.run.metric, story.baseline.name
    notes = [
        "All figures were measured on the decoded files, on the runtime that serves them.",
        "Bits per weight count the whole file but its graph. “Times smaller” compares the whole file, graph included, "
        f"with four bytes for each parameter of {baseline}; “times faster” compares with the median of {baseline}.",
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
    if story.warnings:
        notes.append("Models with warnings, which are at the head of the page, are marked.")
    doubt = noise(story)
    if doubt is not None:
        notes.append(
            f"With {count(story.run.examples)} test examples, differences in accuracy below about {100 * doubt:.1f} "
            "points lie within two standard errors of what another test set of this size might give."
        )
    return notes


def _row(model: ReportedModel, name: str) -> dict[str, str]:
    """Return heading -> cell."""
    measured = model.measured
    seeds = [value for value in measured.metric_per_seed if math.isfinite(value)]
    span = f"{metric(min(seeds), name)} to {metric(max(seeds), name)}" if len(seeds) > 1 else str(len(seeds) or NONE)
    speed = NONE
    if measured.latency is not None:
        speed = f"{milliseconds(measured.latency.median_ms)} (spread {share(measured.latency.spread, 0)})"
    return {
        "Model": model.name,
        f"Test {name}": metric(measured.metric_mean, name),
        "Lowest to highest seed": span,
        "Parameters": count(measured.parameters),
        "Non-zero": share(measured.nonzero_share),
        "Bits per weight": number(model.contents["bits_per_weight"]),
        "File, bytes": count(model.file_bytes),
        "Times smaller": times(model.times_smaller),
        "Latency, median": speed,
        "Times faster": times(model.times_faster),
    }
