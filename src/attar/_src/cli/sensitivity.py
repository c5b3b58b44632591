"""``attar sensitivity``: what each layer alone costs in bytes and gives in output error, at several levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.shared import ModuleOptions, with_options
from attar._src.cli.options.texts import parse_levels
from attar._src.report.wording import sensitivity_cells, sensitivity_columns


@dataclass(frozen=True)
class SensitivityOptions(ModuleOptions):
    """Those of a module and data, with more examples."""

    examples: Annotated[int, typer.Option(min=2, help="Number of examples.")] = 2000


@with_options(SensitivityOptions)
def sensitivity_command(
    of: SensitivityOptions,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the results; an interrupted one goes on."),
    ],
    what: Annotated[
        str,
        typer.Option(metavar="bits|sparsity|channels", help="Round weights, set them to zero, or remove channels."),
    ] = "bits",
    levels: Annotated[
        str | None,
        typer.Option(help="Bits from 2 to 8, or shares of weights or channels: 2,3,4,6,8 or 0.5,0.7,0.9."),
    ] = None,
    rates: Annotated[
        str, typer.Option(help="With scales gptq: measure each level with each rate of attar quantize: 0,0.003,0.03.")
    ] = "0",
    score: Annotated[
        str | None,
        typer.Option(
            help="Which weights or channels go first: of sparsity l1 (the default), l2, random; of channels as in "
            "attar prune, l2 by default."
        ),
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Layers to leave out; repeatable.")] = None,
    granularity: Annotated[
        str, typer.Option(help="Weights that share a scale: channel, tensor, group:SIZE or bucket:SIZE.")
    ] = "channel",
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="Give weights a zero point.")] = False,
    scales: Annotated[
        str, typer.Option(help="Solver: gptq, auto, absmax, mse, percentile, hqq, minmax or file.py:name.")
    ] = "gptq",
    correct_bias: Annotated[bool, typer.Option(help="Correct biases for the mean error of rounded weights.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Round (or prune) each layer alone at several levels; measure the output's error and the bytes.

    The folder gets sensitivity.json, which `attar quantize --sensitivity` and `attar prune --sensitivity` read, the
    same as CSV and as a page with curves, and a journal: the same command goes on where it was interrupted.

    Example:

        attar sensitivity net.py:build -w net.safetensors -d cifar10 --levels 2,3,4,6,8 -o sensitivity
    """
    table = of.call(
        "attar._src.pipeline.sensitivities.sensitivity:sensitivity",
        of.choice(),
        what=what,
        levels=parse_levels(levels),
        rates=parse_levels(rates, "--rates") or (0.0,),
        folder=output,
        granularity=granularity,
        symmetric=not asymmetric,
        scales=scales,
        score=score,
        keep=keep or [],
        correct_bias=correct_bias,
        seed=of.seed,
    )
    if as_json:
        show.as_json(table.model_dump(mode="json"))
    else:
        _print_table(table, output)


def _print_table(table: Any, folder: Path) -> None:
    made = show.plain_table("Layer", *(f">{each}" for each in sensitivity_columns(table.what)[1:]))
    for row in table.rows():
        made.add_row(*map(escape, sensitivity_cells(row)))
    out = show.console()
    out.print(made)
    for topic, note in table.notes.items():
        out.print(escape(f"{topic}: {note}"), soft_wrap=True)
    out.print(escape(str(folder / "sensitivity.html")), soft_wrap=True)
