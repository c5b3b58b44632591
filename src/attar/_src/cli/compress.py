"""``attar compress``: the files of a trained module that hold a goal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.calibration import DataChoice, call_with_data
from attar._src.cli.options.inputs import (
    Arguments,
    Data,
    DynamicAxes,
    FixedBatch,
    MaxLength,
    Model,
    Preprocess,
    TokenizerFolder,
    WeightsFile,
)
from attar._src.cli.options.texts import parse_arguments, parse_axes, parse_bytes, parse_minutes
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.report.search_page import search_cells


def compress_command(
    model: Model,
    data: Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the files and of what was measured.")
    ],
    weights: WeightsFile = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points that the file may lose on validation examples: of the metric, or, without labels, of "
            "predictions that change."
        ),
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(metavar="N|Nk|NM", help="Bytes that the file may have: 40k.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that one example may take on one thread of this machine.")
    ] = None,
    minimise: Annotated[
        str | None,
        typer.Option(
            metavar="bytes|ms|drop",
            help="What to make small within these; by default the first of drop, bytes, ms without a bound.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="30m|2h|90s", help="Time for the search; by default as long as it pays."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers in floating point; repeatable.")
    ] = None,
    arguments: Arguments = None,
    preprocess: Preprocess = None,
    dynamic: DynamicAxes = None,
    fixed_batch: FixedBatch = None,
    tokenizer: TokenizerFolder = None,
    max_length: MaxLength = None,
    split: Annotated[str, typer.Option(help="Split to calibrate and judge on; never the one you report.")] = "train",
    examples: Annotated[int, typer.Option(min=2, help="Number of examples for calibration.")] = 512,
    validation: Annotated[
        int | None,
        typer.Option(min=2, help="Examples of a data set that judge files, of the same split; 2000 by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed for drawing the examples.")] = 0,
    ignore_index: Annotated[int, typer.Option(help="Label that is not counted.")] = IGNORE_INDEX,
    class_axis: Annotated[int | None, typer.Option(help="Axis of the classes in the output.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, stored in the files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print search.json.")] = False,
) -> None:
    """Say what a file may lose or take; get the files that hold it, without training.

    Cheap files come first, then bits of its own for each layer at sizes towards the goal, then reconstruction. Every
    file is verified, judged on examples that calibration does not see, and timed. The folder gets best.attar, all
    files, search.json with the options that make each again, and search.html.

    Exit code 1 if no file holds the goal; best.attar is the nearest then. After Ctrl-C, --resume goes on.

    Example:

        attar compress net.py:build -w net.safetensors -d cifar10 --max-drop 0.5 -o found
    """
    axes = () if fixed_batch else parse_axes(dynamic or [])
    goal = {"max_drop": max_drop, "max_bytes": parse_bytes(max_bytes), "max_ms": max_ms, "minimise": minimise}
    if all(each is None for each in goal.values()):
        raise typer.BadParameter("say what a file may lose or take: --max-drop 0.5, --max-bytes 40k, --max-ms 0.3")
    minutes, passed = parse_minutes(time), parse_arguments(arguments or [])
    result = call_with_data(
        "attar._src.search.compress:compress",
        DataChoice(
            data, split, model, preprocess, tokenizer, max_length, fixed_batch, axes, examples, seed, validation
        ),
        passed,
        weights,
        folder=output,
        **goal,
        minutes=minutes,
        resume=resume,
        keep=keep or [],
        ignore_index=ignore_index,
        class_axis=class_axis,
        licence=licence,
        on_step=lambda line: show.say("", line),
    )
    found = result.as_dict()
    if as_json:
        show.as_json(found)
    else:
        print_found(found, output)
    if not result.met:
        raise typer.Exit(1)


def print_found(found: dict[str, Any], folder: Path) -> None:
    """Print what a search found: its files, the best, why it ended, and what made no file."""
    out = show.console()
    table = show.plain_table("File", "", ">Bytes", ">Lost", ">Metric", ">One example", ">Ratio")
    for each in found["files"]:
        table.add_row(*map(escape, search_cells(found, each)))
    out.print(table)
    out.print(escape(f"goal: {found['words']}; lost are {found['files'][0]['unit']}"), soft_wrap=True)
    out.print(
        escape(f"{'best' if found['met'] else 'no file holds the goal; nearest'}: {found['best']}"), soft_wrap=True
    )
    out.print(escape(f"ended: {found['ended']}"), soft_wrap=True)
    if found["skipped"]:
        out.print(
            escape(f"no time for: {'; '.join(found['skipped'])}. Give more --time, with --resume"), soft_wrap=True
        )
    for name, why in found["failed"].items():
        out.print(escape(f"no file: {name}: {why}"), soft_wrap=True)
    for name, value in found.get("test", {}).items():
        out.print(escape(f"test split: {name}: {value:.4g}"), soft_wrap=True)
    out.print(escape(f"{folder / 'best.attar'}, {folder / 'search.html'}"), soft_wrap=True)
