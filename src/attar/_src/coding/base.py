"""The interface of an entropy coder."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Symbols = NDArray[np.uint8]

#: Lanes of a large chunk of rANS, and the least state of each.
LANES = 8
LOWEST = 1 << 16


class Status(IntEnum):
    """How the decoding of a chunk ended; ``attar_status`` of ``attar.h``."""

    OK = 0
    NO_ROOM = 1
    BAD_TABLE = 2
    BAD_CODE = 3
    BAD_LENGTH = 4
    BAD_LANES = 5
    BAD_STATE = 6
    BAD_SYMBOLS = 7
    BAD_PADDING = 8


class Coder(Protocol):
    """Encodes symbols to bytes and decodes them, with an integer table that encoder and decoder share.

    A symbol is a uint8 below ``alphabet`` (1 to 256). A histogram has the shape ``(alphabet,)``.
    """

    name: ClassVar[str]

    def table(self, histogram: NDArray[np.int64]) -> bytes:
        """Return a table for symbols with this histogram; empty if none is worth its size."""

    def cost(self, histogram: NDArray[np.int64], table: bytes) -> float:
        """Return the payload size in bits of symbols with this histogram; infinite if ``table`` lacks one of them."""

    def encode(self, symbols: Symbols, table: bytes, alphabet: int) -> bytes:
        """Return the payload of ``symbols``, shape ``(n,)``.

        Raises:
            SpecError: a symbol is not in the table.
        """

    def decode(self, payload: memoryview, count: int, table: bytes, alphabet: int, *, threads: int = 1) -> Symbols:
        """Return the ``count`` symbols of ``payload``, shape ``(count,)``, decoded on up to ``threads`` cores.

        Raises:
            ArtifactError: the payload or the table is malformed.
        """
