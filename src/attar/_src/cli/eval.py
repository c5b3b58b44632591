"""``attar eval``: the accuracy of a file on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from attar._src.cli import show
from attar._src.cli.limits import MAX_ELEMENTS, raised_limits
from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset
from attar._src.data.registry import load_dataset
from attar._src.data.texts import TEXT, Texts, read_texts
from attar._src.data.tokenizer import Tokenizer
from attar._src.measure.accuracy import LabelledInputs, accuracy_of_batches, evaluate_accuracy
from attar._src.measure.class_layout import IGNORE_INDEX, ClassLayout
from attar._src.runtime.session import Session


def eval_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .attar file.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="digits, mnist, cifar10, npz:PATH, text:PATH or file.py:factory.")
    ],
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Tokenizer of text:PATH, a folder of transformers.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
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
    """Measure the accuracy of a decoded file on the runtime that serves it, with the file's own preprocessing.

    Example:

        attar eval model.attar --data cifar10
    """
    session = Session(file, threads=threads, limits=raised_limits(max_elements))
    layout = ClassLayout(class_axis, ignore_index)
    dataset: Dataset | Texts
    if tokenizer is not None:
        dataset = read_texts(data.removeprefix(f"{TEXT}:"), split).take_first(limit)
        batches = _tokenized(dataset, session, tokenizer, batch)
        found = accuracy_of_batches(session, batches.__getitem__, len(batches), layout)
    else:
        dataset = load_dataset(data, split)
        _note_preprocessing(dataset, session)
        labels = dataset.y if limit is None or dataset.y is None else dataset.y[:limit]
        found = evaluate_accuracy(session, dataset.x[:limit], labels, batch=batch, layout=layout)
    if json:
        source = {"file": file.name, "sha256": session.artifact.sha256, "data": dataset.name, "split": split}
        show.as_json(vars(found) | source)
        return
    show.console().print(
        f"accuracy [bold]{found.accuracy:.2%}[/] ± {found.standard_error:.2%} "
        f"({found.correct:,} of {found.predictions:,}) on {dataset.name} {split}"
    )
    if 1 < len(found.per_class) <= 20:
        names, classes = session.manifest.class_names, show.plain_table("\nclass", ">\naccuracy", "")
        for label, share in found.per_class.items():
            name = names[int(label)] if int(label) < len(names) else label
            classes.add_row(escape(name), f"{share:.2%}", show.bar(share))
        show.console().print(classes)


def _note_preprocessing(dataset: Dataset, session: Session) -> None:
    if session.manifest.preprocessing is None and dataset.preprocessing is not None:
        show.say(
            "[yellow]note:[/]",
            f"the file has no preprocessing, so it sees {dataset.name} raw, without {dataset.preprocessing.name!r}; "
            "if it was made from prepared inputs, make it again with preprocessing=",
        )


def _tokenized(texts: Texts, session: Session, folder: str, batch: int) -> list[LabelledInputs]:
    """Return the inputs of a file, in its order, and labels, in batches."""
    shape = session.inputs[0].shape
    size, length = (axis if isinstance(axis, int) else None for axis in (*shape, "", "")[:2])
    tokenizer, step = Tokenizer(folder, length), size or batch
    labels = texts.targets(tokenizer.classes)
    if labels is None or labels.dtype.kind != "i":
        raise DataError(f"{texts.name} has no labels of classes; give a column 'label' of numbers or the model's words")
    found: list[LabelledInputs] = []
    for place, made in enumerate(tokenizer.batches(texts, step, fixed=length is not None)):
        missing = [port.name for port in session.inputs if port.name not in made]
        if missing:
            raise DataError(f"the tokenizer makes {', '.join(made)}, and the file also takes {', '.join(missing)}")
        found.append(([made[port.name] for port in session.inputs], labels[place * step : (place + 1) * step]))
    return found
