"""The interface of a registered data set, and the files of those that are built in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Protocol

from attar._src.core.errors import DataError, UnknownName
from attar._src.data.dataset import Dataset

STANDARD_SPLITS = ("train", "test")
VARIABLE = "ATTAR_DATA"


class DataSource(Protocol):
    """A data set that is loaded by name.

    Attributes:
        name: its name in ``--data NAME``.
        argument: word for the argument in ``NAME:ARGUMENT``, such as ``"PATH"``; None if it takes none.
    """

    name: ClassVar[str]
    argument: ClassVar[str | None]

    def load(self, argument: str, split: str) -> Dataset:
        """Return one split.

        Args:
            argument: text after the colon; empty if ``self.argument`` is None.
            split: such as ``"test"``.

        Raises:
            UnknownName: there is no such split.
            DataError: a file or package is missing, or a file is malformed.
        """
        ...


def check_split(split: str) -> None:
    """Raise :class:`UnknownName` for a split other than ``train`` and ``test``."""
    if split not in STANDARD_SPLITS:
        raise UnknownName("split", split, STANDARD_SPLITS)


def locate(name: str, folder: str, files: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the paths of ``files``: all in ``$ATTAR_DATA/<folder>``, or all in ``$ATTAR_DATA`` itself."""
    root = os.environ.get(VARIABLE)
    if not root:
        raise DataError(
            f"{name}: expected {', '.join(files)} in ${VARIABLE}/{folder} (or in ${VARIABLE}); {VARIABLE} is not set: "
            f"set it to the folder that holds {folder}"
        )
    candidates = [tuple(place / file for file in files) for place in (Path(root) / folder, Path(root))]
    for paths in candidates:
        if all(path.is_file() for path in paths):
            return paths
    tried = [f"\n  {path} ({'there' if path.is_file() else 'missing'})" for paths in candidates for path in paths]
    raise DataError(f"{name}: expected {', '.join(files)} in one folder, with {VARIABLE}={root}; tried{''.join(tried)}")
