"""Whole steps there and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attar._src.core.numbers.steps import from_steps, step_sizes, to_steps


@given(
    st.lists(st.tuples(st.integers(-(2**22), 2**22), st.floats(2.0**-30, 2.0**10, width=32)), min_size=1, max_size=20),
    st.floats(2.0**-20, 2.0**10, width=32),
)
def test_whole_numbers_come_back(pairs, input_scale):
    numbers = np.array([number for number, _ in pairs], np.int64)
    sizes = step_sizes(input_scale, np.array([scale for _, scale in pairs], np.float32))
    values = from_steps(numbers, sizes)
    np.testing.assert_array_equal(to_steps(values, sizes), numbers)
    np.testing.assert_array_equal(from_steps(to_steps(values, sizes), sizes), values)


def test_what_has_no_whole_number_of_32_bits():
    sizes = np.ones(1, np.float32)
    for value in (2.0**31, np.inf, np.nan):
        assert to_steps(np.array([value], np.float32), sizes) is None
    assert to_steps(np.ones(1, np.float32), np.zeros(1, np.float32)) is None
    assert to_steps(np.zeros(0, np.float32), sizes).size == 0
