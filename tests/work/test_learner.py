import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.artifact.manifest import Activation
from attar._src.artifact.writer import pack
from attar._src.core.errors import UnknownName
from attar._src.core.scheme import PerBucket, PerTensor, Scheme
from attar._src.core.tensors import Quantized, round_to_grid
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import FileInfo
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization

X = (torch.randn(2, 1, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.lstm = nn.LSTM(48, 8, batch_first=True)
        self.head = nn.Linear(8, 3)
        nn.init.uniform_(self.norm.weight, -2, 2)
        nn.init.uniform_(self.norm.running_mean, -1, 1)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x))).transpose(1, 2).flatten(2)
        x, _ = self.lstm(x)
        return self.head(x[:, -1])


class Grid(Parametrization):
    """Weights on a fixed grid."""

    def __init__(self, granularity=None):
        super().__init__()
        self.scheme = Scheme(bits=4, granularity=granularity or PerTensor())

    def to_compressed(self, value):
        scale = np.full(self.scheme.granularity.count(tuple(value.shape)), 0.125, np.float32)
        return round_to_grid(value.numpy(), scale, None, self.scheme)

    def forward(self, x):
        return torch.from_numpy(self.to_compressed(x.detach()).dense())


class Half(Parametrization):
    def forward(self, x):
        return x / 2


class Rounded(Parametrization):
    def forward(self, x):
        return torch.clamp(torch.round(x / 0.1), 0, 255) * 0.1

    def grid(self, value):
        return Activation(value=value, bits=8, scale=0.1, zero_point=0)


class Grids(Constraint):
    order = 1


class Masks(Constraint):
    order = 0

    def finalize(self, weights):
        for name in self.weights:
            value = weights.value(name)
            value[value.abs() < 0.1] = 0


@pytest.fixture
def learner():
    torch.manual_seed(0)
    net = Net().eval()
    captured = capture(net, X)
    return Learner(net, captured, deploy_graph(net, captured))


def test_weights_are_selected_by_layer_and_by_name(learner):
    assert learner.select(["conv", "lstm.*"]) == ["conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert learner.select(["*"]) == list(learner.weights)
    with pytest.raises(UnknownName, match="did you mean 'conv'"):
        learner.select(["cnov"])


def test_masks_act_before_grids_whatever_was_attached_first(learner):
    learner.attach(Grids({"head.weight": Grid()}))
    learner.attach(Masks({"head.weight": Half()}))
    with torch.no_grad():
        learner.tensor("head.weight").fill_(0.5)
        graph = learner.graph(train=False)
        x = torch.randn(3, 1, 8, 8)
        before, _ = learner.module.lstm(F.relu(learner.module.norm(learner.module.conv(x))).transpose(1, 2).flatten(2))
        expected = F.linear(before[:, -1], torch.full((3, 8), 0.25), learner.module.head.bias)
    torch.testing.assert_close(graph(x), expected)
    assert (learner.compressed_weights()["head.weight"].dense() == 0.25).all()


def test_a_later_constraint_of_a_class_takes_over_where_both_act(learner):
    first, second = Grids({"conv.weight": Grid(), "head.weight": Grid()}), Grids({"head.weight": Grid()})
    learner.attach(first)
    learner.attach(second)
    assert list(first.weights) == ["conv.weight"]
    assert learner.parametrizations("head.weight") == [second.weights["head.weight"]]
    learner.attach(Grids({"conv.weight": Grid()}))
    assert first not in learner.constraints


def test_what_is_deployed_is_what_was_trained_with_batch_norms_folded(learner):
    learner.attach(Grids({name: Grid() for name in learner.weights}))
    piece = learner.deployed()
    assert piece.main.traced.folding.folded == {"norm": "conv"}
    conv = piece.tensors["conv.weight"]
    assert isinstance(conv, Quantized)
    assert conv.scheme.granularity.count(conv.shape) == 6
    session = Session(pack(piece.contents(FileInfo())))
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        trained = learner.graph(train=False)(x).numpy()
    np.testing.assert_allclose(session.run(x.numpy()), trained, atol=1e-5)


def test_a_batch_norm_whose_factors_the_grid_cannot_take_stays(learner):
    learner.attach(Grids({"conv.weight": Grid(PerBucket(size=5))}))
    piece = learner.deployed()
    assert "scales of conv.weight" in piece.main.traced.folding.kept["norm"]
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(piece.simulate()(x), learner.graph(train=False)(x), atol=1e-5, rtol=1e-4)


def test_values_on_grids_are_deployed_as_activations(learner):
    quantized = ["conv.weight"]
    held = {source: Rounded() for place in learner.places(quantized) for source in place.sources}
    assert list(held) == ["x", "relu"] or set(held) == {"x", "relu"}
    learner.attach(Grids({name: Grid() for name in quantized}, held))
    piece = learner.deployed()
    assert {"x", "relu"} <= set(piece.main.activations)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(piece.simulate()(x), learner.graph(train=False)(x), atol=1e-4, rtol=1e-3)


def test_settling_changes_the_weights_themselves(learner):
    learner.attach(Masks({"conv.weight": Half()}))
    learner.finalize()
    assert (learner.module.conv.weight == 0).any()
    assert learner.module.conv.weight.requires_grad


def test_what_is_held_is_moved_and_saved_with_the_graph(learner):
    class Stepped(Grid):
        def __init__(self):
            super().__init__()
            self.step = nn.Parameter(torch.ones(()))

    learner.attach(Grids({"head.weight": Stepped()}))
    graph = learner.graph(train=True)
    names = [name for name, _ in graph.named_parameters() if name.startswith("attar_parametrization")]
    assert len(names) == 1
    assert names[0].endswith("step")
