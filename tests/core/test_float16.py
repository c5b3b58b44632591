"""Sixteen bits there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.core.errors import SpecError
from attar._src.core.float16 import HALF_TYPES, check_exact, from_half, round_nearest, round_up, to_half
from attar._src.core.tensors import DTYPES

EVERY = np.arange(2**16, dtype=np.uint16)


def value(bits, dtype):
    """What 16 bits stand for, by the fields of the number."""
    exponent, mantissa = {"f16": (5, 10), "bf16": (8, 7)}[dtype]
    sign, power, rest = bits >> 15, bits >> mantissa & (1 << exponent) - 1, bits & (1 << mantissa) - 1
    bias = (1 << exponent - 1) - 1
    if power == (1 << exponent) - 1:
        size = np.nan if rest else np.inf
    else:
        size = (rest + (1 << mantissa) * (power > 0)) * 2.0 ** (max(power, 1) - bias - mantissa)
    return -size if sign else size


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_every_number_is_widened_exactly_and_comes_back(dtype):
    stored = EVERY.view(DTYPES[dtype])
    found = from_half(stored, dtype)
    assert found.dtype == np.float32
    expected, known = np.array([value(int(bits), dtype) for bits in EVERY]), ~np.isnan(found)
    np.testing.assert_array_equal(known, ~np.isnan(expected))
    np.testing.assert_array_equal(found[known].astype(np.float64), expected[known])
    again = to_half(found[known], dtype)
    assert again.dtype == DTYPES[dtype]
    np.testing.assert_array_equal(again.view(np.uint16), EVERY[known])


@pytest.mark.parametrize(("dtype", "step"), [("f16", 2.0**-10), ("bf16", 2.0**-7)])
def test_halfway_between_two_numbers_the_even_one_is_taken(dtype, step):
    given = np.array([1 + step / 2, 1 + 1.5 * step, -1 - step / 2, -1 - 2.5 * step], np.float32)
    found = from_half(to_half(given, dtype), dtype)
    np.testing.assert_array_equal(found, np.array([1, 1 + 2 * step, -1, -1 - 2 * step], np.float32))


@pytest.mark.parametrize("dtype", HALF_TYPES)
@given(given=st.floats(allow_nan=False, width=32))
def test_rounding_is_to_the_nearest(dtype, given):
    found = to_half(np.array([given], np.float32), dtype)
    (back,) = from_half(found, dtype).astype(np.float64)
    bits = int(found.view(np.uint16)[0])
    if np.isinf(back):
        # Half a step above the largest number, and everything beyond, is an infinity.
        below = value(bits - 1, dtype)
        assert abs(given) >= abs(below) + abs(below - value(bits - 2, dtype)) / 2
        return
    for neighbour in (bits - 1, bits + 1):
        other = value(neighbour & 0xFFFF, dtype)
        if np.isfinite(other) and neighbour >> 15 == bits >> 15:
            distances = abs(given - back), abs(given - other)
            assert distances[0] < distances[1] or (distances[0] == distances[1] and bits % 2 == 0)


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 0)])
def test_any_shape(dtype, shape):
    values = np.full(shape, 0.3, np.float32)
    assert to_half(values, dtype).shape == from_half(to_half(values, dtype), dtype).shape == shape


def test_what_a_type_does_not_hold_is_named():
    check_exact("f32", np.array([0.1], np.float32))
    check_exact("bf16", np.array([0.5, 1.0078125], np.float32), np.array([0.0, -2.0], np.float32))
    with pytest.raises(SpecError, match="1 of 2 scales are not exact in bf16"):
        check_exact("bf16", np.array([0.5], np.float32), np.array([0.1, 1.0], np.float32))
    with pytest.raises(SpecError, match="f32, f16 or bf16, not as 'f64'"):
        check_exact("f64", np.ones(1, np.float32))


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=20), st.integers(2, 12))
def test_rounding_to_a_few_digits(values, bits):
    values = np.array(values, np.float32)
    up, nearest = round_up(values, bits), round_nearest(values, bits)
    for rounded in (up, nearest):
        assert not (rounded.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
        np.testing.assert_array_equal(round_up(rounded, bits), rounded)
        np.testing.assert_array_equal(round_nearest(rounded, bits), rounded)
    wide = values.astype(np.float64)
    assert (up >= wide * (1 - 2.0**-20)).all()
    assert (up <= wide * (1 + 2.0**-bits)).all()
    assert (np.abs(nearest - wide) <= wide * 2.0 ** -(bits + 1)).all()
    # What a product and a quotient of a short number gave is that number again.
    np.testing.assert_array_equal(round_up(up * np.float32(7) / np.float32(7), bits), up)
