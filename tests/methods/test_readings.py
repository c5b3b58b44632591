"""Faults guarded: what is carried past a layer loses its bits to the layer, or a file computes another network."""

import numpy as np
import torch
from tests.methods.toys import Net, data, fresh
from torch import nn

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.readings.insert import with_readings
from attar._src.model.trace import trace
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context


def quantized(net, x, **options):
    return attar.quantize(net, x, activations=4, bits=8, tolerance=None, **options)


def grids(path):
    return {each.value: each.bits for each in attar.open_artifact(path).manifest.graphs[0].activations}


def test_the_file_adds_what_has_8_bits_and_multiplies_what_has_4(tmp_path):
    torch.manual_seed(0)
    net, x = Net().eval(), data(64)[0]
    quantized(net, x).save(tmp_path / "m.attar")
    assert {name: bits for name, bits in grids(tmp_path / "m.attar").items() if name.startswith("relu")} == {
        "relu": 8,
        "relu_reading": 4,
        "relu_1": 8,
    }
    session = attar.Session(tmp_path / "m.attar")
    made, kernels = torch.from_numpy(session.run(x.numpy())), session.layers
    assert all(layer.integer for layer in kernels), kernels
    # The file's own graph, by PyTorch on the module's structure.
    loaded = attar.load(tmp_path / "m.attar", Net().eval())
    torch.testing.assert_close(made, loaded(x), rtol=1e-3, atol=1e-3)
    # By hand: the carried value has 256 levels, what the layer reads has 16.
    values = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    Watch(loaded).run(x)
    carried, read = (values[f"site_{name}"] for name in ("relu", "relu_reading"))
    assert len(read.unique()) <= 16 < len(carried.unique()) <= 256
    add = next(n for n in loaded.graph.nodes if n.name.startswith("add"))
    assert "site_relu" in {each.name for each in add.all_input_nodes}


def test_a_carried_value_costs_less_than_one_with_few_bits():
    """Eight blocks that each add a little: with one grid for both every block would round what all before have made."""
    torch.manual_seed(1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return torch.relu(x + 0.3 * self.conv(x))

    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), *[Block() for _ in range(8)]).eval()
    x = data(32)[0]
    with torch.no_grad():
        want = net(x)
    options = {"observer": "mse", "overrides": {}}
    errors = {}
    for name, own in (("readings", {}), ("one grid", {"relu*": 4})):
        found = quantized(net, x, activation_overrides=own, **options).compressed.simulate()(x)
        errors[name] = float((found - want).square().sum() / want.square().sum())
    assert errors["readings"] < errors["one grid"] / 2, errors


def test_a_value_named_in_overrides_has_one_grid(tmp_path):
    torch.manual_seed(0)
    quantized(Net().eval(), data(64)[0], activation_overrides={"relu": 5}).save(tmp_path / "m.attar")
    found = grids(tmp_path / "m.attar")
    assert found["relu"] == 5
    assert "relu_reading" not in found


def test_a_layer_named_in_overrides_reads_its_bits(tmp_path):
    torch.manual_seed(0)
    quantized(Net().eval(), data(64)[0], activation_overrides={"second": 6}).save(tmp_path / "m.attar")
    found = grids(tmp_path / "m.attar")
    assert (found["relu"], found["relu_reading"]) == (8, 6)


def test_readings_change_no_value():
    torch.manual_seed(0)
    net, x = Net().eval(), data(8)[0]
    traced = trace(net, (x,))
    read = with_readings(traced, ["relu", "conv2d", "no such value"])
    assert [n.name for n in read.graph.graph.nodes if n.name.endswith("_reading")] == ["relu_reading"]
    assert {n.name for n in traced.graph.graph.nodes} < {n.name for n in read.graph.graph.nodes}
    torch.testing.assert_close(read.graph(x), traced.graph(x), rtol=0, atol=0)
    # Again: the product reads the reading by now, not the value.
    again = with_readings(read, ["relu"])
    assert [n.name for n in again.graph.graph.nodes] == [n.name for n in read.graph.graph.nodes]
    floating = attar.Session(open_artifact(attar_bytes(read)))
    np.testing.assert_allclose(floating.run(x.numpy()), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def attar_bytes(traced):
    return pack(CompressedModel.of(traced).contents(FileInfo()))


def test_nothing_is_read_apart_with_8_bits():
    torch.manual_seed(0)
    model = attar.quantize(Net().eval(), data(64)[0], activations=8, bits=8, tolerance=None).compressed
    assert not [name for name in model.main.activations if name.endswith("_reading")]


def test_a_network_that_is_trained_further_keeps_one_grid():
    """Training knows the values of the captured program alone."""
    learner = fresh()
    later = learner.deployed(fold=False)
    done = PostTrainingQuantize(activations=4).run(later, Context(CalibrationInputs(((data(16)[0],),))))
    assert not [name for name in done.main.activations if name.endswith("_reading")]
