"""Each statistic against numpy, over several batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from attar._src.core.errors import ModelError
from attar._src.model.statistics import BINS, ChannelMean, Histogram, InputHessian, Range
from attar._src.model.weights import Window


def added(statistic, *batches):
    for batch in batches:
        statistic.add(torch.as_tensor(batch))
    return statistic


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.5, 2, shape).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1024, 1024, width=32), max_size=5), min_size=1, max_size=4))
def test_range(batches):
    found = added(Range(), *(np.asarray(batch, np.float32) for batch in batches))
    values = [x for batch in batches for x in batch]
    assert (found.low, found.high) == (min(values, default=np.inf), max(values, default=-np.inf))


def test_range_of_a_scalar():
    found = added(Range(), np.float32(-3))
    assert (found.low, found.high) == (-3, -3)


def test_histogram():
    one, other = normal(100, 7), normal(30, 7, seed=1)
    every = np.concatenate([one, other])
    found = added(Histogram(added(Range(), one, other)), one, other)
    # Both round where bins meet: a value at an edge may fall on either side.
    counts, edges = np.histogram(every.astype(np.float64), BINS, (every.min(), every.max()))
    assert found.counts.sum() == every.size
    assert np.abs(np.cumsum(found.counts) - np.cumsum(counts)).max() <= 2
    np.testing.assert_allclose(found.centres, (edges[1:] + edges[:-1]) / 2, atol=1e-6)
    assert (found.low, found.high) == (every.min(), every.max())


@pytest.mark.parametrize("shape", [(3, 7), (70, 33, 64), (200_000,)])
def test_a_histogram_has_the_counts_of_histc(shape):
    x = torch.randn(shape).relu() * 3 - 1
    extremes = Range()
    extremes.add(x)
    seen = Histogram(extremes)
    seen.add(x)
    wanted = torch.histc(x, len(seen.counts), seen.low, seen.high)
    np.testing.assert_array_equal(seen.counts, wanted.numpy().astype(np.int64))


def test_histogram_of_a_constant():
    found = added(Histogram(Range(2, 2)), np.full((3, 4), 2, np.float32))
    assert found.counts[0] == found.counts.sum() == 12


@pytest.mark.parametrize(("axis", "others"), [(1, (0, 2, 3)), (-1, (0, 1, 2)), (-3, (0, 2, 3))])
def test_channel_mean_over_batches_of_different_sizes(axis, others):
    batches = [normal(n, 3, 4, 5, seed=n) for n in (1, 6, 2)]
    found = added(ChannelMean(axis, batches[0].shape[axis]), *batches)
    expected = np.concatenate(batches).astype(np.float64).mean(others)
    assert found.mean.dtype == np.float64
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_mean_of_a_large_value_is_that_of_its_parts(axis):
    x = torch.randn(40, 50, 60)
    seen = ChannelMean(axis, x.shape[axis])
    seen.add(x)
    np.testing.assert_allclose(seen.mean, x.double().movedim(axis, -1).flatten(0, 1).mean(0).numpy(), rtol=1e-12)


def test_a_mean_of_large_values_keeps_what_float32_would_lose():
    found = added(ChannelMean(-1, 1), np.array([[1e8], [1]], np.float32), np.array([[-1e8]], np.float32))
    assert found.mean == [1 / 3]


CONVOLUTIONS = {
    "plain": ((6, 4, 3, 3), {}),
    "padded, strided": ((6, 4, 3, 2), {"padding": (1, 2), "stride": (2, 1)}),
    "dilated": ((6, 4, 3, 3), {"dilation": (2, 1), "padding": 1}),
    "grouped": ((6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise, dilated, strided": ((4, 1, 3, 3), {"groups": 4, "padding": 2, "dilation": 2, "stride": 2}),
}


def window_of(shape, options):
    def pair(name, default):
        value = options.get(name, default)
        return value if isinstance(value, tuple) else (value, value)

    length = int(np.prod(shape[1:]))
    return Window(
        options.get("groups", 1), length, shape[2:], pair("stride", 1), pair("padding", 0), pair("dilation", 1)
    )


def reference(x, window):
    """The definition, position by position: 2 / N sum x x^T in each group."""
    pad = [(0, 0), (0, 0), *((p, p) for p in window.padding)]
    x = np.pad(x.astype(np.float64), pad)
    spans = [d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
    total, count = np.zeros((window.groups, window.length, window.length)), 0
    for example in x:
        for i in range(0, x.shape[2] - spans[0] + 1, window.stride[0]):
            for j in range(0, x.shape[3] - spans[1] + 1, window.stride[1]):
                seen = example[:, i : i + spans[0] : window.dilation[0], j : j + spans[1] : window.dilation[1]]
                count += 1
                for group, vector in enumerate(seen.reshape(window.groups, -1)):
                    total[group] += np.outer(vector, vector)
    return 2 / count * total, count


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_hessian_of_a_convolution(case):
    window = window_of(*CONVOLUTIONS[case])
    batches = [normal(n, 4, 9, 8, seed=n) for n in (3, 1)]
    found = added(InputHessian(window), *batches)
    matrix, count = reference(np.concatenate(batches), window)
    assert found.samples == count
    assert found.matrix.dtype == np.float64
    np.testing.assert_allclose(found.matrix, matrix, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_it_says_by_how_much_rounding_changes_the_outputs(case):
    shape, options = CONVOLUTIONS[case]
    window, x = window_of(shape, options), normal(4, 4, 9, 8)
    change = normal(*shape, seed=5) / 10
    out = F.conv2d(torch.from_numpy(x), torch.from_numpy(change), **options).double().square().mean((0, 2, 3))
    rows = window.rows(change.astype(np.float64))
    foretold = np.einsum("gid,gde,gie->gi", rows, added(InputHessian(window), x).matrix, rows) / 2
    np.testing.assert_allclose(foretold.reshape(-1), out.numpy(), rtol=1e-4)


def test_hessian_of_a_linear_layer():
    batches = [normal(n, 5, 6, seed=n) for n in (2, 7)]
    vectors = np.concatenate([batch.reshape(-1, 6) for batch in batches]).astype(np.float64)
    found = added(InputHessian(Window(1, 6)), *batches)
    assert found.samples == 45
    np.testing.assert_allclose(found.matrix[0], 2 / 45 * vectors.T @ vectors, rtol=1e-6, atol=1e-6)


def test_a_large_batch_is_cut_into_parts(monkeypatch):
    window, x = window_of(*CONVOLUTIONS["grouped"]), normal(7, 4, 9, 8)
    whole = added(InputHessian(window), x)
    monkeypatch.setattr("attar._src.model.statistics.VECTOR_ELEMENTS", 2 * 9 * 4 * 9 * 8)
    parts = []
    vectors = Window.vectors
    monkeypatch.setattr(
        Window, "vectors", lambda self, part, **given: parts.append(len(part)) or vectors(self, part, **given)
    )
    cut = added(InputHessian(window), x)
    assert parts == [2, 2, 2, 1]
    assert cut.samples == whole.samples
    np.testing.assert_allclose(cut.matrix, whole.matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", list(CONVOLUTIONS))
def test_of_many_positions_some_are_drawn_that_tell_the_same(kind, monkeypatch):
    """Guards against drawn positions that are of one part of an image, or of one parity, as after an upsampling."""
    window = window_of(*CONVOLUTIONS[kind])
    axes = len(window.kernel)
    x = normal(12, window.channels, *(40,) * axes)
    x[..., ::2] *= 3
    x *= np.linspace(0.5, 1.5, 40, dtype=np.float32)
    monkeypatch.setattr("attar._src.model.statistics.DRAWN", 10**9)
    whole = added(InputHessian(window), x)
    monkeypatch.setattr("attar._src.model.statistics.DRAWN", 6)
    drawn, again = (added(InputHessian(window), *(x,) * 16) for _ in range(2))
    assert drawn.samples == 16 * 6 * window.length < 16 * whole.samples
    assert np.array_equal(drawn.matrix, again.matrix)
    scale = np.sqrt(np.einsum("gi,gj->gij", *(np.diagonal(whole.matrix, axis1=1, axis2=2),) * 2))
    assert (np.abs(drawn.matrix - whole.matrix) / scale).max() < 0.25


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out_and_counted(value):
    one, batch = normal(5, 3), normal(5, 3, seed=1)
    batch[1, 2] = batch[4, 0] = value
    finite, whole = batch[np.isfinite(batch)], np.concatenate([one, batch[[0, 2, 3]]])
    extremes = added(Range(), one, batch)
    assert (extremes.low, extremes.high) == (min(one.min(), finite.min()), max(one.max(), finite.max()))
    spread = added(Histogram(extremes), one, batch)
    assert spread.counts.sum() == 28
    mean, hessian = added(ChannelMean(-1, 3), one, batch), added(InputHessian(Window(1, 3)), one, batch)
    np.testing.assert_allclose(mean.mean, whole.astype(np.float64).mean(0))
    np.testing.assert_allclose(hessian.matrix, added(InputHessian(Window(1, 3)), whole).matrix, rtol=1e-5)
    assert [(each.left_out, each.elements) for each in (extremes, spread, mean, hessian)] == [
        (2, 30),
        (2, 30),
        (6, 30),
        (6, 30),
    ]


def test_zeros_are_counted():
    assert added(Histogram(Range(-1, 2)), np.array([0, -1, 0, 2, -0.0], np.float32)).zeros == 3


def test_squares_that_overflow_are_refused():
    with pytest.raises(ModelError, match="squares overflow"):
        added(InputHessian(Window(1, 2)), np.full((1, 2), 1e25, np.float32))


@pytest.mark.parametrize("make", [Range, lambda: ChannelMean(-1, 3), lambda: InputHessian(Window(1, 3))])
def test_a_batch_without_examples_changes_nothing(make):
    one, other = added(make(), normal(4, 3)), added(make(), normal(4, 3), normal(0, 3))
    assert {k: np.asarray(v).tolist() for k, v in vars(one).items() if k != "window"} == {
        k: np.asarray(v).tolist() for k, v in vars(other).items() if k != "window"
    }
