"""A channel, a layer or a value of zeros costs nothing: every layer runs in integers, and learned steps can grow.

Reported as coremltools #2853 (a pruned output channel).
"""

import numpy as np
import pytest
import torch
from tests.cases.models import decibels, quantized
from torch import nn

from attar._src.core.scheme import Scheme
from attar._src.methods.quantize.lsq.weight import LsqWeight
from attar._src.methods.quantize.ptq.registry import SOLVERS
from attar._src.methods.quantize.qat.weight_grid import WeightGrid


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()


def images():
    torch.manual_seed(1)
    return torch.rand(64, 3, 8, 8)


def check(net, x, folder, least, **options):
    file = quantized(net, x, folder, **options)
    assert file.reasons == {}
    assert decibels(net(x), file.session.run(x.numpy())) > least
    return file


@pytest.mark.parametrize("bits", [8, 4])
def test_a_filter_of_zeros(tmp_path, bits):
    net = convolutions()
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight[:2], layer.bias[:2] = 0, 0
    file = check(net, images(), tmp_path, 35 if bits == 8 else 10, bits=bits)
    tensor = file.quantized.compressed.tensors["0.weight"]
    assert not tensor.codes[:2].any()
    assert (tensor.scale[:2] == tensor.scale[2:].max()).all()


def test_a_layer_of_zeros_with_a_bias(tmp_path):
    # The last layer of a residual branch or of a head is often initialised so.
    net = convolutions()
    nn.init.zeros_(net[6].weight)
    check(net, images(), tmp_path, 60)


def test_a_residual_branch_whose_batch_norm_is_zero(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
            self.head = nn.Linear(3, 2)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x):
            return self.head(torch.relu(x + self.norm(self.first(x))).mean((2, 3)))

    check(Block().eval(), images(), tmp_path, 35)


@pytest.mark.parametrize("bias", [-100.0, 100.0])
def test_a_constant_value(tmp_path, bias):
    # Behind the ReLU, -100 leaves zeros only; 100 leaves values that hardly differ.
    net = convolutions()
    with torch.no_grad():
        net[2].weight.mul_(1e-6)
        net[2].bias.fill_(bias)
    check(net, images(), tmp_path, 35)


def test_a_value_that_is_never_positive(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LogSigmoid(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 4)).eval()
    check(net, images(), tmp_path, 35)


def test_an_embedding_with_rows_of_zeros(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 16, padding_idx=0), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    ids = torch.randint(0, 20, (64, 5))
    ids[7] = 0
    file = quantized(net, ids, tmp_path)
    assert set(file.reasons) <= {"0"}
    assert decibels(net(ids), file.session.run(ids.numpy())) > 35


@pytest.mark.parametrize("name", ["absmax", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_of_zeros_are_usual_ones(name, symmetric):
    weight = np.ones((3, 4), np.float32)
    weight[1] = 0
    scheme = Scheme(bits=4, symmetric=symmetric)
    some = SOLVERS[name].solve(weight, scheme)
    assert some.scale[1] == some.scale[0]
    none = SOLVERS[name].solve(np.zeros((3, 4), np.float32), scheme)
    assert none.scale == pytest.approx([1 / scheme.qmax] * 3, rel=2**-6)  # scales have few digits
    assert not none.dense().any()


@pytest.mark.parametrize("solver", [None, "absmax", "lsq"])
def test_a_weight_of_zeros_can_grow(solver):
    weight, scheme = torch.zeros(2, 8, requires_grad=True), Scheme(bits=4)
    made = None if solver is None else SOLVERS["absmax"]
    grid = LsqWeight(weight, scheme) if solver == "lsq" else WeightGrid(weight, scheme, made)
    goal = torch.linspace(-1, 1, 16).reshape(2, 8)
    optimizer = torch.optim.SGD([weight, *grid.parameters()], lr=0.05)
    for _ in range(200):
        loss = (grid(weight) - goal).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2
