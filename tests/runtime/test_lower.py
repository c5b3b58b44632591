"""Lowering: the function stays, and ONNX Runtime runs in integers what it can."""

import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from tests import samples
from tests.runtime import reference
from tests.runtime.reference import act, file_of, node

from attar._src.artifact.manifest import Binding
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor
from attar._src.core.tensors import Quantized, Scheme
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session

SIGNED = act("x", 0.05, -3, signed=True)


def weights(rng, shape, bits=8, **options):
    return samples.quantized(rng, shape, bits=bits, **options)


def integer_nodes(lowered):
    """The nodes that can use integer kernels."""
    return tuple(node for node, placement in lowered.layers.items() if not placement.reason)


def bias(rng, weight, scale):
    """A bias that is a whole number of steps of the integer sums, so that int32 holds it exactly."""
    steps = rng.integers(-60, 60, weight.shape[0]).astype(np.float32)
    if not isinstance(weight, Quantized) or weight.scale.size not in (1, weight.shape[0]):
        return steps / 50
    return steps * (weight.scale * np.float32(scale))


def inputs_for(artifact, rng, batch=3):
    feed = {}
    for port in artifact.graph_record().inputs:
        sizes = [batch if axis == "batch" else n for axis, n in zip(port.shape, port.example, strict=True)]
        if port.dtype == "i64":
            feed[port.name] = rng.integers(0, 11, sizes)
        else:
            feed[port.name] = rng.normal(size=sizes).astype(np.float32)
    return feed


def check(artifact, rng, *, steps=0.0, share=0.0):
    """The session and the meaning of the file agree, but for a ``share`` of the values, off by ``steps`` at most.

    Sums of floats in another order may tip a value that lies between two codes.
    """
    lowered, feed = lower(artifact), inputs_for(artifact, rng)
    onnx.checker.check_model(lowered.model, full_check=True)
    want = reference.run(artifact, feed)
    for got in (Session(artifact).run(feed), as_written(lowered, feed)):
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].shape == value.shape
            assert got[name].dtype == value.dtype
            off = np.abs(got[name] - value)
            close = off <= 1e-4 + 1e-4 * np.abs(value)
            assert (~close).mean() <= share
            assert off.max() <= max(steps, 1e-4 + 1e-4 * np.abs(value).max())
    return lowered


