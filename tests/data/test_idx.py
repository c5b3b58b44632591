"""The IDX reader on sound and broken files."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.idx import read_idx

HEAD = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4)


def _write(folder: Path, content: bytes) -> Path:
    path = folder / "a.gz"
    path.write_bytes(gzip.compress(content))
    return path


def test_values_and_axes(tmp_path: Path) -> None:
    path = _write(tmp_path, HEAD + bytes(range(24)))
    array = read_idx(path, (None, 3, 4))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, np.arange(24).reshape(2, 3, 4))


def test_longer_than_one_piece(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 256, 3_000_000).astype(np.uint8)
    path = _write(tmp_path, struct.pack(">4BI", 0, 0, 8, 1, values.size) + values.tobytes())
    np.testing.assert_array_equal(read_idx(path, (None,)), values)


def test_no_examples_is_an_array_of_none(tmp_path: Path) -> None:
    assert read_idx(_write(tmp_path, struct.pack(">4BI", 0, 0, 8, 1, 0)), (None,)).shape == (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with 00 00 08 03"),
        (HEAD[:10], "starts with"),
        (b"\0\0\x0d\3" + HEAD[4:] + bytes(96), "this one with 00 00 0d 03"),
        (b"\0\0\x08\1" + HEAD[4:] + bytes(24), "this one with 00 00 08 01"),
        (HEAD + bytes(23), "only 23"),
        (HEAD + bytes(25), "more"),
        (HEAD, "only 0"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2, 4, 3) + bytes(24), r"\(any, 3, 4\) was expected"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 3, 4) + bytes(24), "more than 268435456"),
    ],
)
def test_broken_content(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(_write(tmp_path, content), (None, 3, 4))


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(HEAD + np.random.RandomState(0).bytes(24))
    path = tmp_path / "a.gz"
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # the checksum
    for content in (b"plain", HEAD + bytes(24), whole[:-9], whole[:20], bytes(flipped), whole + b"more", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz"):
            read_idx(path, (None, 3, 4))


def test_a_header_that_promises_much_takes_no_memory(tmp_path: Path) -> None:
    path = _write(tmp_path, struct.pack(">4BI", 0, 0, 8, 1, 2**28) + bytes(10))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="only 10"):
            read_idx(path, (None,))
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = _write(tmp_path, HEAD + bytes(2**25))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more"):
            read_idx(path, (None, 3, 4))
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
