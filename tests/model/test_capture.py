import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from attar._src.core.errors import ModelError
from attar._src.model.capture import capture
from attar._src.model.programs import wrap
from attar._src.model.sites import find_sites
from attar._src.model.trace import deploy_graph


class Net(nn.Module):
    """Everything that computes something else in training."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.lstm = nn.LSTM(32, 8, 2, batch_first=True, dropout=0.5)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.drop(F.relu(self.norm(self.conv(x))))
        x, _ = self.lstm(x.transpose(1, 2).flatten(2))
        x, _ = self.attention(x, x, x, need_weights=False)
        return self.head(x.mean(1))


X = (torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8),)


def _values(graph, inputs):
    seen = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Watch(graph).run(*inputs)
    return seen


def test_both_programs_are_the_module_in_its_two_modes():
    net = Net()
    captured = capture(net, X)
    assert not captured.left_out
    with torch.no_grad():
        torch.testing.assert_close(captured.evaluation(*X), net.eval()(*X))
        torch.manual_seed(1)
        expected = net.train()(*X)
        mean = net.norm.running_mean.clone()
        net.norm.running_mean.zero_()
        torch.manual_seed(1)
        got = captured.training(*X)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(net.norm.running_mean * 10, mean * 10, rtol=0.2, atol=0.1)
    assert not torch.equal(captured.training(*X), captured.training(*X))
    assert torch.equal(captured.evaluation(*X), captured.evaluation(*X))


def test_the_module_keeps_its_mode_and_owns_the_parameters_of_both():
    net = Net().train()
    net.drop.eval()
    captured = capture(net, X)
    assert net.training
    assert not net.drop.training
    own = {name: id(parameter) for name, parameter in net.named_parameters()}
    for graph in (captured.training, captured.evaluation):
        assert {name: id(parameter) for name, parameter in graph.named_parameters()} == own
    captured.training(*X).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_batches_of_any_size_go_through():
    captured = capture(Net(), X)
    for size in (1, 2, 5):
        assert captured.training(X[0][:1].expand(size, 1, 8, 8)).shape == (size, 3)


def test_wrap_changes_what_is_read_of_a_parameter_and_of_a_value():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    captured = capture(net, (torch.randn(2, 3),))
    graph = captured.copy(train=False)
    wrap(graph, {"0.weight": Double(), "0.bias": Double(), "relu": Double()}, "held_")
    x = torch.randn(5, 3)
    torch.testing.assert_close(graph(x), net[2](2 * net[1](2 * net[0](x))))
    torch.testing.assert_close(captured.evaluation(x), net(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_made_of_a_parameter_is_laid_out_as_the_parameter_is(layout):
    class Rows(nn.Module):
        def forward(self, x):
            return 2 * x.reshape(len(x), -1).reshape(x.shape)

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    captured = capture(net, (torch.randn(2, 3, 8, 8),))
    net.to(memory_format=layout)
    graph = captured.copy(train=True)
    wrap(graph, {name: Rows() for name in ("0.weight", "2.weight")}, "held_")
    x = torch.randn(5, 3, 8, 8)
    out = graph(x)
    assert out.is_contiguous(memory_format=layout)
    assert out.is_contiguous() == (layout is torch.contiguous_format)
    out.sum().backward()
    found = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    doubled = {name: 2 * parameter for name, parameter in net.named_parameters() if name.endswith("weight")}
    functional_call(net, doubled, (x,)).sum().backward()
    for got, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_every_value_that_is_deployed_is_the_captured_value_it_is_said_to_be():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.n, self.b = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
            self.m, self.head = nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            x = F.relu(self.n(self.a(x)))
            x = F.relu(x + self.m(self.b(x)))
            return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    net = Small()
    for norm in (net.n, net.m):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.weight, -2, 2)
    captured = capture(net, X)
    traced = deploy_graph(net, captured)
    inputs = (torch.randn(3, 1, 8, 8),)
    deployed, original = _values(traced.graph, inputs), _values(captured.evaluation, inputs)
    sources = [name for site in find_sites(traced.graph, traced.values) for name in site.sources]
    assert len(sources) >= 4
    for name in sources:
        torch.testing.assert_close(deployed[name], original[traced.origins[name]], rtol=1e-4, atol=1e-5)
    assert set(traced.folding.values.values()) == {"batch_norm", "batch_norm_1"}
    factor, axis = traced.folding.factors["a.weight"]
    assert axis == 0
    torch.testing.assert_close(
        torch.as_tensor(factor), (net.n.weight / (net.n.running_var + net.n.eps).sqrt()).double().detach()
    )
    kept = deploy_graph(net, captured, refuse=lambda name, *_: "it is held" if name == "a.weight" else None)
    assert kept.folding.kept == {"n": "it is held"}
    torch.testing.assert_close(kept.graph(*inputs), captured.evaluation(*inputs))


def test_one_of_several_outputs_is_known_by_its_number():
    net = Net()
    captured = capture(net, X)
    traced = deploy_graph(net, captured)
    inputs = (torch.randn(3, 1, 8, 8),)
    deployed, original = _values(traced.graph, inputs), _values(captured.evaluation, inputs)
    items = [name for name in traced.origins if name.startswith("getitem")]
    assert items
    for name in items:
        torch.testing.assert_close(deployed[name], original[traced.origins[name]])
    for site in find_sites(traced.graph, traced.values):
        assert {*site.sources} <= {*traced.origins}


def test_nodes_added_behind_a_value_are_deployed_and_known():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    captured = capture(net, (torch.randn(2, 3),))

    def shrink(graph, node):
        return graph.call_function(torch.ops.aten.hardshrink.default, (node, 0.5))

    traced = deploy_graph(net, captured, emit={"relu": shrink})
    x = torch.randn(6, 3)
    torch.testing.assert_close(traced.graph(x), net[2](F.hardshrink(net[1](net[0](x)), 0.5)))
    assert list(traced.origins.values()).count("relu") == 2


def test_what_cannot_be_captured_is_named():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="Branch cannot be traced"):
        capture(Branch(), (torch.randn(2, 3),))


class NormedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(torch.relu(self.norm(self.a(x))))


def test_a_batch_norm_called_twice_trains_as_it_does_in_the_module():
    torch.manual_seed(0)
    module, other, x = NormedTwice(), NormedTwice(), torch.randn(8, 4)
    other.load_state_dict(module.state_dict())
    captured = capture(module, (x,))
    assert torch.equal(captured.training(x), other.train()(x))
    assert torch.equal(module.norm.running_var, other.norm.running_var)
    assert torch.equal(captured.evaluation(x), other.eval()(x))
