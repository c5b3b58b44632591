"""Raw DEFLATE, since format 1.4 with preset dictionaries (``docs/format.md``, section 2.1)."""

from __future__ import annotations

import functools
import itertools
import zlib
from pathlib import Path

from attar._src.core.errors import ArtifactError

#: Memory levels and strategies of zlib that are tried with a dictionary; the shortest result counts.
_TRIED = tuple(itertools.product((9, 8, 6), (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_FIXED)))
_FEW = 1 << 16  # bytes: longer texts gain nothing from other settings that is worth the time
_DICTIONARIES = Path(__file__).parent / "dictionaries"


@functools.cache
def dictionary(kind: str) -> bytes:
    """Return the preset dictionary of ``manifest`` or ``graph``: what is likely in one, the likeliest last."""
    return (_DICTIONARIES / f"{kind}.bin").read_bytes()


def deflate(data: bytes, preset: bytes = b"") -> bytes:
    """Return ``data`` as raw DEFLATE, which may refer to the ``preset`` dictionary as if it came before."""
    if not preset:
        return _finish(zlib.compressobj(9, zlib.DEFLATED, -15, 9), data)
    tried = _TRIED if len(data) <= _FEW else _TRIED[:1]
    made = (_finish(zlib.compressobj(9, zlib.DEFLATED, -15, memory, how, preset), data) for memory, how in tried)
    return min(made, key=len)


def inflate(data: memoryview, length: int, limit: int, preset: bytes = b"") -> bytes:
    """Inflate one raw DEFLATE stream to exactly ``length`` bytes, at most ``limit``; never allocate more."""
    if length > limit:
        raise ArtifactError(f"it inflates to {length} bytes, more than the limit of {limit}; raise it in Limits")
    inflater = zlib.decompressobj(-15, zdict=preset) if preset else zlib.decompressobj(-15)
    try:
        out = inflater.decompress(data, length + 1)
    except zlib.error as error:
        raise ArtifactError(f"cannot be inflated: {error}") from error
    if len(out) != length or not inflater.eof or inflater.unused_data:
        raise ArtifactError(f"does not inflate to the {length} bytes it declares")
    return out


def _finish(deflater: zlib._Compress, data: bytes) -> bytes:
    return deflater.compress(data) + deflater.flush()
