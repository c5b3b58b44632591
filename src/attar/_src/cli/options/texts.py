"""The texts of options of ``attar quantize`` as values.

Raises:
    typer.BadParameter: a text cannot be read; the command ends with the exit code of wrong usage, 2.
"""

from __future__ import annotations

import json
import re
from typing import Any

import typer

from attar._src.artifact.packing import demand_coder
from attar._src.core.errors import UnknownName
from attar._src.data.axes import Dynamic


def parse_activations(text: str | None) -> Any:
    """Return ``"8"`` as 8; ``dynamic``, ``auto`` and None as they are."""
    if text in (None, "dynamic", "auto"):
        return text
    if text not in map(str, range(2, 9)):
        raise typer.BadParameter(f"--activations {text!r}: write the bits, 2 to 8, dynamic, or auto")
    return int(text)


def parse_coder(text: str) -> str:
    """Return the name of a coder as it is."""
    try:
        demand_coder(text)
    except UnknownName as error:
        raise typer.BadParameter(f"--coder: {error}") from error
    return text


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """Return ``["width=8", "kind=wide"]`` as ``{"width": 8, "kind": "wide"}``."""
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"--arg {pair!r}: write NAME=VALUE, as in --arg hidden=128")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def parse_tolerance(pairs: list[str]) -> dict[str, float] | None:
    """Return ``["error=0.2"]`` as ``{"error": 0.2}``, ``["none"]`` as None."""
    if pairs == ["none"]:
        return None
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"--tolerance {pair!r}: write NAME=NUMBER, as in --tolerance equal_predictions=0.9, or none"
            ) from None
    return found


def parse_axes(texts: list[str]) -> Dynamic:
    """Return the axes of every input, ``["0", "1"]``, or of inputs by name, ``["x=0,1", "state=1"]``; None if empty."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, axes = text.rpartition("=")
        if not re.fullmatch(r"\d+(,\d+)*", axes):
            raise typer.BadParameter(
                f"--dynamic {text!r}: write AXIS or NAME=AXIS,AXIS, as in --dynamic x=0,1 --dynamic state=1"
            )
        found[name] = (*found.get(name, ()), *map(int, axes.split(",")))
    if "" in found and len(found) > 1:
        raise typer.BadParameter(f"--dynamic {' '.join(texts)}: give axes of every input, or of each by name, not both")
    return found.get("", found or None)


def parse_override(text: str) -> tuple[str, int]:
    """Return ``"conv*=6"`` as ``("conv*", 6)``."""
    glob, separator, bits = text.rpartition("=")
    if not separator or not glob or not bits.isdigit():
        raise typer.BadParameter(f"{text!r}: write GLOB=BITS, as in --set 'layer1.*=6'")
    return glob, int(bits)


def parse_levels(text: str | None, option: str = "--levels") -> list[float] | None:
    """Return ``"2,3,8"`` as ``[2, 3, 8]``, ``"0.5,0.9"`` as ``[0.5, 0.9]``; None as it is."""
    try:
        numbers = None if text is None else [float(each) for each in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: write numbers, as in 2,3,4,8 or 0.5,0.9") from None
    return None if numbers is None else [int(each) if each.is_integer() else each for each in numbers]


def parse_bytes(text: str | None, option: str = "--max-bytes") -> int | None:
    """Return ``"90k"`` as 90,000, ``"1.5M"`` as 1,500,000; None as it is."""
    found = None if text is None else re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)B?", text)
    if text is not None and found is None:
        raise typer.BadParameter(f"{option} {text!r}: write bytes, as in 95000, 95k or 1.5M")
    return round(float(found[1]) * {"": 1, "k": 1000, "M": 1_000_000}[found[2]]) if found else None


def parse_minutes(text: str | None) -> float | None:
    """Return ``"90s"`` as 1.5, ``"30m"`` or ``"30"`` as 30, ``"2h"`` as 120; None as it is."""
    found = None if text is None else re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if text is not None and (found is None or not float(found[1])):
        raise typer.BadParameter(f"--time {text!r}: write a time above 0, as in 90s, 30m or 2h")
    return float(found[1]) * {"s": 1 / 60, "m": 1, "": 1, "h": 60}[found[2]] if found else None


def parse_reconstruction(
    wanted: bool, minutes: float | None, steps: int | None, augment: list[str] | None
) -> dict[str, Any] | bool:
    """Return what ``attar.quantize`` takes as ``reconstruct``."""
    given = {"minutes": minutes, "steps": steps, "augment": augment}
    fields = {name: value for name, value in given.items() if value is not None}
    if fields and not wanted:
        raise typer.BadParameter(f"--{', --'.join(fields)} belong to --reconstruct; add it")
    return fields if wanted else False
