from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.coding.raw import Raw
from attar._src.core.errors import ArtifactError

CODER = Raw()


@given(st.lists(st.integers(0, 255), max_size=100), st.integers(1, 256))
def test_bits_lie_as_on_the_page(values: list[int], alphabet: int) -> None:
    symbols = np.array(values, np.uint8) % np.uint16(alphabet)
    payload = CODER.encode(symbols.astype(np.uint8), b"", alphabet)
    width = (alphabet - 1).bit_length()
    number = sum(int(symbol) << width * place for place, symbol in enumerate(symbols))
    assert payload == number.to_bytes(-(-width * symbols.size // 8), "little")
    np.testing.assert_array_equal(CODER.decode(memoryview(payload), symbols.size, b"", alphabet), symbols)


@pytest.mark.parametrize(
    ("payload", "count", "table", "alphabet", "message"),
    [
        (b"\x03", 1, b"", 3, "symbol 3"),
        (b"\xff", 1, b"", 255, "symbol 255"),
        (b"\x10", 1, b"", 16, "bits set"),
        (b"\x01\x00", 1, b"", 16, "2 bytes"),
        (b"", 1, b"", 16, "0 bytes"),
        (b"\x00", 5, b"", 1, "1 bytes"),
        (b"\x01", 1, b"\0", 16, "table of 1"),
        (b"\x01", 1 << 60, b"", 16, "1 bytes"),
    ],
)
def test_malformed_payloads_are_refused(payload: bytes, count: int, table: bytes, alphabet: int, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        CODER.decode(memoryview(payload), count, table, alphabet)
