"""``attar eval``: the accuracy of a file on a data set, or another metric."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.options.labelled import examples_of, judged_examples, suitable_metric
from attar._src.cli.options.limits import MAX_ELEMENTS, raised_limits
from attar._src.data.dataset import Dataset
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.measure.metric import METRICS, find, score
from attar._src.runtime.session import Session


def eval_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            help="digits, mnist, cifar10, npz:PATH, text:PATH or file.py:factory, which may return (x, y), or batches "
            "with labels "
            "as attar.quantize takes them.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Tokenizer of text:PATH, a folder of transformers.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(METRICS)} or file.py:name; by default the one that fits outputs and labels."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first examples, at most this many.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for a run; all cores by default.")] = None,
    max_elements: Annotated[int | None, typer.Option(min=1, help=MAX_ELEMENTS)] = None,
    ignore_index: Annotated[int, typer.Option(help="Label that is not counted.")] = IGNORE_INDEX,
    class_axis: Annotated[
        int | None, typer.Option(help="Axis of the classes in the output, if shapes do not tell: 1 of N, C, H, W.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the accuracy of a decoded file, or another metric, on the runtime that serves it.

    The file's own preprocessing applies to data sets and to pairs of arrays.

    Example:

        attar eval model.attar --data cifar10
    """
    session = Session(file, threads=threads, limits=raised_limits(max_elements))
    made, layout = examples_of(session, data, split, tokenizer, batch, limit), ClassLayout(class_axis, ignore_index)
    if isinstance(made, Dataset) and session.manifest.preprocessing is None and made.preprocessing is not None:
        show.say(
            "[yellow]note:[/]",
            f"the file has no preprocessing, so it sees {made.name} raw, without {made.preprocessing.name!r}; "
            "if it was made from prepared inputs, make it again with preprocessing=",
        )
    batches = judged_examples(session, made, batch, limit)
    first = next(batches)
    name = metric or suitable_metric(session, first)
    about = {"data": made.name, "split": made.split} if isinstance(made, Dataset) else {"data": data, "split": split}
    about = {"file": file.name, "sha256": session.artifact.sha256, **about}
    if name == "accuracy" and isinstance(made, Dataset):
        _accuracy(session, made, limit, batch, layout, about if json else None)
        return
    called, function = find(name, layout)
    found = score(session, chain([first], batches), function, classes=False, layout=layout)
    if json:
        show.as_json({"metric": called, "value": found.value, "examples": found.examples} | about)
        return
    of = f"{found.examples:,} examples of {about['data']} {about['split']}"
    show.console().print(f"{escape(called)} [bold]{found.value:.4g}[/] on {escape(of)}")


def _accuracy(
    session: Session, dataset: Dataset, limit: int | None, batch: int, layout: ClassLayout, json: dict[str, str] | None
) -> None:
    """Print the accuracy with its standard error, and that of each class; as JSON, with what is given, if asked."""
    labels = dataset.y if limit is None or dataset.y is None else dataset.y[:limit]
    found = evaluate_accuracy(session, dataset.x[:limit], labels, batch=batch, layout=layout)
    if json is not None:
        show.as_json({"metric": "accuracy", **vars(found)} | json)
        return
    show.console().print(
        f"accuracy [bold]{found.accuracy:.2%}[/] ± {found.standard_error:.2%} "
        f"({found.correct:,} of {found.predictions:,}) on {dataset.name} {dataset.split}"
    )
    if 1 < len(found.per_class) <= 20:
        names, classes = session.manifest.class_names, show.plain_table("\nclass", ">\naccuracy", "")
        for label, share in found.per_class.items():
            name = names[int(label)] if int(label) < len(names) else label
            classes.add_row(escape(name), f"{share:.2%}", show.bar(share))
        show.console().print(classes)
