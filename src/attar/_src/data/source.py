"""The interface of a registered data set."""

from __future__ import annotations

from typing import ClassVar, Protocol

from attar._src.core.errors import UnknownName
from attar._src.data.dataset import Dataset

STANDARD_SPLITS = ("train", "test")


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
            split: name of the split.

        Raises:
            UnknownName: there is no such split.
            DataError: a file or package is missing, or a file is malformed.
        """
        ...


def check_split(split: str) -> None:
    """Raise :class:`UnknownName` for a split other than ``train`` and ``test``."""
    if split not in STANDARD_SPLITS:
        raise UnknownName("split", split, STANDARD_SPLITS)
