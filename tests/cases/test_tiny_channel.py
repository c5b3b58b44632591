"""A faint channel beside an ordinary bias runs in integers: its scale grows until the bias fits 32 bits.

VGG16-BN and every network whose channels died in training has such batch-norm factors.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases.models import decibels, quantized
from torch import nn

from attar._src.core.scheme import PerTensor, Scheme
from attar._src.core.tensors import Dense, round_to_grid
from attar._src.methods.quantize.integer_layers import _fit_scales, _Use

INT32 = 2**31 - 1


def network(gamma, beta=1.5):
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)),
    ).eval()
    with torch.no_grad():
        net[4].weight[3] = gamma
        net[4].bias.fill_(beta)
    return net, torch.randn(64, 3, 8, 8)


@pytest.mark.parametrize("gamma", [1.0, 1e-4, 1e-5, 1e-6, 1e-7, 1e-20, 1e-37, 1e-42, -1e-6])
def test_every_factor_of_a_batch_norm(tmp_path, gamma):
    net, x = network(gamma)
    file = quantized(net, x, tmp_path)
    assert file.reasons == {}
    assert decibels(net(x), file.session.run(x.numpy())) > 38


def test_a_bias_far_from_all_products(tmp_path):
    net, x = network(1.0, beta=3e6)
    file = quantized(net, x, tmp_path)
    assert file.reasons == {}
    assert decibels(net(x), file.session.run(x.numpy())) > 38


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_a_faint_linear_layer(tmp_path, granularity):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        net[2].weight.mul_(1e-9)
    x = torch.randn(64, 16)
    file = quantized(net, x, tmp_path, granularity=granularity)
    assert file.reasons == {}
    assert decibels(net(x), file.session.run(x.numpy())) > 60


def test_other_channels_keep_scale_and_codes(tmp_path):
    tensors = []
    for gamma in (1.0, 1e-7):
        net, x = network(gamma)
        tensors.append(quantized(net, x, tmp_path, correct_bias=False).quantized.compressed.tensors["3.weight"])
    one, other = tensors
    others = [0, 1, 2, 4, 5, 6, 7]
    assert np.array_equal(one.codes[others], other.codes[others])
    assert np.array_equal(one.scale[others], other.scale[others])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-30, 8), min_size=1, max_size=5),
    st.lists(st.floats(-20, 20), min_size=5, max_size=5),
    st.floats(-8, 4),
    st.booleans(),
)
def test_all_sums_fit_and_none_moves_by_more_than_the_bound(weights, biases, data, single):
    codes = np.linspace(-1, 1, 7)
    weight = (10.0 ** np.array(weights)[:, None] * codes).astype(np.float32)
    bias = (10.0 ** np.array(biases[: len(weights)])).astype(np.float32)
    scheme = Scheme(bits=8, granularity=PerTensor()) if single else Scheme(bits=8)
    scale = np.abs(weight).max(None if single else 1, keepdims=True).reshape(-1) / 127
    tensor, use = round_to_grid(weight, scale.astype(np.float32), None, scheme), _Use("w", 0, "b", 10.0**data, 255)
    fitted = _fit_scales(tensor, [use], {"w": tensor, "b": Dense(bias)})
    step = fitted.scale.astype(np.float64) * use.scale
    sums = np.abs(fitted.codes.astype(np.int64)).sum(1) * 255 + np.abs(bias.astype(np.float64)) / step
    assert (sums <= INT32).all()
    moved = np.abs(fitted.dense().astype(np.float64) - tensor.dense()).max(1) * 255 * use.scale
    largest = bias.max() if single else bias
    assert (moved <= largest * 2.0**-21).all()
