"""All data sets by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np

from attar._src.core.errors import DataError, SpecError, user_code
from attar._src.core.registry import Registry
from attar._src.data.cifar10 import Cifar10
from attar._src.data.dataset import Dataset, as_labels, dataset_of
from attar._src.data.digits import Digits
from attar._src.data.mnist import Mnist
from attar._src.data.npz import Npz
from attar._src.data.source import DataSource
from attar._src.data.texts import TEXT, read_texts

DATASETS: Registry[DataSource] = Registry("data set", Digits(), Mnist(), Cifar10(), Npz())


def load_dataset(spec: str, split: str = "test") -> Dataset:
    """Return one split of a data set.

    Args:
        spec: ``digits``, ``mnist``, ``cifar10``, ``npz:PATH``, or ``file.py:factory`` where ``factory(split=...)``
            returns a :class:`Dataset` or a pair of arrays ``(x, y)``; ``y`` may be None.
        split: ``train``, ``test``, or another split of the data set.

    Raises:
        UnknownName: there is no such data set or split.
        SpecError: the argument is missing or superfluous, or the factory takes no ``split``.
        DataError: a file is missing or malformed, or the factory returned something else.
    """
    name, _, argument = spec.partition(":")
    if name == TEXT:
        raise SpecError(f"{spec!r} is text, which becomes inputs by a tokenizer; name its folder with --tokenizer")
    if name not in DATASETS and ":" in spec:
        return _as_dataset(call_factory(spec, split), spec, split)
    source = DATASETS[name]
    if source.argument is not None and not argument:
        raise SpecError(f"data set {name!r} needs an argument; write {name}:{source.argument}")
    if source.argument is None and ":" in spec:
        raise SpecError(f"data set {name!r} takes no argument, {spec!r} arrived; write {name}")
    return source.load(argument, split)


def load_examples(spec: str, split: str = "test") -> Any:
    """Return :func:`load_dataset`; of a factory also what is neither a Dataset nor examples; Texts of ``text:PATH``."""
    name, _, argument = spec.partition(":")
    if name == TEXT:
        return read_texts(argument, split)
    if name in DATASETS or ":" not in spec:
        return load_dataset(spec, split)
    made = call_factory(spec, split)
    return _as_dataset(made, spec, split) if isinstance(made, Dataset) or _has_classes(made) else made


def _has_classes(made: Any) -> bool:
    """Return whether data are a pair of examples and one class for each, or None."""
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], np.ndarray):
        return False
    y = made[1] if made[1] is None else np.asarray(made[1])
    return y is None or (y.ndim == 1 and y.dtype.kind in "biu")


def call_factory(spec: str, split: str) -> Any:
    """Return what the user's ``factory(split=...)`` returns.

    Raises:
        SpecError: it takes no ``split``.
        DataError: it raises; the message has the line of the user's code.
    """
    factory: Any = DATASETS[spec]
    try:
        inspect.signature(factory).bind(split=split)
    except TypeError as error:
        raise SpecError(f"{spec!r} cannot be called as factory(split={split!r}): {error}") from error
    with user_code(f"{_short(spec)}, called with split={split!r},"):
        return factory(split=split)


def _as_dataset(made: Any, spec: str, split: str) -> Dataset:
    if isinstance(made, Dataset):
        return made
    if not isinstance(made, tuple) or len(made) != 2:
        raise DataError(f"{spec!r} returned a {type(made).__name__}; a Dataset or a pair (x, y) was expected")
    x, y = made
    name = _short(spec)
    labels = None if y is None else as_labels(y, where=name)
    return dataset_of(np.asarray(x), labels, name=name, split=split)


def _short(spec: str) -> str:
    """Return a reference without folders: ``data.py:load``."""
    source, _, function = spec.rpartition(":")
    return f"{Path(source).name}:{function}"
