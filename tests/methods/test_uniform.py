import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor
from attar._src.core.tensors import Codebook
from attar._src.methods.allocate.level import Level
from attar._src.methods.quantize.polino.buckets import BucketRows
from attar._src.methods.quantize.polino.uniform import Uniform, UniformWeight
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize

SHAPES = [(6, 4), (4, 3, 3, 2), (1, 9), (5, 1), (0, 3), (3, 0)]
GRANULARITIES = [
    *(PerTensor(), PerChannel(), PerChannel(axis=1), PerGroup(size=5), PerGroup(axis=1, size=2)),
    *(PerBucket(size=7), PerBucket(size=256), PerBucket(size=1)),
]


def weight_of(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_what_shares_a_bucket(granularity, shape):
    index = np.broadcast_to(granularity.index(shape), shape)
    rows, x = BucketRows(granularity, shape), weight_of(shape)
    found = rows.of(x)
    assert len(found) == rows.count == granularity.count(shape)
    assert torch.equal(rows.back(found), x)
    places = torch.arange(x.numel(), dtype=torch.float32).reshape(shape)
    for number, row in enumerate(rows.of(places).tolist()):
        members = np.flatnonzero(index.reshape(-1) == number).tolist()
        assert sorted(set(row)) == members
    # Filled up, each element is there once.
    assert torch.equal(rows.of(torch.ones(shape), fill=0.0).sum(), torch.tensor(float(x.numel())))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_what_is_stored_is_what_is_read(granularity, shape, bits):
    weight = weight_of(shape, bits)
    held = UniformWeight(weight, bits, granularity).eval()
    stored = held.to_compressed(weight)
    assert isinstance(stored, Codebook)
    assert stored.dense().tobytes() == held(weight).numpy().tobytes()
    assert np.array_equal(stored.points, np.arange(1 << bits, dtype=np.float32) / np.float32((1 << bits) - 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_it_is_the_formula_of_the_paper(bits):
    weight, size, s = weight_of((5, 13), bits), 10, 2**bits - 1
    read = UniformWeight(weight, bits, PerBucket(size=size))(weight).reshape(-1).tolist()
    values = weight.reshape(-1).tolist()
    for start in range(0, len(values), size):
        bucket = values[start : start + size]
        b, a = min(bucket), max(bucket) - min(bucket)
        for place, w in enumerate(bucket):
            v = (w - b) / a
            xi = v * s - math.floor(v * s) > 0.5
            assert read[start + place] == pytest.approx(a * (math.floor(v * s) + xi) / s + b, rel=1e-5, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 9999),
    bits=st.integers(1, 8),
    shift=st.floats(-1e4, 1e4, width=32),
    size=st.integers(1, 70),
)
def test_weights_on_the_grid_stay_to_the_bit(seed, bits, shift, size):
    weight = weight_of((4, 16), seed) * 10.0 ** (seed % 7 - 3) + shift
    held = UniformWeight(weight, bits, PerBucket(size=size))
    read = held(weight)
    assert torch.equal(held(read), read)
    assert np.array_equal(held.to_compressed(read).codes, held.to_compressed(weight).codes)


@pytest.mark.parametrize("value", [0.0, -0.37, 1e-42, 3e38])
@pytest.mark.parametrize("bits", [1, 4])
def test_a_bucket_of_equal_values(value, bits):
    weight = torch.full((3, 5), value)
    weight[2] = torch.arange(5.0)
    held = UniformWeight(weight, bits, PerChannel())
    assert torch.equal(held(weight)[:2], weight[:2])
    assert held.to_compressed(weight).scale[:2].tolist() == [0, 0]
    assert np.array_equal(held.to_compressed(weight).dense()[:2], weight[:2].numpy())
    assert torch.isfinite(held.grid_positions(weight).at).all()


def test_every_weight_gets_the_gradient_of_what_is_read():
    weight = weight_of((5, 13)).requires_grad_()
    factor = weight_of((5, 13), 1)
    (UniformWeight(weight, 2, PerBucket(size=10))(weight) * factor).sum().backward()
    assert torch.equal(weight.grad, factor)


def test_stochastic_rounding_is_right_on_average_and_only_in_training():
    weight = weight_of((4, 25))
    held = UniformWeight(weight, 2, PerBucket(size=30), stochastic=True)
    plain = UniformWeight(weight, 2, PerBucket(size=30))
    torch.manual_seed(0)
    drawn = [held(weight) for _ in range(4000)]
    assert not torch.equal(drawn[0], drawn[1])
    step = held.grid_positions(weight).scale
    assert ((drawn[0] - weight).abs() <= step * 1.0001).all()
    # A draw is off by at most half a step as standard deviation.
    assert ((torch.stack(drawn).mean(0) - weight).abs() < 5 * step / 2 / math.sqrt(4000)).all()
    torch.manual_seed(0)
    assert torch.equal(held(weight), drawn[0])
    held.eval()
    assert torch.equal(held(weight), plain(weight))
    assert np.array_equal(held.train().to_compressed(weight).dense(), plain(weight).numpy())


def test_the_ends_of_a_bucket_are_read_as_they_are_when_drawn():
    weight = weight_of((2, 9))
    held = UniformWeight(weight, 3, PerChannel(), stochastic=True)
    for _ in range(20):
        read = held(weight)
        for one, other in ((weight.amin(1), read.amin(1)), (weight.amax(1), read.amax(1))):
            torch.testing.assert_close(one, other, rtol=3e-7, atol=1e-7)


def test_the_grid_moves_with_the_weights():
    weight = weight_of((3, 8))
    held = UniformWeight(weight, 3, PerTensor())
    assert torch.equal(held(weight * 4), held(weight) * 4)


def test_what_is_not_finite_is_refused():
    weight = torch.tensor([[1.0, torch.inf]])
    with pytest.raises(SpecError, match="NaN or infinities"):
        UniformWeight(weight, 2, PerTensor()).to_compressed(weight)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_are_one_to_eight(bits):
    with pytest.raises(ValueError, match="bits"):
        Uniform(bits=bits)


def test_the_solver_is_the_rule_untrained():
    weight = weight_of((7, 30))
    for granularity in (PerTensor(), PerBucket(size=16)):
        scheme = PostTrainingQuantize(bits=2, granularity=granularity, scales="minmax").grid_at(Level(2))
        found = SOLVERS["minmax"].solve(weight.numpy(), scheme)
        assert np.array_equal(found.dense(), UniformWeight(weight, 2, granularity)(weight).numpy())
