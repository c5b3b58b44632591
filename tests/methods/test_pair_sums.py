"""Weights of which every two neighbours fit 16 bits: the least error, rounded once, the same codes everywhere."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import attar
from attar._src.core.scheme import PerChannel, PerTensor, Scheme
from attar._src.core.tensors import Quantized, round_to_grid
from attar._src.methods.quantize.pair_sums import fit_pairs
from attar._src.runtime.accumulator import largest_pairs, neighbours
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session


def weight_of(codes, axis=0, single=False, dtype="f32"):
    codes = np.asarray(codes, np.int8)
    count, granularity = (1, PerTensor()) if single else (codes.shape[axis], PerChannel(axis=axis))
    return Quantized(codes, np.full(count, 0.5, np.float32), Scheme(bits=8, granularity=granularity), scale_dtype=dtype)


def peaks(tensor, axis=0, groups=1):
    return largest_pairs(neighbours(tensor.codes, axis, groups))


def test_safe_weights_stay_the_same_object():
    for codes in ([[64, 64, 127]], [[127, -127, 0, 127]], [[1, 127, 3]], [[-64, -64]]):
        safe = weight_of(codes)
        assert fit_pairs(safe, 0, 128) == (safe, 0)


def test_one_large_pair_is_cut_where_that_moves_least():
    others = [*range(1, 31)] * 4
    fitted, count = fit_pairs(weight_of([[66, 64, *others], [-66, -64, *others]]), 0, 128)
    assert count == 2
    np.testing.assert_array_equal(fitted.codes, [[65, 63, *others], [-65, -63, *others]])
    np.testing.assert_array_equal(fitted.scale, [0.5, 0.5])


def test_many_large_pairs_widen_the_step():
    fitted, _ = fit_pairs(weight_of([[100, 60] * 40 + [8, -8]]), 0, 128)
    np.testing.assert_array_equal(fitted.scale, np.float32([0.5 * 160 / 128]))
    np.testing.assert_array_equal(fitted.codes, [[80, 48] * 40 + [6, -6]])


def _error(codes, values, step):
    """The squared error of codes at a step, the sum over the pairs."""
    return float(((np.asarray(values, np.float64) - step * np.asarray(codes, np.float64)) ** 2).sum())


def halved(codes, n):
    """Codes (channels, weights) rounded again for a step n / 128 times as wide, pairs above 128 cut on both sides."""
    at = np.rint(codes * 128.0 / n)
    pairs = neighbours(np.atleast_2d(at), 0)
    over = np.maximum(np.abs(pairs.sum(-1)) - 128, 0) * (pairs.prod(-1) > 0)
    pairs = pairs - np.sign(pairs) * np.stack([np.ceil(over / 2), np.floor(over / 2)], -1)
    return pairs.reshape(len(pairs), -1)[:, : codes.shape[-1]]


def twice_rounded(codes, values):
    """The least error of a channel, in steps, if its codes are rounded again instead of its values."""
    largest = largest_pairs(neighbours(codes, 0)).max()
    return min(_error(halved(codes, n), values, n / 128) for n in range(128, max(int(largest), 128) + 1))


@given(
    arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=st.integers(-127, 127)), st.booleans()
)
def test_no_step_is_better(codes, single):
    weight = weight_of(codes, single=single)
    fitted, _ = fit_pairs(weight, 0, 128)
    assert (peaks(fitted) <= 128).all()
    for row in [slice(None)] if single else range(len(codes)):
        step = np.rint(float(fitted.scale[0 if single else row]) / 0.5 * 128) / 128
        reached = _error(fitted.codes[row], codes[row], step)
        assert reached <= twice_rounded(np.atleast_2d(codes[row]), np.atleast_2d(codes[row])) + 1e-3


@given(arrays(np.float32, 4, elements=st.floats(-1, 1, width=32)), st.booleans())
def test_codes_are_the_nearest_that_fit(values, odd):
    values = np.append(values, np.float32([1, 0.9]))[: 5 if odd else 6]
    fitted, _ = fit_pairs(rounded(values[None]), 0, 128, 1, values[None])
    (codes,), step = fitted.codes.astype(int), float(fitted.scale[0])
    one, other = np.meshgrid(np.arange(-127, 128), np.arange(-127, 128))
    fits = (one * other <= 0) | (np.abs(one + other) <= 128)
    for place in range(0, len(values), 2):
        wanted, found = np.append(values, 0)[place : place + 2], np.append(codes, 0)[place : place + 2]
        errors = (one[fits] * step - wanted[0]) ** 2 + (other[fits] * step - wanted[1]) ** 2
        assert ((found * step - wanted) ** 2).sum() <= errors.min() + 1e-6


def rounded(values):
    """Weights (channels, weights) rounded to 8 bits, scales that span each channel."""
    scale = (np.abs(values).max(1) / 127).astype(np.float32)
    return round_to_grid(values, scale, None, Scheme(bits=8, granularity=PerChannel()))


DRAWN = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "student": lambda rng, shape: rng.standard_t(4, shape),
    "few": lambda rng, shape: rng.integers(-9, 10, shape),
}


@pytest.mark.parametrize(("drawn", "size"), [*itertools.product(DRAWN, (16, 75, 576))])
def test_rounding_once_is_never_worse(drawn, size, rng):
    values = DRAWN[drawn](rng, (64, size)).astype(np.float32)
    weight = rounded(values)
    fitted, count = fit_pairs(weight, 0, 128, 1, values)
    assert count > 20
    assert (peaks(fitted) <= 128).all()
    for row in np.flatnonzero(peaks(weight) > 128):
        before = twice_rounded(weight.codes[row : row + 1], values[row] / weight.scale[row]) * weight.scale[row] ** 2
        assert _error(fitted.codes[row], values[row], fitted.scale[row]) <= 1.001 * before
    for row in np.flatnonzero(peaks(weight) <= 128):
        np.testing.assert_array_equal(fitted.codes[row], weight.codes[row])
        assert fitted.scale[row] == weight.scale[row]


def test_normal_weights_lose_two_and_a_half_decibels_at_most(rng):
    values = rng.standard_normal((256, 576)).astype(np.float32)
    weight = rounded(values)
    fitted, _ = fit_pairs(weight, 0, 128, 1, values)
    before, after = (np.square(each.dense() - values).sum() for each in (weight, fitted))
    assert after < 10**0.25 * before


def test_values_on_the_grid_keep_their_codes():
    others = [*range(1, 31)] * 4
    weight = weight_of([[66, 64, *others], [-66, -64, *others]])
    fitted, _ = fit_pairs(weight, 0, 128, 1, weight.dense())
    np.testing.assert_array_equal(fitted.codes, [[65, 63, *others], [-65, -63, *others]])


def test_codes_of_feedback_are_rounded_once_and_codes_of_levels_stay_levels(rng):
    """Guards against a second error upon that of a solver with feedback, and against ternary weights of many levels."""
    values = rng.standard_normal((32, 64)).astype(np.float32)
    nearest = rounded(values)
    # As gptq leaves them: some codes are a step from the nearest.
    codes = np.clip(nearest.codes + rng.integers(-1, 2, nearest.codes.shape), -127, 127).astype(np.int8)
    chosen = Quantized(codes, nearest.scale, nearest.scheme)
    fitted, count = fit_pairs(chosen, 0, 128, 1, values)
    both = (peaks(chosen) > 128) & (peaks(nearest) > 128)
    assert count >= both.sum() > 10
    np.testing.assert_array_equal(fitted.codes[both], fit_pairs(nearest, 0, 128, 1, values)[0].codes[both])
    ternary = Quantized((127 * rng.integers(-1, 2, codes.shape)).astype(np.int8), nearest.scale, nearest.scheme)
    fitted, _ = fit_pairs(ternary, 0, 128, 1, values)
    assert all(np.unique(np.abs(row)).size <= 2 for row in fitted.codes)


def test_weights_that_a_solver_clipped_are_still_clipped_or_nearer(rng):
    values = rng.standard_normal((8, 64)).astype(np.float32)
    scale = (np.abs(values).max(1) / 190).astype(np.float32)
    weight = round_to_grid(values, scale, None, Scheme(bits=8, granularity=PerChannel()))
    fitted, _ = fit_pairs(weight, 0, 128, 1, values)
    assert (peaks(fitted) <= 128).all()
    before, after = (np.square(each.dense() - values).sum() for each in (fit_pairs(weight, 0, 128)[0], fitted))
    assert after < before


def test_equal_weights_become_equal_codes_on_every_machine():
    rng = np.random.default_rng(0)
    values = (rng.integers(-999, 1000, (6, 96, 72)).sum(0) / 1024).astype(np.float32)
    weight = rounded(values)
    fitted, _ = fit_pairs(weight, 0, 128, 1, values)
    digest = hashlib.sha256(fitted.codes.tobytes() + fitted.scale.tobytes()).hexdigest()
    assert digest.startswith("5d204200cb66")
    turned = Quantized(np.asfortranarray(weight.codes), weight.scale, weight.scheme)
    again, _ = fit_pairs(turned, 0, 128, 1, np.asfortranarray(values))
    np.testing.assert_array_equal(again.codes, fitted.codes)
    np.testing.assert_array_equal(again.scale, fitted.scale)


def test_pairs_of_a_convolution_are_neighbouring_channels(rng):
    codes = rng.integers(-127, 128, (16, 8, 3, 3))
    codes[0] = 0
    codes[0, 2:4, 1, 1] = 127
    codes[1] = 0
    codes[1, 1:3, 1, 1] = 127  # channels 1 and 2 belong to two pairs
    codes[1, 2, 1, 2] = 127
    fitted, count = fit_pairs(weight_of(codes), 0, 128)
    assert count == 15
    assert (peaks(fitted) <= 128).all()
    np.testing.assert_array_equal(fitted.codes[1], codes[1])
    assert fitted.codes[0, 2:4, 1, 1].tolist() == [64, 64]


def test_axes_groups_and_half_scales(rng):
    codes = rng.integers(-127, 128, (9, 5))
    along, _ = fit_pairs(weight_of(codes, axis=1), 1, 128)
    across, _ = fit_pairs(weight_of(codes.T), 0, 128)
    np.testing.assert_array_equal(along.codes, across.codes.T)
    depthwise = weight_of(np.full((6, 1, 3, 3), 127))
    assert fit_pairs(depthwise, 0, 128, 6) == (depthwise, 0)
    assert fit_pairs(depthwise, 0, 128, 3)[1] == 6
    for dtype in ("f16", "bf16"):
        half, _ = fit_pairs(weight_of(rng.integers(-127, 128, (40, 300)), dtype=dtype), 0, 128)
        assert half.scale_dtype == dtype  # Quantized refuses scales that the type cannot hold
        assert half.scale.max() > 0.5


def test_inputs_of_fewer_codes_need_no_wider_step():
    full = weight_of([[127, 127]])
    assert fit_pairs(full, 0, 254) == (full, 0)


class _Net(nn.Module):
    def __init__(self, channels=16, groups=1):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, groups=groups)
        self.head = nn.Linear(2 * channels, 10)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("channels", "groups", "granularity"), [(16, 1, "channel"), (6, 2, "tensor"), (5, 5, "channel")]
)
def test_files_of_8_bits_need_no_slow_kernels(tmp_path, channels, groups, granularity):
    torch.manual_seed(2)
    data = torch.rand(64, 3, 8, 8)
    made = attar.quantize(_Net(channels, groups).eval(), data, bits=8, activations=8, granularity=granularity)
    report = made.save(tmp_path / "net.attar")
    session = Session(tmp_path / "net.attar")
    assert session.integer_layers() == ("first", "second", "head")
    assert not lower(session.artifact).saturating
    assert "exact on every processor" in report["notes"]["exact sums"]
    # Bits that never need it leave no note and keep their steps.
    fewer = attar.quantize(_Net(channels, groups).eval(), data, bits=7, activations=8, granularity=granularity)
    assert "exact sums" not in fewer.save(tmp_path / "fewer.attar")["notes"]


@pytest.mark.parametrize("activations", [8, "dynamic"])
def test_files_have_weights_that_were_rounded_once_and_means_that_stay(activations):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(576, 64), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        net[0].weight.normal_()
    data = torch.rand(64, 576) + 1
    made = attar.quantize(net, data, bits=8, activations=activations)
    weight, bias = (made.compressed.stored()[f"0.{name}"].dense() for name in ("weight", "bias"))
    off = weight - net[0].weight.detach().numpy()
    assert np.linalg.norm(off) < 0.01 * np.linalg.norm(weight)
    mean = off @ data.mean(0).numpy() + bias - net[0].bias.detach().numpy()
    assert np.abs(mean).max() < 0.1 * np.abs(off @ data.mean(0).numpy()).max()


def test_products_that_stay_real_keep_their_weights(tmp_path):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    report = attar.quantize(net, torch.rand(64, 32), bits=8).save(tmp_path / "net.attar")
    assert "exact sums" not in report["notes"]
