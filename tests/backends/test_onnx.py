"""The ONNX backend: a standard file that computes what the session computes."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from tests import samples
from tests.runtime.test_lower import inputs_for, residual

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.backends.onnx import OnnxBackend
from attar._src.runtime.session import Session


@pytest.mark.parametrize("make", [samples.conv_net, samples.lstm, samples.transformer])
def test_plain_onnx_runtime_computes_what_the_session_computes(make, tmp_path, rng):
    artifact = open_artifact(pack(make()))
    path = tmp_path / "m.onnx"
    OnnxBackend().export(artifact, path)
    onnx.checker.check_model(str(path), full_check=True)
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = inputs_for(artifact, rng)
    want = Session(artifact).run(feed)
    for value, got in zip(plain.get_outputs(), plain.run(None, feed), strict=True):
        np.testing.assert_allclose(got, want[value.name], rtol=1e-5, atol=1e-5)
    assert [path] == list(tmp_path.iterdir())


def test_integer_weights_stay_int8_in_the_standard_domain(tmp_path, rng):
    artifact = residual(rng, weight_bits=4)
    OnnxBackend().export(artifact, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert {item.domain for item in model.opset_import} == {""}
    kinds = {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}
    assert kinds["c1_codes"] == np.int8
    assert not any(node.domain for node in model.graph.node)


def test_what_a_user_needs_travels_as_metadata(tmp_path):
    OnnxBackend().export(open_artifact(pack(samples.conv_net())), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    told = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert told["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert told["class_names"] == list("0123456789")
    assert told["task"] == "classification"
    assert model.producer_name == "attar"


def test_the_same_file_gives_the_same_bytes(tmp_path):
    artifact = open_artifact(pack(samples.transformer()))
    for name in ("a", "b"):
        OnnxBackend().export(artifact, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
