"""A user's own arrays, in a numpy archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from attar._src.core.errors import DataError, missing_file
from attar._src.data.dataset import Dataset, as_labels, dataset_of
from attar._src.data.source import DataSource

# Of zipfile and numpy, for members that are damaged, encrypted, unsupported or too large.
_DAMAGE = (ValueError, KeyError, OSError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class Npz(DataSource):
    """``npz:PATH``: arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y`` for a single split.

    Split ``s`` is ``x_s`` and ``y_s`` if the file has ``x_s``, otherwise ``x`` and ``y``. Labels are
    optional: a class for each example, or integers ``(n, ...)`` for each token or pixel. There is no preprocessing.
    Pickled objects are refused.
    """

    name: ClassVar[str] = "npz"
    argument: ClassVar[str | None] = "PATH"

    def load(self, argument: str, split: str) -> Dataset:
        path = Path(argument).expanduser()
        if not path.is_file():
            raise DataError(f"npz: {missing_file(path)}")
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz file; write one with numpy.savez(path, x=..., y=...)")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                keys = archive.files
                suffix = f"_{split}" if f"x_{split}" in keys else ""
                if f"x{suffix}" not in keys:
                    raise DataError(
                        f"{path}: expected the arrays x_{split} and y_{split}, or x and y; "
                        f"it holds {', '.join(sorted(keys)) or 'none'}"
                    )
                x = np.asarray(archive[f"x{suffix}"])
                y = as_labels(archive[f"y{suffix}"], where=f"{path} y{suffix}") if f"y{suffix}" in keys else None
        except _DAMAGE as error:
            raise DataError(f"{path}: an array cannot be read: {error}") from error
        return dataset_of(x, y, name=path.name, split=split)
