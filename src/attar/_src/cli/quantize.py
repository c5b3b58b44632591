"""``attar quantize``: from a trained module to a verified ``.attar`` file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from warnings import catch_warnings, simplefilter

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.cli.options.shared import ModuleOptions, with_options
from attar._src.cli.options.texts import (
    parse_activations,
    parse_bytes,
    parse_coder,
    parse_override,
    parse_reconstruction,
    parse_tolerance,
)
from attar._src.cli.output import demand_writable
from attar._src.core.errors import AttarWarning
from attar._src.data.huggingface import HF
from attar._src.report.wording import fidelity_words


@with_options(ModuleOptions)
def quantize_command(
    of: ModuleOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .attar file to write.")],
    bits: Annotated[
        int | None, typer.Option("--bits", "-b", min=1, max=8, help="Bits of a weight; 4 by default.")
    ] = None,
    size: Annotated[
        float | None,
        typer.Option(help="Instead of --bits: bits per weight that the file may have; each layer gets its own."),
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="N|Nk|NM", help="Instead of --bits: bytes that the file may have: 90k.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Instead of --bits: points of the metric that the file may lose on --validation examples; without "
            "labels, of predictions that change."
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(help="Folder of attar sensitivity, for --size, --max-bytes, --max-drop; measured otherwise."),
    ] = None,
    alternatives: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Under a target, what each layer may have instead: codebook,group:32."),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Examples of a data set for --max-drop, of the same split, beside --examples; 2000 by default (up "
            "to 10000 for less than a sixth of a point), at least half of it where there are too few for both.",
        ),
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds that one example may take on one thread of this machine; chooses activations."),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            "--activations",
            "-a",
            metavar="BITS|dynamic|auto",
            help="Bits of what layers read, 2 to 8; dynamic: linear layers quantize what they read at run time; auto: "
            "the fastest of these and floating point on this machine. Floating point by default.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers in floating point; repeatable.")
    ] = None,
    keep_activations: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Layers (or values) whose inputs stay in floating point; repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="GLOB=BITS", help="Bits of some layers; the last match wins.")
    ] = None,
    activation_overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set-activations",
            metavar="GLOB=BITS",
            help="Bits of what some layers read (or of values); the last match wins.",
        ),
    ] = None,
    granularity: Annotated[
        str, typer.Option(help="Weights that share a scale: channel, tensor, group:SIZE or bucket:SIZE.")
    ] = "channel",
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Give weights a zero point; they then run in floating point.")
    ] = False,
    scheme: Annotated[
        str,
        typer.Option(
            help="Values of a weight: affine (the whole grid), binary (--bits 1), ternary (2), apot (3 to 5) or "
            "codebook (1 to 6)."
        ),
    ] = "affine",
    scales: Annotated[
        str,
        typer.Option(
            help="Solver of affine weights: auto (gptq up to 5 bits and under a target, else absmax), absmax, mse, "
            "percentile, hqq, minmax, gptq or file.py:name."
        ),
    ] = "auto",
    power_of_two: Annotated[
        bool, typer.Option("--power-of-two", help="Only powers of two as scales, so that rescaling is a shift.")
    ] = False,
    rate: Annotated[
        float,
        typer.Option(help="With gptq: the relative error that one bit a weight less is worth; 0.003 shrinks a file."),
    ] = 0.0,
    observer: Annotated[
        str,
        typer.Option(
            help="Observer of the activations' ranges: auto (percentile with 8 bits, mse with fewer), minmax, "
            "percentile, mse, kl or file.py:name."
        ),
    ] = "auto",
    correct_bias: Annotated[bool, typer.Option(help="Correct biases for the mean error of rounded weights.")] = True,
    equalize: Annotated[
        bool, typer.Option("--equalize", help="Scale channels between layers to equal ranges before rounding.")
    ] = False,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct",
            help="Improve what was rounded, block by block and as a whole: minutes, worth it at 4 bits and less.",
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Time for --best, or for --reconstruct, whose number of steps it chooses."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each block for --reconstruct; 500 by default.")
    ] = None,
    augment: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="crop, flip, noise, cutmix for --reconstruct; repeatable.")
    ] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="Try solvers, schemes and --reconstruct for so many --minutes; take the best on held-out inputs.",
        ),
    ] = False,
    coder: Annotated[
        str, typer.Option(help="Entropy coder of the codes: auto, rans, context, huffman or raw.")
    ] = "auto",
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, stored in the file.")] = None,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="Loss against floating point that needs no warning: equal_predictions=0.9, signal_to_noise_db=10, "
            "metric=0.02, error=0.2; none for any; repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with exit code 1 if there is a warning; the file is written all the same."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Quantize a trained PyTorch module after training and write one verified .attar file.

    The unquantized module is traced, exported and run by ONNX Runtime first, so that an operator that cannot be
    deployed is found in seconds. The file is written only after its decoded form has been compared with the quantized
    module on real inputs.

    Example:

        attar quantize net.py:build -w net.safetensors -d cifar10 --bits 4 --activations 8 --set conv1=8 -o net.attar
    """
    demand_writable(output)
    if validation is not None and max_drop is None:
        raise typer.BadParameter("--validation is for --max-drop; add it, or leave --validation out")
    # Read before PyTorch is imported, which takes seconds.
    choice = of.choice(0 if max_drop is None else validation, bound=max_drop)
    given: dict[str, Any] = {
        "bits": bits,
        "size": size,
        "max_bytes": parse_bytes(max_bytes),
        "max_drop": max_drop,
        "sensitivity": sensitivity,
        "alternatives": [*filter(None, map(str.strip, (alternatives or "").split(",")))],
        "max_ms": max_ms,
        "activations": parse_activations(activations),
        "granularity": granularity,
        "symmetric": not asymmetric,
        "scheme": scheme,
        "scales": scales,
        "power_of_two": power_of_two,
        "rate": rate,
        "observer": observer,
        "keep": keep or [],
        "keep_activations": keep_activations or [],
        "overrides": dict(parse_override(text) for text in overrides or []),
        "activation_overrides": dict(parse_override(text) for text in activation_overrides or []),
        "correct_bias": correct_bias,
        "equalize": equalize,
        "reconstruct": parse_reconstruction(reconstruct, None if best else minutes, steps, augment),
        "best": best,
        "minutes": minutes if best else None,
        "tolerance": parse_tolerance(tolerance or []),
        "coder": parse_coder(coder),
    }
    quantized = of.call(
        "attar._src.deploy.quantize:quantize",
        choice,
        **given,
        licence=licence,
        limits=raised_limits(max_elements),
    )
    if of.weights is None and not of.model.startswith(HF) and not of.model.endswith(".pt2"):
        said = f"without --weights the file has those that {of.model} gives its module: random ones, if it loads none"
        quantized = replace(quantized, notes={**quantized.notes, "weights": said})
    with catch_warnings():
        if not as_json:
            # They are printed with the figures, before them.
            simplefilter("ignore", AttarWarning)
        report = quantized.save(output)
    if as_json:
        show.as_json(report)
    else:
        _print(report, of)
    show.demand_none({"": report["warnings"]}, strict=strict)


