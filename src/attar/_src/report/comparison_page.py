"""``compare.html``: methods of compression on one module, one page that opens offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.core.format_bytes import format_bytes
from attar._src.report.content import PageSection, PageTable
from attar._src.report.figures.method_points import method_drawings
from attar._src.report.page import TEMPLATES, page_parts
from attar._src.report.wording import NONE, count, metric, milliseconds, noise_words, number, plural, times

#: Name of the page in the folder of a comparison.
COMPARISON_PAGE = "compare.html"
#: Columns of :func:`comparison_cells`.
COLUMNS = (
    "Method",
    "",
    "Bytes",
    "Lost",
    "±",
    "Metric",
    "One example",
    "Ratio",
    "Memory",
    "mJ",
    "Made in, s",
    "Tuned in, s",
    "Examples trained on",
)


def write_comparison_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write the page of the fields of ``compare.json`` and return its path; the same result gives the same bytes."""
    path = folder / COMPARISON_PAGE
    text = TEMPLATES.get_template("comparison.html").render(
        title="Which method should I use here?",
        verdict=" ".join(each["answer"][0] for each in result["targets"]),
        sections=_sections(result),
        **page_parts({}),
    )
    write_atomically(path, text.encode())
    return path


def comparison_cells(target: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return a row of a table of ``COLUMNS``; of a method without a file its name and why."""
    if not row["holds"]:
        return [row["method"], row["why"], *[NONE] * (len(COLUMNS) - 2)]
    return [
        row["method"],
        "use this" if row["method"] == target["recommended"] else row["why"],
        count(row["file_bytes"]),
        number(row["drop"], 3),
        number(row["noise"], 2),
        metric(row["metric"], "accuracy" if "accuracy" in row["unit"] else ""),
        milliseconds(row["ms"]),
        times(row["against_floating"][1]),
        NONE if row["peak_memory_bytes"] is None else format_bytes(row["peak_memory_bytes"]),
        NONE if row["joules"] is None else number(1e3 * row["joules"], 3),
        number(row["seconds"], 3),
        number(row["tuning_seconds"], 3),
        count(row["training_examples"]),
    ]


def untried_methods(result: Mapping[str, Any]) -> list[str]:
    """Return what was not tried, each method once: a sentence for every reason."""
    left_out: dict[str, list[str]] = {}
    for name, why in result["left_out"].items():
        left_out.setdefault(why, []).append(name)
    found = [f"left out: {'; '.join(names)}: {why}" for why, names in left_out.items()]
    places: dict[str, list[str]] = {}
    for each in dict.fromkeys(result["skipped"]):
        method, _, place = each.rpartition(", at ")
        places.setdefault(method, []).append(place)
    names = [
        method if len(places[method]) == len(result["targets"]) else f"{method} (at {' and '.join(places[method])})"
        for method in places
    ]
    return found + ([f"no time for: {'; '.join(names)}"] if names else [])


def floating_cells(floating: Mapping[str, Any]) -> list[str]:
    """Return the row of the file in floating point."""
    row = {**floating, "holds": True, "why": "", "tuning_seconds": floating["seconds"]}
    return comparison_cells({"recommended": None}, row)


def _sections(result: Mapping[str, Any]) -> list[PageSection]:
    unit = result["unit"]
    found = []
    for target in result["targets"]:
        tried = [row for row in target["rows"] if row["tries"]]
        rows = [floating_cells(result["floating"])] + [comparison_cells(target, row) for row in tried]
        marked = [place for place, row in enumerate(tried, 1) if row["method"] == target["recommended"]]
        table = PageTable(
            f"One file for each method, at {target['words']}",
            COLUMNS,
            rows,
            numbers=range(2, len(COLUMNS)),
            marked=marked,
            file="compare.json",
        )
        title = "At equal bytes" if target["what"] == "bytes" else "At equal loss"
        found.append(PageSection(f"equal-{target['what']}", title, " ".join(target["answer"]), tables=[table]))
    text = (
        f"Every point is a file that was packed, decoded and judged on {plural(result['validation'], 'example')} that "
        f"calibration does not see (in {unit}). Outlines are files that gradient steps made."
    )
    needs = {
        row["file"]: [row["method"], row["hardware"]]
        for target in result["targets"]
        for row in target["rows"]
        if row["holds"]
    }
    again = [
        [row["method"], target["words"], json.dumps(row["options"])]
        for target in result["targets"]
        for row in target["rows"]
        if row["holds"]
    ]
    columns = ["Method", "At", "Options of attar.prune, then of attar.quantize"]
    made = PageTable("Options that make a file again, on the same data", columns, again, code=[2], file="compare.json")
    hardware = PageTable("What the measured time rests on", ["Method", "Hardware"], [*needs.values()])
    ended = f"{result['ended'][0].upper()}{result['ended'][1:]}."
    meaning = (
        "Times are of one example on one thread, all files in turns in one run; the ratio is the median over the "
        "rounds of a file's time over that of the file in floating point. Memory is the peak of a process that opens "
        f"the file and runs it once. {noise_words(result['validation'])} "
        + (f"Energy: not readable here ({result['energy']})." if result["energy"] else "Energy is of whole processors.")
    )
    return [
        *found,
        PageSection("every-file", "Every file", text, drawings=method_drawings(result)),
        PageSection("meaning", "What was measured", meaning, tables=[hardware]),
        PageSection("again", "Make one again", tables=[made]),
        PageSection("end", "Why it ended", ended, note=". ".join(untried_methods(result))),
    ]
