"""The tables and figures of this study, made from results.json; what was published stands beside what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes

#: Student -> published test accuracy in per cent (the paper's tables 1 and 2).
_ROWS = ("alone", "fp", "pm-2", "qd-2", "dq-2", "pm-4", "qd-4", "dq-4")
PUBLISHED = {
    "s1": dict(zip(_ROWS, (84.5, 88.8, 10.53, 82.40, 80.43, 87.18, 88.00, 88.31), strict=True)),
    "s2": dict(zip(_ROWS, (80.3, 84.3, 11.89, 74.22, 72.79, 81.96, 83.92, 83.49), strict=True)),
    "s3": dict(zip(_ROWS, (71.6, 78.2, 10.38, 67.02, 57.84, 72.44, 77.75, 77.36), strict=True)),
}
#: Network -> multiplications of one image: of a convolution, weights times positions (32 x 32, halved by each pooling).
MULTIPLICATIONS = {
    "large": 9 * (1024 * (3 * 76 + 76 * 76) + 256 * (76 * 126 + 126 * 126) + 64 * (126 * 148 + 3 * 148 * 148))
    + 148 * 16 * 1200 + 1200 * 1200 + 1200 * 10,
    "s1": 25 * (1024 * (3 * 75 + 75 * 50) + 256 * (50 * 50 + 50 * 25)) + 25 * 64 * 500 + 5000,
    "s2": 25 * (1024 * (3 * 50 + 50 * 25) + 256 * (25 * 25 + 25 * 10)) + 10 * 64 * 400 + 4000,
    "s3": 25 * (1024 * (3 * 25 + 25 * 10) + 256 * (10 * 10 + 10 * 5)) + 5 * 64 * 300 + 3000,
}  # fmt: skip
INK, QUIET, OTHER = "#1b6ca8", "#999999", "#c8553d"
Rows = list[list[str]]


def _percent(entry: dict[str, Any] | None) -> str:
    return f"{entry['accuracy_percent']:.2f}" if entry else ""


def _held(entry: dict[str, Any] | None) -> str:
    """Return the held-out accuracy at the end of training."""
    held = entry["epochs"][-1].get("validation_accuracy") if entry and entry["epochs"] else None
    return f"{100 * held:.2f}" if held is not None else ""


def _best(student: str, bits: int) -> float:
    return max(PUBLISHED[student][f"{method}-{bits}"] for method in ("pm", "qd", "dq"))


def _sized(name: str, entry: dict[str, Any], published: float | None) -> list[str]:
    """Return a row: accuracy, the published one, bits per weight, the whole file, the paper's account."""
    return [
        name,
        _percent(entry),
        f"{published:.2f}" if published is not None else "",
        f"{entry['bits_per_weight']:.3f}",
        f"{entry['file_bytes']:,}",
        f"{entry['paper_bytes']:,.0f}",
    ]


SIZED = ["", "test accuracy %", "published %", "bits per weight", "file, bytes", "paper's account, bytes"]


def files(results: dict[str, Any]) -> Rows:
    """Return the table of the committed files."""
    made = {entry["sha256"]: entry for rows in results["runs"].values() for entry in rows.values()}
    rows = [[*SIZED[:2], "held-out %", *SIZED[2:]]]
    for name, entry in results["files"].items():
        student, kind = name.split("-", 1)
        budget = kind.removesuffix("bit")
        best = _best(student, int(budget)) if budget in ("2", "4") else PUBLISHED[student].get(budget)
        head, accuracy, *rest = _sized(f"`{name}.attar`", entry, best)
        rows.append([head, accuracy, _held(made.get(entry["sha256"])), *rest])
    return rows


def budgets(results: dict[str, Any]) -> Rows:
    """Return the students under their budgets in short, for the front page."""
    rows = [["student", "<= 1 bit a weight", "<= 2 bits", "<= 3.8 bits", "best published: 2 bits", "4 bits"]]
    for student in reversed(PUBLISHED):
        found = [results["files"].get(f"{student}-{budget}bit") for budget in (1, 2, 4)]
        if any(found):
            cells = [f"{_percent(each)} % in {each['file_bytes']:,} bytes" if each else "" for each in found]
            rows.append([student.upper(), *cells, *(f"{_best(student, bits):.2f} %" for bits in (2, 4))])
    return rows


