"""Weights computed from parameters alone: which are stored, as what, and that nothing of the module changes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from attar._src.model.capture import capture
from attar._src.model.chains.constants import constant_nodes
from attar._src.model.chains.derived import derived_value
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.trace import deploy_graph, trace


class Computes(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.rand(6, 6))
        self.table, self.compute = nn.Buffer(torch.arange(6)), compute

    def forward(self, x):
        return self.compute(self, x)


@pytest.mark.parametrize(
    ("compute", "derived"),
    [
        (lambda s, x: x @ s.a.exp(), {"a_exp": "exp"}),
        (lambda s, x: x @ (s.a * s.b).t(), {"a_mul": "mul"}),
        (lambda s, x: x @ (s.a @ s.b), {"a_matmul": "matmul"}),
        (lambda s, x: x @ (s.a.exp() + 1) + x @ (s.a.exp() * 2), {"a_add": "add", "a_mul": "mul"}),
        (lambda s, x: x @ torch.cat([s.a.exp(), s.b]).view(6, 12), {"a_exp": "exp"}),
        (lambda s, x: x @ s.a.t() + s.b[s.table[0]], {}),
        (lambda s, x: x @ (s.a[:, :1] @ s.b[:1, :]), {"a_matmul": "matmul"}),
        (lambda s, x: (x @ s.a)[:, s.table + 0], {}),
        (lambda s, x: x @ F.dropout(s.a, 0.5, training=False), {}),
        (lambda s, x: x @ (s.a * x.mean()), {}),
    ],
    ids=["exp", "mask", "product", "two", "joined", "moved", "narrow", "integers", "dropout", "of an input"],
)
def test_what_is_computed_last_is_stored(compute, derived):
    net, x = Computes(compute), torch.randn(3, 6)
    captured = capture(net, (x,), train=False)
    assert {name: node.partition("_")[0] for name, node in captured.derived.items()} == derived
    traced = deploy_graph(net, captured)
    assert set(derived) <= set(traced.names)
    torch.testing.assert_close(traced.graph(x), net(x))


def test_a_product_of_narrow_factors_stays_two_factors():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Parameter(torch.randn(20, 2)), nn.Parameter(torch.randn(2, 20))

        def forward(self, x):
            return x @ (self.down @ self.up)

    assert trace(Narrow(), (torch.randn(2, 20),)).names == ("down", "up")


def test_what_a_program_changes_in_place_or_draws_is_not_constant():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(6, 6))

        def forward(self, x):
            doubled = self.a * 2
            doubled[0] = x[0]
            return x @ doubled + torch.rand(6)

    graph = torch.export.export(Changes(), (torch.randn(3, 6),)).module().graph
    constant = {node.name for node in constant_nodes(graph)}
    assert "a" in constant
    assert not {"mul", "rand"} & constant


def test_a_tensor_is_called_as_the_module_calls_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)))

        def forward(self, x):
            return self.body(x) @ (self.body[0].weight * 2)

    derived = capture(Net(), (torch.randn(3, 6),), train=False).derived
    assert sorted(derived) == ["body.0.weight", "body.0.weight_2"]


def test_a_present_value_has_a_gradient_and_leaves_the_buffers_alone():
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 4)))
    captured = capture(net, (torch.randn(3, 6),))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    value = derived_value(captured.evaluation, captured.derived["0.weight"])
    value.sum().backward()
    assert net[0].parametrizations.weight.original.grad.abs().sum() > 0
    deploy_graph(net, captured)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_later_deployment_computes_the_tensor_again():
    net, x = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4))), torch.randn(3, 6)
    captured = capture(net, (x,))
    first = deploy_graph(net, captured)
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(2)
    second = deploy_graph(net, captured)
    assert second.model is first.model
    torch.testing.assert_close(second.graph(x), net(x))


def test_two_methods_share_a_computed_weight():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = parametrizations.weight_norm(nn.Linear(6, 6)), nn.BatchNorm1d(6)

        def encode(self, x):
            return self.norm(self.layer(x))

        def decode(self, x):
            return self.layer(x)

    net = Twice().eval()
    traced = trace_methods(net, {name: EntryPoint((torch.randn(3, 6),), name) for name in ("encode", "decode")})
    one, other = (each.state()["layer.weight"] for each in traced.values())
    assert torch.equal(one, other)
    assert traced["encode"].folding.kept == {"norm": "graph 'decode' reads layer.weight too"}
