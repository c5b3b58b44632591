"""``attar bench``: latency, cold start and memory of files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.markup import escape

from attar._src.artifact.limits import Limits
from attar._src.cli import show
from attar._src.cli.options.labelled import examples_of, judged_examples
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.core.errors import SpecError
from attar._src.core.format_bytes import format_bytes
from attar._src.core.progress import track
from attar._src.measure.cold import cold_start
from attar._src.measure.latency import interleave
from attar._src.measure.layer_plan import PlanPart, plan_of
from attar._src.measure.peers import FLOAT32, STATIC, Peer, PeerSource, build_peers, quantizes_nothing, random_feeds
from attar._src.measure.runner import InputArrays, Runner, example_feed, open_runner
from attar._src.report.wording import listed, plural
from attar._src.runtime.session import Layer, Session, WeightForm

_CALIBRATION = 128  # examples
_RANDOM = "normal numbers"


def bench_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", "-a", metavar="OTHER", help="Another .attar or .onnx file; repeatable."),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Also time the same network as ONNX Runtime deploys it (float32, dynamic and static int8), and "
            "OpenVINO if it is installed.",
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Data to calibrate static int8 on, as for attar eval; random by default."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Tokenizer of text:PATH, a folder of transformers.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads for a run.")] = 1,
    weights: Annotated[
        WeightForm,
        typer.Option(
            help="Weights of up to 4 bits beside real numbers: float32, packed (an eighth of the memory), or auto: "
            "packed for a single row where that is faster."
        ),
    ] = "auto",
    rounds: Annotated[int | None, typer.Option(min=1, help="Runs of each file; about five seconds by default.")] = None,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a file on the runtime that serves it, interleaved with other files, and show which layers ran in integers.

    Every round runs each file once, in random order, so that disturbances of the machine affect all files alike. Cold
    start (from opening to the first output) and peak memory are measured in fresh processes. Layers are from the
    profile of ONNX Runtime, and the plan says how many run in which arithmetic, and why.

    Peers are made in a temporary folder from the first floating-point .onnx file of --against, else from the file's
    graph with its weights dequantized; OpenVINO gets what attar export writes.

    Example:

        attar bench model.attar --against peer.onnx --peers --batch 32
    """
    limits = raised_limits(max_elements)
    if data is not None and not peers:
        raise SpecError("--data is what ONNX Runtime's static int8 is calibrated on; add --peers")
    runners = [open_runner(each, threads=threads, limits=limits, weights=weights) for each in (file, *(against or []))]
    session = runners[0].session
    if session is None:
        raise SpecError(f"{file} is not a .attar file; name a .attar file first and other files with --against")
    feed = example_feed(runners[0], batch)
    timed = [_Timed(str(runner.path), False, runner) for runner in runners]
    with tempfile.TemporaryDirectory() as folder:
        built: list[Peer] = []
        if peers:
            seen = _calibration(session, data, split, tokenizer, batch) if data else random_feeds(feed)
            source = PeerSource(session.artifact, Path(folder), feed, seen, _floating(against or []))
            built = build_peers(source, threads=threads)
        timed += [_Timed(peer.name, True, peer.runner) for peer in built if peer.runner is not None]
        files = _measured(timed, feed, threads, rounds, limits, weights)
    opened = {str(each.path): (each.session, each.feed(feed)) for each in runners if each.session is not None}
    layers = {path: session.layers_for(inputs) for path, (session, inputs) in opened.items()}
    plans = {path: plan_of(found, weights) for path, found in layers.items()}
    missing = {peer.name: peer.reason for peer in built if peer.runner is None}
    if json:
        every = {path: [vars(layer) for layer in found] for path, found in layers.items()}
        about = {
            "batch": batch,
            "inputs": {name: list(array.shape) for name, array in feed.items()},
            "threads": threads,
            "weights": weights,
            "calibration": (data or _RANDOM) if peers else None,
        }
        parts = {path: [part._asdict() for part in plan] for path, plan in plans.items()}
        show.as_json({**about, "files": files, "missing": missing, "plans": parts, "layers": every})
        return
    title = f"batch {batch}, {plural(threads, 'thread')}, {plural(files[0]['rounds'], 'round')}"
    _print(files, f"{title}, inputs {', '.join(f'{name} {show.shape(array.shape)}' for name, array in feed.items())}")
    if peers:
        _print_peers(files, missing, data, integer=any(layer.integer for layer in layers[str(file)]))
    _print_layers(layers, plans)


