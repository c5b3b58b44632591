"""Dynamic nodes: the meaning of the file, in integers where the weight allows it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto
from tests import samples
from tests.runtime.reference import act, file_of, node
from tests.runtime.test_lower import check, integer_nodes, weights

from attar._src.artifact.manifest import Binding, Part
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.scheme import PerGroup, PerTensor
from attar._src.core.tensors import Quantized, Scheme
from attar._src.runtime import session as sessions
from attar._src.runtime.engine import kernels
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session

TURNED = (Binding(to="w", permute=(1, 0)),)


def operators(lowered):
    return [each.op_type for each in lowered.model.graph.node]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("granularity", [None, PerTensor()])
@pytest.mark.parametrize("form", ["gemm", "turned gemm", "matmul", "matmul of many"])
def test_products_of_symmetric_weights_run_in_integers(rng, bits, granularity, form):
    weight = weights(rng, (24, 40), bits=bits, granularity=granularity)
    bias = rng.normal(size=24).astype(np.float32)
    x, y = (("batch", 5, 40), ("batch", 5, 24)) if form == "matmul of many" else (("batch", 40), ("batch", 24))
    bindings = (Binding(to="w", permute=None if form == "turned gemm" else (1, 0)), Binding(to="b"))
    nodes = (
        [node("Gemm", "x w b", "y", transB=int(form == "turned gemm"))]
        if "gemm" in form
        else [node("MatMul", "x w", "product"), node("Add", "product b", "y")]
    )
    name = nodes[0].name
    artifact = file_of(nodes, {"w": weight, "b": bias}, dynamic=[name], bindings=bindings, x=x, y=y)
    lowered = check(artifact, rng)
    assert integer_nodes(lowered) == (name,)
    assert lowered.dequantized == {}
    (layer,) = Session(artifact).layers
    assert (layer.integer, layer.kernel, layer.reason) == (True, "DynamicQuantizeMatMul", "")


def test_nodes_that_read_one_value_share_its_codes(rng):
    nodes = [node("Gemm", "x w", "a"), node("Gemm", "x v", "b"), node("Add", "a b", "y")]
    tensors = {"w": weights(rng, (4, 40)), "v": weights(rng, (4, 40))}
    bindings = tuple(Binding(to=name, permute=(1, 0)) for name in tensors)
    artifact = file_of(nodes, tensors, dynamic=["node_a", "node_b"], bindings=bindings, x=("batch", 40))
    lowered = check(artifact, rng)
    assert operators(lowered).count("DynamicQuantizeLinear") == 1
    ran = kernels(lowered.serialized(), Session(artifact).example(2))
    assert [ran[name] for name in ("node_a", "node_b")] == ["MatMulIntegerToFloat"] * 2


@pytest.mark.parametrize("form", ["gemm", "matmul", "matmul of many"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_rows_of_different_size_have_grids_of_their_own(rng, form, symmetric):
    x, y = (("batch", 5, 40), ("batch", 5, 24)) if form == "matmul of many" else (("batch", 40), ("batch", 24))
    nodes = (
        [node("Gemm", "x w b", "y")]
        if form == "gemm"
        else [node("MatMul", "x w", "product"), node("Add", "product b", "y")]
    )
    tensors = {"w": weights(rng, (24, 40), symmetric=symmetric), "b": rng.normal(size=24).astype(np.float32)}
    bindings = (Binding(to="w", permute=(1, 0)), Binding(to="b"))
    named = [nodes[0].name]
    artifact = file_of(nodes, tensors, dynamic=named, rows=named, bindings=bindings, x=x, y=y)
    lowered = check(artifact, rng)
    assert integer_nodes(lowered) == (tuple(named) if symmetric else ())
    plain = Session(file_of(nodes, tensors, dynamic=named, bindings=bindings, x=x, y=y))
    floating = Session(file_of(nodes, tensors, bindings=bindings, x=x, y=y))
    data = rng.normal(size=[2 if each == "batch" else each for each in x]).astype(np.float32)
    data[0] *= 1000
    data[0, ..., 0] = 0
    assert _error(Session(artifact), floating, data)[1] < _error(plain, floating, data)[1] / 100
    data[1] = 0
    assert np.isfinite(Session(artifact).run(data)).all()


def _error(session, floating, data):
    wanted = floating.run(data)
    return np.square(session.run(data) - wanted).reshape(len(data), -1).mean(1)


def test_only_the_dynamic_node_reads_rounded_values(rng):
    nodes = [node("MatMul", "x w", "product"), node("Add", "product x", "y")]
    artifact = file_of(nodes, {"w": weights(rng, (16, 16))}, dynamic=["node_product"], x=("batch", 16), y=("batch", 16))
    check(artifact, rng)
    x = np.zeros((1, 16), np.float32)
    x[0, :2] = 255, 0.1  # beside 255, 0.1 has the code of zero
    assert Session(artifact).run(x)[0, 1] != Session(artifact).run(np.where(x == 255, x, 0))[0, 1]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda rng: weights(rng, (4, 40), symmetric=False), "asymmetric"),
        (lambda rng: weights(rng, (4, 40), granularity=PerGroup(size=8)), "groups of 8"),
        (lambda rng: samples.codebook(rng, (4, 40)), "codebook"),
        (lambda rng: samples.sparse(rng, (4, 40)), "sparse"),
        (lambda rng: samples.dense(rng, 4, 40), "stored as its values"),
    ],
)
def test_other_weights_multiply_the_numbers_of_the_codes(rng, make, reason):
    artifact = file_of(
        [node("MatMul", "x w", "y")], {"w": make(rng)}, dynamic=["node_y"], bindings=TURNED, x=("batch", 40)
    )
    lowered = check(artifact, rng)
    assert integer_nodes(lowered) == ()
    assert reason in lowered.layers["node_y"].reason


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: node("Gemm", "x w", "y", alpha=0.5), "no factors"),
        (lambda: node("Gemm", "x w", "y", transA=1), "no transposed input"),
        (lambda: node("MatMul", "w x", "y"), "first factor"),
    ],
)
def test_other_products_multiply_the_numbers_of_the_codes(rng, make, reason):
    one = make()
    first = one.input[0] == "w"
    tensors = {"w": weights(rng, (6, 6))}
    artifact = file_of([one], tensors, dynamic=["node_y"], x=(6, 6), y=(6, 6))
    lowered = check(artifact, rng)
    assert integer_nodes(lowered) == ()
    if not first:
        assert reason in lowered.layers["node_y"].reason


def test_a_product_of_two_values_may_be_dynamic(rng):
    artifact = file_of([node("MatMul", "x x", "y")], {}, dynamic=["node_y"], x=(6, 6), y=(6, 6))
    assert check(artifact, rng).layers == {}


def test_a_value_with_a_grid_is_rounded_twice(rng):
    nodes = [node("Relu", "x", "relu"), node("MatMul", "relu w", "y")]
    artifact = file_of(
        nodes, {"w": weights(rng, (4, 40))}, [act("relu", 0.03)], dynamic=["node_y"], bindings=TURNED, x=("batch", 40)
    )
    assert integer_nodes(check(artifact, rng)) == ("node_y",)


def test_an_output_with_a_grid_behind_a_dynamic_node(rng):
    nodes = [node("MatMul", "x w", "middle"), node("Relu", "middle", "relu"), node("MatMul", "relu v", "y")]
    tensors = {"w": weights(rng, (40, 40)), "v": weights(rng, (4, 40))}
    bindings = tuple(Binding(to=name, permute=(1, 0)) for name in tensors)
    artifact = file_of(nodes, tensors, [act("relu", 0.03)], dynamic=["node_middle"], bindings=bindings, x=("batch", 40))
    assert set(integer_nodes(check(artifact, rng, steps=0.1, share=0.05))) == {"node_middle", "node_y"}


def test_sums_beyond_32_bits_are_of_real_numbers(rng):
    """70,000 products of 255 by 127 exceed 2^31."""
    codes = np.full((70_000, 2), 127, np.int8)
    weight = Quantized(codes, np.array([1e-4], np.float32), Scheme(bits=8, granularity=PerTensor()))
    artifact = file_of(
        [node("MatMul", "x w", "y")], {"w": weight}, dynamic=["node_y"], x=("batch", 70_000), y=("batch", 2)
    )
    assert lower(artifact).layers["node_y"].reason == "its sums would not fit 32 bits"
    x = np.ones((1, 70_000), np.float32)
    np.testing.assert_allclose(Session(artifact).run(x), 70_000 * 127e-4, rtol=1e-5)


def test_the_largest_sums_are_exact(rng):
    """Codes at both ends: where 16-bit sums of two products saturate, exact kernels are used."""
    codes = np.where(np.arange(512)[:, None] % 3, 127, -127).astype(np.int8).repeat(3, 1)
    weight = Quantized(codes, np.array([1.0], np.float32), Scheme(bits=8, granularity=PerTensor()))
    artifact = file_of(
        [node("MatMul", "x w", "y")], {"w": weight}, dynamic=["node_y"], x=("batch", 512), y=("batch", 3)
    )
    assert {each.data_type for each in lower(artifact).model.graph.initializer} >= {TensorProto.UINT8}
    x = np.full((2, 512), 255, np.float32)
    x[1, ::2] = 0
    np.testing.assert_array_equal(Session(artifact).run(x), x.astype(np.float64) @ codes)


def test_moved_parts_of_a_weight(rng):
    """A packed projection that is split as the file is opened: each part is a weight of its own."""
    nodes = [
        node("Slice", "w zero four zero", "first"),
        node("Slice", "w four eight zero", "second"),
        node("Gemm", "x first", "a", transB=1),
        node("Gemm", "x second", "b", transB=1),
        node("Add", "a b", "y"),
    ]
    constants = {name: np.array([value]) for name, value in (("zero", 0), ("four", 4), ("eight", 8))}
    artifact = file_of(
        nodes, {"w": weights(rng, (8, 40))}, dynamic=["node_a", "node_b"], x=("batch", 40), constants=constants
    )
    assert set(integer_nodes(check(artifact, rng))) == {"node_a", "node_b"}


def test_a_weight_of_several_tensors_is_of_real_numbers(rng):
    tensors = {"u": weights(rng, (20, 4)), "v": weights(rng, (20, 4))}
    bindings = (Binding(to="w", parts=(Part(tensor="u"), Part(tensor="v")), shape=(40, 4)),)
    artifact = file_of([node("MatMul", "x w", "y")], tensors, dynamic=["node_y"], bindings=bindings, x=("batch", 40))
    assert "several tensors" in check(artifact, rng).layers["node_y"].reason


@pytest.mark.parametrize("rows", [(), ("node_y",)])
def test_an_empty_batch(rng, rows):
    """Guards against sizes of no rows, which ReduceMax of ONNX Runtime gives the shape of its input."""
    tensors = {"w": weights(rng, (4, 40))}
    artifact = file_of(
        [node("MatMul", "x w", "y")], tensors, dynamic=["node_y"], rows=rows, bindings=TURNED, x=("batch", 40)
    )
    assert Session(artifact).run(np.zeros((0, 40), np.float32)).shape == (0, 4)


def test_the_sample_with_every_kind_of_product(rng):
    artifact = open_artifact(pack(samples.dynamic_transformer()))
    assert set(integer_nodes(check(artifact, rng))) >= {"q", "k", "v", "head"}


@pytest.fixture
def shared_weights(rng):
    """A file in which a static and a dynamic weight are each read twice, and one more may saturate."""
    tensors = {name: weights(rng, (16, 16)) for name in ("static", "dynamic")}
    tensors |= {name: replace(each, codes=each.codes // 2) for name, each in tensors.items()}
    tensors["large"] = replace(weights(rng, (4, 16)), codes=np.full((4, 16), 127, np.int8))
    nodes = [
        node("Gemm", "x dynamic", "a"),
        node("Relu", "a", "b"),
        node("Gemm", "b dynamic", "c"),
        node("Gemm", "c static", "d"),
        node("Gemm", "d static", "e"),
        node("Gemm", "e large", "y"),
    ]
    grids = [act("c", 0.5, 128), act("d", 2.0, 128), act("e", 8.0, 128)]
    bindings = tuple(Binding(to=name, permute=(1, 0)) for name in tensors)
    return file_of(nodes, tensors, grids, dynamic=["node_a", "node_c"], bindings=bindings, x=("batch", 16))


def test_codes_are_shared_unless_onnx_runtime_converts_them(rng, shared_weights, monkeypatch):
    def most_readers(lowered):
        read = Counter(name for each in lowered.model.graph.node for name in each.input)
        held = {each.name for each in lowered.model.graph.initializer if each.data_type == TensorProto.INT8}
        return max(read[name] for name in held)

    both = [lower(shared_weights, shared=shared) for shared in (True, False)]
    assert both[0].saturating == {"node_y"}
    # The static weight is read through one DequantizeLinear by two nodes.
    assert [most_readers(each) for each in both] == [2, 1]
    assert len(both[1].model.graph.initializer) > len(both[0].model.graph.initializer)
    check(shared_weights, rng, steps=0.5, share=0.1)
    monkeypatch.setattr(sessions, "saturates", lambda: True)
    check(shared_weights, rng, steps=0.5, share=0.1)


def test_shared_weights_are_converted_on_processors_that_saturate(shared_weights, tmp_path, run_on_avx2):
    """ONNX Runtime failed: Attempt to replace the existing tensor."""
    (tmp_path / "m.attar").write_bytes(shared_weights.data)
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np, attar; from attar._src.runtime.engine import saturates; assert saturates();"
        "np.save(sys.argv[3], attar.Session(sys.argv[1], threads=1).run(np.load(sys.argv[2])))"
    )
    run_on_avx2("-c", script, *(tmp_path / name for name in ("m.attar", "x.npy", "y.npy")))
    wanted = Session(shared_weights).run(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, atol=0.05 * np.abs(wanted).max())
