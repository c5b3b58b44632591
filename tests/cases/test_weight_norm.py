"""Parametrized weights are stored as the one tensor that they are: as small as without the parametrization."""

import warnings

import numpy as np
import pytest
import torch
from tests.cases.models import decibels
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import attar
from attar._src.core.errors import ModelError
from attar._src.core.tensors import Quantized
from attar._src.methods.quantize.lsq.rule import Lsq
from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph
from attar._src.work.learner import Learner


class Positive(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, x):
        return nn.functional.softplus(x)


def registered(layer):
    """The layer with the user's own parametrization."""
    parametrize.register_parametrization(layer, "weight", Positive())
    return layer


def older(function):
    """A deprecated function of ``torch.nn.utils``."""

    def call(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(layer)

    return call


MAKE = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm, older": older(nn.utils.weight_norm),
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm, older": older(nn.utils.spectral_norm),
    "orthogonal": parametrizations.orthogonal,
    "one's own": registered,
}
REMOVE = {
    "weight_norm, older": nn.utils.remove_weight_norm,
    "spectral_norm, older": nn.utils.remove_spectral_norm,
}


#: Two kinds a network, as each network takes a second to export; the first lies before a batch-norm.
PAIRS = [
    ("weight_norm", "spectral_norm, older"),
    ("spectral_norm", "one's own"),
    ("orthogonal", "weight_norm, older"),
]


def network(kinds):
    """A small network whose convolutions are parametrized, one before a batch-norm."""
    torch.manual_seed(0)
    first, second = (MAKE[kind] for kind in kinds)
    middle, pool = (nn.BatchNorm1d(12), nn.ReLU()), (nn.AdaptiveAvgPool1d(1), nn.Flatten())
    net = nn.Sequential(first(nn.Conv1d(4, 12, 3)), *middle, second(nn.Conv1d(12, 12, 3)), *pool, nn.Linear(12, 5))
    with torch.no_grad():
        net(torch.randn(8, 4, 16))
    return net.eval()


def plain(kinds):
    """The same network without its parametrizations."""
    net = network(kinds)
    for kind, layer in zip(kinds, (net[0], net[3]), strict=True):
        if kind in REMOVE:
            REMOVE[kind](layer)
        else:
            parametrize.remove_parametrizations(layer, "weight")
    return net.eval()


@pytest.mark.parametrize("kinds", PAIRS)
def test_a_parametrized_network_makes_the_file_of_the_plain_one(tmp_path, kinds):
    x, net = torch.randn(32, 4, 16), network(kinds)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    one = attar.quantize(net, x, bits=4, activations=8).save(tmp_path / "one.attar")
    other = attar.quantize(plain(kinds), x, bits=4, activations=8).save(tmp_path / "other.attar")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert one["left_in_floating_point"] == other["left_in_floating_point"] == {}
    assert one["batch_norms_folded"] == other["batch_norms_folded"] == {"1": "0"}
    one, other = (attar.Session(tmp_path / f"{name}.attar") for name in ("one", "other"))
    assert set(one.artifact.names) == set(other.artifact.names)
    assert isinstance(one.artifact.tensor("0.weight"), Quantized)
    assert one.integer_layers() == other.integer_layers() == ("0", "3", "6")
    np.testing.assert_allclose(one.run(x.numpy()), other.run(x.numpy()), atol=0.05)


@pytest.mark.parametrize("kinds", PAIRS[:2])
def test_a_file_is_loaded_into_the_plain_network_and_refused_by_the_parametrized_one(tmp_path, kinds):
    x = torch.randn(16, 4, 16)
    attar.quantize(network(kinds), x, bits=8).save(tmp_path / "m.attar")
    into = plain(kinds)
    loaded = attar.load(tmp_path / "m.attar", into)
    wanted = torch.from_numpy(attar.Session(tmp_path / "m.attar").run(x.numpy()))
    torch.testing.assert_close(loaded(x), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(into(x), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match=r"the module computes 0\.weight from other parameters.*remove"):
        attar.load(tmp_path / "m.attar", network(kinds))


def test_what_the_module_has_no_name_for_is_in_the_loaded_graph_alone(tmp_path):
    class Exponential(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(5, 8) * 0.1)

        def forward(self, x):
            return nn.functional.linear(x, self.w.exp())

    x, net = torch.randn(8, 8), Exponential()
    attar.quantize(net, x, bits=8).save(tmp_path / "m.attar")
    into = Exponential()
    with pytest.warns(UserWarning, match="the file has the values of w_exp"):
        loaded = attar.load(tmp_path / "m.attar", into)
    wanted = torch.from_numpy(attar.Session(tmp_path / "m.attar").run(x.numpy()))
    torch.testing.assert_close(loaded(x), wanted)


@pytest.mark.parametrize("kinds", PAIRS)
def test_the_grid_of_a_rule_lies_behind_the_parametrization(kinds):
    net, x = network(kinds), torch.randn(4, 4, 16)
    captured = capture(net, (x,), train=False)
    learner = Learner(net, captured, deploy_graph(net, captured))
    learner.attach(Lsq(bits=4).attach(learner))
    assert set(learner.weights) == {"0.weight", "3.weight", "6.weight"}
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        learner.graph(train=True)(x).square().mean().backward()
        optimizer.step()
    sources = [value for name, value in net.named_parameters() if name[0] in "03" and value.dim() > 1]
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in sources)
    compressed = learner.deployed()
    with torch.no_grad():
        trained, deployed = learner.graph(train=False)(x), compressed.simulate()(x)
    torch.testing.assert_close(deployed, trained, atol=1e-4, rtol=1e-4)
    assert all(isinstance(compressed.tensors[f"{layer}.weight"], Quantized) for layer in (0, 3, 6))


class Twice(nn.Module):
    """Shared layers of every kind, whose weights are computed at each of their uses."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c = nn.ModuleList(make(nn.Conv1d(8, 8, 3, padding=1)) for make in MAKE.values())

    def forward(self, x):
        return {kind: layer(torch.relu(layer(x))) for kind, layer in zip(MAKE, self.c, strict=True)}


def test_the_weight_of_a_shared_layer_is_stored_once(tmp_path):
    net, x = Twice().eval(), torch.randn(64, 8, 10)
    attar.quantize(net, x, bits=8).save(tmp_path / "m.attar")
    names = set(attar.open_artifact(tmp_path / "m.attar").names)
    weights = {f"c.{index}.weight" for index in range(len(MAKE))}
    assert weights <= names <= weights | {f"c.{i}.{bias}" for i in range(len(MAKE)) for bias in ("bias", "bias_use2")}
    wanted, found = net(x), attar.Session(tmp_path / "m.attar").run({"x": x.numpy()})
    assert {kind: ratio for kind in MAKE if (ratio := decibels(wanted[kind], found[kind])) <= 35} == {}
