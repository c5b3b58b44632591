"""Files of a search: what each loses against its bytes, or its time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from attar._src.report.figures.drawing import DrawnPoint, scatter_svg
from attar._src.report.wording import count, milliseconds, number

#: Key of a file -> the words of its axis.
ACROSS = {"file_bytes": "bytes of the file", "ms": "milliseconds of one example, one thread"}
#: Groups of the figures.
GROUPS = ("best", "on the front", "beaten by another file")


def front_drawings(result: Mapping[str, Any]) -> tuple[Markup, ...]:
    """Return a figure for bytes and one for time, of the fields of ``search.json``; trained files are outlines."""
    return tuple(_drawing(result, key, words) for key, words in ACROSS.items())


def _drawing(result: Mapping[str, Any], key: str, words: str) -> Markup:
    files = result["files"]
    points = [
        DrawnPoint(each[key], each["drop"], _group(result, each), _words(each), hollow=bool(each["way"]))
        for each in files
    ]
    listing = "; ".join(f"{each['name']} {number(each[key])}, {number(each['drop'], 3)} lost" for each in files)
    alt = f"What is lost against {words}: {listing}."
    return scatter_svg(points, GROUPS, words, f"{files[0]['unit']} lost", alt)


def _words(file: Mapping[str, Any]) -> str:
    lost = f"{number(file['drop'], 3)} {file['unit']} lost"
    return f"{file['name']}\n{count(file['file_bytes'])} bytes\n{lost}\n{milliseconds(file['ms'])}"


def _group(result: Mapping[str, Any], file: Mapping[str, Any]) -> int:
    if file["name"] == result["best"]:
        return 0
    return 1 if file["name"] in result["front"] else 2
