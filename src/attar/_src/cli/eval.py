"""``attar eval``: the accuracy of a file on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar._src.cli import show
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.runtime.session import Session


def eval_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    data: Annotated[str, typer.Option("--data", "-d", help="digits, mnist, cifar10, npz:PATH or file.py:factory.")],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first examples, at most this many.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for a run; all cores by default.")] = None,
    ignore_index: Annotated[int, typer.Option(help="Label that is not counted.")] = IGNORE_INDEX,
    class_axis: Annotated[
        int | None, typer.Option(help="Axis of the classes in the output, if shapes do not tell: 1 of N, C, H, W.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the accuracy of a decoded file on the runtime that serves it, with the file's own preprocessing.

    Example:

        attar eval model.attar --data cifar10
    """
    session = Session(file, threads=threads)
    dataset = load_dataset(data, split)
    labels = dataset.y if limit is None or dataset.y is None else dataset.y[:limit]
    if session.manifest.preprocessing is None and dataset.preprocessing is not None:
        show.say(
            "[yellow]note:[/]",
            f"the file has no preprocessing, so it sees {dataset.name} raw, without {dataset.preprocessing.name!r}; "
            "if it was made from prepared inputs, make it again with preprocessing=",
        )
    layout = ClassLayout(class_axis, ignore_index)
    found = evaluate_accuracy(session, dataset.x[:limit], labels, batch=batch, layout=layout)
    if json:
        source = {"file": file.name, "sha256": session.artifact.sha256, "data": dataset.name, "split": dataset.split}
        show.as_json(vars(found) | source)
        return
    show.console().print(
        f"accuracy [bold]{found.accuracy:.2%}[/] ± {found.standard_error:.2%} "
        f"({found.correct:,} of {found.predictions:,}) on {dataset.name} {dataset.split}"
    )
    if 1 < len(found.per_class) <= 20:
        names, classes = session.manifest.class_names, show.plain_table("\nclass", ">\naccuracy", "")
        for label, share in found.per_class.items():
            name = names[int(label)] if int(label) < len(names) else label
            classes.add_row(name, f"{share:.2%}", show.bar(share))
        show.console().print(classes)
