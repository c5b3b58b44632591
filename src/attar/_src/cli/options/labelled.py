"""Labelled batches for ``attar eval`` and ``attar bench``, of whatever ``--data`` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError, SpecError
from attar._src.core.fields import python_word
from attar._src.data.dataset import Dataset
from attar._src.data.registry import load_examples
from attar._src.data.texts import Texts
from attar._src.data.tokenizer import Tokenizer
from attar._src.measure.judged_output import judged_output
from attar._src.measure.metric import METRICS, Examples, usual_metric
from attar._src.runtime.session import Session


def examples_of(session: Session, data: str, split: str, tokenizer: str | None, batch: int, limit: int | None) -> Any:
    """Return what ``--data`` names; of texts, batches of inputs and labels, as long as the file takes them."""
    made = load_examples(data, split)
    return _tokenized(made.take_first(limit), session, tokenizer, batch) if isinstance(made, Texts) else made


def judged_examples(session: Session, data: Any, batch: int, limit: int | None) -> Iterator[Examples]:
    """Return inputs and targets in batches.

    Args:
        session: the file, whose own preprocessing applies to a data set and to a pair of arrays.
        data: a :class:`Dataset`, a pair of arrays ``(x, y)``, or batches with labels as ``attar.quantize`` takes them.
        batch: examples of a batch, if the graph does not fix it and the data are not batched.
        limit: only so many first examples; None for all.

    Raises:
        DataError: the data do not fit the file, or have no labels.
    """
    fixed = session.inputs[0].shape[0] if session.inputs[0].shape else None
    step = fixed if isinstance(fixed, int) else batch
    if isinstance(data, Dataset):
        return _cut(session, data.x, data.y, step, limit)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(each, np.ndarray) for each in data):
        return _cut(session, *data, step, limit)
    # Imported here, not at the top: arrays are judged without PyTorch.
    read = importlib.import_module("attar._src.deploy.calibration_inputs").calibration_inputs
    arguments = {python_word(port.name): True for port in session.inputs}
    found = read(data, arguments, examples=limit or sys.maxsize, batch=step)
    if not found.targets:
        raise DataError("the data have no labels, one for each example, to judge the outputs by; yield (x, y)")
    pairs = zip(found.batches, found.targets, strict=True)
    return ((tuple(each.numpy() for each in inputs), targets.numpy()) for inputs, targets in pairs)


def suitable_metric(session: Session, examples: Examples) -> str:
    """Return the metric of the file if it has a registered one, else what fits some outputs and labels.

    Files of data sets say ``accuracy`` by default, so that this word decides nothing.
    """
    named = session.manifest.metric
    if named is not None and named in METRICS and named != "accuracy":
        return named
    inputs, targets = examples
    return usual_metric(judged_output(session, inputs), targets)


def _cut(session: Session, x: NDArray[Any], y: NDArray[Any] | None, step: int, limit: int | None) -> Iterator[Examples]:
    if y is None:
        raise DataError("there are no labels to judge predictions by; choose a split or data set that has them")
    if len(x) != len(y):
        raise DataError(f"{len(x)} examples came with {len(y)} labels; one of each is needed")
    for start in range(0, len(x[:limit]), step):
        part = slice(start, min(start + step, limit or len(x)))
        yield (session.preprocess(x[part]),), y[part]


def _tokenized(texts: Texts, session: Session, folder: str | None, batch: int) -> list[dict[str, Any]]:
    """Return batches of inputs and labels, as long as the file takes them."""
    if folder is None:
        raise SpecError(f"{texts.name} is text, which becomes inputs by a tokenizer; add --tokenizer FOLDER")
    shape = session.inputs[0].shape
    size, length = (axis if isinstance(axis, int) else None for axis in (*shape, "", "")[:2])
    tokenizer, step = Tokenizer(folder, length), size or batch
    targets = texts.targets(tokenizer.classes)
    made: list[dict[str, Any]] = list(tokenizer.batches(texts, step, fixed=length is not None))
    labels = [{} if targets is None else {"labels": targets[i * step : (i + 1) * step]} for i in range(len(made))]
    return [inputs | own for inputs, own in zip(made, labels, strict=True)]
