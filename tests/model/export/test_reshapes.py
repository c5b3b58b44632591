"""Reshapes of graphs whose batch has any size: one operator, with the values of PyTorch."""

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.deploy.quantize import quantize
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
