"""``attar prune``: from a trained module to one with fewer channels or layers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.shared import ModuleOptions, with_options
from attar._src.cli.options.texts import parse_arguments, parse_bytes
from attar._src.cli.output import demand_writable


@with_options(ModuleOptions)
def prune_command(
    of: ModuleOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: .safetensors, to train or quantize further, or .attar, to run."
        ),
    ],
    channels: Annotated[float | None, typer.Option(help="Share of the channels to remove, such as 0.5.")] = None,
    layers: Annotated[
        float | None,
        typer.Option(help="Instead of --channels: residual blocks or transformer layers to remove; number or share."),
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Instead of removing: share of the weights that become zero, such as 0.5.")
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Instead: bytes of the file, 600k or 600000; weights of each layer become zero as its sensitivity "
            "allows, or with --unit channel its channels are removed so.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Instead: percentage points that the file may lose on these inputs, with fewest bytes."),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Table of attar sensitivity --what sparsity or channels, by which each layer gets its own amount; "
            "without, --max-bytes, --max-drop and --scope sensitivity measure one.",
        ),
    ] = None,
    macs: Annotated[
        float | None, typer.Option(help="Instead of --channels or --layers: share of the multiplications to remove.")
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Instead of these: milliseconds that one example may take on one thread of this machine; "
            "as little is removed as brings the file to it.",
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="channel|layer|weight|N:M|RxC",
            help="What --macs and --max-ms remove, by default channels; or what becomes zero: weight, 2:4, blocks such "
            "as 4x1.",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Of channels l2 (the default), l1, batch_norm, wanda, obs, taylor, gradient_weight (the last two need "
            "labels); of layers similarity (the default), output, taylor, loss (these two need labels); of weights "
            "obs (the default), wanda, l1, l2, taylor, gradient_weight; random, file.py:name."
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            metavar="layer|global|sensitivity|row|lamp|erdos_renyi",
            help="The same share of every layer, or the lowest scores of all, the default with --macs; of channels "
            "also sensitivity, by measured errors of the outputs; of weights also row, lamp, erdos_renyi.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Layers that stay, or their output channels; repeatable."),
    ] = None,
    round_to: Annotated[
        int | None, typer.Option(min=1, help="The channels that remain of a layer are a multiple of this, such as 8.")
    ] = None,
    least: Annotated[
        float | None, typer.Option(help="Share of the channels of each layer that remains at least; 0.1 by default.")
    ] = None,
    update: Annotated[
        str | None,
        typer.Option(
            metavar="obs|sparsegpt|none",
            help="How weights that remain make up for what is removed or becomes zero; channels: obs or none.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GLOB=SHARE",
            help="Share of channels, or sparsity, of its own for some layers; repeatable.",
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, stored in a .attar file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Remove channels, attention heads and recurrent units, with all that depends on them, or whole layers; or set
    weights to zero, which saves bytes and no time.

    A .safetensors file has the weights of the smaller module and tells what was removed: attar quantize and recipes
    take it as weights of the same MODEL. Train it further in a recipe, which is printed; without, accuracy is lost.

    Example:

        attar prune net.py:build -w net.safetensors -d cifar10 --macs 0.5 --score taylor -o half.safetensors
    """
    demand_writable(output)
    if output.suffix not in (".safetensors", ".attar"):
        raise typer.BadParameter(f"--output {output}: name a .safetensors or .attar file")
    result = of.call(
        "attar._src.deploy.pruning.prune:prune",
        of.choice(),
        channels=channels,
        layers=_count_or_share(layers),
        sparsity=sparsity,
        max_bytes=parse_bytes(max_bytes),
        max_drop=max_drop,
        sensitivity=sensitivity,
        macs=macs,
        max_ms=max_ms,
        unit=unit,
        score=score,
        scope=scope,
        exclude=exclude or [],
        round_to=round_to,
        least=least,
        update=update,
        overrides=_shares(overrides or []),
        seed=of.seed,
        licence=licence,
        on_step=lambda line: show.say("", line),
    )
    if output.suffix == ".attar":
        figures = result.save(output)["pruning"]
    else:
        result.save_weights(output)
        figures = {"file_bytes": result.file_bytes(), **result.figures}
    if as_json:
        show.as_json({"file": str(output), **figures})
    else:
        _print(output, figures, of)


