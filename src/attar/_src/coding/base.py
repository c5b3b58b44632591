"""What an entropy coder is."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]


class Coder(Protocol):
    """Turns symbols into bytes and back, given an integer table both sides know.

    A symbol is a uint8 below ``alphabet`` (1 to 256). Malformed bytes raise ``ArtifactError``.
    """

    name: ClassVar[str]

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        """Return the table for symbols of this histogram, shape ``(alphabet,)``; empty for a coder without tables."""
        ...

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        """Return the payload bits that symbols of ``histogram`` take with ``table``; infinite where they cannot."""
        ...

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        """Return the payload of ``symbols``, shape ``(n,)``."""
        ...

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
        """Return the ``count`` symbols of ``payload``, shape ``(count,)``.

        Raises:
            ArtifactError: the payload or the table is malformed.
        """
        ...
