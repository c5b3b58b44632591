"""Dynamic quantization from a module to the outputs of a file."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.backends.onnx import OnnxBackend


class Encoder(nn.Module):
    """Self-attention (packed projections), cross-attention (parts of one packed weight), feed-forward, a head."""

    def __init__(self, width=32):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.cross = nn.MultiheadAttention(width, 4, batch_first=True)
        self.query = nn.Parameter(torch.randn(1, 3, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.layer(x)
        seen, _ = self.cross(self.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)
        return self.head(seen.mean(1))


class Perceptron(nn.Sequential):
    """Linear layers alone, of two axes: Gemm."""

    def __init__(self):
        super().__init__(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 5))


def taught(make, shape):
    """A net whose outputs are worth predicting: trained for a moment on classes of its inputs."""
    torch.manual_seed(0)
    net = make()
    x = torch.randn(512, *shape)
    y = x.reshape(512, -1)[:, :5].argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), x, y


@pytest.fixture(scope="module", params=[(Encoder, (7, 32)), (Perceptron, (24,))], ids=["encoder", "perceptron"])
def net(request):
    torch.set_num_threads(1)
    return request.param[0], *taught(*request.param)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_simulated_is_deployed(net, tmp_path, bits):
    make, module, x, y = net
    result = attar.quantize(module, x, labels=y, bits=bits, activations="dynamic", tolerance=None)
    report = result.save(tmp_path / "m.attar")
    session = attar.Session(tmp_path / "m.attar")
    got = session.run(x.numpy())
    want = result.module(x).detach().numpy()
    assert np.mean(got.argmax(1) == want.argmax(1)) >= 0.998
    # A value at the boundary of two codes may fall on either side where float32 sums differ.
    assert np.abs(got - want).mean() < 1e-4 * np.abs(want).mean()
    assert report["parity"]["equal_predictions"] >= 0.998
    assert report["dynamic_layers"] == sum(len(layer.nodes) for layer in session.layers if layer.integer)
    assert report["quantized_activations"] == 0
    # The parameter that is expanded over the batch multiplies nothing itself.
    assert {layer.name for layer in session.layers} - set(session.integer_layers()) <= {"query"}
    assert session.artifact.version == "1.4"
    if bits == 8:
        assert np.mean(got.argmax(1) == module(x).detach().numpy().argmax(1)) > 0.98
    again = attar.load(tmp_path / "m.attar", into=make())
    assert np.abs(again(x).detach().numpy() - want).max() < 1e-5 * np.abs(want).max() + 1e-3


def test_the_same_inputs_give_the_same_bytes(net, tmp_path):
    _, module, x, _ = net
    for name in "ab":
        attar.quantize(module, x, bits=8, activations="dynamic", tolerance=None).save(tmp_path / f"{name}.attar")
    assert (tmp_path / "a.attar").read_bytes() == (tmp_path / "b.attar").read_bytes()


def test_the_export_is_standard_onnx(net, tmp_path):
    _, module, x, _ = net
    attar.quantize(module, x, bits=8, activations="dynamic", tolerance=None).save(tmp_path / "m.attar")
    backend = OnnxBackend()
    backend.export(open_artifact(tmp_path / "m.attar"), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert {each.domain for each in model.graph.node} == {""}
    assert "MatMulInteger" in {each.op_type for each in model.graph.node}
    session = attar.Session(tmp_path / "m.attar")
    runner = backend.open(tmp_path / "m.onnx", threads=1)
    feed = {port.name: x.numpy() for port in session.inputs}
    (got,) = runner.run(feed).values() if isinstance(runner.run(feed), dict) else runner.run(feed)
    np.testing.assert_allclose(got, session.run(x.numpy()), rtol=1e-4, atol=1e-3)
    assert json.loads(json.dumps(session.artifact.manifest.recipe))["stages"][0]["activations"] == "dynamic"
