"""``attar bench``: latency, cold start and memory of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.limits import MAX_ELEMENTS, raised_limits
from attar._src.core.errors import SpecError
from attar._src.core.format_bytes import format_bytes
from attar._src.core.progress import track
from attar._src.measure.cold import cold_start
from attar._src.measure.latency import interleave
from attar._src.measure.runner import example_feed, open_runner
from attar._src.report.wording import plural
from attar._src.runtime.session import Layer


def bench_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", "-a", metavar="OTHER", help="Another .attar or .onnx file; repeatable."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads for a run.")] = 1,
    rounds: Annotated[int | None, typer.Option(min=1, help="Runs of each file; about five seconds by default.")] = None,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a file on the runtime that serves it, interleaved with other files, and show which layers ran in integers.

    Every round runs each file once, in random order, so that disturbances of the machine affect all files alike. Cold
    start (from opening to the first output) and peak memory are measured in fresh processes. Layers are from the
    profile of ONNX Runtime.

    Example:

        attar bench model.attar --against peer.onnx --batch 32
    """
    limits = raised_limits(max_elements)
    runners = [open_runner(path, threads=threads, limits=limits) for path in (file, *(against or []))]
    session = runners[0].session
    if session is None:
        raise SpecError(f"{file} is not a .attar file; name a .attar file first and other files with --against")
    feed = example_feed(runners[0], batch)
    latencies = interleave([partial(runner.run, runner.feed(feed)) for runner in runners], rounds=rounds)
    shapes = [(list(array.shape), array.dtype.str) for array in feed.values()]
    files = [
        {
            "file": str(runner.path),
            "file_bytes": runner.path.stat().st_size,
            **vars(latency),
            **vars(cold_start(runner.path, shapes, threads=threads, limits=limits)),
        }
        for runner, latency in zip(track(runners, "cold starts"), latencies, strict=True)
    ]
    layers = {str(runner.path): runner.session.layers for runner in runners if runner.session is not None}
    if json:
        listed = {path: [vars(layer) for layer in found] for path, found in layers.items()}
        show.as_json({"batch": batch, "threads": threads, "files": files, "layers": listed})
    else:
        _print(files, layers, f"batch {batch}, {plural(threads, 'thread')}, {plural(latencies[0].rounds, 'round')}")


def _print(files: list[dict[str, Any]], layers: dict[str, tuple[Layer, ...]], title: str) -> None:
    out = show.console()
    rows = [
        {
            "\nfile": escape(Path(item["file"]).name),
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
    out.print(title)
    out.print(show.plain_table(*rows[0], rows=rows))
    for path, found in layers.items():
        floats = [layer for layer in found if not layer.integer]
        out.print(f"\n{escape(Path(path).name)}: {len(found) - len(floats)} of {len(found)} layers ran in integers")
        for layer in floats:
            out.print(escape(f"  in floating point: {layer.name} ({layer.reason})"), soft_wrap=True)
