from __future__ import annotations

import numpy as np
import pytest

from attar._src.coding.entropy import entropy_bits


@pytest.mark.parametrize(
    ("histogram", "bits"),
    [([0], 0.0), ([0, 0, 0], 0.0), ([5], 0.0), ([0, 7, 0], 0.0), ([1, 1], 1.0), ([1, 1, 2], 1.5), ([3] * 256, 8.0)],
)
def test_entropy(histogram: list[int], bits: float) -> None:
    assert entropy_bits(np.array(histogram)) == pytest.approx(bits)


def test_huge_counts_do_not_overflow() -> None:
    assert entropy_bits(np.array([2**62, 2**62])) == pytest.approx(1.0)
