from __future__ import annotations

import numpy as np
import pytest

from attar._src.coding.base import Bytes, Symbols
from attar._src.coding.chunks import CHUNK, decode_chunks, encode_chunks
from attar._src.core.errors import ArtifactError, SpecError

ALL = np.ones(256, bool)


def lengths_only(chunk: Bytes, symbols: Symbols) -> None:
    symbols[:] = chunk.size


def test_lengths_come_before_chunks() -> None:
    symbols = np.zeros(2 * CHUNK + 1, np.uint8)
    symbols[CHUNK] = 1
    sizes = iter([0, 128, 3])
    payload = encode_chunks(symbols, ALL, lambda part: bytes(next(sizes)))
    assert payload == b"\x00\x80\x01" + bytes(131)
    back = decode_chunks(memoryview(payload), symbols.size, lengths_only)
    assert [int(back[place]) for place in (0, CHUNK, 2 * CHUNK)] == [0, 128, 3]


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_a_fault_in_any_chunk_is_raised(threads: int) -> None:
    def decode(chunk: Bytes, symbols: Symbols) -> None:
        if symbols.size < CHUNK:
            raise ArtifactError("the last one")

    with pytest.raises(ArtifactError, match="the last one"):
        decode_chunks(memoryview(b"\0\0"), 2 * CHUNK + 1, decode, threads=threads)


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (b"", CHUNK + 1),
        (b"\x01", CHUNK + 1),
        (b"\x05abcd", CHUNK + 1),
        (b"\x80", CHUNK + 1),
        (b"\x80\x00abcd", CHUNK + 1),
        (b"\xff\xff\xff\xff\x0f", CHUNK + 1),
        (b"\x00", 2 * CHUNK + 1),
        (b"a", 0),
    ],
)
def test_lengths_that_do_not_fit_are_refused(payload: bytes, count: int) -> None:
    with pytest.raises(ArtifactError):
        decode_chunks(memoryview(payload), count, lengths_only)


def test_huge_counts_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(ArtifactError):
        decode_chunks(memoryview(bytes(100)), 1 << 50, lengths_only)


def test_unknown_symbols_are_named() -> None:
    with pytest.raises(SpecError, match=r"symbols \[4, 9\] are not in the table of an alphabet of 4"):
        encode_chunks(np.array([1, 9, 4], np.uint8), ALL[:4], lambda part: b"")
