"""The inner loops of the coders: in C where the extension is there (``attar.h``), else in Python (``fallback``).

Both give the same bytes, the same symbols and the same refusals; C is a hundred times as fast. The extension is built
when Attar is installed on a machine with a C compiler. With ``ATTAR_NO_NATIVE=1`` in the environment it is not used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.coding import fallback
from attar._src.coding.base import Bytes, Symbols
from attar._src.coding.contexts.slow import encode_context
from attar._src.coding.contexts.table import ContextTable
from attar._src.coding.native import native_module

_native: Any = native_module("attar._src.coding._native")
NATIVE = _native is not None

#: ``attar_coder`` of ``attar.h``.
_CODERS = ("raw", "rans", "huffman", "context")


def decoder(coder: str, table: bytes, alphabet: int) -> Callable[[Bytes, Symbols], int] | None:
    """Return a function that fills symbols from a chunk and returns a ``Status``.

    None without the extension, and for a table that it refuses: Python, which then reads it, says what is wrong.
    """
    return _decoder(coder, table, alphabet) if NATIVE else None


@functools.lru_cache(maxsize=64)
def _decoder(coder: str, table: bytes, alphabet: int) -> Callable[[Bytes, Symbols], int] | None:
    opened = _native.open_table(_CODERS.index(coder), table, alphabet)
    return None if isinstance(opened, int) else functools.partial(_native.decode, opened)


def encode_rans(first: Symbols, rare: Symbols, entries: NDArray[np.uint32], k: int, lanes: int) -> bytes:
    """Return states and words of a chunk: ``rare`` is pushed on the first lane, then ``first`` on all in turn.

    Args:
        first: symbols of the first step, ``(n,)``.
        rare: those of the second, in the order of the stand-ins.
        entries: ``start << 16 | frequency`` of both steps, ``(2, 256)``; each symbol has a frequency.
        k: frequencies sum to 2^k.
        lanes: 1 or 8.
    """
    return (_native.encode_rans if NATIVE else fallback.push_rans)(first, rare, entries, k, lanes)


def encode_huffman(symbols: Symbols, codes: NDArray[np.uint32]) -> bytes:
    """Return the codes of ``symbols (n,)``; ``codes (256,)`` are ``length << 16 | code``, the first bit lowest."""
    return (_native.encode_huffman if NATIVE else fallback.pack_huffman)(symbols, codes)


def context_encoder(table: bytes, alphabet: int) -> Callable[[Symbols], bytes]:
    """Return a function that encodes a chunk by a table of the context coder.

    Raises:
        ArtifactError: the table is malformed.
    """
    read = ContextTable.read(table, alphabet)
    if not NATIVE:
        return functools.partial(encode_context, table=read)
    return functools.partial(_native.encode_context, _native.open_table(_CODERS.index("context"), table, alphabet))
