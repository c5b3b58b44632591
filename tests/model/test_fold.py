import pytest
import torch
from torch import nn

from attar._src.model.capture import capture
from attar._src.model.trace import deploy_graph, trace


def randomized(net):
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return net.eval()


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), torch.randn(2, 3, 9)),
        (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)), torch.randn(2, 4, 7, 7)),
        (nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4, affine=False)), torch.randn(2, 2, 4, 4, 4)),
        (nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.BatchNorm2d(5)), torch.randn(2, 3, 4, 4)),
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), torch.randn(4, 6)),
    ],
    ids=["conv1d", "grouped conv2d", "conv3d not affine", "transposed", "linear"],
)
def test_folding_keeps_the_function(net, x):
    net = randomized(net)
    traced = trace(net, (x,))
    assert traced.folding.folded == {"1": "0"}
    assert not any("batch_norm" in str(node.target) for node in traced.graph.graph.nodes)
    assert torch.allclose(traced.graph(x), net(x), atol=2e-5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.b(torch.relu(self.norm(self.a(x)))))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.b(self.conv(torch.relu(self.a(self.conv(x)))))


class Read(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


@pytest.mark.parametrize(
    ("net", "kept", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), "2", "relu comes before"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), "0", "an input comes before"),
        (Shared(), "a", "used more than once"),
        (Read(), "norm", "read elsewhere too"),
        (Twice(), "norm", "used more than once"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "1", "not its output features"),
    ],
    ids=["after relu", "first", "shared weight", "output read twice", "norm used twice", "channels first"],
)
def test_where_folding_is_not_exact_it_is_kept_with_the_reason(net, kept, reason):
    first = next(net.parameters())
    shape = {4: (2, 3, 5, 5), 2: (2, 4)}.get(first.dim(), (2, 3, 5, 5))
    if reason == "not its output features":
        shape = (2, 3, 4)
    net, x = randomized(net), torch.randn(shape)
    traced = trace(net, (x,))
    assert reason in traced.folding.kept[kept]
    assert traced.folding.folded == {}
    assert torch.allclose(traced.graph(x), net(x), atol=1e-5)


class Bare(nn.Module):
    """Weights that belong to no layer, and a parameter that happens to be called bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(3, 5))
        self.bias = nn.Parameter(torch.randn(5))
        self.a, self.b = nn.BatchNorm1d(5), nn.BatchNorm1d(3)

    def forward(self, x):
        y = torch.relu(self.a(nn.functional.linear(x, self.first))) + self.bias
        return self.b(nn.functional.linear(y, self.second))


def test_weights_without_a_layer_get_biases_of_their_own():
    net, x = randomized(Bare()), torch.randn(6, 4)
    traced = trace(net, (x,))
    assert traced.folding.folded == {"a": "first", "b": "second"}
    assert len(set(traced.folding.biases.values()) | {"bias"}) == 3
    assert torch.allclose(traced.graph(x), net(x), atol=1e-5)


def test_folding_leaves_the_module_alone():
    net = randomized(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, (torch.randn(2, 3, 4, 4),))
    assert net[0].bias is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


class Behind(nn.Module):
    """A batch-norm behind an activation: it cannot be folded."""

    def __init__(self, affine=True):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40, affine=affine)
        self.last = nn.Linear(40, 2)

    def forward(self, x):
        return self.last(self.norm(torch.relu(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_that_stays_may_be_merged_into_two_vectors(affine):
    net, x = randomized(Behind(affine)), torch.randn(2, 3, 6, 6)
    wanted = net(x)
    traced = deploy_graph(net, capture(net, (x,), train=False), merge=True)
    state = traced.state()
    assert not {"norm.running_mean", "norm.running_var"} & set(state)
    factor = torch.rsqrt(net.norm.running_var + net.norm.eps) * (net.norm.weight if affine else 1)
    torch.testing.assert_close(state["norm.weight"], factor.detach())
    norms = [node for node in traced.graph.graph.nodes if "batch_norm" in str(node.target)]
    assert len(norms) == 1, "it is still one kernel"
    torch.testing.assert_close(traced.graph(x), wanted, rtol=1e-5, atol=1e-5)
    assert net.norm.running_var.min() > 0, "the module itself is left alone"
    assert net(x).equal(wanted)


def test_a_batch_norm_that_is_used_twice_is_not_merged():
    net, x = randomized(Twice()), torch.randn(4, 4)
    traced = deploy_graph(net, capture(net, (x,), train=False), merge=True)
    assert "norm.running_var" in traced.state()
    torch.testing.assert_close(traced.graph(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_in_place_is_nothing_in_evaluation(kind):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), kind(0.5, inplace=True), nn.Conv2d(3, 2, 1)).eval()
    x = torch.randn(2, 2, 5, 5)
    traced = trace(net, (x,))
    assert not any("dropout" in str(node.target) for node in traced.graph.graph.nodes)
    assert torch.allclose(traced.graph(x), net(x), atol=1e-6)


class Casts(nn.Module):
    def forward(self, x, y):
        return x.to(torch.float32).type_as(y) + y.to(x.dtype).to(x) + x.double().float() + (x > 0).to(torch.float32)


def test_casts_to_the_same_type_are_dropped_and_others_stay():
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    traced = trace(Casts(), (x, y))
    casts = [node.name for node in traced.graph.graph.nodes if node.name.startswith(("to", "type_as", "_to_copy"))]
    assert len(casts) == 3
    assert torch.allclose(traced.graph(x, y), Casts()(x, y))
