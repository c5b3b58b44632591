"""``attar run``: what a recipe says, from data and modules to measured files and a page."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from attar._src.cli import show
from attar._src.core.garbage import collection_paused


def run_command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, YAML; `attar schema` has its form.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The run's folder; runs/NAME by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="MODEL", help="Only this model and those that teach it; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Put another value in: models.student.stages.0.epochs=3."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Do what a recipe says: train its models, teachers first, compress them, and measure the files.

    Every model takes the whole way untrained first, so that what cannot be deployed is known in seconds. A run that was
    interrupted, by whatever, goes on with --resume and ends in the same bytes. The folder holds the files, the recipe
    as run, the journal, logs, report.json and report.html.

    Example:

        attar run recipe.yaml --only student --set seeds=[0] --out runs/mine
    """
    folder = out or Path("runs") / recipe.stem
    words = ["attar", "run", str(recipe), "--out", str(folder)]
    words += [word for name in only or [] for word in ("--only", name)]
    words += [word for setting in settings or [] for word in ("--set", setting)]
    command = shlex.join(words)
    # PyTorch is imported here and not at the top: what reads a file runs without it.
    with collection_paused(freeze=True):
        recipes = importlib.import_module("attar._src.recipe.recipe")
        pipeline = importlib.import_module("attar._src.pipeline.run")
    described = recipes.read_recipe(recipe, tuple(settings or ()))
    described = described.only(*only) if only else described
    try:
        done = pipeline.run(described, folder, resume=resume, command=command)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True, highlight=False).print(escape(f"go on with: {command} --resume"))
        raise
    if done.page is None:
        return
    if json:
        show.as_json(done.report)
    else:
        _print(done.report, done.page)


def _print(report: Mapping[str, Any], page: Path) -> None:
    out, baseline = show.console(), report["baseline"]
    seeds = len(report["seeds"])
    rows = show.print_table(
        "\nmodel",
        f">test\n{report['metric']}",
        ">\nparameters",
        ">non-\nzero",
        ">bits per\nweight",
        ">file\nbytes",
        ">times\nsmaller",
        ">latency\nms",
        ">times\nfaster",
    )
    for model in report["models"]:
        share = report["metric"] == "accuracy"
        rows.add_row(
            f"[bold]{escape(model['name'])}[/]" if model["name"] == baseline else escape(model["name"]),
            f"{model['metric_mean']:.2%}" if share else f"{model['metric_mean']:.4g}",
            f"{model['parameters']:,}",
            f"{model['nonzero_share']:.0%}",
            f"{model['bits_per_weight']:.2f}",
            f"{model['file_bytes']:,}",
            f"{model['times_smaller']:.1f}",
            f"{model['latency']['median_ms']:.3f}",
            f"{model['times_faster']:.2f}",
        )
    of = f"mean of {seeds} seeds" if seeds > 1 else f"seed {report['seeds'][0]}"
    out.print(rows)
    weights = f"the FP32 weights of {escape(baseline)}"
    out.print(f"{of}, {report['examples']:,} test examples; whole files are held against {weights}", soft_wrap=True)
    out.print(escape(str(page)), soft_wrap=True)