def _count_or_share(layers: float | None) -> float | None:
    """Return 3.0 as the number 3, and 0.5 as the share."""
    return int(layers) if layers is not None and layers >= 1 and layers == int(layers) else layers


def _shares(texts: list[str]) -> dict[str, float] | None:
    """Return the sparsity of each glob of ``--set``."""
    found: dict[str, float] = {}
    for text in texts:
        glob, _, share = text.rpartition("=")
        try:
            found[glob] = float(share)
        except ValueError as error:
            raise typer.BadParameter(f"--set {text}: write GLOB=SHARE, such as conv1=0.3") from error
    return found or None


def _print(output: Path, figures: Mapping[str, Any], of: ModuleOptions) -> None:
    out, table = show.console(), show.plain_table("", ">before", ">after")
    for name, before, after in _rows(figures):
        table.add_row(name, before, after)
    out.print(escape(str(output)), soft_wrap=True)
    out.print(table)
    if metric := figures.get("metric"):
        out.print(escape(of.judged_words(metric["name"], metric["examples"])), soft_wrap=True)
    for name in figures.get("removed", ()):
        out.print(escape(f"removed: {name} (score {figures['scores'][name]:.3g})"), soft_wrap=True)
    for line in _training(output, of):
        out.print(escape(line), soft_wrap=True)
    for name, why in figures["excluded"].items():
        out.print(escape(f"stays: {name}: {why}"), soft_wrap=True)
    if "note" in figures:
        out.print(escape(figures["note"]), soft_wrap=True)
    if "speed" in figures:
        out.print(escape(figures["speed"]), soft_wrap=True)


def _training(output: Path, of: ModuleOptions) -> Iterator[str]:
    """Yield how a pruned module is trained further."""
    yield "What is told here is before any training. Train it further:"
    if output.suffix == ".attar":
        yield "write it with -o pruned.safetensors, which a recipe takes as weights (a .attar file is not trained)"
        return
    arguments = parse_arguments(of.arguments or [])
    source = {"factory": of.model, **({"arguments": arguments} if arguments else {}), "weights": str(output)}
    recipe = {"data": of.data, "models": {"pruned": {"source": source, "stages": [{"stage": "train", "epochs": 20}]}}}
    # JSON is YAML, too.
    yield f"  recipe.yaml: {json.dumps(recipe)}"
    yield "  attar run recipe.yaml"


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the figures before and after, and the channels of each layer."""
    words = {
        "file_bytes": "bytes of the file",
        "macs": "multiplications",
        "nonzero_macs": "by weights that are not zero",
        "parameters": "parameters",
        "nonzero": "not zero",
    }
    for key, word in words.items():
        if key in figures:
            before, after = figures[key]
            yield word, f"{before:,}", f"{after:,}"
    if "metric" in figures:
        metric = figures["metric"]
        yield escape(metric["name"]), f"{metric['before']:.4g}", f"{metric['after']:.4g}"
    if "latency_ms" in figures:
        before, after = figures["latency_ms"]
        yield "ms an example, one thread", f"{before:.3f}", f"{after:.3f}"
    if "fitted_ms" in figures:
        before, after = figures["fitted_ms"]
        yield "ms an example when fitted", f"{before:.3f}", f"{after:.3f}"
    if "layers" in figures:
        before, after = figures["layers"]
        yield "layers that can be removed", str(before), str(after)
    for name, (before, after) in figures.get("widths", {}).items():
        yield escape(name), str(before), str(after)
    for name, share in figures.get("sparsity", {}).items():
        yield escape(f"{name} zero"), "", f"{share:.1%}"
