"""Preprocessing: the arithmetic of the format, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError
from attar._src.runtime.preprocess import preprocess


@given(seed=st.integers(0, 2**32 - 1), layout=st.sampled_from(["NCHW", "NHWC", "NC"]), each=st.booleans())
def test_it_is_the_formula_along_c(seed, layout, each):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, [3 if axis == "C" else 2 for axis in layout]).astype(np.uint8)
    mean, std = (tuple(rng.uniform(0.1, 1, 3 if each else 1).tolist()) for _ in range(2))
    got = preprocess(Preprocessing(name="p", layout=layout, scale=1 / 255, mean=mean, std=std), raw)
    assert got.dtype == np.float32
    moved = np.moveaxis(raw, layout.index("C"), -1) / 255
    want = np.moveaxis((moved - np.array(mean)) / np.array(std), -1, layout.index("C"))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_raw_examples_are_left_alone():
    raw = np.ones((1, 2), np.float32)
    preprocess(Preprocessing(name="p", layout="NC", scale=3.0), raw)
    assert (raw == 1).all()


def test_no_examples_give_no_inputs():
    assert preprocess(Preprocessing(name="p", layout="NC"), np.zeros((0, 4), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [("NCHW", (2, 3), "4 axes"), ("NC", (2, 4), "2 values .* 4 channels"), ("NT", (2, 2), "0 channels")],
)
def test_other_axes_are_refused(layout, shape, message):
    with pytest.raises(DataError, match=message):
        preprocess(Preprocessing(name="p", layout=layout, mean=(0.0, 1.0), std=(1.0,)), np.zeros(shape))
