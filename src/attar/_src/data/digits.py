"""Digits: 1797 grey images of handwritten digits, 8x8, values 0 to 16, from scikit-learn."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset, holdout
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.source import check_split


class Digits:
    """``digits``: uint8 ``(n, 1, 8, 8)``, ten classes; 1438 train and 359 test examples.

    ``sklearn.datasets.load_digits``: the test part of the UCI set "Optical Recognition of Handwritten Digits". The
    split is drawn here, by class, with a fixed seed.
    """

    name: ClassVar[str] = "digits"
    argument: ClassVar[str | None] = None

    def load(self, argument: str, split: str) -> Dataset:
        """Return one split."""
        check_split(split)
        try:
            from sklearn.datasets import load_digits  # noqa: PLC0415 -- optional, and slow to import
        except ModuleNotFoundError as error:
            raise DataError(f"digits: {error}; they come with scikit-learn: pip install 'attar[compress]'") from error
        images, labels = load_digits(return_X_y=True)
        both = Dataset(
            x=images.astype(np.uint8).reshape(-1, 1, 8, 8),
            y=labels.astype(np.int64),
            name=self.name,
            split="all",
            preprocessing=find_preprocessing("digits"),
            class_names=tuple("0123456789"),
        )
        train, test = holdout(both, 0.2, seed=0)
        return train if split == "train" else test.take(np.arange(len(test)), split="test")
