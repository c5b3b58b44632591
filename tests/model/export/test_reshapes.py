"""Reshapes of graphs whose batch has any size: one operator, with the values of PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.deploy.quantize import quantize
from attar._src.model import trace
from attar._src.model.export.known import KnownExports
from attar._src.runtime.session import Session


class Net(nn.Module):
    def __init__(self, reshape):
        super().__init__()
        self.reshape, self.layer = reshape, nn.Linear(12, 12, bias=False)

    def forward(self, x):
        return self.reshape(self.layer(x))


def graph_and_session(reshape, shape, tmp_path, **options):
    torch.manual_seed(0)
    net = Net(reshape).eval()
    quantize(net, torch.randn(8, *shape), keep=("*",), **options).save(tmp_path / "m.attar")
    session = Session(tmp_path / "m.attar")
    return net, session


def operators(session):
    return [node.op_type for node in session.artifact.graph().graph.node]


@pytest.mark.parametrize(
    "reshape",
    [
        lambda x: x.flatten(1),
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.reshape(x.shape[0], 2, 3, 6),
        lambda x: x.view(x.shape[0], 3, 12).transpose(1, 2).reshape(x.shape[0], 4, 9),
        lambda x: x.flatten(0, 1),
        lambda x: x.unflatten(2, (3, 4)),
    ],
    ids=["flatten", "view", "reshape", "twice", "into the batch", "unflatten"],
)
def test_one_operator_with_the_same_values_for_every_batch(reshape, tmp_path):
    """Guards against four operators to put together a size that follows from the others."""
    net, session = graph_and_session(reshape, (3, 12), tmp_path)
    assert not {"Shape", "Squeeze", "Concat", "Gather"} & set(operators(session))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 12)
        found = session.run(x.numpy())
        np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "reshape",
    [lambda x: x.flatten(2, 3), lambda x: x[:, :, :0].reshape(x.shape[0], 0, 7)],
    ids=["two sizes that vary", "no elements"],
)
def test_sizes_that_do_not_follow_from_the_others_are_put_together(reshape, tmp_path):
    """Guards against ``-1`` for two axes, or beside an axis without elements, of which nothing follows."""

    def read(x):
        return reshape(x.unsqueeze(3))

    net, session = graph_and_session(read, (3, 12), tmp_path, dynamic=(0, 1))
    x = torch.randn(2, 5, 12)
    found = session.run(x.numpy())
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Pooled(nn.Module):
    """Two convolutions that share a weight, and a mean over positions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        x = self.second(torch.relu(self.first(x)))[:, :, ::2, ::2]
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def test_the_order_in_memory_makes_no_operators(tmp_path, monkeypatch):
    """Guards against graphs with an operator for each layout: eleven nodes and an index of the channels for a pool."""
    torch.manual_seed(0)
    net, x, files = Pooled().eval(), torch.randn(8, 3, 8, 8), {}
    expected = net(x).detach().numpy()
    for layout in (torch.channels_last, torch.contiguous_format):
        for given in (torch.channels_last, torch.contiguous_format):
            monkeypatch.setattr(trace, "KNOWN", KnownExports())
            net.to(memory_format=layout)
            quantize(net, x.to(memory_format=given), keep=("*",)).save(tmp_path / "m.attar")
            assert net.first.weight.is_contiguous(memory_format=layout)
            session = Session(tmp_path / "m.attar")
            files[layout, given] = operators(session), session.artifact.manifest.parameters
            np.testing.assert_allclose(session.run(x.numpy()), expected, atol=1e-5)
    assert len({str(each) for each in files.values()}) == 1
    assert not {"Gather", "Range"} & set(operators(session))
