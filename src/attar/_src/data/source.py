"""What a registered data set is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from attar._src.core.errors import UnknownName
from attar._src.data.dataset import Dataset

STANDARD_SPLITS = ("train", "test")


class DataSource(Protocol):
    """A data set that can be asked for by name.

    Attributes:
        name: what it is asked for as.
        argument: what follows the name and a colon (``"PATH"``), or None where nothing does.
    """

    name: ClassVar[str]
    argument: ClassVar[str | None]

    def load(self, argument: str, split: str) -> Dataset:
        """Return one split.

        Args:
            argument: what the user wrote after the colon; empty where ``self.argument`` is None.
            split: the split's name.

        Raises:
            UnknownName: there is no such split.
            DataError: the files are missing, or not of the form they should have.
        """
        ...


def check_split(split: str) -> None:
    """Raise :class:`UnknownName` for a split other than ``train`` and ``test``."""
    if split not in STANDARD_SPLITS:
        raise UnknownName("split", split, STANDARD_SPLITS)
