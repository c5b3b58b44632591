import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.core.errors import SpecError
from attar._src.model.trace import trace
from attar._src.model.weights import Window, find_weights, layer_input, weight_input


class Apply(nn.Module):
    """A function of the input and one weight."""

    def __init__(self, shape, function):
        super().__init__()
        self.w, self.function = nn.Parameter(torch.randn(shape)), function

    def forward(self, x):
        return self.function(x, self.w)


def layers_of(shape, function, x):
    graph = trace(Apply(shape, function), (x,), dynamic=()).graph
    return graph, [read for read in (layer_input(graph, node) for node in graph.graph.nodes) if read]


CASES = {
    "conv1d": ((5, 4, 3), lambda x, w: F.conv1d(x, w, padding=1, stride=2), (2, 4, 9), 12),
    "conv2d": ((6, 4, 3, 2), lambda x, w: F.conv2d(x, w, padding=(2, 1)), (2, 4, 7, 8), 24),
    "strided, dilated": (
        (6, 4, 3, 3),
        lambda x, w: F.conv2d(x, w, stride=(2, 3), padding=2, dilation=(1, 2)),
        (3, 4, 9, 9),
        36,
    ),
    "grouped": ((6, 2, 3, 3), lambda x, w: F.conv2d(x, w, groups=2, padding=1, stride=2), (2, 4, 8, 8), 18),
    "depthwise": ((4, 1, 3, 3), lambda x, w: F.conv2d(x, w, groups=4), (2, 4, 6, 6), 9),
    "conv3d": ((3, 2, 2, 3, 2), lambda x, w: F.conv3d(x, w, padding=(1, 0, 1), stride=2), (2, 2, 5, 6, 5), 24),
    "torch.convolution": (
        (6, 2, 3, 3),
        lambda x, w: torch.convolution(x, w, None, [2, 1], [1, 1], [1, 2], False, [0, 0], 2),
        (2, 4, 8, 8),
        18,
    ),
    "linear": ((5, 6), F.linear, (3, 4, 6), 6),
    "matmul": ((6, 5), lambda x, w: x @ w, (3, 4, 6), 6),
    "mm": ((6, 5), torch.mm, (4, 6), 6),
    "addmm": ((6, 5), lambda x, w: torch.addmm(torch.zeros(5), x, w), (4, 6), 6),
    "linear of a turned matrix": ((6, 5), lambda x, w: F.linear(x, w.T), (4, 6), 6),
    "product with a turned matrix": ((5, 6), lambda x, w: x @ w.T, (4, 6), 6),
    "experts": ((3, 6, 5), torch.bmm, (3, 4, 6), 6),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outputs_are_the_rows_times_the_vectors(case):
    shape, function, size, length = CASES[case]
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    graph, (read,) = layers_of(shape, function, x)
    assert read.values == ("x",)
    assert read.window.length == length
    assert x.shape[read.window.axis] == read.window.channels
    weight = graph.w.detach().numpy()
    rows = read.window.rows(weight)
    vectors = read.window.vectors(x).numpy()
    made = np.einsum("god,gpd->gpo", rows, vectors)
    out = function(x, graph.w.detach()).numpy()
    spatial = len(read.window.kernel)
    if spatial:  # (N, groups * out, *positions) -> (groups, N * positions, out)
        out = np.moveaxis(out, 1, -1).reshape(-1, len(rows), rows.shape[1]).swapaxes(0, 1)
    else:
        out = out.reshape(len(rows), -1, rows.shape[1])
    np.testing.assert_allclose(made, out, rtol=1e-4, atol=1e-5)
    assert np.array_equal(read.window.weight(rows, weight.shape), weight)


def test_an_input_without_a_batch():
    window = Window(2, 18, (3, 3), (1, 1), (1, 1), (1, 1))
    x = torch.randn(4, 5, 5)
    assert torch.equal(window.vectors(x), window.vectors(x[None]))
    assert (window.axis, window.channels) == (-3, 4)


@pytest.mark.parametrize(
    ("shape", "function", "size"),
    [
        ((4, 5, 2), lambda x, w: F.conv_transpose1d(x, w), (2, 4, 6)),
        ((6, 5), lambda x, w: (w.T * 2) @ x.T, (3, 6)),
        ((2, 6, 5), lambda x, w: x @ w, (2, 3, 6)),
        ((5, 6), lambda x, w: x @ w.reshape(6, 5), (3, 6)),
    ],
    ids=["transposed", "on the left", "a stack of matrices", "reshaped"],
)
def test_what_multiplies_no_single_value_by_a_weight(shape, function, size):
    assert layers_of(shape, function, torch.randn(size))[1] == []


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(7, 6), nn.LSTM(6, 6, batch_first=True)
        self.up, self.conv, self.twice = nn.ConvTranspose1d(6, 6, 2), nn.Conv1d(6, 6, 3), nn.Linear(6, 6)

    def forward(self, x):
        y = self.rnn(self.table(x))[0]
        y = self.twice(torch.relu(self.twice(y)))
        y = self.conv(self.up(y.transpose(1, 2)))
        y = y + F.conv1d(y, self.conv.weight, padding=1)
        return F.linear(y.mean(2), self.table.weight)


@pytest.fixture(scope="module")
def several():
    graph = trace(Several(), (torch.zeros(2, 5, dtype=torch.int64),)).graph
    return graph, find_weights(graph)


def test_layers_that_share_a_weight_have_their_inputs_together(several):
    graph, weights = several
    read = weight_input(graph, weights["twice.weight"])
    assert len(read.values) == 2
    assert read.window == Window(1, 6)


def test_a_table_that_also_multiplies_has_the_input_of_its_product(several):
    graph, weights = several
    read = weight_input(graph, weights["table.weight"])
    assert (len(read.values), read.window) == (1, Window(1, 6))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rnn.weight_ih_l0", r"'lstm' \(aten\.lstm\.input\), neither a linear layer"),
        ("up.weight", r"'convolution' \(aten\.convolution\.default\), a transposed convolution"),
        ("conv.weight", "'conv1d_1', 'conv1d' read it in different ways"),
        ("rnn.bias_ih_l0", "it multiplies no value"),
    ],
)
def test_weights_without_one_input_say_why(several, name, why):
    graph, weights = several
    with pytest.raises(SpecError, match=why):
        weight_input(graph, weights.get(name))
