"""Numbers and names as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: In place of a missing number.
NONE = "–"


def count(value: float | None) -> str:
    """Return a whole number with separators: ``12,345``."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage: ``98.3 %``."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def times(value: float | None) -> str:
    """Return a ratio: ``31.2×``."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{1 if value >= 9.95 else 2}f}×"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits: ``2.901``."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def clock(seconds: float) -> str:
    """Return a time that is left: ``12:05``."""
    whole = round(max(seconds, 0))
    return f"{whole // 60}:{whole % 60:02d}"


def milliseconds(value: float | None) -> str:
    """Return a latency: ``0.123 ms``."""
    return NONE if value is None else f"{number(value, 3)} ms"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign: ``−1.2``."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def metric(value: float | None, name: str) -> str:
    """Return a test metric: accuracy as a percentage, others as numbers."""
    return share(value, 2) if is_share(name) else number(value)


def fidelity_words(seen: Mapping[str, Any]) -> str:
    """Return the figures of an output against the floating-point module: ``98.4 % equal predictions, 24.1 dB``."""
    if seen["kind"] == "integers":
        return f"{share(seen['equal'], 2)} equal integers"
    decibel, angle, error = (seen.get(key) for key in ("signal_to_noise_db", "cosine", "relative_error"))
    parts = [f"{share(seen['equal_predictions'], 2)} equal predictions"] if "equal_predictions" in seen else []
    if decibel is not None:
        parts.append(f"signal to noise {decibel:.1f} dB")
    elif not error:
        return ", ".join([*parts, "no difference"])
    if "equal_predictions" not in seen:
        parts += [f"cosine {angle:.5f}"] if angle is not None else []
        parts.append(f"relative error {share(error, 2)}")
    return ", ".join(parts)


def is_share(name: str) -> bool:
    """Return whether a metric is a share, with differences in percentage points."""
    return name == "accuracy"


def short(name: str, most: int = 48) -> str:
    """Return a name with at most ``most`` characters; a longer one has ``…`` in its middle."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def plural(amount: int, noun: str) -> str:
    """Return ``1 layer``, ``2 layers``, ``3 classes``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "es" if noun.endswith("s") else "s")


def noise_words(examples: int | None) -> str:
    """Return what a column ± of losses has, with the number of validation examples where it is known."""
    of = "examples" if examples is None else plural(examples, "validation example")
    return f"± is one standard error of the loss, for the draw of the {of}."


def listed(items: list[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def sensitivity_columns(what: str) -> list[str]:
    """Return the heads of a table of sensitivities, in the order of :func:`sensitivity_cells`."""
    columns = ["Layer", "Level", "Bytes", "SNR, dB", "KL, nats", "Changed", "Metric", "Estimate"]
    return [*columns[:-1], "Multiplications"] if what == "channels" else columns


def sensitivity_cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of a table of sensitivities: layer, level, bytes, signal to noise, KL, changed, metric, and the
    estimate; of channels the multiplications that are left instead."""
    return [
        row["layer"],
        f"{row['level']:g}" + (f" at {row['rate']:g}" if row["rate"] else ""),
        count(row["bytes"]),
        number(row["signal_to_noise_db"], 3),
        number(row["kl"], 3),
        share(row["changed"]),
        number(row["metric"]),
        number(row["estimate"], 3) if row["macs"] is None else count(row["macs"]),
    ]
