"""Session: what goes in, what comes out, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from tests import samples
from tests.runtime.reference import act, file_of, node

from attar._src.artifact.limits import Limits
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack, write_atomically
from attar._src.core.errors import ArtifactError, DataError, UnknownName
from attar._src.core.operators import INTEGER_KERNELS
from attar._src.core.tensors import Dense
from attar._src.runtime.engine import rounded_values
from attar._src.runtime.session import Layer, Session


@pytest.fixture(scope="module")
def conv():
    return Session(pack(samples.conv_net()))


def test_path_bytes_and_open_files_are_the_same(tmp_path, conv, rng):
    data = pack(samples.conv_net())
    write_atomically(tmp_path / "m.attar", data)
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    for source in (tmp_path / "m.attar", str(tmp_path / "m.attar"), data, open_artifact(data)):
        np.testing.assert_array_equal(Session(source, threads=2).run(x), conv.run(x))


def test_a_bare_array_gives_a_bare_array_and_names_give_names(conv, rng):
    x = rng.normal(size=(5, 3, 8, 8)).astype(np.float32)
    bare, named = conv.run(x), conv.run({"x": x})
    assert bare.shape == (5, 10)
    assert list(named) == ["y"]
    np.testing.assert_array_equal(bare, named["y"])
    # Views and reversed axes are inputs like others.
    np.testing.assert_array_equal(conv.run(x[:, :, ::-1][:, :, ::-1]), bare)


def test_one_example_is_like_many(conv, rng):
    x = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    each = np.concatenate([conv.run(x[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(each, conv.run(x), atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 3, 8, 8)), r"takes float32, float64 arrived; use .astype\('float32'\)"),
        (np.zeros((3, 8, 8), np.float32), r"shape \(batch, 3, 8, 8\), \(3, 8, 8\) arrived"),
        (np.zeros((1, 4, 8, 8), np.float32), r"axis 1 .* has size 4; .* dynamic=\(0, 1\)"),
        ({"z": np.zeros((1, 3, 8, 8), np.float32)}, "the graph's inputs are x; z arrived"),
        ({}, "none arrived"),
    ],
)
def test_wrong_inputs_are_refused_in_words(conv, inputs, message):
    with pytest.raises(DataError, match=message):
        conv.run(inputs)


def test_a_wrong_input_is_refused_after_a_right_one(conv):
    conv.run(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(DataError):
        conv.run(np.zeros((1, 3, 8, 8)))


def test_a_symbolic_axis_has_one_size_everywhere():
    artifact = file_of([node("Neg", "x", "y")], {}, x=("n", "n"), y=("n", "n"))
    session = Session(artifact)
    assert session.run(np.ones((3, 3), np.float32)).shape == (3, 3)
    with pytest.raises(DataError, match=r"axis 1 .* size 4"):
        session.run(np.ones((3, 4), np.float32))


def test_indices_out_of_range_are_an_error_of_the_data():
    with pytest.raises(DataError, match="cannot run"):
        Session(pack(samples.lstm())).run(np.full((1, 3), 99))


def test_preprocessing_of_the_file_is_applied(conv):
    raw = np.full((1, 3, 8, 8), 51, np.uint8)
    got = conv.preprocess(raw)
    np.testing.assert_allclose(got[0, :, 0, 0], (0.2 - np.array([0.5, 0.4, 0.3])) / 0.2, rtol=1e-5, atol=1e-6)
    assert got.dtype == np.float32


def test_without_preprocessing_numbers_get_the_type_of_the_input():
    session = Session(pack(samples.lstm()))
    assert session.preprocess(np.array([[1, 2]], np.uint8)).dtype == np.int64
    with pytest.raises(DataError, match="takes int64"):
        session.preprocess(np.array([[1.5]]))


def test_layers_are_those_of_the_profile():
    contents = samples.conv_net()
    on_steps = {**contents.tensors, "conv.bias": Dense(np.zeros(4, np.float32))}
    session = Session(pack(replace(contents, tensors=on_steps)))
    by_name = {layer.name: layer for layer in session.layers}
    assert {name: layer.kernel for name, layer in by_name.items()} == {"conv": "QLinearConv", "fc": "Gemm"}
    assert "its bias is not in whole steps" in by_name["fc"].reason
    multiply = {name for kernel in INTEGER_KERNELS.values() for name in kernel.names.split()}
    assert all(layer.integer == (layer.kernel in multiply) for layer in session.layers)
    assert all(bool(layer.reason) != layer.integer for layer in session.layers)
    assert session.integer_layers() == ("conv",)


def test_a_layer_is_counted_once_whatever_the_number_of_its_nodes():
    def layer(*uses):
        return Layer.of("head", [(*use, "float32" if use[2] else "integers") for use in uses])

    both = layer(("a", "QGemm", ""), ("b", "QGemm", ""))
    assert (both.nodes, both.kernel, both.integer, both.reason) == (("a", "b"), "QGemm", True, "")
    part = layer(("a", "QGemm", ""), ("b", "Gemm", "its input is not quantized"))
    assert (part.integer, part.kernel, part.plan) == (False, "QGemm, Gemm", "integers, float32")
    assert part.reason == "in 1 of 2 nodes: its input is not quantized"
    none = layer(("a", "Gemm", "it is kept"), ("b", "Gemm", "it is kept"))
    assert (none.integer, none.reason, none.plan) == (False, "it is kept", "float32")


def test_a_model_without_quantized_activations_runs_in_floating_point_and_says_why():
    session = Session(pack(samples.lstm()))
    assert session.integer_layers() == ()
    reasons = {layer.name: layer.reason for layer in session.layers}
    assert reasons["embed"] == "Gather reads real numbers"
    assert reasons["lstm"] == "LSTM reads real numbers"
    assert "codebook" in reasons["head"]
    assert "lstm.weight_hh_l0" in session.dequantized
    assert "lstm.bias_ih_l0" not in session.dequantized


def test_examples_have_the_sizes_of_the_file(conv):
    assert conv.example()["x"].shape == (2, 3, 8, 8)
    assert conv.example(7)["x"].shape == (7, 3, 8, 8)


def test_limits_and_graph_names_are_passed_on():
    data = pack(samples.conv_net())
    with pytest.raises(ArtifactError, match="nodes"):
        Session(data, limits=Limits(nodes=1))
    with pytest.raises(UnknownName, match="main"):
        Session(data, graph="maim")


def test_what_onnx_runtime_refuses_is_an_error_of_the_file():
    # Sound as a graph; but ONNX Runtime has no kernel for it in this type.
    artifact = file_of(
        [node("Cast", "x", "d", to=11), node("LRN", "d", "m", size=3), node("Cast", "m", "y", to=1)],
        {},
        x=("batch", 1, 4, 4),
        y=("batch", 1, 4, 4),
    )
    with pytest.raises(ArtifactError, match="ONNX Runtime refuses"):
        Session(artifact)


def test_quantized_values_may_be_inputs_and_outputs_at_once(rng):
    artifact = file_of([node("Identity", "x", "y")], {}, [act("x", 0.5, 3, 4), act("y", 0.5)], x=("n",), y=("n",))
    got = Session(artifact).run(np.array([-9, 0.2, 0.3, 99], np.float32))
    np.testing.assert_array_equal(got, [-1.5, 0.0, 0.5, 6.0])


def test_pytorch_is_not_needed():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, attar._src.runtime, attar._src.measure, attar._src.backends, attar._src.data\n"
        "assert not any(name.split('.')[0] in ('torch', 'safetensors', 'onnxscript', 'sklearn') and module\n"
        "               for name, module in sys.modules.items())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("isolated", [False, True])
def test_nan_is_refused_where_rounding_to_integers_would_hide_it(isolated):
    """Guards against outputs that look right for an input that is none."""
    x = np.zeros((2, 3, 8, 8), np.float32)
    x[1, 2, 0, 3] = np.nan
    with (
        Session(pack(samples.conv_net()), isolated=isolated) as session,
        pytest.raises(DataError, match=r"input 'x' has NaN at \[1, 2, 0, 3\], 1 in all; .* Replace NaN"),
    ):
        session.run(x)
    x[1, 2, 0, 3] = np.finfo(np.float32).min  # whose square is no number of float32
    with np.errstate(all="raise"):
        Session(pack(samples.conv_net())).run(x)
    x[1, 2, 0, 3] = np.inf  # ends at the edge of the grid, as any large number does
    assert np.isfinite(Session(pack(samples.conv_net())).run(x)).all()


def test_nan_shows_where_nothing_is_rounded():
    x = np.array([[1, np.nan, 2]], np.float32)
    file = file_of([node("Relu", "x", "y")], {}, x=("batch", 3), y=("batch", 3))
    np.testing.assert_array_equal(Session(file).run(x), x)


def test_nan_is_no_fault_where_the_graph_asks_for_it():
    """Guards against a refusal of inputs that the module itself fills in, or that nothing rounds."""
    nodes = [
        node("IsNaN", "x", "missing"),
        node("Where", "missing zero x", "filled"),
        node("QuantizeLinear", "filled scale zero_point", "codes"),
        node("DequantizeLinear", "codes scale zero_point", "real"),
        node("Add", "real bias", "y"),
    ]
    graph = helper.make_graph(nodes, "filled", [], [])
    assert rounded_values(graph) == {"missing", "zero", "filled", "scale", "zero_point"}
    graph = helper.make_graph(nodes[2:], "rounded", [], [])
    assert rounded_values(graph) == {"filled", "scale", "zero_point"}
    body = helper.make_graph([node("DynamicQuantizeMatMul", "step weight", "out")], "body", [], [])
    loop = helper.make_graph([node("Scan", "state x", "y", body=body, num_scan_inputs=1)], "scan", [], [])
    assert {"state", "x"} <= rounded_values(loop)
