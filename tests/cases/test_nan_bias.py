"""NaN and infinities never enter a statistic, a bias, a scale or a file: left out with a warning, or refused by name.

Reported as onnxruntime #23749 (NaN at padded tokens in calibration).
"""

import numpy as np
import pytest
import torch
from tests.cases.models import decibels, quantized
from tests.methods.toys import fresh
from torch import nn

import attar
from attar._src.core.errors import ModelError, SpecError
from attar._src.deploy.finite import check_model_finite
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph, trace
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.learner import Learner


class Attention(nn.Module):
    """One whose wholly padded examples are NaN on the way, and dropped."""

    def __init__(self, width=16):
        super().__init__()
        self.e, self.c = nn.Embedding(20, width), nn.Linear(width, 4)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, ids):
        x, pad = self.e(ids), ids == 0
        scores = (self.q(x) @ self.k(x).transpose(-2, -1) / 4).masked_fill(pad[:, None, :], float("-inf"))
        y = torch.nan_to_num(self.o(scores.softmax(-1) @ self.v(x)))
        keep = (~pad).unsqueeze(-1).float()
        return self.c((y * keep).sum(1) / keep.sum(1).clamp(min=1))


def tokens():
    torch.manual_seed(0)
    ids = torch.randint(1, 20, (64, 6))
    ids[5] = 0
    return Attention().eval(), ids


@pytest.mark.parametrize("activations", [None, 8])
def test_one_wholly_padded_example(tmp_path, activations):
    net, ids = tokens()
    with pytest.warns(UserWarning, match=r"left out NaN.*'matmul_1' \(96 of 6,144 elements\)") as said:
        file = quantized(net, ids, tmp_path, activations=activations)
    assert len(said) == 1
    assert all(np.isfinite(tensor.dense()).all() for tensor in file.quantized.compressed.stored().values())
    assert decibels(net(ids), file.session.run(ids.numpy())) > (45 if activations is None else 30)


def test_the_logarithm_of_zero(tmp_path):
    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv1d(4, 8, 3), nn.Linear(8, 2)

        def forward(self, x):
            y = torch.relu(self.first(torch.log(x)))
            return self.last(torch.nan_to_num(y, posinf=0.0).mean(2))

    torch.manual_seed(0)
    net, x = Spectrum().eval(), torch.rand(64, 4, 10) + 0.5
    x[3, :, 2] = 0
    with pytest.warns(UserWarning, match=r"left out NaN.*'log' \(4 of 2,560 elements\)"):
        file = quantized(net, x, tmp_path)
    clean = torch.cat([x[:3], x[4:]])
    assert decibels(net(clean), file.session.run(clean.numpy())) > 35


def test_nothing_finite_is_an_error():
    class Logarithm(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return torch.nan_to_num(self.head(torch.log(x)))

    with pytest.raises(ModelError, match=r"'log' was not finite.*256 of 256 elements"):
        attar.quantize(Logarithm(), torch.zeros(64, 4))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("0.weight", np.nan, r"0\.weight \(1 NaN of 36 elements\)"),
        ("0.bias", np.inf, r"0\.bias \(1 infinite of 4 elements\)"),
        ("1.running_var", np.nan, r"1\.running_var \(1 NaN of 4 elements\)"),
        ("1.weight", -np.inf, r"1\.weight \(1 infinite of 4 elements\)"),
    ],
)
def test_what_is_not_finite_in_a_module_is_named(place, value, said):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    state = net.state_dict()
    state[place].view(-1)[0] = value
    with pytest.raises(ModelError, match=f"not finite: {said}"):
        attar.quantize(net, torch.randn(8, 1, 8, 8))


def test_masks_of_infinities_stay(tmp_path):
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.v = nn.Linear(8, 8), nn.Linear(8, 8)
            self.register_buffer("mask", torch.full((5, 5), float("-inf")).triu(1))

        def forward(self, x):
            return (self.q(x) @ x.transpose(1, 2) + self.mask).softmax(-1) @ self.v(x)

    torch.manual_seed(0)
    net, x = Causal().eval(), torch.randn(64, 5, 8)
    file = quantized(net, x, tmp_path)
    assert decibels(net(x), file.session.run(x.numpy())) > 30


def test_a_training_that_diverged_is_not_packed():
    learner = fresh()
    with torch.no_grad():
        learner.tensor("second.weight")[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"not finite: second\.weight \(9 NaN"):
        check_model_finite(learner.deployed(fold=False))
    learner.attach(StraightThrough(bits=4).attach(learner))
    with pytest.raises(SpecError, match=r"weight 'second\.weight'.*9 of"):
        learner.deployed()


def test_an_infinite_bias_of_a_stage_is_not_packed():
    net = nn.Linear(4, 2)
    model = CompressedModel.of(trace(net, (torch.rand(2, 4),)))
    check_model_finite(model)
    with torch.no_grad():
        net.bias[1] = torch.inf
    with pytest.raises(ModelError, match=r"bias \(1 infinite of 2 elements\)"):
        check_model_finite(CompressedModel.of(trace(net, (torch.rand(2, 4),))))


@pytest.mark.parametrize("rule", [StraightThrough(bits=8, activations=8), Lsq(bits=8, activations=8)])
def test_ranges_in_training_leave_it_out(rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    captured = capture(net, (torch.randn(2, 2, 8, 8),))
    learner = Learner(net, captured, deploy_graph(net, captured))
    learner.attach(rule.attach(learner))
    x = torch.randn(16, 2, 8, 8)
    x[3, 0, 0, 0] = torch.inf
    graph = learner.graph(train=True)
    with torch.no_grad():
        graph(x)
    for grid in learner.constraints[0].parametrizations:
        if hasattr(grid, "advance"):
            grid.advance()
    model = learner.deployed()
    assert model.main.activations
    assert all(np.isfinite(grid.scale) for grid in model.main.activations.values())
    assert any(": 1 elements" in sentence for sentence in model.warnings)
