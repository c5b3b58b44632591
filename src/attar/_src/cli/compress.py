"""``attar compress``: the files of a trained module that hold a goal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.shared import with_options
from attar._src.cli.options.texts import parse_bytes, parse_minutes
from attar._src.cli.options.training import TRAINING_PANEL, SearchOptions
from attar._src.core.spec import build_spec
from attar._src.report.search_page import best_words, has_others, others_words, ruined_words, search_cells
from attar._src.report.wording import noise_words
from attar._src.search.goal import Goal
from attar._src.search.search_folder import demand_search_folder


@with_options(SearchOptions)
def compress_command(
    of: SearchOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the files and of what was measured.")
    ],
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
    max_others: Annotated[
        float | None,
        typer.Option(
            metavar="PER CENT",
            help="Per cent that an output beside the main one may lose, of predictions or of variance; 50 by default.",
        ),
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
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print search.json.")] = False,
) -> None:
    """Say what a file may lose or take; get the files that hold it.

    Cheap files come first, then bits of its own for each layer at sizes towards the goal, then training, or, with
    --no-train, reconstruction. Every file is verified, judged on a part of the training examples that is not trained
    on, and timed. The folder gets best.attar, all files, search.json with what makes each again, and search.html.

    A file that lost most of what the network knows holds no goal, unless --max-drop allows it. Exit code 1 if no file
    holds the goal; best.attar is the nearest then. After Ctrl-C, --resume goes on.

    Example:

        attar compress net.py:build -w net.safetensors -d cifar10 --max-drop 1 -o found
    """
    bounds = {"max_drop": max_drop, "max_bytes": parse_bytes(max_bytes), "max_ms": max_ms}
    goal = {**bounds, "max_others": max_others, "minimise": minimise}
    if all(each is None for each in goal.values()):
        raise typer.BadParameter("say what a file may lose or take: --max-drop 0.5, --max-bytes 40k, --max-ms 0.3")
    minutes, training = parse_minutes(time), of.search_choice(train, "leave out --no-train", max_drop)
    build_spec(Goal, where="compress", **goal)
    demand_search_folder(output, resume=resume)
    with show.resumable():
        result = of.call(
            "attar._src.search.compress:compress",
            training.choice,
            training.options,
            folder=output,
            **goal,
            minutes=minutes,
            resume=resume,
            keep=of.keep or [],
            licence=of.licence,
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
    others = [">\nOthers"] if has_others(found) else []
    table = show.plain_table(
        "\nFile", "", ">\nBytes", ">\nLost", ">\n±", ">\nMetric", *others, ">One\nexample", ">\nRatio"
    )
    for each in found["files"]:
        table.add_row(*map(escape, search_cells(found, each)))
    out.print(table)
    if any(each["noise"] is not None for each in found["files"]):
        out.print(escape(noise_words(found.get("validation"))), soft_wrap=True)
    out.print(escape(f"goal: {found['words']}; lost are {found['files'][0]['unit']}"), soft_wrap=True)
    out.print(escape(f"{best_words(found)}: {found['best']}"), soft_wrap=True)
    for each in filter(None, (ruined_words(found), others_words(found))):
        out.print(escape(each), soft_wrap=True)
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