def _print(report: dict[str, Any], of: ModuleOptions) -> None:
    out, parity = show.console(), report["parity"]
    show.warnings_first({"": report["warnings"]})
    table = show.plain_table("", "")
    table.show_header = False
    table.add_row("file", f"{report['file_bytes']:,} bytes")
    table.add_row("bits per weight", f"{report['bits_per_weight']:.3f}, {report['parameters']:,} parameters")
    for name, value in _fidelity_rows(report["fidelity"]):
        table.add_row(name, escape(value))
    predicts = any("equal_predictions" in seen for seen in report["fidelity"]["outputs"].values())
    equal = f"{parity['equal_predictions']:.2%} equal predictions, " if predicts else ""
    table.add_row(
        "file against its simulation",
        f"{equal}largest difference {parity['largest_difference']:.3g} of {parity['largest_output']:.3g} "
        f"({parity['examples']} examples)",
    )
    table.add_row("batch-norms folded", str(len(report["batch_norms_folded"])))
    for title, key in (("batch-norm kept", "batch_norms_kept"), ("left in floating point", "left_in_floating_point")):
        for name, reason in report[key].items():
            table.add_row(title, escape(f"{name}: {reason}"))
    for topic, note in report["notes"].items():
        table.add_row("note", escape(f"{topic}: {note}"))
    out.print(escape(report["file"]), soft_wrap=True)
    out.print(table)
    if metric := report["fidelity"].get("metric"):
        out.print(escape(of.judged_words(metric["name"], metric["examples"])), soft_wrap=True)
    out.print(f"sha256 {report['sha256']}", soft_wrap=True)


def _fidelity_rows(fidelity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the file lost against the floating-point module, a row for each output and the metric."""
    outputs = fidelity["outputs"]
    for name, seen in outputs.items():
        of = f", {name}" if len(outputs) > 1 else ""
        yield f"against floating point{of}", f"{fidelity_words(seen)} ({fidelity['examples']} examples)"
    if metric := fidelity.get("metric"):
        yield metric["name"], f"{metric['floating']:.4g} in floating point, {metric['file']:.4g} in the file"
