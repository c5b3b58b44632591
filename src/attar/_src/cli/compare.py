"""``attar compare``: which method of compression to use for a trained module."""

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
from attar._src.cli.options.training import HELD_OUT, TrainingChoice
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.report.comparison_page import comparison_cells, floating_cells, untried_methods
from attar._src.search.comparison.registry import chosen_methods
from attar._src.search.comparison.target import equal_targets
from attar._src.search.search_folder import demand_search_folder


def compare_command(
    model: Model,
    data: Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the files and of what was measured.")
    ],
    weights: WeightsFile = None,
    size: Annotated[
        str | None, typer.Option("--bytes", metavar="N|Nk|NM", help="Bytes that every file may have: 40k.")
    ] = None,
    drop: Annotated[
        float | None,
        typer.Option(
            help="Points that every file may lose on validation examples: of the metric, or, without labels, of "
            "predictions that change."
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Compare this one, as the table names it; repeatable."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="30m|2h|90s", help="Time for all; methods that would not end in it are named."),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="Also compare methods that train, on the training split but for a tenth, which judges: quantization "
            "in training, distillation, gradual pruning, and all of these together.",
        ),
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Module to distil from; the model itself by default.")
    ] = None,
    teacher_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of the teacher.")] = None,
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the folder, also with another --bytes or --drop.")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers that are not quantized; repeatable.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json.")] = False,
) -> None:
    """Which should I use here: quantization, pruning, distillation, or several? Compare them at equal bytes and loss.

    Every method is tuned to the bytes, or to the loss, on examples that calibration does not see. One file of each is
    timed, all in turns, and opened in a process of its own for its memory. The folder gets the files, compare.json with
    the options that make each again, and compare.html. Without --bytes and --drop: an eighth of the bytes in floating
    point, and one point.

    Exit code 1 if no method reaches a target. After Ctrl-C, --resume goes on.

    Example:

        attar compare net.py:build -w net.safetensors -d cifar10 --bytes 90k -o compared
    """
    axes = () if fixed_batch else parse_axes(dynamic or [])
    most, minutes, passed = parse_bytes(size, "--bytes"), parse_minutes(time), parse_arguments(arguments or [])
    if not train and (teacher or teacher_weights or augment or epochs):
        raise typer.BadParameter("--teacher, --teacher-weights, --augment and --epochs are of a training; add --train")
    if train and split != "train":
        raise typer.BadParameter(f"--train: recipes train on the split train, not {split}; leave out --split")
    # Before PyTorch is imported and data are read.
    equal_targets(most, drop)
    chosen_methods(methods)
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
        HELD_OUT if train else 0.0,
    )
    training = TrainingChoice(
        train, choice, passed, weights, teacher, teacher_weights=teacher_weights, augment=augment, epochs=epochs
    )
    with show.resumable():
        result = call_with_data(
            "attar._src.search.comparison.compare:compare",
            choice,
            passed,
            weights,
            training.options,
            folder=output,
            bytes=most,
            drop=drop,
            methods=methods,
            minutes=minutes,
            resume=resume,
            keep=keep or [],
            ignore_index=ignore_index,
            class_axis=class_axis,
            licence=licence,
            on_step=lambda line: show.say("", line),
        )
    if as_json:
        show.as_json(result.found)
    else:
        _print(result.found, output)
    if not all(target["reached"] for target in result.found["targets"]):
        raise typer.Exit(1)


#: Columns of the page that a terminal has, and how they are called there.
_SHOWN = {0: "\nMethod", 2: ">\nBytes", 3: ">\nLost", 4: ">\n±", 6: ">One\nexample", 7: ">\nRatio", 8: ">\nMemory"}


def _print(found: dict[str, Any], folder: Path) -> None:
    out = show.console()
    for target in found["targets"]:
        out.print(f"[bold]At {escape(target['words'])}[/]; lost are {escape(found['unit'])}", soft_wrap=True)
        table = show.plain_table(*_SHOWN.values())
        every = [("floating point", floating_cells(found["floating"]))]
        every += [(row["method"], comparison_cells(target, row)) for row in target["rows"] if row["holds"]]
        for method, cells in every:
            marked = "[bold]{}[/]" if method == target["recommended"] else "{}"
            table.add_row(*(marked.format(escape(cells[place])) for place in _SHOWN))
        out.print(table)
        for row in target["rows"]:
            # What was not tried at all is told once, below.
            if row["why"] and row["tries"]:
                out.print(escape(f"{row['method']}: {row['why']}"), soft_wrap=True)
        for sentence in target["answer"]:
            out.print(escape(sentence), soft_wrap=True)
        out.print()
    for each in untried_methods(found):
        out.print(escape(each), soft_wrap=True)
    if found["skipped"]:
        out.print("give more --time, with --resume, for what there was no time for", soft_wrap=True)
    out.print(escape(f"{folder / 'compare.json'}, {folder / 'compare.html'}"), soft_wrap=True)