def as_written(lowered, feed):
    """What the lowered model computes where nothing is fused, as in another runtime."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(lowered.serialized(), options, providers=["CPUExecutionProvider"])
    return {value.name: got for value, got in zip(plain.get_outputs(), plain.run(None, feed), strict=True)}


def operators(lowered):
    return [item.op_type for item in lowered.model.graph.node]


@pytest.mark.parametrize("make", [samples.conv_net, samples.lstm, samples.transformer])
def test_the_three_samples_compute_what_they_mean(make, rng):
    artifact = open_artifact(pack(make()))
    check(artifact, rng, steps=0.1, share=float(make is samples.conv_net))


def residual(rng, *, bits=8, weight_bits=8, relu_zero=0):
    """A block with a strided, padded shortcut: what a residual network is made of."""
    nodes = [
        node("Conv", "x c1 b1", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        node("Conv", "r c2 b2", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Slice", "r start end two step", "s1"),
        node("Slice", "s1 start end three step", "s2"),
        node("Pad", "s2 pads", "p"),
        node("Add", "c p", "d"),
        node("Relu", "d", "e"),
        node("ReduceMean", "e axes", "m", keepdims=0),
        node("Gemm", "m w b3", "y", transB=1),
    ]
    top = 2**bits - 1
    tensors = {
        "c1": weights(rng, (4, 3, 3, 3), weight_bits),
        "c2": weights(rng, (6, 4, 3, 3), weight_bits),
        "w": weights(rng, (5, 6), weight_bits),
    }
    tensors["b1"] = bias(rng, tensors["c1"], 6 / top)
    tensors["b2"] = bias(rng, tensors["c2"], 8 / top)
    tensors["b3"] = bias(rng, tensors["w"], 6 / top)
    constants = {
        "start": np.array([0]),
        "end": np.array([2**31]),
        "two": np.array([2]),
        "three": np.array([3]),
        "step": np.array([2]),
        "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
        "axes": np.array([2, 3]),
    }
    of_r = {"scale": 8 / top, "zero_point": relu_zero, "bits": bits}
    activations = [
        act("x", 6 / top, top // 2, bits),
        act("r", **of_r),
        act("c", 16 / top, top // 2, bits),
        act("s1", **of_r),
        act("s2", **of_r),
        act("p", **of_r),
        act("e", 12 / top, 0, bits),
        act("m", 6 / top, 0, bits),
    ]
    return file_of(nodes, tensors, activations, y=("batch", 5), constants=constants)


@pytest.mark.parametrize(("bits", "weight_bits", "relu_zero"), [(8, 8, 0), (8, 4, 0), (5, 3, 0), (8, 8, 7)])
def test_a_residual_block_runs_in_integers_throughout(rng, bits, weight_bits, relu_zero):
    artifact = residual(rng, bits=bits, weight_bits=weight_bits, relu_zero=relu_zero)
    lowered = check(artifact, rng, steps=0.5, share=0.3)
    assert not lowered.dequantized
    assert len(integer_nodes(lowered)) == len(lowered.layers) == 3
    # What moves data works on codes, the two slices are one, the mean is a pool, and no Relu is left.
    found = operators(lowered)
    assert "Relu" not in found
    assert "ReduceMean" not in found
    assert found.count("Slice") == 1
    assert found.count("QuantizeLinear") == 5
    assert found.count("Clip") == (0 if bits == 8 and not relu_zero else 1 if bits == 8 else 5)
    layers = Session(artifact).layers
    assert [layer.kernel for layer in layers] == ["QLinearConv", "QLinearConv", "QGemm"]
    assert Session(artifact).integer_layers() == ("c1", "c2", "w")


def test_codes_are_stored_as_they_are(rng):
    artifact = residual(rng, weight_bits=4)
    lowered = lower(artifact)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in lowered.model.graph.initializer}
    for name in ("c1", "c2", "w"):
        stored = artifact.tensor(name)
        assert arrays[f"{name}_codes"].dtype == np.int8
        own = arrays[f"{name}_codes"][:, : stored.shape[1]]
        np.testing.assert_array_equal(own, stored.codes)
        assert not arrays[f"{name}_codes"][:, stored.shape[1] :].any()
        np.testing.assert_array_equal(arrays[f"{name}_scale"], stored.scale)
    assert arrays["b1_codes"].dtype == np.int32


def one_conv(rng, weight, activations, **attributes):
    scale = next((item.scale for item in activations if item.value == "x"), 1.0)
    tensors = {"w": weight, "b": bias(rng, weight, scale)}
    return file_of(
        [node("Conv", "x w b", "c", **attributes), node("Relu", "c", "r"), node("Sigmoid", "r", "y")],
        tensors,
        activations,
        y=("batch", weight.shape[0], 6, 6),
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"granularity": PerGroup(size=9)}, "groups of 9"),
        ({"granularity": PerBucket(size=16)}, "buckets of 16"),
        ({"symmetric": False}, "asymmetric"),
        ({"granularity": PerChannel(axis=1)}, "output axis, 0"),
    ],
)
def test_storage_formats_are_dequantized_once_and_say_why(rng, options, reason):
    artifact = one_conv(rng, weights(rng, (4, 3, 3, 3), 4, **options), [act("x", 0.03, 99), act("r")])
    lowered = check(artifact, rng, steps=0.05, share=0.1)
    assert reason in lowered.dequantized["w"]
    (layer,) = Session(artifact).layers
    assert (layer.name, layer.integer) == ("w", False)
    assert reason in layer.reason


@pytest.mark.parametrize("make", [samples.codebook, samples.sparse])
def test_codebooks_and_sparse_tensors_are_storage_formats(rng, make):
    artifact = one_conv(rng, make(rng, (4, 3, 3, 3)), [act("x", 0.03, 99), act("r", 0.5)])
    assert "a storage format" in check(artifact, rng, steps=0.5, share=0.2).dequantized["w"]


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [(PerTensor(), (4, 3, 3, 3)), (PerGroup(size=27), (4, 3, 3, 3)), (PerBucket(size=999), (4, 3, 3, 3))],
)
def test_one_scale_for_a_channel_or_for_all_runs_in_integers_whatever_it_is_called(rng, granularity, shape):
    artifact = one_conv(rng, weights(rng, shape, 5, granularity=granularity), [act("x", 0.03, 99), act("r")])
    assert integer_nodes(check(artifact, rng, steps=0.1, share=0.1)) == ("node_c",)
    assert Session(artifact).integer_layers() == ("w",)


@pytest.mark.parametrize(
    ("activations", "reason"),
    [
        ([], "input 'x' is not quantized"),
        ([act("x", 0.05, 9)], "output 'c' is not quantized"),
        ([act("r")], "input 'x'"),
    ],
)
def test_a_convolution_needs_codes_on_both_sides(rng, activations, reason):
    artifact = one_conv(rng, weights(rng, (4, 3, 3, 3)), activations)
    assert reason in check(artifact, rng, steps=0.1, share=0.1).dequantized["w"]


def test_signed_activations_are_the_same_grid_moved_up(rng):
    artifact = one_conv(rng, weights(rng, (4, 3, 3, 3)), [SIGNED, act("r", 0.1, -128, signed=True)])
    lowered = check(artifact, rng, steps=0.1, share=0.1)
    assert integer_nodes(lowered) == ("node_c",)
    assert "Clip" not in operators(lowered)
    assert Session(artifact).integer_layers() == ("w",)


def test_a_value_that_is_also_an_output_leaves_as_it_is(rng):
    tensors = {"w": weights(rng, (4, 3, 3, 3))}
    artifact = file_of(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")],
        tensors,
        [act("x", 0.05, 9), act("y", 0.9)],
        y=("batch", 4, 6, 6),
    )
    check(artifact, rng)


def test_a_moved_value_that_is_an_output_is_dequantized(rng):
    artifact = file_of(
        [node("Transpose", "x", "y", perm=[0, 2, 3, 1])], {}, [act("x", 0.05, 100)], y=("batch", 8, 8, 3)
    )
    assert operators(check(artifact, rng)) == ["QuantizeLinear", "Transpose", "DequantizeLinear"]


def test_a_moved_value_on_another_grid_is_rounded_again(rng):
    artifact = file_of(
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Neg", "t", "y")],
        {},
        [act("x", 0.05, 100), act("t", 0.3, 7, 4)],
        y=("batch", 8, 8, 3),
    )
    assert operators(check(artifact, rng)).count("QuantizeLinear") == 2


def test_slices_with_rounding_between_stay_two(rng):
    cut = {"start": np.array([1]), "end": np.array([7]), "two": np.array([2]), "three": np.array([3])}
    nodes = [node("Slice", "x start end two", "s"), node("Slice", "s start end three", "t"), node("Neg", "t", "y")]
    same = file_of(nodes, {}, [act("x", 0.05, 99), act("s", 0.05, 99)], y=("batch", 3, 6, 6), constants=cut)
    other = file_of(nodes, {}, [act("x", 0.05, 99), act("s", 0.2, 9)], y=("batch", 3, 6, 6), constants=cut)
    assert operators(check(same, rng)).count("Slice") == 1
    assert operators(check(other, rng)).count("Slice") == 2


def test_padding_with_another_value_than_zero_sees_real_numbers(rng):
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": np.float32(1.0)}
    nodes = [node("Pad", "x pads one", "p"), node("Neg", "p", "y")]
    lowered = check(file_of(nodes, {}, [act("x", 0.05, 99)], y=("batch", 3, 10, 10), constants=pads), rng)
    assert operators(lowered) == ["QuantizeLinear", "DequantizeLinear", "Pad", "Neg"]


@pytest.mark.parametrize(("size", "before", "after", "step"), [(3, 0, 0, 3), (4, 1, 1, 4), (5, 2, 0, 4)])
@pytest.mark.parametrize("also", [("ceil_mode",), ("count_include_pad",), ("ceil_mode", "count_include_pad")])
def test_averages_do_not_count_cells_beyond_the_padding(rng, size, before, after, step, also):
    """ONNX Runtime's integer kernel counts them where ``ceil_mode`` makes a window that is not filled."""
    window = {"kernel_shape": [size, size], "strides": [step, step], "pads": [before, before, after, after]}
    pool = node("AveragePool", "x", "p", **window, **dict.fromkeys(also, 1))
    cells = 8 + before + after - size
    side = 1 + (-(-cells // step) if "ceil_mode" in also else cells // step)
    grids = [act("x", 0.05, 99), act("p", 0.02, 99)]
    artifact = file_of([pool, node("Neg", "p", "y")], {}, grids, y=("batch", 3, side, side))
    feed = inputs_for(artifact, rng)
    # onnx.reference pads such windows in another place.
    off = np.abs(Session(artifact).run(feed)["y"] - as_written(lower(artifact), feed)["y"])
    assert off.max() <= 0.0201
    assert (off > 1e-4).mean() <= 0.1


def test_relu6_and_pooling_before_the_rounding_are_moved_behind_it(rng):
    nodes = [
        node("Conv", "x w", "c"),
        node("MaxPool", "c", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]),
        node("Clip", "m low high", "h"),
        node("Flatten", "h", "f"),
        node("Neg", "f", "y"),
    ]
    tensors = {"w": weights(rng, (4, 3, 3, 3))}
    ends = {"low": np.float32(0), "high": np.float32(0.7)}
    artifact = file_of(nodes, tensors, [act("x", 0.05, 99), act("f", 0.01, 20)], y=("batch", 36), constants=ends)
    lowered = check(artifact, rng, steps=0.02, share=0.1)
    assert operators(lowered)[-6:] == ["QuantizeLinear", "Clip", "MaxPool", "Flatten", "DequantizeLinear", "Neg"]
    assert Session(artifact).integer_layers() == ("w",)


def test_nothing_moves_past_a_second_reader(rng):
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Neg", "c", "n"), node("Add", "r n", "y")]
    tensors = {"w": weights(rng, (4, 3, 3, 3))}
    artifact = file_of(nodes, tensors, [act("x", 0.05, 99), act("r", 0.05)], y=("batch", 4, 6, 6))
    lowered = check(artifact, rng, steps=0.06, share=0.1)
    assert "Relu" in operators(lowered)
    assert "not quantized" in lowered.dequantized["w"]


def test_concatenation_works_on_codes_of_one_grid_only(rng):
    nodes = [node("Neg", "x", "n"), node("Concat", "x n", "k", axis=1), node("Neg", "k", "y")]
    same = file_of(nodes, {}, [act("x", 0.05, 99), act("n", 0.05, 99)], y=("batch", 6, 8, 8))
    other = file_of(nodes, {}, [act("x", 0.05, 99), act("n", 0.04, 99)], y=("batch", 6, 8, 8))
    assert operators(check(same, rng)).count("DequantizeLinear") == 2
    assert operators(check(other, rng)).count("DequantizeLinear") == 2
    assert operators(lower(same)).index("Concat") < operators(lower(same)).index("DequantizeLinear", 2)


def matmul(rng, weight, binding, *, activations, width=4):
    return file_of(
        [node("MatMul", "x w", "m"), node("Add", "m b", "y")],
        {"stored": weight, "b": rng.normal(size=width).astype(np.float32)},
        activations,
        x=("batch", 5, 8),
        y=("batch", 5, width),
        bindings=(binding, Binding(to="b")),
    )


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
def test_a_transposed_linear_layer_runs_in_integers(rng, granularity):
    binding = Binding.model_validate_json('{"to": "w", "parts": [{"tensor": "stored"}], "permute": [1, 0]}')
    weight = weights(rng, (4, 8), granularity=granularity)
    artifact = matmul(rng, weight, binding, activations=[act("x", 0.03, 100)])
    assert integer_nodes(check(artifact, rng)) == ("node_m",)
    (layer,) = Session(artifact).layers
    assert layer.kernel == "MatMulIntegerToFloat"


def test_scales_along_the_inputs_of_a_linear_layer_do_not_fit_integer_kernels(rng):
    binding = Binding.model_validate_json('{"to": "w", "parts": [{"tensor": "stored"}]}')
    artifact = matmul(rng, weights(rng, (8, 4)), binding, activations=[act("x", 0.03, 100)])
    assert "output axis" in check(artifact, rng).dequantized["stored"]


def test_a_convolution_kept_as_a_matrix_keeps_its_scales(rng):
    binding = Binding.model_validate_json('{"to": "w", "parts": [{"tensor": "stored"}], "shape": [4, 3, 1, 1]}')
    artifact = file_of(
        [node("Conv", "x w", "c"), node("Neg", "c", "y")],
        {"stored": weights(rng, (4, 3))},
        [act("x", 0.03, 100), act("c", 0.05, 100)],
        y=("batch", 4, 8, 8),
        bindings=(binding,),
    )
    assert integer_nodes(check(artifact, rng, steps=0.06, share=0.1)) == ("node_c",)


@pytest.mark.parametrize("change", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}], ids=["alpha", "beta", "transA"])
def test_gemm_with_more_than_a_product_stays_in_floating_point(rng, change):
    square = change == {"transA": 1}
    artifact = file_of(
        [node("Gemm", "x w b", "y", **change)],
        {"w": weights(rng, (8, 4), granularity=PerChannel(axis=1)), "b": np.ones(4, np.float32)},
        [act("x", 0.03, 100)],
        x=(8, 8) if square else ("batch", 8),
        y=(8, 4) if square else ("batch", 4),
    )
    assert "Gemm" in check(artifact, rng).dequantized["w"]


