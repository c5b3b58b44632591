"""CIFAR-10 in its binary batches.

A batch is a sequence of records without a header. A record is a label byte, then 1024 bytes each of red, green and
blue, row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset
from attar._src.data.preprocessing import find_preprocessing
from attar._src.data.source import DataSource, check_split, locate

RECORD = 1 + 3 * 32 * 32
CIFAR10_LIMIT = 10_000  # records of a batch file
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}


class Cifar10(DataSource):
    """``cifar10``: uint8 ``(n, 3, 32, 32)``, ten classes; 50,000 train and 10,000 test examples.

    Files: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin`` in ``$ATTAR_DATA/cifar-10-batches-bin``
    or ``$ATTAR_DATA``. Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    name: ClassVar[str] = "cifar10"
    argument: ClassVar[str | None] = None

    def load(self, argument: str, split: str) -> Dataset:
        check_split(split)
        paths = locate(self.name, "cifar-10-batches-bin", BATCHES[split])
        records = np.concatenate([_read_batch(path) for path in paths])
        return Dataset(
            x=records[:, 1:].reshape(-1, 3, 32, 32),
            y=records[:, 0].astype(np.int64),
            name=self.name,
            split=split,
            preprocessing=find_preprocessing("cifar10"),
            class_names=CLASSES,
        )


def _read_batch(path: Path) -> NDArray[np.uint8]:
    """Return the records of one batch file, uint8 ``(n, 3073)``, label first."""
    size = path.stat().st_size
    if size % RECORD or not 0 < size <= CIFAR10_LIMIT * RECORD:
        raise DataError(f"{path}: 1 to {CIFAR10_LIMIT} records of {RECORD} bytes were expected, {size} bytes arrived")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    if (records[:, 0] >= len(CLASSES)).any():
        bad = int(np.argmax(records[:, 0] >= len(CLASSES)))
        raise DataError(f"{path}: record {bad} has the label {records[bad, 0]}; 0 to 9 were expected")
    return records
