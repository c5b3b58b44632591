"""Where every byte of a file goes."""

import json
from dataclasses import replace

import pytest
from tests.attacks.fuzz import every_kind
from tests.samples import conv_net, lstm, relu, transformer

from attar._src.artifact.inspect import inspect_artifact
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack

KEYS = {"file_bytes", "weights_bytes", "graph_bytes", "overhead_bytes", "parameters", "bits_per_weight", "tensors"}
TENSOR_KEYS = {"name", "shape", "kind", "bits", "elements", "nonzero", "entropy_bits", "payload_bytes"}


@pytest.mark.parametrize("make", [conv_net, lstm, transformer, every_kind])
def test_bytes_add_up(make):
    data = pack(make())
    found = inspect_artifact(open_artifact(data))
    assert found.keys() >= KEYS
    assert found["file_bytes"] == len(data)
    assert found["weights_bytes"] + found["graph_bytes"] + found["overhead_bytes"] == len(data)
    assert sum(found["overhead"].values()) == found["overhead_bytes"]
    payload = sum(tensor["payload_bytes"] for tensor in found["tensors"])
    tables = sum(table["bytes"] for table in found["tables"])
    assert payload + tables == found["weights_bytes"]
    assert found["bits_per_weight"] == (len(data) - found["graph_bytes"]) * 8 / found["parameters"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_tensors_are_described():
    contents = every_kind()
    found = {tensor["name"]: tensor for tensor in inspect_artifact(open_artifact(pack(contents)))["tensors"]}
    assert all(tensor.keys() >= TENSOR_KEYS for tensor in found.values())
    for name, tensor in contents.tensors.items():
        assert found[name]["shape"] == list(tensor.shape)
        assert found[name]["nonzero"] == int((tensor.dense() != 0).sum())
    assert (found["conv.weight"]["kind"], found["conv.weight"]["bits"]) == ("quantized", 4)
    assert 3 < found["conv.weight"]["entropy_bits"] < 4
    assert (found["conv.bias"]["kind"], found["conv.bias"]["bits"]) == ("dense", 32)
    assert found["conv.bias"]["entropy_bits"] is None
    assert found["sparse"]["values"]["kind"] == "codebook"
    assert [found[name]["scale_dtype"] for name in ("conv.weight", "f16", "bf16")] == ["f32", "f16", "bf16"]
    assert found["scalar"]["elements"] == 1
    assert found["empty"]["elements"] == found["empty"]["payload_bytes"] == 0


def test_the_version_is_that_of_the_file():
    assert [
        inspect_artifact(open_artifact(pack(make(), compact=False)))["format"] for make in (conv_net, every_kind)
    ] == [
        "1.0",
        "1.3",
    ]


def test_graphs_are_described():
    (graph,) = inspect_artifact(open_artifact(pack(conv_net())))["graphs"]
    assert graph["operators"] == {"Conv": 1, "Flatten": 1, "Gemm": 1, "MaxPool": 1, "Relu": 1}
    assert (graph["nodes"], graph["bindings"], graph["activations"], graph["opset"]) == (5, 4, 3, 18)


def test_a_module_without_parameters():
    assert inspect_artifact(open_artifact(pack(relu({}))))["bits_per_weight"] is None


def test_what_is_said_of_the_model_is_passed_on():
    found = inspect_artifact(open_artifact(pack(replace(conv_net(), licence="CC0"))))
    assert found["licence"] == "CC0"
    assert found["folds"] == [{"batch_norm": "bn", "into": "conv"}]
    assert found["preprocessing"]["std"] == [0.2, 0.2, 0.2]
    assert inspect_artifact(open_artifact(pack(transformer())))["aliases"] == {"head.weight": "embed.weight"}
