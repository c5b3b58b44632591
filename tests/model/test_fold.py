import pytest
import torch
from torch import nn

from attar.model.trace import trace


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
    ],
    ids=["after relu", "first", "shared weight", "output read twice"],
)
def test_where_folding_is_not_exact_it_is_kept_with_the_reason(net, kept, reason):
    net, x = randomized(net), torch.randn(2, 3, 5, 5)
    traced = trace(net, (x,))
    assert reason in traced.folding.kept[kept]
    assert traced.folding.folded == {}
    assert torch.allclose(traced.graph(x), net(x), atol=1e-5)


def test_folding_leaves_the_module_alone():
    net = randomized(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, (torch.randn(2, 3, 4, 4),))
    assert net[0].bias is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
