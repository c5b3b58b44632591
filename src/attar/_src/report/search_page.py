"""``search.html``: the files of a search, one page that opens offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar._src.artifact.writer import write_atomically
from attar._src.report.content import PageSection, PageTable
from attar._src.report.figures.front import front_drawings
from attar._src.report.page import TEMPLATES, page_parts
from attar._src.report.wording import (
    count,
    listed,
    metric,
    milliseconds,
    noise_words,
    number,
    plural,
    share,
    times,
)

#: Name of the page in the folder of a search.
SEARCH_PAGE = "search.html"


def write_search_page(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write the page of the fields of ``search.json`` and return its path; the same result gives the same bytes."""
    path = folder / SEARCH_PAGE
    text = TEMPLATES.get_template("search.html").render(
        title=f"Goal: {result['words']}",
        verdict=_verdict(result),
        sections=_sections(result),
        **page_parts({}),
    )
    write_atomically(path, text.encode())
    return path


def search_cells(result: Mapping[str, Any], file: Mapping[str, Any]) -> list[str]:
    """Return a row about a file: name, mark, bytes, loss and its error, metric, time, that against floating point."""
    kept = "front" if file["name"] in result["front"] else ""
    mark = "best" if file["name"] == result["best"] else "ruined" if file["ruined"] else kept
    return [
        file["name"],
        mark,
        count(file["file_bytes"]),
        number(file["drop"], 3),
        number(file["noise"], 2),
        metric(file["metric"], "accuracy" if "accuracy" in file["unit"] else ""),
        *([share(file["others"])] if has_others(result) else []),
        milliseconds(file["ms"]),
        times(file["against_floating"][1]),
    ]


def has_others(result: Mapping[str, Any]) -> bool:
    """Return whether the network has outputs beside the main one, of which files are compared."""
    return any(each.get("others") is not None for each in result["files"])


def others_words(result: Mapping[str, Any]) -> str:
    """Return what the column of other outputs has; empty without it."""
    return (
        "others: the most that an output beside the main one lost, of its predictions, or its squared error over its "
        "variance; a file that loses more than half of it holds no goal"
        if has_others(result)
        else ""
    )


def best_words(result: Mapping[str, Any]) -> str:
    """Return what the recommended file is: the best, or the nearest where none holds the goal, and why none does."""
    if result["met"]:
        return "best"
    if any(each["ruined"] for each in result["files"]):
        return "no file holds the goal and keeps the network; nearest that keeps it"
    return "no file holds the goal; nearest"


def ruined_words(result: Mapping[str, Any]) -> str:
    """Return what *ruined* means, where a file is; empty otherwise."""
    files = [each["name"] for each in result["files"] if each["ruined"]]
    return f"ruined: more than half of what the network knows is lost, in {listed(files)}" if files else ""


def _verdict(result: Mapping[str, Any]) -> str:
    best = next(each for each in result["files"] if each["name"] == result["best"])
    floating = result["files"][0]
    said = (
        f"{best['name']}: {count(best['file_bytes'])} bytes, {number(floating['file_bytes'] / best['file_bytes'], 3)} "
        f"times fewer than in floating point, with {number(best['drop'], 3)} {best['unit']} lost and "
        f"{milliseconds(best['ms'])}."
    )
    if result["met"]:
        return said
    first, nearest = best_words(result).split("; ")
    return f"{first[:1].upper()}{first[1:]}. The {nearest} is {said}"


def _sections(result: Mapping[str, Any]) -> list[PageSection]:
    others = ["Others"] if has_others(result) else []
    columns = ["File", "", "Bytes", "Lost", "±", "Metric", *others, "One example", "Against floating point", "Gained"]
    rows = [[*search_cells(result, each), each["gained"]] for each in result["files"]]
    marked = [place for place, each in enumerate(result["files"]) if each["name"] == result["best"]]
    every = PageTable("Every file", columns, rows, numbers=range(2, len(columns)), marked=marked, file="search.json")
    unit = result["files"][0]["unit"]
    text = (
        f"Every point is a file that was packed, decoded, judged on examples that calibration does not see (in {unit}) "
        "and timed beside the file in floating point; outlines are files that were trained. The front are the files "
        f"that no other beats in bytes, loss and time; a time is another where three of four rounds say so. "
        f"{noise_words(result.get('validation'))} Gained is what a file was better than the best before it."
    )
    made = PageTable(
        result.get("made_again", "Options of attar.quantize that make a file again, on the same data"),
        ["File", "Options", "Seconds"],
        [
            [each["name"], json.dumps(each["options"]), number(each["seconds"], 3)]
            for each in result["files"]
            if each["name"] in result["front"] and not each["way"]
        ],
        numbers=[2],
        code=[1],
        file="search.json",
    )
    trained = PageTable(
        "Recipes that make a trained file again: attar run RECIPE, or in Python with the objects that were given there",
        ["File", "Recipe", "Stages", "Seconds"],
        [
            [each["name"], each["recipe"], json.dumps(each["stages"]), number(each["seconds"], 3)]
            for each in result["files"]
            if each["way"]
        ],
        numbers=[3],
        code=[1, 2],
        file="search.json",
    )
    left = [
        *filter(None, [ruined_words(result), others_words(result)]),
        *(f"{name}: {why}" for name, why in result["failed"].items()),
        *(f"{name}: left out for time" for name in result["skipped"]),
    ]
    tested = [[name, number(value)] for name, value in result.get("test", {}).items()]
    test = [PageTable("On the test split, read once", ["File", "Metric"], tested, numbers=[1])] if tested else []
    ended = f"The search ended after {plural(len(rows), 'file')}: {result['ended']}."
    return [
        PageSection("front", "Front", text, drawings=front_drawings(result)),
        PageSection("files", "Files", tables=[every, *test]),
        PageSection("again", "Make one again", tables=[made, *([trained] if trained.rows else [])]),
        PageSection("end", "Why it ended", ended, note="; ".join(left)),
    ]
