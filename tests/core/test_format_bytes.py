import pytest

from attar._src.core.format_bytes import format_bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (250_827, "250.8 KB"), (2e6, "2.0 MB"), (3e9, "3.0 GB")],
)
def test_sizes_have_a_decimal_unit(size, text):
    assert format_bytes(size) == text
