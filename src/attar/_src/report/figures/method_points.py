"""Files of a comparison: what each loses against its bytes, by what was done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from attar._src.report.figures.drawing import DrawnPoint, scatter_svg
from attar._src.report.wording import count, number

#: Groups of the drawings.
DONE = ("quantized", "pruned", "both", "floating point")
#: Points up to which a second drawing shows what is lost, where some files lose far more.
_CLOSE = 5.0


def method_drawings(result: Mapping[str, Any]) -> tuple[Markup, ...]:
    """Return drawings of all files, and of those that lose little, of the fields of ``compare.json``.

    Trained files are outlines.
    """
    made = [each for each in result["tries"] if not each["failed"]]
    close = [each for each in made if each["drop"] <= _CLOSE]
    drawn = [made] if len(close) in (len(made), 1) else [close, made]
    return tuple(_drawing(each, result["unit"]) for each in drawn)


def _drawing(files: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    points = [
        DrawnPoint(each["file_bytes"], each["drop"], _group(each), _words(each), hollow=bool(each["training_examples"]))
        for each in files
    ]
    listing = "; ".join(
        f"{each['method']} {count(each['file_bytes'])} bytes, {number(each['drop'], 3)} lost" for each in files
    )
    alt = f"What is lost against bytes of the file: {listing}."
    return scatter_svg(points, DONE, "bytes of the file", f"{unit} lost", alt)


def _group(file: Mapping[str, Any]) -> int:
    quantized, pruned = "quantization" in file["method"], "prun" in file["method"]
    return 2 if quantized and pruned else 0 if quantized else 1 if pruned else 3


def _words(file: Mapping[str, Any]) -> str:
    return f"{file['method']}\n{count(file['file_bytes'])} bytes\n{number(file['drop'], 3)} {file['unit']} lost"
