"""Which method to use here, in sentences of measured figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.core.format_bytes import format_bytes
from attar._src.report.wording import count, listed, milliseconds, number, plural

_Row = Mapping[str, Any]
#: Files whose bytes differ by less are as small.
_SAME_BYTES = 1.02
#: Memory that differs by less, as a share, is the same.
_SAME_MEMORY = 0.02


def faster(row: _Row) -> bool:
    """Return whether a file was faster than that in floating point in three of four rounds."""
    return bool(row["against_floating"][2] < 1)


def useful(what: str, rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows whose files hold a target and are of use.

    At equal bytes a file that lost most of what the module knows is of none; a loss was agreed to.
    """
    return [row for row in rows if row["holds"] and not (what == "bytes" and row["ruined"])]


def equals(what: str, rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows that serve a target as well as the best one, that first; none of :func:`useful` rows gives none.

    At equal bytes those whose loss is within one standard error of the least, at equal loss those of about as few
    bytes. Of these comes first what needs no training, then what is faster, then what takes least time.
    """
    holding = useful(what, rows)
    if not holding:
        return []
    if what == "bytes":
        least = min(holding, key=lambda row: row["drop"])
        alike = [row for row in holding if row["drop"] - least["drop"] <= max(row["noise"] or 0, least["noise"] or 0)]
    else:
        fewest = min(row["file_bytes"] for row in holding)
        alike = [row for row in holding if row["file_bytes"] <= _SAME_BYTES * fewest]
    return sorted(alike, key=lambda row: (row["training_examples"] > 0, not faster(row), row["ms"], row["file_bytes"]))


def answer(target: Mapping[str, Any], floating: _Row, about: Mapping[str, Any]) -> list[str]:
    """Return the answer for one target.

    Args:
        target: ``what``, ``words``, ``rows``, and ``kept``: of bytes the smallest file of all that is not ruined.
        floating: figures of the file in floating point.
        about: ``unit`` of drops, numbers of ``calibration`` and ``validation`` examples, why there is no ``energy``.
    """
    if target["what"] == "bytes" and floating["file_bytes"] <= target["most"]:
        return [f"None is needed: the file in floating point has {count(floating['file_bytes'])} bytes."]
    alike, rows = equals(target["what"], target["rows"]), target["rows"]
    if not alike:
        return [_unreached(target, rows, about["unit"])]
    best, unit = alike[0], about["unit"]
    found = [
        f"At {target['words']}, use {best['method']}: {count(best['file_bytes'])} bytes, "
        f"{number(floating['file_bytes'] / best['file_bytes'], 3)} times fewer than in floating point, "
        f"{number(best['drop'], 3)} {unit} lost{_error(best)}, {milliseconds(best['ms'])} for one example."
    ]
    made, tried = len(useful(target["what"], rows)), sum(row["tries"] > 0 for row in rows)
    if made < tried:
        found.append(f"Only {made} of {plural(tried, 'method')} that were tried made a file of use there.")
    if others := [row["method"] for row in alike[1:]]:
        why = (
            f"within one standard error of the {plural(about['validation'], 'validation example')}"
            if target["what"] == "bytes"
            else "within 2 % of its bytes"
        )
        found.append(f"As good {why}: {listed(others)}.")
    found.append(_speed(useful(target["what"], rows), best))
    found.append(_memory(best, floating))
    found.append(_energy(best, floating, about["energy"]))
    found.append(_cost(best, rows, target["what"], unit, about["calibration"]))
    return found


def _unreached(target: Mapping[str, Any], rows: Sequence[_Row], unit: str) -> str:
    kept = target["kept"]
    nearest_kept = "" if kept is None else f"{kept['method']}, with {count(kept['file_bytes'])} bytes and "
    nearest_kept += "" if kept is None else f"{number(kept['drop'], 3)} {unit} lost"
    if ruined := [row for row in rows if row["holds"]]:
        least = min(ruined, key=lambda row: row["drop"])
        return (
            f"None of the methods that were tried keeps the network at {target['words']}, where {least['method']} "
            f"loses {number(least['drop'], 3)} {unit}; "
            + (f"the nearest that does is {nearest_kept}." if kept else "no file that was made does.")
        )
    made = [row for row in rows if row["nearest"] is not None]
    if not made:
        return f"No method made a file at {target['words']}."
    nearest = min(made, key=lambda row: row["nearest"])
    what = (
        f"{count(nearest['nearest'])} bytes" if target["what"] == "bytes" else f"{number(nearest['nearest'], 3)} lost"
    )
    what = nearest_kept if target["what"] == "bytes" and kept else f"{nearest['method']}, with {what}"
    who = "No method" if all(row["tries"] for row in rows) else "None of the methods that were tried"
    return f"{who} reaches {target['words']}. The nearest is {what}."


def _error(row: _Row) -> str:
    return "" if row["noise"] is None else f" (standard error {number(row['noise'], 2)})"


def _speed(rows: Sequence[_Row], best: _Row) -> str:
    ratio = best["against_floating"]
    own = (
        f"It takes {number(ratio[1], 3)} times as long as the file in floating point (half of the rounds between "
        f"{number(ratio[0], 3)} and {number(ratio[2], 3)}), and needs {best['hardware']}."
    )
    fast = [row for row in rows if faster(row)]
    if not fast:
        return f"{own} No file here is faster than that in floating point in three of four rounds."
    first = min(fast, key=lambda row: row["against_floating"][1])
    if first["method"] == best["method"]:
        return f"{own} No other is faster."
    return (
        f"{own} The fastest is {first['method']}, {milliseconds(first['ms'])} and "
        f"{number(first['against_floating'][1], 3)} times as long as in floating point, with "
        f"{number(first['drop'], 3)} lost and {count(first['file_bytes'])} bytes; it needs {first['hardware']}."
    )


def _memory(row: _Row, floating: _Row) -> str:
    own, other = row["peak_memory_bytes"], floating["peak_memory_bytes"]
    if own is None or other is None:
        return "Memory is not readable here."
    if abs(own - other) <= _SAME_MEMORY * other:
        return f"A process that runs it takes as much memory as with the floating-point file, {format_bytes(other)}."
    less = "less" if own < other else "more"
    return (
        f"A process that runs it takes {format_bytes(abs(own - other))} {less} memory than with the floating-point "
        f"file: {format_bytes(own)} against {format_bytes(other)}."
    )


def _energy(row: _Row, floating: _Row, why: str) -> str:
    if why:
        return f"Energy is not readable here: {why}."
    return (
        f"One example takes {number(1e3 * row['joules'], 3)} mJ of the processor, in floating point "
        f"{number(1e3 * floating['joules'], 3)} mJ."
    )


def _cost(best: _Row, rows: Sequence[_Row], what: str, unit: str, calibration: int) -> str:
    seen = best["training_examples"]
    trained = f"gradient steps saw {count(seen)} examples" if seen else "nothing was trained"
    said = (
        f"It took {number(best['seconds'], 3)} s to make, {number(best['tuning_seconds'], 3)} s with all sizes that "
        f"were tried, on {plural(calibration, 'calibration example')}; {trained}."
    )
    holding = useful(what, rows)
    sides = [[row for row in holding if bool(row["training_examples"]) is side] for side in (True, False)]
    if not all(sides):
        return said
    key = "drop" if what == "bytes" else "file_bytes"
    (with_training, without) = (min(each, key=lambda row: row[key]) for each in sides)
    gain = without[key] - with_training[key]
    if gain <= 0:
        return f"{said} No method with gradient steps is better than {without['method']}."
    words = f"{number(gain, 3)} {unit}" if what == "bytes" else f"{count(gain)} bytes"
    return (
        f"{said} Gradient steps gain {words}: {with_training['method']} against {without['method']}, "
        f"{number(with_training['seconds'], 3)} s against {number(without['seconds'], 3)} s."
    )
