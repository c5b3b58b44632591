"""``attar compare``: which method of compression to use for a trained module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.shared import with_options
from attar._src.cli.options.texts import parse_bytes, parse_minutes
from attar._src.cli.options.training import TRAINING_PANEL, SearchOptions
from attar._src.report.comparison_page import comparison_cells, floating_cells, untried_methods
from attar._src.report.wording import noise_words
from attar._src.search.comparison.registry import chosen_methods
from attar._src.search.comparison.target import equal_targets
from attar._src.search.search_folder import demand_search_folder


@with_options(SearchOptions)
def compare_command(
    of: SearchOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the files and of what was measured.")
    ],
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
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in the folder, also with another --bytes or --drop.")
    ] = False,
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
    most, minutes = parse_bytes(size, "--bytes"), parse_minutes(time)
    training = of.search_choice(train, "add --train", drop)
    # Before PyTorch is imported and data are read.
    equal_targets(most, drop)
    chosen_methods(methods)
    demand_search_folder(output, resume=resume)
    with show.resumable():
        result = of.call(
            "attar._src.search.comparison.compare:compare",
            training.choice,
            training.options,
            folder=output,
            bytes=most,
            drop=drop,
            methods=methods,
            minutes=minutes,
            resume=resume,
            keep=of.keep or [],
            licence=of.licence,
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
        if found["floating"]["noise"] is not None:
            out.print(escape(noise_words(found["validation"])), soft_wrap=True)
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
