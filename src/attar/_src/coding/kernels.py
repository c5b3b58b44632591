"""The inner loops of the coders: in C where the extension is there (``attar.h``), else in Python (``fallback``).

Both give the same bytes, the same symbols and the same refusals; C is a hundred times as fast. The extension is built
when Attar is installed on a machine with a C compiler. With ``ATTAR_NO_NATIVE=1`` in the environment it is not used.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from attar._src.coding import fallback
from attar._src.coding.base import Bytes, Symbols
from attar._src.coding.context_fallback import encode_context
from attar._src.coding.context_table import ContextTable

try:
    if os.environ.get("ATTAR_NO_NATIVE", "0") not in ("", "0"):
        raise ImportError("ATTAR_NO_NATIVE is set")
    from attar._src.coding import _native
except ImportError:
    NATIVE = False
    encode_rans, encode_huffman = fallback.encode_rans, fallback.encode_huffman
else:
    NATIVE = True
    encode_rans, encode_huffman = _native.encode_rans, _native.encode_huffman

#: ``attar_coder`` of ``attar.h``.
_CODERS = ("raw", "rans", "huffman", "context")


def decoder(coder: str, table: bytes, alphabet: int) -> Callable[[Bytes, Symbols], int] | None:
    """Return a function that fills symbols from a chunk and returns a ``Status``.

    None without the extension, and for a table that it refuses: Python, which then reads it, says what is wrong with it.
    """
    return _decoder(coder, table, alphabet) if NATIVE else None


@functools.lru_cache(maxsize=64)
def _decoder(coder: str, table: bytes, alphabet: int) -> Callable[[Bytes, Symbols], int] | None:
    opened = _native.open_table(_CODERS.index(coder), table, alphabet)
    return None if isinstance(opened, int) else functools.partial(_native.decode, opened)


def context_encoder(table: bytes, alphabet: int) -> Callable[[Symbols], bytes]:
    """Return a function that encodes a chunk by a table of the context coder.

    Raises:
        ArtifactError: the table is malformed.
    """
    read = ContextTable.read(table, alphabet)
    if not NATIVE:
        return functools.partial(encode_context, table=read)
    return functools.partial(_native.encode_context, _native.open_table(_CODERS.index("context"), table, alphabet))