def floating(results: dict[str, Any]) -> Rows:
    """Return the students in floating point, taught and from the labels alone, beside the paper's."""
    rows = [["", "test accuracy %", "published %", "epochs", "bits per weight", "file, bytes"]]
    for student, published in PUBLISHED.items():
        for name, entry in results["runs"].get(f"{student}-fp", {}).items():
            figure = published[name.removeprefix(f"{student}-")]
            size = [f"{entry['bits_per_weight']:.3f}", f"{entry['file_bytes']:,}"]
            rows.append([name, _percent(entry), f"{figure:.2f}", str(len(entry["epochs"])), *size])
    return rows


def paper(results: dict[str, Any]) -> Rows:
    """Return the table of the paper's methods."""
    rows = [SIZED]
    for run, found in results["runs"].items():
        student, _, kind = run.partition("-")
        if kind == "paper":
            for name, entry in found.items():
                method, _, bits = name.removeprefix(f"{student}-").rpartition("-")
                # The paper's post-mortem rows are those with buckets.
                method = {"pm": "", "pm-bucket": "pm"}.get(method, method)
                published = PUBLISHED[student].get(f"{method}-{bits}")
                rows.append(_sized(name, entry, published))
    return rows


def losses(results: dict[str, Any]) -> Rows:
    """Return the table of the losses: student 3 in floating point."""
    found = results["runs"].get("s3-losses", {})
    return [
        ["", "test accuracy %", "held-out accuracy %"],
        *([name, _percent(e), _held(e)] for name, e in found.items()),
    ]


def teaching(results: dict[str, Any]) -> Rows:
    """Return whether distillation earns its place: every seed, and how far they lie apart."""
    rows = [["", "test accuracy %, mean", "standard deviation", "seeds"]]
    groups: dict[str, list[float]] = {}
    for name, entry in results["runs"].get("s3-teaching", {}).items():
        groups.setdefault(name.partition(" ")[0], []).append(entry["accuracy_percent"])
    for name, found in groups.items():
        spread = f"{stdev(found):.2f}" if len(found) > 1 else ""
        rows.append([name, f"{mean(found):.2f}", spread, ", ".join(f"{each:.2f}" for each in found)])
    return rows


def parts(results: dict[str, Any]) -> Rows:
    """Return the ablation."""
    return _short(results, "s3-parts")


def buckets(results: dict[str, Any]) -> Rows:
    """Return the table of bucket sizes: student 3 rounded after training."""
    return _short(results, "s3-buckets")


def _short(results: dict[str, Any], run: str) -> Rows:
    found = results["runs"].get(run, {})
    cells = ([name, _percent(e), f"{e['bits_per_weight']:.3f}", f"{e['file_bytes']:,}"] for name, e in found.items())
    return [["", "test accuracy %", "bits per weight", "file, bytes"], *cells]


def latency(results: dict[str, Any]) -> Rows:
    """Return what `attar bench` measured of the four networks in floating point, beside their multiplications."""
    rows = [["", "million multiplications", "ms", "of the largest", "ns a thousand multiplications"]]
    for entry in results.get("latency", []):
        name, time = Path(entry["file"]).stem, entry["median_ms"]
        work = MULTIPLICATIONS[name]
        rows.append([name, f"{work / 1e6:.1f}", f"{time:.3f}", f"{entry['ratio']:.3f}", f"{1e9 * time / work:.1f}"])
    return rows


TABLES: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "files": files,
    "floating": floating,
    "paper": paper,
    "losses": losses,
    "teaching": teaching,
    "parts": parts,
    "buckets": buckets,
    "latency": latency,
}


def fill(results: dict[str, Any], page: Path) -> None:
    """Write every table this page has marks for between them."""
    text = page.read_text()
    for name, make in (TABLES | {"studies/polino2018": budgets}).items():
        heads, *rows = make(results)
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
        start, end = f"<!-- table: {name} -->\n", "<!-- end of table -->"
        if start in text:
            head, _, rest = text.partition(start)
            text = head + start + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    page.write_text(text)


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw every figure."""
    # The same figures give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "attar", "svg.fonttype": "none", "font.size": 9})
    for name, make in FIGURES.items():
        make(results, folder / f"{name}.svg")


def _saved(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _budgeted(results: dict[str, Any], student: str) -> list[dict[str, Any]]:
    found = [entry for name, entry in results["files"].items() if re.fullmatch(rf"{student}-\d+bit", name)]
    return sorted(found, key=lambda entry: float(entry["bits_per_weight"]))


def against_size(results: dict[str, Any], path: Path, *, key: str, label: str, scale: float) -> None:
    """Draw accuracy against a size: our files, the paper's methods measured here, and the published figures."""
    figure, all_axes = pyplot.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axes, student in zip(all_axes, PUBLISHED, strict=True):
        ours = _budgeted(results, student)
        axes.plot([e[key] / scale for e in ours], [e["accuracy_percent"] for e in ours], "o-", color=INK, label="Attar")
        here = results["runs"].get(f"{student}-paper", {})
        for method, mark in (("qd", "s"), ("dq", "^")):
            found = [here[name] for bits in (2, 4) if (name := f"{student}-{method}-{bits}") in here]
            if found:
                axes.plot(
                    [e[key] / scale for e in found],
                    [e["accuracy_percent"] for e in found],
                    f"{mark}-",
                    color=OTHER,
                    label=f"{method.upper()}, measured here",
                )
        if key == "bits_per_weight":
            axes.plot([2, 4], [_best(student, bits) for bits in (2, 4)], "x", color=QUIET, label="best published")
        axes.axhline(PUBLISHED[student]["fp"], color=QUIET, lw=0.8, ls=":", label="published, floating point")
        axes.set(title=student.upper(), xlabel=label, ylabel="test accuracy, %")
        axes.legend(frameon=False, fontsize=7)
    _saved(figure, path)


