"""Two methods of one module as two graphs of one file: an encoder, and a step of a decoder tied to its embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import DataError, ModelError
from attar._src.core.tensors import Quantized
from attar._src.deploy.load import load
from attar._src.deploy.package import package
from attar._src.deploy.parity import Parity
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.entry_points import EntryPoint, trace_methods
from attar._src.model.trace import trace
from attar._src.runtime.session import Session
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo
from attar._src.work.context import Context


class Translator(nn.Module):
    """The output layer is the embedding of both sides; the batch-norm behind ``mix`` serves both graphs."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 40, bias=False)
        self.table = nn.Embedding(40, 16)
        self.out.weight = self.table.weight
        self.mix, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.encoded, self.own = nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16)
        self.cell = nn.Linear(48, 16)
        self.register_buffer("order", torch.arange(16).flip(0))

    def encode(self, tokens):
        x = self.norm(self.mix(self.table(tokens).mean(1)))
        return self.own(self.encoded(torch.relu(x)))[:, self.order] * torch.linspace(0.5, 1, 16)

    def step(self, memory, token, state):
        read = self.norm(self.mix(memory))
        state = torch.tanh(self.cell(torch.cat([self.table(token), read, state], 1)))
        return self.out(state) + torch.linspace(-1, 1, 40), state


def _module():
    torch.manual_seed(0)
    net = Translator()
    for norm in (net.norm, net.own):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return net.eval()


def _inputs(net, count=64):
    tokens = torch.randint(0, 40, (count, 7))
    with torch.no_grad():
        memory = net.encode(tokens)
    step = (memory, torch.randint(0, 40, (count,)), torch.rand(count, 16) * 2 - 1)
    return {"encoder": CalibrationInputs(((tokens,),)), "decoder_step": CalibrationInputs((step,))}


def _piece(net):
    inputs = _inputs(net, 2)
    methods = {"encoder": "encode", "decoder_step": "step"}
    entries = {name: EntryPoint(inputs[name].batches[0], method) for name, method in methods.items()}
    return CompressedModel.of(trace_methods(net, entries))


def test_an_encoder_and_a_decoder_step_are_quantized_and_run_from_one_file(tmp_path):
    net = _module()
    inputs = _inputs(net)
    piece = PostTrainingQuantize(bits=8, activations=8).run(_piece(net), Context(inputs))
    assert all(graph.activations for graph in piece.graphs.values())
    data = pack(piece.contents(FileInfo()))
    artifact = open_artifact(data)
    stored = [record.name for record in artifact.manifest.tensors]
    assert stored.count("table.weight") == 1
    assert "out.weight" not in stored
    assert artifact.manifest.aliases == {"out.weight": "table.weight"}
    assert isinstance(artifact.tensor("out.weight"), Quantized)
    # Every weight once: 8 bits a parameter of it, and what is beside.
    assert artifact.manifest.parameters == sum(parameter.numel() for parameter in net.parameters())

    sessions = {name: Session(artifact, graph=name) for name in ("encoder", "decoder_step")}
    with torch.no_grad():
        for name, method in (("encoder", net.encode), ("decoder_step", net.step)):
            batch = inputs[name].batches[0]
            wanted = method(*batch)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            ports = [port.name for port in sessions[name].inputs]
            got = sessions[name].run({port: each.numpy() for port, each in zip(ports, batch, strict=True)})
            for one, other in zip(got.values(), wanted, strict=True):
                assert one.shape == tuple(other.shape)
                assert np.abs(one - other.numpy()).mean() < 0.03 * np.abs(other.numpy()).mean()
    (tmp_path / "raw.attar").write_bytes(data)
    with pytest.raises(ModelError, match=r"\['encoder', 'decoder_step'\]; attar.load takes a file of one"):
        load(tmp_path / "raw.attar", net)
    figures = package(piece, tmp_path / "t.attar", FileInfo(), inputs, coder="rans", dry_run=Parity(0, 0, 0, 0, 0, 1))
    assert {name: each["examples"] for name, each in figures["parity"].items()} == {"encoder": 64, "decoder_step": 64}


def test_a_batch_norm_is_folded_where_every_graph_that_reads_the_weight_agrees():
    net = _module()
    piece = _piece(net)
    assert {fold.batch_norm for graph in piece.graphs.values() for fold in graph.traced.folds} == {"norm", "own"}
    for name, method in (("encoder", net.encode), ("decoder_step", net.step)):
        batch = _inputs(net)[name].batches[0]
        torch.testing.assert_close(piece.simulate(graph=name)(*batch), method(*batch), rtol=1e-4, atol=1e-5)

    class Raw(Translator):
        def step(self, memory, token, state):
            return self.mix(memory) + state

    net = Raw().eval()
    example = (torch.randn(2, 16), torch.zeros(2, dtype=torch.int64), torch.randn(2, 16))
    traced = trace_methods(
        net,
        {"encoder": EntryPoint((torch.zeros(2, 7, dtype=torch.int64),), "encode"), "step": EntryPoint(example, "step")},
    )
    assert traced["encoder"].folding.kept == {"norm": "graph 'step' reads mix.weight too"}
    assert {*traced["encoder"].folding.folded} == {"own"}
    CompressedModel.of(traced)


def test_two_batch_norms_of_equal_factor_behind_a_shared_layer_are_kept():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.one, self.other = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            nn.init.ones_(self.other.bias)

        def forward(self, x):
            return self.one(self.layer(x))

        def again(self, x):
            return self.other(self.layer(x))

    x = (torch.randn(4, 4),)
    traced = trace_methods(Two().eval(), {"a": EntryPoint(x), "b": EntryPoint(x, "again")})
    assert {name: {*each.folding.kept} for name, each in traced.items()} == {"a": {"one"}, "b": {"other"}}
    CompressedModel.of(traced)


def test_tensors_that_differ_between_graphs_are_refused_by_name():
    one, other = _module(), _module()
    nn.init.ones_(other.cell.bias)
    example = _inputs(one, 2)["decoder_step"].batches[0]
    graphs = {name: trace(each, example, method="step") for name, each in (("a", one), ("b", other))}
    with pytest.raises(ModelError, match=r"cell\.bias differs between the graphs 'a' and 'b'"):
        CompressedModel.of(graphs)


def test_what_is_missing_is_named():
    net = _module()
    piece = _piece(net)
    with pytest.raises(ModelError, match=r"has no method 'decode'"):
        trace(net, (torch.zeros(2, 7, dtype=torch.int64),), method="decode")
    with pytest.raises(DataError, match=r"\['decoder_step'\] have no inputs"):
        PostTrainingQuantize().run(piece, Context({"encoder": _inputs(net)["encoder"]}))
    with pytest.raises(ModelError, match=r"\['encoder', 'decoder_step'\]; one graph was expected"):
        piece.simulate()
    assert replace(piece, graphs={"main": piece.graphs["encoder"]}).main is piece.graphs["encoder"]