def test_a_transposed_convolution_stays_in_floating_point(rng):
    artifact = file_of(
        [node("ConvTranspose", "x w", "y")],
        {"w": weights(rng, (3, 4, 2, 2))},
        [act("x", 0.03, 100)],
        y=("batch", 4, 9, 9),
    )
    assert "ConvTranspose" in check(artifact, rng).dequantized["w"]


@pytest.mark.parametrize(
    ("size", "fits"),
    [(21_000.0, True), (21_474.8, False), (3e30, False)],
    ids=["fits", "sums overflow", "bias overflows"],
)
def test_sums_that_may_leave_32_bits_stay_in_floating_point(rng, size, fits):
    # One unit of the sums is 0.01 * 0.001, and 2^31 of them are 21,474.8.
    codes = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    artifact = file_of(
        [node("Conv", "x w b", "c"), node("Neg", "c", "y")],
        {"w": Quantized(codes, np.full(4, 1e-3, np.float32), Scheme(bits=8)), "b": np.full(4, size, np.float32)},
        [act("x", 0.01, 100), act("c", size / 100, 0)],
        y=("batch", 4, 6, 6),
    )
    lowered = check(artifact, rng, steps=size / 50, share=0.1)
    assert integer_nodes(lowered) == (("node_c",) if fits else ())
    assert fits or "32 bits" in lowered.dequantized["w"]


