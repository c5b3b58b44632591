"""MNIST in its four gzipped IDX files."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset
from attar._src.data.idx import read_idx
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.source import DataSource, check_split, locate


class Mnist(DataSource):
    """``mnist``: uint8 ``(n, 1, 28, 28)``, ten classes; 60,000 train and 10,000 test examples.

    Files: ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` and the same for ``t10k``, in
    ``$ATTAR_DATA/mnist`` or ``$ATTAR_DATA``. LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
    """

    name: ClassVar[str] = "mnist"
    argument: ClassVar[str | None] = None

    def load(self, argument: str, split: str) -> Dataset:
        check_split(split)
        stem = "train" if split == "train" else "t10k"
        files = (f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz")
        image_path, label_path = locate(self.name, "mnist", files)
        images, labels = read_idx(image_path, (None, 28, 28)), read_idx(label_path, (None,))
        if len(images) != len(labels):
            raise DataError(f"{image_path} holds {len(images)} images and {label_path} {len(labels)} labels")
        return Dataset(
            x=images[:, None],
            y=labels.astype(np.int64),
            name=self.name,
            split=split,
            preprocessing=find_preprocessing("mnist"),
            class_names=tuple("0123456789"),
        )
