import numpy as np
import pytest
from tests.samples import codebook, quantized, sparse

from attar._src.core.scheme import PerBucket, PerChannel, PerTensor, Scheme
from attar._src.core.tensors import Dense, Quantized
from attar._src.report.figures.histogram import MOST_BINS, MOST_POINTS, weight_histogram


def every(rng):
    return {
        "dense": Dense(rng.normal(size=(8, 8)).astype(np.float32)),
        "symmetric": quantized(rng, (8, 8)),
        "asymmetric": quantized(rng, (8, 8), symmetric=False),
        "one scale": quantized(rng, (8, 8), granularity=PerTensor()),
        "codebook": codebook(rng, (8, 8)),
        "sparse": sparse(rng, (8, 8)),
    }


@pytest.mark.parametrize("kind", ["dense", "symmetric", "asymmetric", "one scale", "codebook", "sparse"])
def test_every_value_is_in_a_bin_or_zero(rng, kind):
    tensor = every(rng)[kind]
    found = weight_histogram(tensor)
    assert found.counts.sum() + found.zeros == found.elements == 64
    assert len(found.centres) == len(found.counts) <= MOST_BINS
    # The middle bin is about zero, so that nothing lies on its edge.
    assert found.centres[len(found.centres) // 2] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "one scale", "codebook", "sparse"])
def test_every_value_lies_on_a_point_of_the_grid(rng, kind):
    tensor = every(rng)[kind]
    found = weight_histogram(tensor)
    values = tensor.dense()[tensor.dense() != 0].astype(np.float64)
    assert found.all_points == found.points.size
    assert np.abs(values[:, None] - found.points).min(1).max() < 1e-6


def test_the_points_of_one_scale_are_its_multiples():
    codes = np.array([[-7, 0, 3, 7]], np.int8)
    found = weight_histogram(Quantized(codes, np.array([0.5], np.float32), Scheme(bits=4, granularity=PerTensor())))
    assert found.points.tolist() == [step / 2 for step in range(-7, 8)]
    assert dict(zip(found.codes.tolist(), found.uses.tolist(), strict=True)) == {
        step: int(step in (-7, 0, 3, 7)) for step in range(-7, 8)
    }
    assert found.zeros == 1
    assert found.grid == "4 bits, symmetric, one scale for the whole tensor"


def test_codes_are_counted_from_each_channels_own_zero_point():
    codes = np.array([[2, 3], [10, 9]], np.uint8)
    scheme = Scheme(bits=4, symmetric=False, granularity=PerChannel())
    found = weight_histogram(Quantized(codes, np.ones(2, np.float32), scheme, np.array([2, 10], np.uint8)))
    used = {int(code): int(n) for code, n in zip(found.codes, found.uses, strict=True) if n}
    assert used == {0: 2, 1: 1, -1: 1}
    assert (found.codes[0], found.codes[-1]) == (-10, 13)


def test_too_many_points_are_thinned_evenly_and_counted(rng):
    found = weight_histogram(quantized(rng, (64, 64), bits=8, granularity=PerBucket(size=8)))
    assert found.points.size <= MOST_POINTS < found.all_points
    full = found.points
    assert (np.diff(full) > 0).all()


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[np.inf, 1.0]]), np.zeros((0, 3)), np.full((1, 1), 1e-44)],
)
def test_odd_values_are_counted_without_a_warning(values):
    found = weight_histogram(Dense(values.astype(np.float32)))
    assert found.elements == values.size
    assert np.isfinite(found.centres).all()


def test_bf16_and_integers_have_histograms():
    assert weight_histogram(Dense(np.full((2, 2), 0x3F80, np.uint16), "bf16")).counts.sum() == 4
    assert weight_histogram(Dense(np.arange(4), "i64")).zeros == 1
