"""The format, tried by hand: a convolutional net, an LSTM and a small transformer go through it and come back."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tests.samples import conv_net, lstm, transformer

from attar._src.artifact.bindings import Whole, whole
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.tensors import Dense, Quantized


def run(artifact, inputs):
    """Compute the graph with ONNX's reference evaluator, its initializers given back from the tensors."""
    model = artifact.graph()
    for binding in artifact.graph_record().bindings:
        model.graph.initializer.append(onnx.numpy_helper.from_array(artifact.initializer(binding), binding.to))
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, inputs)


@pytest.mark.parametrize("make", [conv_net, lstm, transformer])
@pytest.mark.parametrize("coder", ["rans", "huffman", "raw"])
def test_every_tensor_comes_back(make, coder):
    contents = make()
    artifact = open_artifact(pack(contents, coder=coder))
    assert artifact.names == tuple(contents.tensors)
    for name, tensor in contents.tensors.items():
        found = artifact.tensor(name)
        assert type(found) is type(tensor)
        assert found.dense().dtype == tensor.dense().dtype
        np.testing.assert_array_equal(found.dense(), tensor.dense())
    assert artifact.manifest.parameters == contents.parameters
    assert artifact.manifest.folds == contents.folds
    assert dict(artifact.manifest.recipe) == dict(contents.recipe)


def test_the_same_contents_give_the_same_bytes():
    assert pack(conv_net()) == pack(conv_net())


def test_conv_net_computes_what_its_weights_say(rng):
    artifact = open_artifact(pack(conv_net()))
    image = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    (found,) = run(artifact, {"x": image})
    weight = {name: artifact.tensor(name).dense() for name in artifact.names}
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    hidden = np.einsum("bchwij,ocij->bohw", windows, weight["conv.weight"]) + weight["conv.bias"][:, None, None]
    pooled = np.maximum(hidden, 0).reshape(2, 4, 4, 2, 4, 2).max((3, 5)).reshape(2, -1)
    np.testing.assert_allclose(found, pooled @ weight["fc.weight"].T + weight["fc.bias"], rtol=1e-4, atol=1e-5)
    (linear,) = [binding for binding in artifact.graph_record().bindings if binding.to == "fc.weight"]
    assert whole(linear) == Whole("fc.weight", (1, 0))
    activations = artifact.graph_record().activations
    assert [(item.value, item.bits, item.signed, np.float32(item.scale), item.zero_point) for item in activations] == [
        ("x", 8, False, np.float32(0.03), 128),
        ("relu", 8, False, np.float32(0.1), 0),
        ("pool", 4, False, np.float32(0.5), 3),
    ]


def test_lstm_gates_are_reordered_by_bindings(rng):
    artifact = open_artifact(pack(lstm()))
    tokens = rng.integers(0, 11, (2, 5))
    (found,) = run(artifact, {"tokens": tokens})
    dense = {name: artifact.tensor(name).dense() for name in artifact.names}
    hidden = cell = np.zeros((2, 6), np.float32)
    for step in range(5):
        gates = dense["embed.weight"][tokens[:, step]] @ dense["lstm.weight_ih_l0"].T + dense["lstm.bias_ih_l0"]
        gates = gates + hidden @ dense["lstm.weight_hh_l0"].T + dense["lstm.bias_hh_l0"]
        i, f, g, o = np.split(gates, 4, axis=1)  # PyTorch's order; ONNX has i, o, f, g
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
    np.testing.assert_allclose(found, hidden @ dense["head.weight"].T, rtol=1e-4, atol=1e-5)


def test_transformer_ties_its_embedding(rng):
    artifact = open_artifact(pack(transformer()))
    assert artifact.manifest.aliases == {"head.weight": "embed.weight"}
    np.testing.assert_array_equal(artifact.tensor("head.weight").dense(), artifact.tensor("embed.weight").dense())
    bindings = {binding.to: binding for binding in artifact.graph_record().bindings}
    np.testing.assert_array_equal(artifact.initializer(bindings["head"]), artifact.tensor("embed.weight").dense().T)
    assert whole(bindings["head"]) == Whole("head.weight", (1, 0))
    (found,) = run(artifact, {"tokens": rng.integers(0, 20, (3, 7))})
    assert found.shape == (3, 7, 20)
    assert np.isfinite(found).all()


def test_what_exporters_leave_in_a_model_is_not_stored():
    contents = conv_net()
    model = contents.graphs[0].model
    model.producer_name = "secret-producer"
    model.doc_string = "secret-doc"
    helper.set_model_props(model, {"path": "/home/secret"})
    model.graph.doc_string = "secret-graph"
    model.graph.node[0].doc_string = "secret-node"
    model.graph.node[0].metadata_props.add(key="stack", value="/home/secret/net.py")
    model.graph.value_info.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, None))
    weight = np.ones((4, 3, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "conv.weight"))
    artifact = open_artifact(pack(contents))
    assert b"secret" not in artifact.graph().SerializeToString()
    assert not artifact.graph().graph.value_info
    assert artifact.file_bytes == len(pack(conv_net()))


def test_a_constant_node_becomes_an_initializer():
    contents = lstm()
    graph = contents.graphs[0].model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name != "last"]
    (last,) = [tensor for tensor in graph.initializer if tensor.name == "last"]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.node.insert(0, helper.make_node("Constant", [], ["last"], value=last))
    stored = open_artifact(pack(contents)).graph().graph
    assert "Constant" not in [node.op_type for node in stored.node]
    assert "last" in [tensor.name for tensor in stored.initializer]


def test_kinds_of_tensor_survive():
    tensors = open_artifact(pack(conv_net()))
    assert isinstance(tensors.tensor("conv.weight"), Quantized)
    assert isinstance(tensors.tensor("conv.bias"), Dense)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
