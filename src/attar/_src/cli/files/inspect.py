"""``attar inspect``: the size of every part and tensor of a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.cli import show
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.report.wording import plural


def inspect_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the size of every part and tensor of a file, with the entropy of each tensor.

    Bits per weight is (file - graph) x 8 / parameters, so that biases, scales, tables and manifest count.

    Example:

        attar inspect model.attar
    """
    found = inspect_artifact(open_artifact(file, limits=raised_limits(max_elements)))
    if json:
        show.as_json(found)
    else:
        _print(file, found)


def _print(file: Path, found: dict[str, Any]) -> None:
    out, total = show.console(), found["file_bytes"]
    out.print(f"[bold]{escape(file.name)}[/]  {', '.join(_facts(found))}", soft_wrap=True)
    for graph in found["graphs"]:
        of = f"{graph['name']}: " if len(found["graphs"]) > 1 else ""
        ports = f"{_ports('input', graph['inputs'])}; {_ports('output', graph['outputs'])}"
        out.print(escape(f"{of}{ports}"), soft_wrap=True)
    columns = ("\ntensor", "\nshape", "\nkind", ">\nbits", ">non-\nzero", ">entropy\nbits", ">\nbytes", "\ncoder", "")
    tensors = show.plain_table(*columns)
    for item in found["tensors"]:
        tensors.add_row(*_row(item, total))
    out.print(tensors)
    parts = Counter[str]({name: count for name, count in found["parts"].items() if count})
    table = show.plain_table("\npart", ">\nbytes", ">\nshare", "")
    for name, count in parts.most_common():
        table.add_row(name, f"{count:,}", f"{count / total:.1%}", show.bar(count / total))
    table.add_row("[bold]file[/]", f"[bold]{total:,}[/]")
    out.print(table)


def _facts(found: dict[str, Any]) -> list[str]:
    facts = [f"{found['file_bytes']:,} bytes", f"{found['parameters']:,} parameters"]
    if found["bits_per_weight"] is not None:
        facts.append(f"{found['bits_per_weight']:.3f} bits per weight")
    values = sum(graph["activations"] for graph in found["graphs"])
    dynamic = sum(graph["dynamic"] for graph in found["graphs"])
    counts = {"quantized value": values, "dynamic node": dynamic, "folded batch-norm": len(found["folds"])}
    counts["class name"] = len(found["class_names"])
    facts += [plural(count, name) for name, count in counts.items() if count]
    preprocessing = (found["preprocessing"] or {}).get("name")
    named = {"task": found["task"], "preprocessing": preprocessing, "licence": found["licence"]}
    return facts + [escape(f"{name} {value}") for name, value in named.items() if value]


def _ports(what: str, ports: list[dict[str, Any]]) -> str:
    """Return the inputs or outputs of a graph: ``inputs x float32 batchx3, h float32 1xbatchx8``."""
    each = [f"{port['name']} {port['dtype']} {show.shape(port['shape'])}" for port in ports]
    return f"{what}{'' if len(each) == 1 else 's'} {', '.join(each)}"


def _row(item: dict[str, Any], total: int) -> tuple[str, ...]:
    nonzero = f"{item['nonzero'] / item['elements']:.0%}" if item["elements"] else "-"
    entropy = "-" if item["entropy_bits"] is None else f"{item['entropy_bits']:.2f}"
    numbers = (str(item["bits"]), nonzero, entropy, f"{item['payload_bytes']:,}")
    coders = "+".join(dict.fromkeys(item["coders"])) or "-"
    share = show.bar(item["payload_bytes"] / total)
    return (escape(item["name"]), show.shape(item["shape"]), item["kind"], *numbers, coders, share)
