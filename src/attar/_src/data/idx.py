"""The IDX format of byte arrays, gzipped.

Big-endian: two zero bytes, 8 for uint8, the number of axes, one uint32 for each axis, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import DataError

IDX_LIMIT = 2**28  # values of a file


def read_idx(path: Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """Return the array in a gzipped IDX file; ``shape`` has the expected length of each axis, None for any."""
    try:
        with gzip.open(path) as file:
            sizes = _header(path, file, shape)
            count = math.prod(sizes)
            values = _at_most(file, count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from error
    if len(values) != count:
        more = "more" if len(values) > count else f"only {len(values)}"
        raise DataError(f"{path}: the header says {sizes}, {count} bytes of values; there are {more}")
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _header(path: Path, file: gzip.GzipFile, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    expected = bytes([0, 0, 8, len(shape)])
    head = file.read(4 + 4 * len(shape))
    if head[:4] != expected or len(head) != 4 + 4 * len(shape):
        raise DataError(f"{path}: an IDX file starts with {expected.hex(' ')} here, this one with {head[:4].hex(' ')}")
    sizes: tuple[int, ...] = struct.unpack(f">{len(shape)}I", head[4:])
    if any(want not in (None, size) for want, size in zip(shape, sizes, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise DataError(f"{path}: shape ({wanted}) was expected, {sizes} arrived")
    if math.prod(sizes) > IDX_LIMIT:
        raise DataError(f"{path}: the header says {sizes}, more than {IDX_LIMIT} values")
    return sizes


def _at_most(file: gzip.GzipFile, limit: int) -> bytearray:
    """Read up to ``limit`` bytes in pieces, so that memory follows the file and not its header."""
    values = bytearray()
    while len(values) < limit and (piece := file.read(min(1 << 20, limit - len(values)))):
        values += piece
    return values
