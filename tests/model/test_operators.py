"""The table of operators held against PyTorch: names, arguments, axes; and what one more row does."""

import itertools
from operator import attrgetter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attar._src.core.operators import OPERATOR_TABLE, OperatorRow
from attar._src.model import operators
from attar._src.model.capture import capture
from attar._src.model.operators import (
    argument,
    aten,
    bias_of,
    data_of,
    groups_of,
    is_batch_norm,
    is_layer,
    kind_of,
    moves,
    operator_of,
    output_axes,
    weight_of,
)
from attar._src.model.sites import find_sites
from attar._src.model.trace import trace

OVERLOADS = [(name, row) for row in OPERATOR_TABLE for name in row.aten.split()]


@pytest.mark.parametrize(("name", "row"), OVERLOADS, ids=[name for name, _ in OVERLOADS])
def test_rows_name_overloads_and_arguments_of_pytorch(name, row):
    namespace, _, overload = name.rpartition("::")
    operators = getattr(torch.ops, namespace) if namespace else aten
    known = {each.name for each in attrgetter(overload)(operators)._schema.arguments}
    modes = [pair[0] for pair in (row.when, row.evaluation) if pair is not None]
    axes = {row.cuts, row.mixes} - {"spatial"}
    named = {*row.data, row.weight, row.bias, row.groups, *row.fills, *row.vectors, *axes, *modes} - {""}
    assert named <= known
    assert ("groups" in known) == bool(row.groups)


def called(function, x, w):
    """Return the node that a call of ``function(x, w)`` is."""

    class Call(nn.Module):
        def forward(self, x, w):
            return function(x, w)

    graph = torch.export.export(Call(), (x, w)).module().graph
    return next(node for node in graph.nodes if kind_of(node) in ("layer", "product"))


READERS = {
    "conv1d": (F.conv1d, (2, 4, 9), (6, 4, 3)),
    "conv2d in groups": (lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 7, 7), (6, 2, 3, 3)),
    "conv2d transposed": (F.conv_transpose2d, (2, 4, 5, 5), (4, 6, 3, 3)),
    "conv2d transposed in groups": (lambda x, w: F.conv_transpose2d(x, w, groups=2), (2, 4, 5, 5), (4, 3, 3, 3)),
    "decomposed": (lambda x, w: torch.convolution(x, w, None, [1], [0], [1], False, [0], 2), (2, 4, 9), (6, 2, 3)),
    "decomposed, transposed": (
        lambda x, w: torch.convolution(x, w, None, [1], [0], [1], True, [0], 2),
        (2, 4, 9),
        (4, 3, 3),
    ),
    "linear": (F.linear, (2, 3, 4), (6, 4)),
    "mm": (torch.mm, (2, 4), (4, 6)),
    "matmul of experts": (torch.matmul, (3, 2, 4), (3, 4, 5)),
    "bmm of experts": (torch.bmm, (3, 2, 4), (3, 4, 5)),
    "addmm": (lambda x, w: torch.addmm(torch.zeros(6), x, w), (2, 4), (4, 6)),
    "baddbmm": (lambda x, w: torch.baddbmm(torch.zeros(3, 1, 5), x, w), (3, 2, 4), (3, 4, 5)),
}


@pytest.mark.parametrize("case", READERS)
def test_output_axes_number_the_output_channels(case):
    function, data, shape = READERS[case]
    x, w = torch.rand(data) + 1, torch.rand(shape) + 1
    node = called(function, x, w)
    assert [value.name for value in data_of(node)][:1] == ["x"]
    assert weight_of(node).name == "w"
    axes = output_axes(node, w.dim())
    experts = kind_of(node) == "product" and len(axes) > 1
    # Axis 0 of a transposed weight is split into groups; all others count one by one.
    sizes = [groups_of(node) if len(axes) > 1 and not experts else shape[axes[0]], *(shape[axis] for axis in axes[1:])]
    seen = []
    for place in itertools.product(*map(range, sizes)):
        changed = w.clone()
        part = changed
        for axis, index, size in reversed(list(zip(axes, place, sizes, strict=True))):
            part = part.unflatten(axis, (size, -1)).select(axis, index)
        part += 1
        differs = (function(x, changed) != function(x, w)).movedim(operator_of(node).channel_axis, -1)
        # A channel of experts is one of (E, out).
        differs = differs.movedim(0, -2).flatten(-2) if experts else differs
        seen += [differs.flatten(0, -2).any(0).nonzero().flatten().tolist()]
    assert seen == [[channel] for channel in range(len(seen))]
    assert len(seen) == differs.shape[-1]


def test_arguments_have_the_defaults_of_the_schema():
    node = called(lambda x, w: F.conv2d(x, w), torch.ones(2, 4, 5, 5), torch.ones(3, 4, 3, 3))
    assert (groups_of(node), bias_of(node), argument(node, "dilation")) == (1, None, [1, 1])
    assert is_layer(node)


@pytest.mark.parametrize("name", [name for name, row in OVERLOADS if row.identity])
def test_identities_return_their_input_in_evaluation(name):
    x = torch.randn(2, 3, 4, 4)
    given = (x, 0.5, False) if "dropout" in name else (x,)
    assert torch.equal(attrgetter(name)(aten)(*given), x)


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda x: F.pad(x, (1, 1)), True),
        (lambda x: F.pad(x, (1, 1), value=2.0), False),
        (lambda x: F.pad(x, (1, 1), mode="reflect"), False),
        (lambda x: aten.constant_pad_nd.default(x, [1, 1]), True),
        (lambda x: aten.constant_pad_nd.default(x, [1, 1], 1.0), False),
        (lambda x: x.transpose(0, 1), True),
        (torch.relu, False),
    ],
)
def test_what_only_moves(function, moved):
    class Call(nn.Module):
        def forward(self, x):
            return function(x)

    graph = capture(Call(), (torch.randn(3, 4, 5),), dynamic=(), train=False).evaluation
    found = [moves(node) for node in graph.graph.nodes if node.op == "call_function"]
    assert found == [moved]


def test_norms_and_dropout_are_known_in_both_forms():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Dropout(0.5))
    captured = capture(net, (torch.randn(2, 3, 5, 5),))
    norms = [node for node in captured.evaluation.graph.nodes if is_batch_norm(node)]
    assert [argument(node, "running_var").target for node in norms] == ["2.running_var"]
    assert argument(norms[0], "training") is False
    assert [node.name for node in captured.evaluation.graph.nodes if operator_of(node).identity] == ["dropout"]
    traced = trace(net, (torch.randn(2, 3, 5, 5),)).graph.graph.nodes
    assert [is_batch_norm(node) for node in traced if kind_of(node) == "batch_norm"] == [False]


def test_one_row_is_all_that_a_new_operator_needs(monkeypatch):
    class Fold(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(F.pixel_unshuffle(x, 2))

    traced = trace(Fold(), (torch.randn(2, 1, 6, 6),))
    known = traced.values | {node.name for node in traced.graph.graph.nodes}
    assert [site.sources for site in find_sites(traced.graph, known)] == [("pixel_unshuffle",)]
    row = OperatorRow("pixel_unshuffle.default", "SpaceToDepth", "move")
    monkeypatch.setattr(operators, "_ROWS", operators._index([*OPERATOR_TABLE, row]))
    # It moves now: its input and its output share one grid, and the input is what is rounded.
    sites = find_sites(traced.graph, known)
    assert [(site.values, site.sources) for site in sites] == [(("x", "pixel_unshuffle"), ("x",))]
