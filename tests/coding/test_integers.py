"""Packed whole numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.coding.integers import pack_integers, packed_bytes, unpack_integers
from attar._src.coding.registry import CODERS
from attar._src.core.errors import ArtifactError


@pytest.mark.parametrize(
    ("count", "levels", "size"),
    [(0, 16, 0), (3, 16, 2), (5, 1, 0), (5, 2, 1), (3, 15, 2), (9, 256, 9), (100, 1000, 125), (2, 2**31, 8)],
)
def test_bytes_of_packed_numbers(count, levels, size):
    assert packed_bytes(count, levels) == size


@given(st.data())
def test_unpacking_undoes_packing(data):
    levels = data.draw(st.sampled_from([1, 2, 3, 255, 256, 257, 1000, 2**16, 2**24 + 1, 2**31]))
    numbers = np.array(data.draw(st.lists(st.integers(0, levels - 1), max_size=50)), np.uint32)
    packed = pack_integers(numbers, levels)
    assert len(packed) == packed_bytes(numbers.size, levels)
    np.testing.assert_array_equal(unpack_integers(memoryview(packed), numbers.size, levels), numbers)
    if levels <= 256:  # the coder raw has the same bits
        assert packed == CODERS["raw"].encode(numbers.astype(np.uint8), b"", levels)


def test_what_is_no_number_below_the_levels():
    with pytest.raises(ArtifactError, match="a packed number is 1001; it should be below 1001"):
        unpack_integers(memoryview(pack_integers(np.array([3, 1001], np.uint32), 1024)), 2, 1001)
    with pytest.raises(ArtifactError, match="bits set after the last"):
        unpack_integers(memoryview(b"\xff\xff"), 1, 1000)