def test_tied_weights_may_be_rows_and_a_product(rng):
    nodes = [node("MatMul", "x w", "m"), node("Gather", "w rows", "g", axis=1), node("Add", "m g", "y")]
    artifact = file_of(
        nodes,
        {"w": weights(rng, (8, 8), granularity=PerTensor())},
        [act("x", 0.03, 100)],
        x=(8, 8),
        y=(8, 8),
        constants={"rows": np.arange(8)},
    )
    lowered = check(artifact, rng)
    assert integer_nodes(lowered) == ("node_m",)
    assert lowered.dequantized["w"] == "Add reads real numbers"


def test_a_weight_shared_by_two_products_is_stored_once(rng):
    nodes = [node("MatMul", "x w", "m"), node("MatMul", "m w", "y")]
    artifact = file_of(
        nodes,
        {"w": weights(rng, (8, 8), granularity=PerTensor())},
        [act("x", 0.03, 100), act("m", 0.1, 99)],
        x=(8, 8),
        y=(8, 8),
    )
    lowered = check(artifact, rng, steps=0.5, share=0.2)
    assert len(integer_nodes(lowered)) == 2
    assert [t.name for t in lowered.model.graph.initializer].count("w_codes") == 1
    assert all(layer.integer for layer in Session(artifact).layers)


