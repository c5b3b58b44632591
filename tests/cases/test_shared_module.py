"""A module used twice runs in integers: each use has a bias in steps of its own input."""

import numpy as np
import pytest
import torch
from tests.cases.models import decibels, quantized, run
from torch import nn

import attar
from attar._src.artifact.writer import pack
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.quantize.qat.straight_through import StraightThrough
from attar._src.model.capture import capture
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context
from attar._src.work.learner import Learner


class Siamese(nn.Module):
    """One tower for two inputs."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 16))

    def forward(self, a, b):
        return torch.cosine_similarity(self.tower(a), self.tower(b))


class Heads(nn.Module):
    """One head on feature maps of two scales, as detectors have it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        fine = torch.relu(self.first(x))
        coarse = torch.relu(self.second(fine)) * 3
        return self.head(fine).mean((2, 3)), self.head(coarse).mean((2, 3))


class Repeated(nn.Module):
    """One layer three times in a row."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        for _ in range(3):
            x = torch.relu(self.layer(x))
        return self.head(x)


def inputs(net):
    torch.manual_seed(1)
    if isinstance(net, Siamese):
        # Inputs of different range need steps of different size.
        return torch.rand(64, 1, 8, 8), 4 * torch.rand(64, 1, 8, 8) - 2
    return (torch.rand(64, 3, 8, 8),) if isinstance(net, Heads) else (torch.randn(64, 16),)


@pytest.mark.parametrize(("make", "layers"), [(Siamese, 4), (Heads, 4), (Repeated, 4)])
def test_every_use_runs_in_integers(tmp_path, make, layers):
    torch.manual_seed(0)
    net = make().eval()
    x = inputs(net)
    file = quantized(net, x, tmp_path)
    assert file.reasons == {}
    assert sum(len(layer.nodes) for layer in file.session.layers) == layers
    assert set(file.session.integer_layers()) == {layer.name for layer in file.session.layers}
    wanted = net(*x)
    for one, other in zip(wanted if isinstance(wanted, tuple) else [wanted], run(file.session, *x), strict=True):
        assert decibels(one, other) > 35


def test_each_bias_is_whole_in_its_own_steps(tmp_path):
    torch.manual_seed(0)
    net = Siamese().eval()
    model = quantized(net, inputs(net), tmp_path).quantized.compressed
    weight, grids = model.tensors["tower.0.weight"], model.main.activations
    for name, value in (("tower.0.bias", "a"), ("tower.0.bias_use2", "b")):
        steps = model.tensors[name].dense().astype(np.float64) / (weight.scale * np.float64(grids[value].scale))
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert grids["a"].scale != grids["b"].scale


def test_it_loads_back_and_the_module_keeps_one_bias(tmp_path):
    torch.manual_seed(0)
    net = Siamese().eval()
    x = inputs(net)
    file = quantized(net, x, tmp_path)
    again = Siamese()
    loaded = attar.load(tmp_path / "m.attar", again)
    assert decibels(run(file.session, *x)[0], loaded(*x)) > 40
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in net.named_parameters()]
    assert file.report["parameters"] == sum(each.numel() for each in net.parameters())


class Recogniser(nn.Module):
    """Two methods that share a layer, as the prefill and the step of a decoder do."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def whole(self, x):
        return self.head(torch.relu(self.body(x)).mean(1))

    def step(self, x):
        return self.head(torch.relu(self.body(x)))


def test_two_graphs_that_share_a_layer(tmp_path):
    torch.manual_seed(0)
    net = Recogniser().eval()
    x = {"whole": torch.randn(64, 5, 16), "step": 3 * torch.randn(64, 16)}
    entries = {name: EntryPoint((each[:2],), method=name) for name, each in x.items()}
    inputs = {name: CalibrationInputs((each,)) for name, each in ((name, (each,)) for name, each in x.items())}
    model = CompressedModel.of(trace_methods(net, entries))
    model = PostTrainingQuantize(bits=8, activations=8).run(model, Context(inputs))
    packed = pack(model.contents(FileInfo()), coder="raw")
    # The weights are stored once, each graph has biases of its own.
    assert {name for name in model.stored() if "weight" in name} == {"body.weight", "head.weight"}
    for name, each in x.items():
        session = Session(packed, graph=name)
        # In three axes the first layer is a product and a sum, which takes any bias.
        assert all(layer.integer for layer in session.layers)
        (got,) = run(session, each)
        assert decibels(getattr(net, name)(each), got) > 35
        exact = model.simulate(torch.float64, graph=name)(each.double())
        assert decibels(exact, got) > 60


@pytest.mark.parametrize("rule", [StraightThrough(bits=8, activations=8), Lsq(bits=8, activations=8)])
def test_so_it_does_after_training(rule):
    torch.manual_seed(0)
    net = Siamese()
    x = inputs(net)
    captured = capture(net, tuple(each[:2] for each in x))
    learner = Learner(net, captured, deploy_graph(net, captured))
    learner.attach(rule.attach(learner))
    graph = learner.graph(train=True)
    with torch.no_grad():
        graph(*x)
    for grid in learner.constraints[0].parametrizations:
        if hasattr(grid, "advance"):
            grid.advance()
    model = learner.deployed()
    session = Session(pack(model.contents(FileInfo()), coder="raw"))
    assert [layer.reason for layer in session.layers] == [""] * 2
    assert sum(len(layer.nodes) for layer in session.layers) == 4
    assert all(layer.integer for layer in session.layers)
    (got,) = run(session, *x)
    exact = model.simulate(torch.float64)(*(each.double() for each in x))
    assert decibels(exact, got) > 60
