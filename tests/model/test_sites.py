import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.core.scheme import PerChannel
from attar._src.model.sites import find_sites
from attar._src.model.trace import trace
from attar._src.model.weights import find_weights


class Block(nn.Module):
    """A residual block with a strided, padded shortcut, then pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        y = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(y.mean((2, 3)))


def sites_of(net, *x, skip=lambda node: False):
    traced = trace(net, x)
    return find_sites(traced.graph, traced.values, skip=skip)


def test_residual_block():
    found = sites_of(Block(), torch.randn(2, 4, 8, 8))
    sites = {site.values: site.sources for site in found}
    # One is only added, the other only averaged.
    assert {site.values for site in found if not site.multiplied} == {("conv2d_1",), ("relu_1",)}
    # The input, its slices and their padded sum share one grid, rounded once.
    moved = next(values for values in sites if "x" in values)
    assert moved == ("x", "slice_1", "slice_2", "pad")
    assert sites[moved] == ("x",)
    singles = {values for values in sites if len(values) == 1}
    # Behind both activations, the convolution that goes into the addition, and the mean; neither the addition
    # itself (its activation takes it in) nor the first convolution, nor the logits.
    assert singles == {("relu",), ("conv2d_1",), ("relu_1",), ("mean",)}


def test_a_kept_layer_asks_for_no_site():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    everything = sites_of(net, torch.randn(2, 4))
    kept = sites_of(
        net, torch.randn(2, 4), skip=lambda node: any(str(s.target) == "2.weight" for s in node.all_input_nodes)
    )
    assert [site.values for site in everything] == [("input_1",), ("relu",)]
    assert [site.values for site in kept] == [("input_1",)]


def test_a_convolution_writes_codes_unless_its_output_leaves_the_graph():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3))
    values = {name for site in sites_of(net, torch.randn(2, 3, 9, 9)) for name in site.values}
    assert values == {"input_1", "conv2d", "hardswish", "hardtanh"}


def test_a_value_the_deployed_graph_lacks_is_no_site():
    traced = trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), (torch.randn(2, 4),))
    assert [s.values for s in find_sites(traced.graph, traced.values - {"relu"})] == [("input_1",)]


def test_both_factors_of_a_product_of_activations():
    class Attend(nn.Module):
        def forward(self, a, b):
            return torch.softmax(a @ b.transpose(1, 2), -1) @ b

    sites = sites_of(Attend(), torch.randn(2, 3, 4), torch.randn(2, 3, 4))
    values = [site.values for site in sites]
    assert ("a",) in values
    assert ("b", "transpose") in values
    assert ("softmax",) in values


def test_integers_and_scaled_sums_are_no_sites():
    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, x):
            e = self.table(x)
            return self.head(torch.add(e, e, alpha=2))

    values = {name for site in sites_of(Embed(), torch.zeros(2, 3, dtype=torch.int64)) for name in site.values}
    assert "x" not in values
    assert "embedding" not in values
    assert len(values) == 1


def test_what_is_made_of_parameters_alone_is_no_activation():
    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.places, self.head = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x + self.places[: x.shape[1]])

    assert [site.values for site in sites_of(Placed(), torch.randn(2, 3, 4))] == [("add",)]


def test_what_is_joined_with_a_parameter_is_rounded_itself():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory, self.head = nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.cat([x, self.memory]))

    (site,) = sites_of(Joined(), torch.randn(2, 4))
    assert site.values == ("x", "cat")
    assert site.sources == ("x", "cat")


def test_padding_by_another_value_is_computed_not_moved():
    class Pad(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3)

        def forward(self, x):
            return self.conv(F.pad(torch.sigmoid(x), (1, 1), value=1.0))

    sites = sites_of(Pad(), torch.randn(2, 2, 5))
    assert [site.values for site in sites] == [("pad",)]


@pytest.mark.parametrize(
    ("spelled", "axis"),
    [
        (lambda x, w: x @ w, 1),
        (lambda x, w: torch.addmm(torch.ones(5), x, w), 1),
        (lambda x, w: F.linear(x, w.T), 1),
        (lambda x, w: x.T @ (x @ w), 1),
        (lambda x, w: (w.T @ x.T).T, 1),
    ],
    ids=["matmul", "addmm", "linear of a turned matrix", "with another product", "on the left"],
)
def test_products_however_they_are_spelled(spelled, axis):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 5))

        def forward(self, x):
            return spelled(x, self.w)

    found = find_weights(trace(Net(), (torch.randn(2, 4),)).graph)
    assert {name: weight.channels for name, weight in found.items()} == {"w": PerChannel(axis=axis)}


def test_weights_their_roles_and_output_axes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(7, 6), nn.LSTM(6, 5, batch_first=True)
            self.up, self.matrix = nn.ConvTranspose1d(5, 4, 2), nn.Parameter(torch.randn(4, 3))
            self.shift = nn.Parameter(torch.randn(1, 3))

        def forward(self, x):
            y = self.rnn(self.embed(x))[0].transpose(1, 2)
            return self.up(y).transpose(1, 2) @ self.matrix + self.shift

    weights = find_weights(trace(Net(), (torch.zeros(2, 3, dtype=torch.int64),)).graph)
    assert {name: (weight.role, weight.channels) for name, weight in weights.items()} == {
        "embed.weight": ("embedding", PerChannel(axis=0)),
        "rnn.weight_ih_l0": ("recurrent", PerChannel(axis=0)),
        "rnn.weight_hh_l0": ("recurrent", PerChannel(axis=0)),
        "up.weight": ("product", PerChannel(axis=1)),
        "matrix": ("product", PerChannel(axis=1)),
    }
