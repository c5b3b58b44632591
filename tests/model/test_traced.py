"""A structural variant is exported once, of one module or of several; their state flows into what was exported."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.model.capture import capture
from attar._src.model.export.known import KNOWN
from attar._src.model.trace import deploy_graph, trace
from attar._src.work.compressed_model import CompressedModel, FileInfo


@pytest.fixture
def exports(monkeypatch):
    """What is exported in a process that has exported nothing before."""
    calls, export = [], torch.onnx.export
    KNOWN.clear()

    def counted(*args, **options):
        calls.append(args[0])
        return export(*args, **options)

    monkeypatch.setattr(torch.onnx, "export", counted)
    return calls


class Net(nn.Module):
    """One batch-norm that folds, one behind an activation that stays, and a tied weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.a, self.n, self.m = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.b, self.out = nn.Linear(6, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        x = self.table(x).mean(1)
        return self.out(self.b(self.m(torch.relu(self.n(self.a(x))))))


X = torch.randint(0, 5, (2, 3))


def _packed(traced):
    return pack(CompressedModel.of(traced).contents(FileInfo()))


def _shaken(net):
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return net.eval()


def test_the_state_flows_into_what_was_exported_once(exports):
    net = Net()
    captured = capture(net, (X,))
    first = _packed(deploy_graph(net, captured))
    _shaken(net)
    traced = deploy_graph(net, captured)
    assert len(exports) == 1
    torch.testing.assert_close(traced.graph(X), net(X))
    KNOWN.clear()
    again = _packed(deploy_graph(net, capture(net, (X,))))
    assert len(exports) == 2
    assert _packed(traced) == again != first


def test_each_structural_variant_is_exported_once(exports):
    net = Net()
    captured = capture(net, (X,))

    def shrink(threshold):
        return {"relu": lambda graph, node: graph.call_function(torch.ops.aten.hardshrink.default, (node, threshold))}

    def kept(name, factor, axis):
        assert factor.shape == (6,)
        return "it is held" if (name, axis) == ("a.weight", 0) else None

    variants = [{}, {"merge": True}, {"refuse": kept}, {"emit": shrink(0.5)}, {"emit": shrink(0.25)}]
    for _ in range(2):
        _shaken(net)
        for options in variants:
            traced = deploy_graph(net, captured, **options)
            if "emit" not in options:
                torch.testing.assert_close(traced.graph(X), net(X), rtol=1e-4, atol=1e-5)
    assert len(exports) == len(variants)
    assert len(captured.exports) == len(variants)


def test_merging_is_no_variant_where_every_batch_norm_is_folded(exports):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    captured = capture(net, (torch.randn(2, 4),))
    deploy_graph(net, captured)
    deploy_graph(net, captured, merge=True)
    assert len(exports) == 1


class Picking(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("order", torch.arange(4))

    def forward(self, x):
        return self.layer(x)[:, self.order]


def test_a_baked_tensor_that_changed_is_exported_anew(exports):
    net, x = Picking(), torch.randn(2, 4)
    captured = capture(net, (x,))
    assert {*deploy_graph(net, captured).baked} == {"order"}
    net.order.copy_(torch.tensor([3, 1, 0, 2]))
    for _ in range(2):
        traced = deploy_graph(net, captured)
        torch.testing.assert_close(traced.graph(x), net(x))
        assert len(exports) == 2
    KNOWN.clear()
    assert _packed(traced) == _packed(deploy_graph(net, capture(net, (x,))))
    assert len(exports) == 3


def test_modules_of_one_structure_share_an_export_and_nothing_else(exports):
    first, second = Net(), _shaken(Net())
    traced = trace(first, (X,))
    other = trace(second, (X,))
    assert len(exports) == 1
    torch.testing.assert_close(other.graph(X), second(X))
    torch.testing.assert_close(traced.graph(X), first.eval()(X))
    KNOWN.clear()
    alone = trace(second, (X,))
    assert len(exports) == 2
    assert _packed(other) == _packed(alone) != _packed(traced)
    for name in ("names", "origins", "aliases", "parameters", "folds", "inputs", "outputs", "bindings"):
        assert getattr(other, name) == getattr(alone, name), name


class Scaled(nn.Module):
    """Structures that differ in one thing each."""

    def __init__(self, factor=2.0, *, tied=False, width=4, words=""):
        super().__init__()
        self.a, self.b, self.factor, self.words = nn.Linear(4, width), nn.Linear(4, width), factor, words
        if tied:
            self.b.weight = self.a.weight

    def forward(self, x):
        y = self.a(x) * self.factor + self.b(x)
        return {self.words: y} if self.words else y


def test_what_differs_in_anything_that_an_export_sees_is_exported_anew(exports):
    x = torch.randn(3, 4)
    cases = [({}, {}), ({"factor": 3.0}, {}), ({"tied": True}, {}), ({"width": 5}, {}), ({"words": "y"}, {})]
    cases += [({"words": "z"}, {}), ({}, {"dynamic": ()}), ({}, {"example": torch.randn(5, 4)})]
    for count, (fields, options) in enumerate(cases, 1):
        net, example = Scaled(**fields).eval(), options.pop("example", x)
        traced = trace(net, (example,), **options)
        assert len(exports) == count, (fields, options)
        wanted = net(x)
        torch.testing.assert_close(traced.graph(x), wanted)
        KNOWN.clear() if count == len(cases) else None
        assert _packed(traced) == _packed(trace(net, (example,), **options))
    # The last was forgotten before.
    assert len(exports) == len(cases) + 1


def test_an_export_that_is_known_keeps_no_weights(exports):
    net = Net()
    alive = [weakref.ref(each) for each in net.parameters()]
    trace(net, (X,))
    del net
    exports.clear()
    gc.collect()
    assert not [each for each in alive if each() is not None]
    trace(Net(), (X,))
    assert not exports


def test_the_exports_used_last_are_known(exports):
    nets = [nn.Linear(4, width) for width in range(1, 10)]
    for net in nets[:8]:
        trace(net, (torch.randn(2, 4),))
    trace(nets[0], (torch.randn(2, 4),))
    assert len(exports) == 8
    for net in (nets[8], nets[0]):
        trace(net, (torch.randn(2, 4),))
    assert len(exports) == 9
    trace(nets[1], (torch.randn(2, 4),))
    assert len(exports) == 10
