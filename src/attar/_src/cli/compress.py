"""``attar compress``: the files of a trained module that hold a goal."""

from __future__ import annotations

from collections.abc import Sequence
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
from attar._src.cli.options.training import HELD_OUT, TrainingChoice, parse_augmentations
from attar._src.core.spec import build_spec
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.report.search_page import search_cells
from attar._src.search.goal import Goal
from attar._src.search.search_folder import demand_search_folder


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
    train: Annotated[
        bool | None,
        typer.Option(
            "--train/--no-train",
            help="Also train: on learned grids, with zeros, with fewer channels or layers. By default if the data set "
            "has labels.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Module that trained files learn from; the model itself by default."),
    ] = None,
    teacher_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of the teacher.")] = None,
    teacher_arguments: Annotated[
        list[str] | None, typer.Option("--teacher-arg", metavar="NAME=VALUE", help="As --arg, of the teacher.")
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="crop:N|flip|...|none",
            help="Random changes of training examples; repeatable. By default those usual for digits, mnist, cifar10.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of one training; by default 20 or 30, or what --time allows.")
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
    """Say what a file may lose or take; get the files that hold it.

    Cheap files come first, then bits of its own for each layer at sizes towards the goal, then training, or, with
    --no-train, reconstruction. Every file is verified, judged on a part of the training examples that is not trained
    on, and timed. The folder gets best.attar, all files, search.json with what makes each again, and search.html.

    Exit code 1 if no file holds the goal; best.attar is the nearest then. After Ctrl-C, --resume goes on.

    Example:

        attar compress net.py:build -w net.safetensors -d cifar10 --max-drop 0.5 -o found
    """
    axes = () if fixed_batch else parse_axes(dynamic or [])
    goal = {"max_drop": max_drop, "max_bytes": parse_bytes(max_bytes), "max_ms": max_ms, "minimise": minimise}
    if all(each is None for each in goal.values()):
        raise typer.BadParameter("say what a file may lose or take: --max-drop 0.5, --max-bytes 40k, --max-ms 0.3")
    minutes, passed = parse_minutes(time), parse_arguments(arguments or [])
    if teacher is None and (teacher_weights or teacher_arguments):
        raise typer.BadParameter("--teacher-weights and --teacher-arg are of a --teacher MODEL; add it")
    if train is False and (teacher or augment or epochs):
        raise typer.BadParameter("--teacher, --augment and --epochs are of a training; leave out --no-train")
    if split != "train" and train is not False:
        if train:
            raise typer.BadParameter(f"--train: recipes train on the split train, not {split}; leave out --split")
        train = False
    parse_augmentations(augment, data)
    build_spec(Goal, where="compress", **goal)
    demand_search_folder(output, resume=resume)
    choice = DataChoice(
        data,
        split,
        model,
        preprocess,
        tokenizer,
        max_length,
        fixed_batch,
        axes,
        examples,
        seed,
        validation,
        0.0 if train is False else HELD_OUT,
    )
    training = TrainingChoice(
        train,
        choice,
        passed,
        weights,
        teacher,
        parse_arguments(teacher_arguments or []),
        teacher_weights,
        augment,
        epochs,
    )
    with show.resumable():
        result = call_with_data(
            "attar._src.search.compress:compress",
            choice,
            passed,
            weights,
            training.options,
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
        print_found(found, output, training.said)
    if not result.met:
        raise typer.Exit(1)


def print_found(found: dict[str, Any], folder: Path, said: Sequence[str] = ()) -> None:
    """Print what a search found: its files, the best, why it ended, and what made no file."""
    out = show.console()
    table = show.plain_table("File", "", ">Bytes", ">Lost", ">±", ">Metric", ">One example", ">Ratio")
    for each in found["files"]:
        table.add_row(*map(escape, search_cells(found, each)))
    out.print(table)
    out.print(escape(f"goal: {found['words']}; lost are {found['files'][0]['unit']}"), soft_wrap=True)
    out.print(
        escape(f"{'best' if found['met'] else 'no file holds the goal; nearest'}: {found['best']}"), soft_wrap=True
    )
    out.print(escape(f"ended: {found['ended']}"), soft_wrap=True)
    for each in said:
        out.print(escape(each), soft_wrap=True)
    if found["skipped"]:
        out.print(
            escape(f"no time for: {'; '.join(found['skipped'])}. Give more --time, with --resume"), soft_wrap=True
        )
    for name, why in found["failed"].items():
        out.print(escape(f"no file: {name}: {why}"), soft_wrap=True)
    for name, value in found.get("test", {}).items():
        out.print(escape(f"test split: {name}: {value:.4g}"), soft_wrap=True)
    out.print(escape(f"{folder / 'best.attar'}, {folder / 'search.html'}"), soft_wrap=True)
