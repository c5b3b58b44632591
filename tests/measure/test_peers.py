"""Peers: the same network as other tools deploy it. None of these tests measures time."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests import samples

from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import ArtifactError
from attar._src.measure.peers import FLOAT32, PEERS, STATIC, PeerSource, build_peers, quantizes_nothing, random_feeds
from attar._src.measure.runner import example_feed, open_runner

DYNAMIC, OPENVINO = "ONNX Runtime dynamic int8", "OpenVINO of the export"
NETS = {"convolutions": samples.conv_net, "lstm": samples.lstm}


def source_of(folder, contents, **more):
    path = folder / "m.attar"
    write_atomically(path, pack(contents))
    runner = open_runner(path, threads=1)
    feed = example_feed(runner, 2)
    (made := folder / "made").mkdir()
    return runner, PeerSource(runner.session.artifact, made, feed, random_feeds(feed), **more)


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("net", NETS)
def test_every_peer_computes_what_the_file_does(tmp_path, net):
    runner, source = source_of(tmp_path, NETS[net]())
    ours = next(iter(runner.run(source.example).values()))
    built = {peer.name: peer for peer in build_peers(source, threads=1)}
    assert list(built) == list(PEERS)
    for name in (FLOAT32, DYNAMIC, STATIC):
        assert built[name].reason == ""
        theirs = next(iter(built[name].runner.run(built[name].runner.feed(source.example)).values()))
        assert theirs.shape == ours.shape
        error = np.abs(theirs - ours).max() / np.abs(ours).max()
        assert error < 0.2, (name, error)


def test_the_float32_peer_rounds_nothing_and_the_others_do(tmp_path):
    _, source = source_of(tmp_path, samples.conv_net())
    paths = {peer.name: peer.runner.path for peer in build_peers(source) if peer.runner is not None}
    assert not any("Quantize" in operator for operator in operators(paths[FLOAT32]))
    assert "ConvInteger" in operators(paths[DYNAMIC])
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators(paths[STATIC])
    scales = [node for node in onnx.load(paths[STATIC]).graph.node if node.op_type == "DequantizeLinear"]
    held = {tensor.name: tensor for tensor in onnx.load(paths[STATIC]).graph.initializer}
    assert any(list(held[node.input[1]].dims) == [4] for node in scales)  # a scale a channel of the convolution


def test_an_lstm_has_dynamic_integers(tmp_path):
    _, source = source_of(tmp_path, samples.lstm())
    assert "DynamicQuantizeLSTM" in operators(PEERS[DYNAMIC](source))


def test_a_floating_model_that_is_given_is_the_source(tmp_path):
    _, own = source_of(tmp_path, samples.conv_net())
    given = tmp_path / "given.onnx"
    given.write_bytes(own.float32.read_bytes())
    assert quantizes_nothing(given)
    assert not quantizes_nothing(own.exported)
    source = PeerSource(own.artifact, own.folder, own.example, own.calibration, floating=given)
    assert PEERS[FLOAT32](source) == given
    (tmp_path / "no.onnx").write_bytes(b"\xff\xff nothing")
    with pytest.raises(ArtifactError, match="is no ONNX file"):
        quantizes_nothing(tmp_path / "no.onnx")


def test_a_peer_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, capfd):
    _, source = source_of(tmp_path, samples.conv_net())
    monkeypatch.setitem(sys.modules, "openvino", None)

    def broken(_: PeerSource) -> Path:
        raise KeyError("a graph\nthat it does not know")

    monkeypatch.setitem(PEERS, STATIC, broken)
    missing = {peer.name: peer.reason for peer in build_peers(source) if peer.runner is None}
    assert missing == {
        STATIC: "KeyError: 'a graph\\nthat it does not know'",
        OPENVINO: "openvino is not installed: pip install openvino",
    }
    assert capfd.readouterr().err == ""


def test_openvino_runs_the_export(tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino", reason="the extra [bench] is not installed")
    compiled, compile_model = [], openvino.Core.compile_model
    monkeypatch.setattr(
        openvino.Core,
        "compile_model",
        lambda self, *given: compiled.append(compile_model(self, *given)) or compiled[-1],
    )
    runner, source = source_of(tmp_path, samples.conv_net())
    peer = next(peer for peer in build_peers(source, threads=1) if peer.name == OPENVINO)
    assert peer.reason == ""
    assert peer.runner.file_bytes > source.folder.joinpath("openvino.xml").stat().st_size
    ours, theirs = runner.run(source.example)["y"], peer.runner.run(peer.runner.feed(source.example))["y"]
    assert np.abs(theirs - ours).max() < 0.2 * np.abs(ours).max()
    # Bound to one core, it would wait for whatever else runs there.
    assert compiled[0].get_property("ENABLE_CPU_PINNING") is False
    again = open_runner(source.folder / "openvino.xml", threads=1)
    np.testing.assert_array_equal(again.run(again.feed(source.example))["y"], theirs)
    (source.folder / "openvino.xml").write_text("<nothing/>")
    with pytest.raises(ArtifactError, match="OpenVINO refuses"):
        open_runner(source.folder / "openvino.xml")
