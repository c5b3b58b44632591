"""LSTM and GRU whose sequences and states are quantized as they are read, from a module to the outputs of a file."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.backends.onnx import OnnxBackend

HIDDEN = {nn.LSTM: 64, nn.GRU: 256}
KERNELS = {nn.LSTM: {"DynamicQuantizeLSTM"}, nn.GRU: {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}}


class Tagger(nn.Module):
    """Scores of each step, and the final states."""

    def __init__(self, kind, layers=1, *, both=False, hidden=0, packed=False):
        super().__init__()
        hidden = hidden or HIDDEN[kind]
        self.first, self.packed = nn.Linear(12, 24), packed
        self.layers = kind(24, hidden, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (2 if both else 1), 4)

    def forward(self, x, lengths=None):
        x = self.first(x).relu()
        if self.packed:
            x = rnn.pack_padded_sequence(x, lengths, batch_first=True)
        x, states = self.layers(x)
        if self.packed:
            x, _ = rnn.pad_packed_sequence(x, batch_first=True, total_length=self.steps)
        return {"logits": self.head(x).transpose(1, 2), "states": states}

    steps = 9


def taught(kind, **options):
    """A tagger that says which of the last four features has summed up to most."""
    torch.manual_seed(0)
    net = Tagger(kind, **options)
    x = torch.randn(256, 9, 12)
    y = x[..., :4].cumsum(1).argmax(-1)
    given = (torch.full((64,), 9),) if net.packed else ()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(16):
        part = slice(64 * (step % 4), 64 * (step % 4) + 64)
        loss = nn.functional.cross_entropy(net(x[part], *given)["logits"], y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), x


def scores_and_states(module, *inputs):
    with torch.no_grad():
        found = module(*inputs)
    leaves = torch.utils._pytree.tree_leaves(found)
    return leaves[0].float().numpy(), [leaf.float().numpy() for leaf in leaves[1:]]


def same(session, simulated, *inputs):
    """Compare predictions and states of the file and of the simulation."""
    feed = {port.name: each.numpy() for port, each in zip(session.inputs, inputs, strict=True)}
    scores, *states = session.run(feed).values()
    wide = [each.double() if each.is_floating_point() else each for each in inputs]
    want, ends = scores_and_states(simulated, *wide)
    assert (scores.argmax(1) == want.argmax(1)).mean() >= 0.998
    for one, other in zip(states, ends, strict=True):
        assert np.abs(one - other).mean() < 5e-3 * np.abs(other).mean() + 1e-6


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.parametrize(("activations", "layers", "both"), [(8, 1, True), ("dynamic", 2, False)])
def test_the_file_is_the_simulation(kind, activations, layers, both, tmp_path):
    net, x = taught(kind, layers=layers, both=both)
    quantized = attar.quantize(net, x[:64], bits=8, activations=activations, dynamic=(0, 1))
    assert quantized.save(tmp_path / "net.attar")["dynamic_layers"] == (3 if activations == "dynamic" else 1)
    artifact = open_artifact((tmp_path / "net.attar").read_bytes())
    assert len(artifact.graph_record().dynamic) == layers + (2 if activations == "dynamic" else 0)
    session = attar.Session(artifact, threads=1)
    (layer,) = [each for each in session.layers if each.name == "layers"]
    assert layer.integer
    assert {*layer.kernel.split(", ")} <= KERNELS[kind]
    simulated = quantized.compressed.simulate(torch.float64)
    for shape in ((64, 9), (32, 23), (1, 1)):
        same(session, simulated, torch.randn(*shape, 12))
    loaded = attar.load(tmp_path / "net.attar", into=net)
    want, _ = scores_and_states(quantized.compressed.simulate(), x[:16])
    np.testing.assert_allclose(scores_and_states(loaded, x[:16])[0], want, atol=1e-5)


@pytest.mark.parametrize("kind", HIDDEN)
def test_padded_sequences(kind, tmp_path):
    net, x = taught(kind, both=True, packed=True)
    lengths = torch.tensor([9, 9, 8, 6, 5, 3, 2, 1])
    quantized = attar.quantize(net, [{"x": x[:8], "lengths": lengths}], bits=8, activations=8)
    quantized.save(tmp_path / "net.attar")
    session = attar.Session(tmp_path / "net.attar", threads=1)
    x = torch.randn(8, 9, 12)
    x[1:, 8:] = 100
    same(session, quantized.compressed.simulate(torch.float64), x, lengths)
    assert "layers" in session.integer_layers()


def test_dynamic_is_as_right_as_floating_point():
    """Accuracy, not the share of equal predictions, is what a user would lose."""
    for kind in HIDDEN:
        net, x = taught(kind)
        quantized = attar.quantize(net, x[:64], bits=8, activations="dynamic")
        scores, _ = scores_and_states(net, x)
        got, _ = scores_and_states(quantized.compressed.simulate(), x)
        assert (scores.argmax(1) == got.argmax(1)).mean() > 0.98


@pytest.mark.parametrize(("kind", "hidden"), [(nn.LSTM, 32), (nn.GRU, 128)])
def test_narrow_states_stay_in_floating_point(kind, hidden):
    net = Tagger(kind, hidden=hidden).eval()
    quantized = attar.quantize(net, torch.randn(8, 9, 12), bits=8, activations="dynamic")
    assert quantized.compressed.main.dynamic == {"linear", "linear_1"}
    name = kind.__name__
    reasons = attar._src.methods.quantize.unquantized.left_in_floating_point(quantized.compressed)
    assert f"integers take longer for {name} of {hidden} units" in str(reasons)


def test_a_layer_kept_in_floating_point_is_not_dynamic():
    net = Tagger(nn.LSTM).eval()
    x = torch.randn(8, 9, 12)
    assert attar.quantize(net, x, bits=8, activations=8, keep=["layers"]).compressed.main.dynamic == frozenset()
    assert attar.quantize(net, x, bits=8, activations=8, symmetric=False).compressed.main.dynamic == frozenset()
    assert attar.quantize(net, x, bits=8).compressed.main.dynamic == frozenset()


def test_an_export_has_standard_operators(tmp_path):
    net, x = taught(nn.LSTM)
    attar.quantize(net, x[:64], bits=8, activations=8).save(tmp_path / "net.attar")
    artifact = open_artifact((tmp_path / "net.attar").read_bytes())
    OnnxBackend().export(artifact, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert {each.domain for each in model.opset_import} == {""}
    assert "Scan" in {each.op_type for each in model.graph.node}
    want = attar.Session(artifact, threads=1).run({"x": x[:8].numpy()})
    got = OnnxBackend().open(tmp_path / "net.onnx", threads=1).run({"x": x[:8].numpy()})
    for one, other in zip(dict(got).values() if isinstance(got, dict) else got, want.values(), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)