def _curve(axes: Axes, entry: dict[str, Any], label: str, **style: Any) -> None:
    values = [100 * row["validation_accuracy"] for row in entry["epochs"]]
    axes.plot(range(1, len(values) + 1), values, marker=".", label=label, **style)


def convergence(results: dict[str, Any], path: Path) -> None:
    """Draw held-out accuracy by epoch: quantized distillation against differentiable quantization."""
    runs = {run.removesuffix("-paper"): found for run, found in results["runs"].items() if run.endswith("-paper")}
    runs = {student: found for student, found in runs.items() if any(entry["epochs"] for entry in found.values())}
    figure, grid = pyplot.subplots(
        1, 2 * max(len(runs), 1), figsize=(4.5 * max(len(runs), 1) + 1, 3.2), layout="constrained", squeeze=False
    )
    for column, (student, found) in enumerate(runs.items()):
        for offset, bits in enumerate((2, 4)):
            axes = grid[0][2 * column + offset]
            for method, colour in (("qd", INK), ("dq", OTHER)):
                for kind, style in (("", "-"), ("-normal", ":")):
                    entry = found.get(f"{student}-{method}-{bits}{kind}")
                    if entry:
                        _curve(axes, entry, method.upper() + (", labels alone" if kind else ""), color=colour, ls=style)
            axes.set(title=f"{student.upper()}, {bits} bits", xlabel="epoch", ylabel="held-out accuracy, %")
            if axes.lines:
                axes.legend(frameon=False, fontsize=7)
    _saved(figure, path)


def bars(results: dict[str, Any], path: Path, *, run: str) -> None:
    """Draw the test accuracy of every row of a run."""
    found = results["runs"].get(run, {})
    figure, axes = pyplot.subplots(figsize=(6, 0.3 * len(found) + 1), layout="constrained")
    values = [entry["accuracy_percent"] for entry in found.values()]
    axes.barh(list(found), values, color=INK)
    axes.invert_yaxis()
    if values:
        axes.set_xlim(min(values) - 2, max(values) + 1)
    axes.set_xlabel("test accuracy, %")
    _saved(figure, path)


def by_bucket(results: dict[str, Any], path: Path) -> None:
    """Draw accuracy and bits per weight against the size of a bucket, rounded after training."""
    found = results["runs"].get("s3-buckets", {})
    figure, both = pyplot.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
    for bits, colour in ((2, OTHER), (4, INK)):
        rows = [
            (int(name.rsplit("-", 1)[1]), e)
            for name, e in found.items()
            if name.startswith(f"pm-{bits}-") and name.rsplit("-", 1)[1].isdigit()
        ]
        rows.sort(key=lambda row: row[0])
        for axes, key in zip(both, ("accuracy_percent", "bits_per_weight"), strict=True):
            axes.plot([size for size, _ in rows], [e[key] for _, e in rows], "o-", color=colour, label=f"{bits} bits")
    for axes, label in zip(both, ("test accuracy, %", "bits per weight"), strict=True):
        axes.set(xlabel="bucket size", ylabel=label, xscale="log")
        axes.legend(frameon=False)
    _saved(figure, path)


FIGURES: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "bits": lambda results, path: against_size(results, path, key="bits_per_weight", label="bits per weight", scale=1),
    "bytes": lambda results, path: against_size(results, path, key="file_bytes", label="file, KB", scale=1000),
    "buckets": by_bucket,
    "losses": lambda results, path: bars(results, path, run="s3-losses"),
    "convergence": convergence,
    "parts": lambda results, path: bars(results, path, run="s3-parts"),
}
