"""Recurrent layers are exported whole: neither nodes nor time grow with the length, which may vary in the file.

Kind: operators that PyTorch decomposes while exporting, step by step.
"""

import time

import numpy as np
import pytest
import torch
from torch import nn

import attar
from attar._src.model.trace import trace


class ReluRNN(nn.RNN):
    """nn.RNN with the other nonlinearity."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, nonlinearity="relu", **options)


class Tagger(nn.Module):
    """Recurrent layers and a linear one at each step."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.rows = kind(6, 8, **options)
        width = options.get("proj_size", 8) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.rows(x)[0])


KINDS = [nn.LSTM, nn.GRU, nn.RNN, ReluRNN]


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_is_the_same_for_any_length(kind):
    graphs = {}
    for steps in (10, 400):
        began = time.process_time()
        traced = trace(Tagger(kind, num_layers=3, batch_first=True), (torch.randn(2, steps, 6),), dynamic=(0, 1))
        graphs[steps] = [node.op_type for node in traced.model.graph.node]
        # Unrolled, 400 steps take minutes.
        assert time.process_time() - began < 30
    assert graphs[10] == graphs[400]
    assert sum(each in ("LSTM", "GRU", "RNN") for each in graphs[10]) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [{"batch_first": True}, {"batch_first": True, "num_layers": 2, "bidirectional": True}, {"bias": False}],
    ids=["plain", "deep", "time-first"],
)
def test_a_file_runs_on_any_length(kind, options, tmp_path):
    torch.manual_seed(0)
    net = Tagger(kind, **options).eval()
    time_first = "batch_first" not in options
    shape = (12, 4, 6) if time_first else (4, 12, 6)
    dynamic = {"x": (1, 0)} if time_first else (0, 1)
    quantized = attar.quantize(net, torch.randn(shape), bits=8, dynamic=dynamic)
    quantized.save(tmp_path / "m.attar")
    session = attar.Session(tmp_path / "m.attar")
    assert session.inputs[0].shape == (("axis0", "batch", 6) if time_first else ("batch", "axis1", 6))
    for steps, batch in ((1, 2), (31, 3)):
        x = torch.randn((steps, batch, 6) if time_first else (batch, steps, 6))
        want = quantized.module(x).detach().numpy()
        np.testing.assert_allclose(session.run(x.numpy()), want, atol=1e-5)
        np.testing.assert_allclose(want, net(x).detach().numpy(), atol=0.05)


def test_a_model_that_is_trained_keeps_the_layer_whole():
    traced = trace(Tagger(nn.GRU, batch_first=True, dropout=0.1, num_layers=2), (torch.randn(2, 5, 6),))
    assert [node.op_type for node in traced.model.graph.node].count("GRU") == 2


def test_projections_are_refused_with_the_way_out():
    with pytest.raises(
        attar.ModelError, match="proj_size has no counterpart in ONNX; use layers without it, and a lin"
    ):
        trace(Tagger(nn.LSTM, proj_size=4, batch_first=True), (torch.randn(2, 5, 6),))
