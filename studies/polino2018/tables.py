"""The tables of this study, made from results.json; what was published stands beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

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
Rows = list[list[str]]
#: A row of a run: what was measured of its files, one for each seed.
Entries = Sequence[dict[str, Any]]


def best(student: str, bits: int) -> float:
    """Return the best figure the paper has for a student at these bits."""
    return max(PUBLISHED[student][f"{method}-{bits}"] for method in ("pm", "qd", "dq"))


def rows_of(results: dict[str, Any], run: str) -> dict[str, Entries]:
    """Return the rows of a run. Files alike count once: without training a seed changes nothing."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, entry in results["runs"].get(run, {}).items():
        found.setdefault(name.partition(" ")[0], {})[entry["sha256"]] = entry
    return {name: sorted(files.values(), key=lambda entry: int(entry["seed"])) for name, files in found.items()}


def average(row: Entries, key: str) -> float:
    """Return the mean of a figure over the seeds."""
    return mean(entry[key] for entry in row)


def deviation(row: Entries) -> float | None:
    """Return the sample standard deviation of the test accuracy over the seeds; None with one."""
    return stdev(entry["accuracy_percent"] for entry in row) if len(row) > 1 else None


def _seeds(row: Entries) -> str:
    return ", ".join(f"{entry['accuracy_percent']:.2f}" for entry in row) if len(row) > 1 else ""


def _deviation(row: Entries) -> str:
    found = deviation(row)
    return f"{found:.2f}" if found is not None else ""


def _held(row: Entries) -> str:
    """Return the held-out accuracy at the end of training."""
    ends = [entry["epochs"][-1].get("validation_accuracy") for entry in row if entry.get("epochs")]
    return f"{100 * mean(ends):.2f}" if ends and None not in ends else ""


def _published(row: Entries) -> str:
    figure = row[0].get("published")
    return f"{figure:.2f}" if figure is not None else ""


def _ratio(row: Entries) -> str:
    return f"{average(row, 'paper_ratio'):.2f}" if all("paper_ratio" in entry for entry in row) else ""


#: Column -> its cell; the mean where a row has several seeds.
COLUMNS: dict[str, Callable[[Entries], str]] = {
    "test accuracy %": lambda row: f"{average(row, 'accuracy_percent'):.2f}",
    "standard deviation": _deviation,
    "seeds": _seeds,
    "held-out %": _held,
    "published %": _published,
    "epochs": lambda row: str(len(row[0]["epochs"])),
    "bits per weight": lambda row: f"{average(row, 'bits_per_weight'):.3f}",
    "file, bytes": lambda row: f"{average(row, 'file_bytes'):,.0f}",
    "paper's account, bytes": lambda row: f"{average(row, 'paper_bytes'):,.0f}",
    "ratio by the paper's account": _ratio,
}
_ACCURACY = ("test accuracy %", "standard deviation", "seeds")
_SIZE = ("bits per weight", "file, bytes")


def _table(rows: dict[str, Entries], *columns: str) -> Rows:
    """Return a table; columns in which no row has anything to say are left out, as that of seeds where there is one."""
    cells = {column: [COLUMNS[column](row) for row in rows.values()] for column in columns}
    kept = [column for column in columns if any(cells[column]) or not rows]
    marks = (f"{name} (earlier recipe)" if any("earlier" in e for e in row) else name for name, row in rows.items())
    return [["", *kept], *([name, *(cells[column][at] for column in kept)] for at, name in enumerate(marks))]


def _beside(row: Entries, published: float | None) -> Entries:
    return [entry | {"published": published} for entry in row]


def files(results: dict[str, Any]) -> Rows:
    """Return the table of the committed files."""
    made = {entry["sha256"]: entry for rows in results["runs"].values() for entry in rows.values()}
    rows = {}
    for name, entry in results["files"].items():
        student, kind = name.split("-", 1)
        budget = kind.removesuffix("bit")
        figure = best(student, int(budget)) if budget in ("2", "4") else PUBLISHED[student].get(budget)
        rows[f"`{name}.attar`"] = _beside([made.get(entry["sha256"], {}) | entry], figure)
    return _table(rows, "test accuracy %", "held-out %", "published %", *_SIZE, "paper's account, bytes")


def budgets(results: dict[str, Any]) -> Rows:
    """Return the students under their budgets in short, for the front page."""
    rows = [["student", "<= 1 bit a weight", "<= 2 bits", "<= 3.8 bits", "best published: 2 bits", "4 bits"]]
    for student in reversed(PUBLISHED):
        found = [results["files"].get(f"{student}-{budget}bit") for budget in (1, 2, 4)]
        if any(found):
            cells = [f"{e['accuracy_percent']:.2f} % in {e['file_bytes']:,} bytes" if e else "" for e in found]
            rows.append([student.upper(), *cells, *(f"{best(student, bits):.2f} %" for bits in (2, 4))])
    return rows


def floating(results: dict[str, Any]) -> Rows:
    """Return the students in floating point, taught and from the labels alone, beside the paper's."""
    rows = {}
    for student, published in PUBLISHED.items():
        for name, row in rows_of(results, f"{student}-fp").items():
            rows[name] = _beside(row, published[name.removeprefix(f"{student}-")])
    return _table(rows, *_ACCURACY, "published %", "epochs", *_SIZE)


def repeated(results: dict[str, Any]) -> Rows:
    """Return student 3 under its budgets, over the seeds."""
    return _table(rows_of(results, "s3"), *_ACCURACY, "held-out %", *_SIZE)


def largest(results: dict[str, Any]) -> Rows:
    """Return all that was made of student 1, in the order of its training; a row made twice has its recipe's name."""
    rows: dict[str, Entries] = {}
    for run in ("s1-fp", "s1-start", "s1", "s1-mix", "s1-mean"):
        for name, row in rows_of(results, run).items():
            rows[run if name in rows else name] = row
    return _table(rows, "test accuracy %", "held-out %", "epochs", *_SIZE)


def paper(results: dict[str, Any]) -> Rows:
    """Return the table of the paper's methods."""
    rows = {}
    for run in results["runs"]:
        student, _, kind = run.partition("-")
        if kind == "paper":
            for name, row in rows_of(results, run).items():
                method, _, bits = name.removeprefix(f"{student}-").rpartition("-")
                # The paper's post-mortem rows are those with buckets.
                method = {"pm": "", "pm-bucket": "pm"}.get(method, method)
                rows[name] = _beside(row, PUBLISHED[student].get(f"{method}-{bits}"))
    return _table(rows, *_ACCURACY, "published %", *_SIZE, "paper's account, bytes", "ratio by the paper's account")


def losses(results: dict[str, Any]) -> Rows:
    """Return the table of the losses: student 3 in floating point."""
    return _table(rows_of(results, "s3-losses"), *_ACCURACY, "held-out %")


def teaching(results: dict[str, Any]) -> Rows:
    """Return whether distillation earns its place."""
    return _table(rows_of(results, "s3-teaching"), *_ACCURACY)


def parts(results: dict[str, Any]) -> Rows:
    """Return the ablation."""
    return _table(rows_of(results, "s3-parts"), *_ACCURACY, *_SIZE)


def buckets(results: dict[str, Any]) -> Rows:
    """Return the table of bucket sizes: student 3 rounded after training."""
    return _table(rows_of(results, "s3-buckets"), *_ACCURACY, *_SIZE)


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
    "repeated": repeated,
    "largest": largest,
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
