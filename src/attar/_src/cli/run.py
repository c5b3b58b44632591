"""``attar run``: a recipe, from data and modules to measured files and a page."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.compress import print_found
from attar._src.core.garbage import collection_paused
from attar._src.report.record import warnings_by_model
from attar._src.report.wording import listed, metric, plural


def run_command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file; see `attar schema`.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the run; runs/NAME by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Only this model and its teachers; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a value: models.student.stages.0.epochs=3; repeatable."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with exit code 1 if there is a warning; files are written all the same."),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the trials of a search on a Ray cluster; local for this machine."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Run a recipe: train its models, teachers first, compress them, and measure the files.

    Every model is exported untrained first, so that an operator that cannot be deployed is found in seconds. An
    interrupted run continues with --resume and ends in the same bytes. The folder holds the files, the recipe as run,
    the journal, logs, report.json and report.html.

    A recipe with holes, such as bits: {choose: [2, 3, 4]}, has a search: trials fill them, and the folder gets the
    files that no other beats, the recipe without holes of each, best.attar, search.json and search.html. Exit code 1
    if no file holds its goal; best.attar is the nearest then.

    Example:

        attar run recipe.yaml --only student --set seeds=[0] --out runs/mine
    """
    folder = out or Path("runs") / recipe.stem
    words = ["attar", "run", str(recipe), "--out", str(folder)]
    words += [word for name in only or [] for word in ("--only", name)]
    words += [word for setting in settings or [] for word in ("--set", setting)]
    command = shlex.join(words)
    # Imported here, not at the top: commands that read files run without PyTorch.
    with collection_paused(freeze=True):
        recipes = importlib.import_module("attar._src.recipe.recipe")
        pipeline = importlib.import_module("attar._src.pipeline.run")
    if _has_search(recipe, settings or []):
        if only or strict:
            raise typer.BadParameter(f"--{'only' if only else 'strict'} is for a recipe without a search; remove it")
        command += "" if ray is None else f" --ray {shlex.quote(ray)}"
        _search(recipe, folder, settings or [], command, resume=resume, ray=ray, as_json=json)
        return
    if ray is not None:
        raise typer.BadParameter("--ray is for a recipe with a search; this one has none")
    described = recipes.read_recipe(recipe, tuple(settings or ()))
    described = described.only(*only) if only else described
    try:
        done = pipeline.run(described, folder, resume=resume, command=command)
    except KeyboardInterrupt:
        show.say("resume with:", f"{command} --resume")
        raise
    if done.page is None:
        return
    if json:
        show.as_json(done.report)
    else:
        _print(done.report, done.page)
    show.demand_none(warnings_by_model(done.report), strict=strict)


def _has_search(recipe: Path, settings: list[str]) -> bool:
    text = importlib.import_module("attar._src.recipe.yaml_text")
    tree = text.apply_overrides(text.parse_yaml(recipe), settings)
    found: bool = importlib.import_module("attar._src.search.holes").is_search(tree)
    return found


def _search(
    recipe: Path, folder: Path, settings: list[str], command: str, *, resume: bool, ray: str | None, as_json: bool
) -> None:
    trials = importlib.import_module("attar._src.search.trials.run_search")
    try:
        result = trials.run_search(
            recipe, folder, resume=resume, settings=settings, ray=ray, on_step=lambda line: show.say("", line)
        )
    except KeyboardInterrupt:
        show.say("go on with:", f"{command} --resume")
        raise
    found = result.as_dict()
    if as_json:
        show.as_json(found)
    else:
        print_found(found, folder)
    if not result.met:
        raise typer.Exit(1)


_LEFT = {"parameters": "parameters", "macs": "multiplications"}


def _print(report: Mapping[str, Any], page: Path) -> None:
    out, baseline, seeds = show.console(), report["baseline"], len(report["seeds"])
    warnings = warnings_by_model(report)
    if warnings:
        count = plural(sum(map(len, warnings.values())), "warning")
        out.print(f"[bold yellow]{count}[/] on {escape(listed([*warnings]))}, below the table", soft_wrap=True)
    rows = [
        {
            "\nmodel": f"[bold]{escape(model['name'])}[/]" if model["name"] == baseline else escape(model["name"]),
            f">test\n{report['metric']}": metric(model["metric_mean"], report["metric"]),
            ">\nparameters": f"{model['parameters']:,}",
            ">non-\nzero": f"{model['nonzero_share']:.0%}",
            ">bits per\nweight": f"{model['bits_per_weight']:.2f}",
            ">file\nbytes": f"{model['file_bytes']:,}",
            ">times\nsmaller": f"{model['times_smaller']:.1f}",
            ">latency\nms": f"{model['latency']['median_ms']:.3f}",
            ">times\nfaster": f"{model['times_faster']:.2f}",
        }
        for model in report["models"]
    ]
    out.print(show.plain_table(*rows[0], rows=rows))
    of = f"mean of {seeds} seeds" if seeds > 1 else f"seed {report['seeds'][0]}"
    weights = f"the FP32 weights of {escape(baseline)}"
    out.print(f"{of}, {report['examples']:,} test examples; whole files are compared with {weights}", soft_wrap=True)
    for model in report["models"]:
        if words := _against_untouched(model):
            out.print(escape(f"{model['name']}: {words}"), soft_wrap=True)
    show.warnings_first(warnings)
    out.print(escape(str(page)), soft_wrap=True)


def _against_untouched(model: Mapping[str, Any]) -> str:
    """Return what is left of a model of which stages removed channels or layers; empty for others.

    The table compares with the baseline, which may be this model itself.
    """
    removals = [each for each in model["record"] if "removed" in each and "parameters" in each]
    if not removals:
        return ""
    left = [(word, removals[0][key][0], removals[-1][key][1]) for key, word in _LEFT.items()]
    words = ", ".join(f"{after:,} of {before:,} {word}" for word, before, after in left)
    smaller = 4 * removals[0]["parameters"][0] / model["file_bytes"]
    return f"{words}; the file is {smaller:.1f} times smaller than the FP32 weights before anything was removed"
