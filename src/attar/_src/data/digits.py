"""The digits of scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import numpy as np

from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.source import DataSource, check_split


class Digits(DataSource):
    """``digits``: uint8 ``(n, 1, 8, 8)`` from 0 to 16, ten classes; 1438 train and 359 test examples.

    ``sklearn.datasets.load_digits``: the test part of the UCI set "Optical Recognition of Handwritten Digits". The
    split is drawn here, a fifth of each class, with a fixed seed: it is not that of the first 1438 examples.
    """

    name: ClassVar[str] = "digits"
    argument: ClassVar[str | None] = None

    def load(self, argument: str, split: str) -> Dataset:
        check_split(split)
        table = np.loadtxt(_file(), delimiter=",")
        both = Dataset(
            x=table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8),
            y=table[:, -1].astype(np.int64),
            name=self.name,
            split="all",
            preprocessing=find_preprocessing("digits"),
            class_names=tuple("0123456789"),
        )
        train, test = holdout(both, 0.2, seed=0)
        return train if split == "train" else test.take(np.arange(len(test)), split="test")


def _file() -> Path:
    """Return the table of ``load_digits``, 64 pixels and a label a row: importing scikit-learn takes a second."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError("digits: they come with scikit-learn, which is not installed: pip install 'attar[compress]'")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(f"digits: this version of scikit-learn has no {path}; install the one in constraints.txt")
    return path
