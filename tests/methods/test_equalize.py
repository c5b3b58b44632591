import numpy as np
import pytest
import torch
from torch import nn

from attar._src.core.tensors import Dense
from attar._src.methods.quantize.ptq.equalize.equalize import NOTHING_EQUALIZED, with_equal_channels
from attar._src.methods.quantize.ptq.equalize.pairs import find_pairs
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel
from attar._src.work.context import Context


def seeded(*layers):
    torch.manual_seed(0)
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            module.running_var.uniform_(0.1, 30)
            module.running_mean.normal_()
    return net.eval()


NETS = {
    "linear": (lambda: seeded(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (5, 6), [("0", "2")]),
    "identity": (lambda: seeded(nn.Linear(6, 8), nn.Linear(8, 4)), (5, 6), [("0", "1")]),
    "prelu": (lambda: seeded(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 3)), (2, 3, 9, 9), [("0", "2")]),
    "batch-norm": (
        lambda: seeded(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)),
        (2, 3, 9, 9),
        [("0", "3")],
    ),
    "depthwise": (
        lambda: seeded(
            *(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.LeakyReLU(), nn.Conv2d(8, 4, 1)),
        ),
        (2, 3, 7, 7),
        [("0", "2"), ("2", "4")],
    ),
    "groups": (
        lambda: seeded(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2)),
        (2, 3, 7, 7),
        [("0", "2")],
    ),
    "flattened": (
        lambda: seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 5)),
        (2, 3, 8, 8),
        [("0", "4")],
    ),
    "pooled": (
        lambda: seeded(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
        (2, 3, 8, 8),
        [("0", "4")],
    ),
}


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def names(net, x):
    return [(each.first[:-7], each.second[:-7]) for each in find_pairs(trace(net, (x,)).graph)]


@pytest.mark.parametrize("name", list(NETS))
def test_pairs_are_found_and_the_function_stays(name):
    """Guards against factors at the wrong channels: any would change the outputs."""
    make, shape, pairs = NETS[name]
    net, x = make(), torch.randn(shape)
    assert names(net, x) == pairs
    # Channels of very different size, which equalization has to undo.
    with torch.no_grad():
        net[0].weight.mul_(torch.logspace(-2, 2, len(net[0].weight)).reshape(-1, *[1] * (net[0].weight.dim() - 1)))
    before = CompressedModel.of(trace(net, (x,)))
    after, warnings = with_equal_channels(before)
    assert not warnings
    assert after.notes == {"equalize": f"{len(pairs)} pairs of layers"}
    wanted = net(x).detach()
    for got in (after.simulate()(x), after.main.traced.graph(x)):
        assert torch.allclose(got, wanted, atol=1e-5 * wanted.abs().max(), rtol=1e-5)
    first = after.tensors["0.weight"]
    assert isinstance(first, Dense)
    ranges = [np.abs(each.reshape(len(each), -1)).max(1) for each in (before.stored()["0.weight"].dense(), first.data)]
    assert ranges[1].max() / ranges[1].min() < ranges[0].max() / ranges[0].min() / 10


def test_a_mean_keeps_channels():
    assert names(Mean(), torch.randn(2, 3, 7, 7)) == [("conv", "head")]


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(6, 8), nn.ReLU6(), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
        nn.Sequential(*[nn.Linear(6, 6)] * 2),
    ],
    ids=["sigmoid", "relu6", "norm", "shared"],
)
def test_other_functions_and_shared_weights_are_left_and_a_warning_says_so(net):
    """Guards against scaling through functions that do not keep factors."""
    model = CompressedModel.of(trace(net.eval(), (torch.randn(3, 6),)))
    after, warnings = with_equal_channels(model)
    assert (after.tensors, warnings) == ({}, [NOTHING_EQUALIZED])


def test_a_dead_channel_stays():
    net = seeded(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[0].weight[2] = 0
        net[2].weight[:, 5] = 0
    x = torch.randn(5, 6)
    after, _ = with_equal_channels(CompressedModel.of(trace(net, (x,))))
    assert torch.allclose(after.simulate()(x), net(x), atol=1e-5)


def test_ranges_of_a_tensor_are_used_better():
    """Guards the point of it: one scale a tensor loses less after equalization."""
    net = seeded(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        factor = torch.logspace(-2, 2, 32)
        net[0].weight.mul_(factor[:, None])
        net[0].bias.mul_(factor)
        net[2].weight.div_(factor)
    x = torch.randn(256, 6)
    model, inputs = CompressedModel.of(trace(net, (x,))), CalibrationInputs((((x,)),))
    errors = []
    for equalize in (False, True):
        stage = PostTrainingQuantize(bits=8, activations=8, granularity="tensor", equalize=equalize)
        done = stage.run(model, Context(inputs))
        errors.append(float((done.simulate()(x) - net(x)).square().mean().detach()))
    assert errors[1] < errors[0] / 20
