"""Measure what the recipes of this study made: every file on the CIFAR-10 test images, without PyTorch.

    python studies/polino2018/measure.py           measures files/ and the runs there are, writes results.json, draws
    python studies/polino2018/measure.py --draw    tables and figures again from results.json

A run's folder is named RECIPE, or RECIPE.ROW where `--only ROW` made one row of it. Rows are kept in results.json until
they are made anew, so that a part of the study can be repeated; those another recipe made than there is now are marked.
A file of bytes that were evaluated is not evaluated again. The published figures are those of the paper; none was
measured here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from figures import draw
from huffman_size import huffman_size
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track
from tables import TABLES, fill

import attar
from attar._src.artifact.inspect import inspect_artifact
from attar._src.cli import show
from attar._src.core.digest import file_digest
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.recipe.recipe import ModelSpec, Recipe, read_recipe
from attar._src.recipe.reference import expand_path

HERE = Path(__file__).parent
#: Recipes of networks that were not trained, or of a few images.
APART = ("latency", "small")
RESULTS = HERE / "results.json"
#: So many of the first test images are also counted by themselves, for the tests of this study.
FIRST = 2000
#: What of an epoch is kept for the curves.
KEPT = ("epoch", "loss", "validation_loss", "validation_accuracy", "rate", "seconds")


def measured(path: Path, test: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one file: accuracy of what is decoded, its size, and the size as the paper counts it.

    ``known``: SHA-256 of a file -> its figures as they were measured before.
    """
    session = attar.Session(path)
    session.artifact.verify()
    size, counted, before = (
        inspect_artifact(session.artifact),
        huffman_size(session.artifact),
        known.get(session.artifact.sha256),
    )
    if before is None:
        found = evaluate_accuracy(session, test.x, test.y)
        first = evaluate_accuracy(session, test.x[:FIRST], test.y[:FIRST])
        before = {
            "accuracy_percent": round(100 * found.accuracy, 4),
            "examples": found.examples,
            "first": {"accuracy_percent": round(100 * first.accuracy, 4), "examples": first.examples},
        }
    return {
        "sha256": session.artifact.sha256,
        "accuracy_percent": before["accuracy_percent"],
        "examples": before["examples"],
        "first": before["first"],
        "file_bytes": size["file_bytes"],
        "graph_bytes": size["graph_bytes"],
        "parameters": size["parameters"],
        "bits_per_weight": size["bits_per_weight"],
        "paper_bytes": counted.bytes,
        "paper_ratio": counted.ratio,
    }


def curves(folder: Path, seed: int, model: str) -> list[dict[str, Any]]:
    """Return what a run's journal has of a model, one row an epoch."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["event"] == "epoch"]
    mine = [row for row in rows if row["seed"] == seed and row["model"] == model]
    return [{"stage": row["index"], **{key: row[key] for key in KEPT if key in row}} for row in mine]


def origin(model: ModelSpec, weights: str | None) -> dict[str, str | None]:
    """Return what tells whether a row would be made in the same way: hashes of its stages and source, and of the
    weights it begins with, whatever their file is called.

    Args:
        model: the row in its recipe.
        weights: SHA-256 of its weights; None without or where there is no such file.
    """
    said = model.describe()
    said["source"].pop("weights", None)
    return {"recipe": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(), "weights": weights}


def made_by(run: dict[str, Any], name: str) -> dict[str, str | None]:
    """Return the origin of a row by what ``run.json`` says; nothing where recipes no longer have all its keys."""
    try:
        model = ModelSpec.model_validate(run["recipe"]["models"][name])
    except ValidationError:
        return {}
    return origin(model, run["files"].get(str(expand_path(model.source.weights or ""))))


def run_rows(folder: Path, recipe: Recipe, test: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of a run: model, or model and seed but for the recipe's first, to figures, curves and origin."""
    found = {}
    run = json.loads((folder / "run.json").read_text())
    for path in sorted(folder.glob("*.attar")) + sorted(folder.glob("seed-*/*.attar")):
        seed = run["recipe"]["seeds"][0] if path.parent == folder else int(path.parent.name.partition("-")[2])
        if path.stem != "teacher":
            name = path.stem if seed == recipe.seeds[0] else f"{path.stem} seed {seed}"
            found[name] = {
                **measured(path, test, known),
                "seed": seed,
                "epochs": curves(folder, seed, path.stem),
                "made": made_by(run, path.stem),
            }
    return found


def ordered(rows: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return the rows the recipe has, in its order, seeds beside each other.

    A row that was made from other weights or by other stages than the recipe has now is marked: it is ``earlier``.
    """
    found = {}
    for name, model in recipe.models.items():
        weights = recipe.folder / expand_path(model.source.weights or "")
        now = origin(model, file_digest(weights) if weights.is_file() else None)
        for title, row in rows.items():
            if title.partition(" ")[0] == name and row["seed"] in recipe.seeds:
                made = row.get("made", {})
                # Weights that are not at hand cannot be compared.
                alike = made.get("recipe") == now["recipe"] and now["weights"] in (None, made.get("weights"))
                found[title] = {key: value for key, value in row.items() if key != "earlier"}
                found[title] |= {} if alike else {"earlier": True}
    return found


def main() -> int:
    """Measure, print, and write the JSON, the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only tables and figures from results.json")
    parser.add_argument("--runs", type=Path, default=HERE / "../../runs/polino2018", help="folder of the runs")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"files": {}, "runs": {}}
    if not given.draw:
        test = load_dataset("cifar10", "test")
        known = {row["sha256"]: row for rows in (results["files"], *results["runs"].values()) for row in rows.values()}
        files = sorted((HERE / "files").glob("*.attar"))
        results["files"] = {path.stem: measured(path, test, known) for path in track(files, "files", transient=True)}
        recipes = {path.stem: read_recipe(path) for path in sorted(HERE.glob("*.yaml")) if path.stem not in APART}
        # The latest run of a row is the one that counts.
        runs = sorted(given.runs.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
        made = results["runs"]
        for path in track(runs, "runs", transient=True):
            name = path.parent.name.partition(".")[0]
            if name in recipes:
                made[name] = made.get(name, {}) | run_rows(path.parent, recipes[name], test, known)
        results["runs"] = {name: ordered(made[name], recipe) for name, recipe in recipes.items() if made.get(name)}
        results["latency"] = json.loads((HERE / "latency.json").read_text())["files"]
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        earlier = [name for rows in results["runs"].values() for name, row in rows.items() if "earlier" in row]
        if earlier:
            Console().print(f"made by an earlier recipe, or of unknown origin: {', '.join(earlier)}", style="red")
    for title, make in TABLES.items():
        heads, *rows = make(results)
        table = show.plain_table(heads[0], *(f">{head}" for head in heads[1:]))
        for row in rows:
            table.add_row(*row)
        Console().print(title, table)
    for page in (HERE / "README.md", HERE.parent.parent / "README.md"):
        fill(results, page)
    draw(results, HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
