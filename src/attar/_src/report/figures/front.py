"""Files of a search: what each loses against its bytes, or its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.report.figures.plot import SYMBOLS, Figure, Plot, axis, colour, series, text
from attar._src.report.wording import count, milliseconds, number

#: Key of a file -> the words of its axis.
ACROSS = {"file_bytes": "bytes of the file", "ms": "milliseconds of one example, one thread"}
#: Series of the plot.
GROUPS = ("best", "on the front", "beaten by another file")


def front_plot(result: Mapping[str, Any]) -> Plot:
    """Return a figure for bytes and one for time, of the fields of ``search.json``."""
    files = result["files"]
    figures = [
        Figure((words,), _points(result, key), _layout(words, files), _alt(files, key, words))
        for key, words in ACROSS.items()
    ]
    return Plot("front", ("Across",), figures)


def _points(result: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = []
    for place, group in enumerate(GROUPS):
        own = [each for each in result["files"] if _group(result, each) == group]
        hover = [
            text(
                each["name"],
                f"{count(each['file_bytes'])} bytes",
                f"{number(each['drop'], 3)} {each['unit']} lost",
                milliseconds(each["ms"]),
            )
            for each in own
        ]
        style = {"mode": "markers", "marker": {"size": 11, "color": colour(place), "symbol": SYMBOLS[place]}}
        values = [each["drop"] for each in own]
        if own:
            found.append(series("scatter", group, [each[key] for each in own], values, hover, **style))
    return found


def _group(result: Mapping[str, Any], file: Mapping[str, Any]) -> str:
    if file["name"] == result["best"]:
        return GROUPS[0]
    return GROUPS[1] if file["name"] in result["front"] else GROUPS[2]


def _layout(words: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lost = axis(f"{files[0]['unit']} lost on the validation examples", zeroline=True)
    return {"height": 440, "hovermode": "closest", "xaxis": axis(words, type="log"), "yaxis": lost}


def _alt(files: Sequence[Mapping[str, Any]], key: str, words: str) -> str:
    listing = "; ".join(f"{each['name']} {number(each[key])}, {number(each['drop'], 3)} lost" for each in files)
    return f"What is lost against {words}: {listing}."
