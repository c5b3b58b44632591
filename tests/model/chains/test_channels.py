"""Output channels of parameters behind moves, against the elements that really make each channel."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.core.scheme import PerBlock, PerChannel, PerTensor
from attar._src.model.capture import capture
from attar._src.model.chains.channels import Move, Reading, granularity_of, output_channels
from attar._src.model.trace import trace
from attar._src.model.weights import find_weights

aten = torch.ops.aten
HERE = "the moved tensor"


def move(target, *args, turns=False):
    return Move(target, (HERE, *args), turns=turns)


@pytest.mark.parametrize(
    ("shape", "sizes", "granularity"),
    [
        ((8, 64), (1, 64), PerChannel(axis=0)),
        ((8, 64), (8, 1), PerChannel(axis=1)),
        ((8, 64), (8, 64), PerTensor()),
        ((1, 64), (1, 64), PerChannel(axis=0)),
        ((4, 8, 6), (1, 8, 1), PerBlock(sizes=(1, 8, 1))),
        ((8, 6), (4, 6), PerBlock(sizes=(4, 6))),
    ],
)
def test_the_simplest_granularity(shape, sizes, granularity):
    assert granularity_of(shape, sizes) == granularity


@pytest.mark.parametrize(
    ("shape", "moves", "sizes", "granularity"),
    [
        ((5, 8), [move(aten.t.default, turns=True)], (8, 1), PerChannel(axis=0)),
        ((2, 3, 4), [move(aten.permute.default, (2, 0, 1), turns=True)], (4, 1, 3), PerChannel(axis=0)),
        ((6, 4), [move(aten.view.default, (3, 8))], (1, 8), PerBlock(sizes=(2, 4))),
        ((24,), [move(aten.view.default, (3, 8))], (1, 8), PerBlock(sizes=(8,))),
        ((6, 4), [move(aten.slice.Tensor, 0, 0, 4)], (1, 4), PerChannel(axis=0)),
        ((6, 4), [move(aten.slice.Tensor, 0, 1, 6, 2)], (1, 4), PerTensor()),
        ((6, 4), [move(aten.flip.default, (0,))], (1, 4), PerChannel(axis=0)),
        ((2, 6), [move(aten.view.default, (4, 3)), move(aten.flip.default, (1,))], (4, 1), PerTensor()),
        ((2, 4), [move(aten.constant_pad_nd.default, (1, 1))], (1, 6), PerChannel(axis=0)),
    ],
    ids=[
        "turned",
        "permuted",
        "rows joined",
        "flat",
        "first rows",
        "every other row",
        "flipped",
        "columns joined",
        "padded",
    ],
)
def test_channels_behind_moves(shape, moves, sizes, granularity):
    assert output_channels(shape, (Reading(tuple(moves), sizes),)) == granularity


def test_every_part_has_channels_of_its_own():
    parts = [(move(aten.select.int, 0, expert),) for expert in range(3)]
    readings = tuple(Reading(moves, (8, 1)) for moves in parts)
    assert output_channels((3, 8, 5), readings) == PerBlock(sizes=(1, 8, 1))


class Reads(nn.Module):
    def __init__(self, shape, read):
        super().__init__()
        self.w, self.read = nn.Parameter(torch.randn(shape)), read

    def forward(self, x):
        return self.read(x, self.w)


CASES = {
    "linear": ((6, 8), lambda x, w: F.linear(x, w)),
    "packed": ((12, 8), lambda x, w: torch.cat([F.linear(x, part) for part in w.split([4, 8])], 1)),
    "heads": ((2, 8, 3), lambda x, w: torch.einsum("bi,hio->bho", x, w).flatten(1)),
    "contracted by two axes": ((2, 4, 5), lambda x, w: torch.tensordot(x.view(-1, 2, 4), w, 2)),
    "permuted": ((5, 8, 2), lambda x, w: x @ w.permute(1, 2, 0).reshape(8, 10)),
    "grouped": ((8, 3, 1), lambda x, w: F.conv_transpose1d(x.unsqueeze(-1), w, groups=2).flatten(1)),
    "on the left": ((5, 8), lambda x, w: (w @ x.t()).t()),
    "indexed": ((6, 8), lambda x, w: F.linear(x, w[torch.tensor([5, 0, 3, 1, 2, 4])])),
    "bilinear": ((5, 8, 8), lambda x, w: F.bilinear(x, x, w)),
    "joined": ((6, 4), lambda x, w: F.linear(x, torch.cat([w, w], 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_elements_with_one_scale_make_one_element_of_the_output(case):
    """A change of an element changes one element of each example's output; a scale belongs to one of these."""
    shape, read = CASES[case]
    torch.manual_seed(0)
    net, x = Reads(shape, read), torch.rand(2, 8) + 0.5
    (weight,) = find_weights(trace(net, (x,)).graph).values()
    index = np.broadcast_to(weight.channels.index(shape), shape).reshape(-1)
    # (examples, outputs, elements)
    jacobian = torch.autograd.functional.jacobian(lambda w: read(x, w), net.w.detach()).flatten(2).numpy()
    outputs = [tuple(np.flatnonzero(np.abs(jacobian[:, :, element]).max(0) > 0)) for element in range(index.size)]
    by_scale = {}
    for scale, output in zip(index, outputs, strict=True):
        by_scale.setdefault(scale, set()).add(output)
    assert all(len(found) == 1 for found in by_scale.values())
    assert len(by_scale) == len(set(outputs))


def test_a_table_that_is_added_or_scales_values_is_no_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.gain = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(1, 8))

        def forward(self, x):
            return (x + self.place[:2].reshape(1, 2, 8)) * self.gain

    assert find_weights(capture(Net(), (torch.randn(2, 2, 8),), train=False).evaluation) == {}
