"""What the trainings of this study gave: reads the reports of finished runs, and writes table and figure.

    python studies/pruning/trained.py runs/pruning/weights runs/pruning/channels    adds their models to trained.json
    python studies/pruning/trained.py                                               writes trained.svg and the table

Accuracy is that of the decoded file on the test images, which a run reads once, at its end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

HERE = Path(__file__).parent
RESULTS = HERE / "trained.json"
#: Model -> the least accuracy that was aimed at, in per cent.
AIMS = {
    "r20-70": 91.4,
    "r20-90": 90.0,
    "r20-2of4": 91.4,
    "r20-half": 90.8,
    "r20-40k": 91.0,
    "r20-25k": 90.0,
    "r56-21": 93.0,
    "r56-26": 92.6,
    "r56-26-blocks": 92.6,
    "lenet5": 99.26,
    "lenet_300_100": 98.42,
}


def models_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's models other than the baseline."""
    run = json.loads((folder / "report.json").read_text())["run"]
    return [
        {
            "model": each["name"],
            "accuracy": [round(100 * seed, 2) for seed in each["metric_per_seed"]],
            "parameters": each["parameters"],
            "nonzero_percent": round(100 * each["nonzero_share"], 1),
            "file_bytes": each["file_bytes"],
            "epochs": sum(stage.get("epochs", 0) for stage in each["record"]),
            "minutes": round(sum(row["seconds"] for row in each["curves"]) / 60, 1),
        }
        for each in run["models"]
        if each["name"] != run["baseline"]
    ]


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table into README.md, and trained.svg."""
    lines = [
        "| model | seeds | accuracy, % | aimed at | parameters | non-zero, % | file, bytes | epochs | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for each in sorted(rows, key=lambda each: [*AIMS, each["model"]].index(each["model"])):
        mean = sum(each["accuracy"]) / len(each["accuracy"])
        aim = AIMS.get(each["model"])
        lines.append(
            f"| {each['model']} | {len(each['accuracy'])} | {mean:.2f} | {'' if aim is None else aim} | "
            f"{each['parameters']:,} | {each['nonzero_percent']:g} | {each['file_bytes']:,} | {each['epochs']} | "
            f"{each['minutes']:.0f} |"
        )
        place = each["file_bytes"] / 1000, mean
        axes.plot(*place, "o", color="tab:blue")
        axes.annotate(each["model"], place, textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("file, KB")
    axes.set_ylabel("test accuracy, %")
    axes.margins(x=0.2)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "attar"
    figure.savefig(HERE / "trained.svg", metadata={"Date": None})
    page = HERE / "README.md"
    before, begin, rest = page.read_text().partition("<!-- table: studies/pruning trained -->\n")
    _, end, after = rest.partition("<!-- end of table -->")
    page.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    given = parser.parse_args()
    rows = {each["model"]: each for each in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    for folder in given.runs:
        rows |= {each["model"]: each for each in models_of(folder)}
    RESULTS.write_text(json.dumps([*rows.values()], indent=1) + "\n")
    write([*rows.values()])


if __name__ == "__main__":
    main()
