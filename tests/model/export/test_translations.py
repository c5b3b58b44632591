import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from attar._src.model.export import translations
from attar._src.model.export.translations import translations_kept
from attar._src.model.trace import trace


def test_the_table_is_made_once_and_no_export_changes_it(monkeypatch):
    made, make = [], translations._MAKE
    monkeypatch.setattr(translations, "_MAKE", lambda version: (made.append(version), make(version))[1])
    translations._made.cache_clear()
    nets = nn.RNN(4, 5), nn.Linear(4, 4)
    first, again = (trace(net.eval(), (torch.rand(2, 3, 4),)).model for net in nets)
    assert len(made) == 1
    assert {"RNN"} <= {node.op_type for node in first.graph.node}
    assert {"RNN"}.isdisjoint({node.op_type for node in again.graph.node})
    (version,) = made
    whole, kept = make(version).functions, translations._made(version).functions
    assert whole.keys() == kept.keys()
    assert [len(whole[operator]) for operator in whole] == [len(kept[operator]) for operator in whole]


def test_exports_of_others_make_their_own():
    own = ONNXRegistry.__dict__["from_torchlib"]
    with translations_kept():
        assert ONNXRegistry.__dict__["from_torchlib"] is not own
    assert ONNXRegistry.__dict__["from_torchlib"] is own