class _Timed(NamedTuple):
    name: str
    peer: bool
    runner: Runner


def _floating(files: Sequence[Path]) -> Path | None:
    """Return the first ONNX file of a floating-point network."""
    return next((path for path in files if path.suffix == ".onnx" and quantizes_nothing(path)), None)


def _calibration(session: Session, data: str, split: str, tokenizer: str | None, batch: int) -> list[InputArrays]:
    """Return inputs of a data set in batches."""
    made = examples_of(session, data, split, tokenizer, batch, _CALIBRATION)
    names = [port.name for port in session.inputs]
    return [dict(zip(names, inputs, strict=True)) for inputs, _ in judged_examples(session, made, batch, _CALIBRATION)]


def _measured(
    timed: Sequence[_Timed],
    feed: InputArrays,
    threads: int,
    rounds: int | None,
    limits: Limits | None,
    weights: WeightForm,
) -> list[dict[str, Any]]:
    """Return the figures of each model."""
    latencies = interleave([partial(each.runner.run, each.runner.feed(feed)) for each in timed], rounds=rounds)
    shapes = [(list(array.shape), array.dtype.str) for array in feed.values()]
    return [
        {
            "file": name,
            "peer": peer,
            "file_bytes": runner.file_bytes,
            **vars(latency),
            **vars(cold_start(runner.path, shapes, threads=threads, limits=limits, weights=weights)),
        }
        for (name, peer, runner), latency in zip(track(timed, "cold starts"), latencies, strict=True)
    ]


def _print(files: list[dict[str, Any]], title: str) -> None:
    rows = [
        {
            "\nfile": escape(item["file"] if item["peer"] else Path(item["file"]).name),
            ">\nsize": format_bytes(item["file_bytes"]),
            ">median\nms": f"{item['median_ms']:.3f}",
            ">p99\nms": f"{item['p99_ms']:.3f}",
            ">\nspread": f"{item['spread']:.1%}",
            ">\nratio": f"{item['ratio']:.3f}",
            ">cold start\nms": f"{item['cold_start_ms']:.1f}",
            ">peak\nmemory": "-" if item["peak_memory_bytes"] is None else format_bytes(item["peak_memory_bytes"]),
        }
        for item in files
    ]
    show.console().print(title)
    show.console().print(show.plain_table(*rows[0], rows=rows))


def _print_peers(files: list[dict[str, Any]], missing: dict[str, str], data: str | None, *, integer: bool) -> None:
    """Print what the peers say of the first file, and which could not be made."""
    out, first = show.console(), files[0]
    peers = {item["file"]: item["ratio"] for item in files if item["peer"]}
    for name, reason in missing.items():
        out.print(escape(f"no {name}: {reason}"), soft_wrap=True)
    if STATIC in peers:
        on = _RANDOM + ": right for its time, not for its accuracy; --data takes real inputs" if data is None else data
        out.print(escape(f"{STATIC} is calibrated on {on}"), soft_wrap=True)
    if peers:
        fastest, ratio = min(peers.items(), key=lambda item: item[1])
        name = Path(first["file"]).name
        out.print(escape(f"{name} takes {1 / ratio:.2f} times as long as {fastest}, the fastest peer"), soft_wrap=True)
    if integer and peers.get(FLOAT32, 1) < 1:
        out.print(f"integers take {1 / peers[FLOAT32]:.2f} times as long as floating point on this CPU")


def _print_layers(layers: dict[str, tuple[Layer, ...]], plans: dict[str, list[PlanPart]]) -> None:
    out = show.console()
    for path, found in layers.items():
        integers = sum(layer.integer for layer in found)
        out.print(f"\n{escape(Path(path).name)}: {integers} of {len(found)} layers ran in integers")
        for plan, count, why in plans[path]:
            out.print(escape(f"  {plan}: {plural(count, 'layer')}{why and f' ({why})'}"), soft_wrap=True)
        floating: dict[str, list[str]] = {}
        for layer in found:
            if "float32" in layer.plan:
                floating.setdefault(layer.reason, []).append(layer.name)
        for reason, names in floating.items():
            out.print(escape(f"  in floating point: {listed(names)} ({reason})"), soft_wrap=True)