def test_a_model_beyond_two_gigabytes_says_so(rng, monkeypatch):
    monkeypatch.setattr(sys.modules["attar._src.runtime.builder"], "_MESSAGE", 100)
    with pytest.raises(ArtifactError, match="the limit is 100"):
        lower(residual(rng)).serialized()


def test_the_stored_graph_is_left_as_it_is(rng):
    artifact = residual(rng)
    before = artifact.graph().SerializeToString()
    lower(artifact)
    assert artifact.graph().SerializeToString() == before


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(2, 8),
    signed=st.booleans(),
    weight_bits=st.integers(2, 8),
    channels=st.integers(1, 5),
    groups=st.booleans(),
)
def test_any_grids_give_the_function_the_file_means(seed, bits, signed, weight_bits, channels, groups):
    rng = np.random.default_rng(seed)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    zeros = rng.integers(low, high + 1, 2)
    groups = channels if groups else 1
    weight = weights(rng, (channels, channels // groups, 3, 3), weight_bits)
    artifact = file_of(
        [node("Conv", "x w b", "c", group=groups, pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("Neg", "r", "y")],
        {"w": weight, "b": bias(rng, weight, 0.1)},
        [act("x", 0.1, int(zeros[0]), bits, signed), act("r", 0.2, int(zeros[1]), bits, signed)],
        x=("batch", channels, 5, 5),
        y=("batch", channels, 5, 5),
    )
    assert integer_nodes(check(artifact, rng, steps=0.21, share=0.1)) == ("node_c",)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_product_of_two_quantized_values_is_what_it_means(rng, rounded):
    nodes = [
        node("MatMul", "x w", "q"),
        node("Transpose", "q", "k", perm=[0, 2, 1]),
        node("MatMul", "q k", "s"),
        node("Softmax", "s", "p"),
        node("MatMul", "p q", "y"),
    ]
    grids = [act("x", 0.03, 100), act("q", 0.05, -20, signed=True), act("p", 1 / 255)]
    artifact = file_of(
        nodes,
        {"w": weights(rng, (8, 4), granularity=PerChannel(axis=1))},
        [*grids, act("s", 0.1, 99)] if rounded else grids,
        x=("batch", 5, 8),
        y=("batch", 5, 4),
    )
    # One code of a score that tips moves the whole row behind the softmax.
    assert integer_nodes(check(artifact, rng, steps=0.05, share=0.5)) == ("node_q",)


IN, OUT = act("x", 0.5, 8, 4), act("s", 0.01, 128)
PRODUCTS = {
    # Weights that are known to ONNX Runtime alone: it computes them, or they are inline.
    "conv of a computed weight": (
        [node("Mul", "v g", "w"), node("Conv", "x w", "s", pads=[1, 1, 1, 1])],
        {"v": (2, 2, 3, 3), "g": (2, 1, 1, 1)},
        {},
    ),
    "conv of an inline kernel": ([node("Conv", "x w", "s", group=2)], {}, {"w": (2, 1, 2, 2)}),
    "transposed conv of an inline kernel": ([node("ConvTranspose", "x w", "s", group=2)], {}, {"w": (2, 1, 2, 2)}),
    "conv and a product": (
        [node("Conv", "x w", "m"), node("Mul", "m b", "s")],
        {"w": (2, 2, 3, 3), "b": (2, 1, 1)},
        {},
    ),
    "conv and a sum": ([node("Conv", "x w", "m"), node("Add", "m b", "s")], {"w": (2, 2, 3, 3), "b": (2, 1, 1)}, {}),
    "gemm of a computed weight": (
        [node("Flatten", "x", "f"), node("Mul", "v g", "w"), node("Gemm", "f w b", "s", transB=1)],
        {"v": (3, 72), "g": (3, 1), "b": (3,)},
        {},
    ),
    "matmul and a sum": (
        [node("Flatten", "x", "f"), node("MatMul", "f w", "m"), node("Add", "m b", "s")],
        {"w": (72, 3), "b": (3,)},
        {},
    ),
    # A convolution by quantized values, with a bias of numbers.
    "conv of two quantized values": (
        [node("AveragePool", "x", "q", kernel_shape=[3, 3], strides=[3, 3]), node("Conv", "x q b", "s")],
        {"b": (2,)},
        {},
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
@pytest.mark.parametrize("relu", [False, True])
def test_no_number_is_rounded_that_the_file_does_not_round(rng, case, relu):
    nodes, *shapes = PRODUCTS[case]
    held, inline = ({name: rng.normal(size=n).astype(np.float32) for name, n in of.items()} for of in shapes)
    last = "r" if relu else "s"
    nodes = [*nodes, *([node("Relu", "s", "r")] if relu else []), node("Neg", last, "y")]
    grids = [IN, act(last, 0.05, 128)] + ([act("q", 0.5, 8, 4)] if "q" in values_of(nodes) else [])
    flat = "f" in values_of(nodes)
    y = (2, 3) if flat else ("a", "b", "c", "d")
    artifact = file_of(nodes, held, grids, x=(2, 2, 6, 6), y=y, constants=inline)
    # A sum of another order may tip a value between two codes; a weight on a grid tips every tenth and more.
    check(artifact, rng, steps=0.051, share=0.02)


def values_of(nodes):
    return {name for item in nodes for name in item.output}


@pytest.mark.parametrize("op", ["Add", "Sum"])
@pytest.mark.parametrize("product", ["MatMul", "Gemm"])
@pytest.mark.parametrize("between", [(), ("Relu",), ("Reshape",)], ids=["rounded", "relu", "moved"])
def test_what_is_added_behind_an_integer_product_stays_as_it_is(rng, op, product, between):
    nodes = [node(product, "x w", "m"), node(op, "m b", "s0")]
    nodes += [node(passed, "s0 form" if passed == "Reshape" else "s0", "s1") for passed in between]
    rounded = f"s{len(between)}"
    artifact = file_of(
        [*nodes, node("Neg", rounded, "y")],
        {"w": weights(rng, (8, 6), granularity=PerChannel(axis=1)), "b": rng.normal(size=6).astype(np.float32)},
        [IN, act(rounded, 0.01, 100)],
        x=("batch", 8),
        y=("batch", 6),
        constants={"form": np.array([-1, 6])} if between == ("Reshape",) else {},
    )
    assert integer_nodes(check(artifact, rng, steps=0.011, share=0.02)) == ("node_m",)
    assert Session(artifact).integer_layers() == ("w",)


def test_two_quantized_values_and_a_sum(rng):
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0]),
        node("MatMul", "x t", "m"),
        node("Add", "m b", "s"),
        node("Neg", "s", "y"),
    ]
    bound = {"b": rng.normal(size=4).astype(np.float32)}
    check(file_of(nodes, bound, [IN, OUT], x=(4, 8), y=(4, 4)), rng)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_a_bias_between_the_steps_is_not_rounded(rng, kind):
    # One layer called twice, as when it is shared: its bias is in whole steps of the first input alone.
    square, attributes = ((4, 4), {"transB": 1}) if kind == "Gemm" else ((4, 4, 1, 1), {})
    weight = weights(rng, square, 4)
    nodes = [node(kind, "x w b", "c", **attributes), node("Relu", "c", "r"), node(kind, "r w b", "d", **attributes)]
    shape = ("batch", 4) if kind == "Gemm" else ("batch", 4, 5, 5)
    artifact = file_of(
        [*nodes, node("Neg", "d", "y")],
        {"w": weight, "b": bias(rng, weight, 0.2)},
        [act("x", 0.2, 8, 4), act("r", 0.37, 3, 4), act("d", 0.013, 100)],
        x=shape,
        y=shape,
    )
    lowered = check(artifact, rng, steps=0.014, share=0.02)
    assert integer_nodes(lowered) == ("node_c",)
    assert "its bias is not in whole steps" in lowered.layers["node_d"].reason
    (layer,) = Session(artifact).layers
    assert not layer.integer
    assert layer.reason.startswith("in 1 of 2 nodes: its bias is not in whole steps")


def test_a_floating_lowering_rounds_nothing(rng):
    weight = weights(rng, (4, 3), granularity=PerChannel())
    artifact = file_of([node("Gemm", "x w", "y", transB=1)], {"w": weight}, [SIGNED], x=("n", 3), y=("n", 4))
    lowered = lower(artifact, floating=True)
    assert {each.op_type for each in lowered.model.graph.node} == {"Gemm"}
    assert integer_nodes(lowered) == ()
    x = rng.normal(size=(5, 3)).astype(np.float32)
    run = ort.InferenceSession(lowered.serialized(), providers=["CPUExecutionProvider"]).run
    np.testing.assert_allclose(run(None, {"x": x})[0], x @ weight.dense().T, rtol=1e-5, atol=1e-6)
    assert "QuantizeLinear" in {each.op_type for each in lower(artifact).model.graph.node}
