"""Packed weights: the function stays, whatever the grid and the number of rows, and the session takes them if asked."""

import numpy as np
import onnx
import pytest
from tests import samples
from tests.runtime import reference
from tests.runtime.reference import act, file_of, node

from attar._src.artifact.manifest import Binding, Part
from attar._src.core.errors import DataError, SpecError
from attar._src.core.scheme import PerBlock, PerBucket, PerGroup, PerTensor
from attar._src.runtime.engine import Engine, kernels
from attar._src.runtime.lower import lower
from attar._src.runtime.packed import packer, single_row
from attar._src.runtime.packed.packer import Packing
from attar._src.runtime.session import Session

#: For any number of rows, and for single rows beside float32, whatever the size.
ALWAYS, SINGLE = Packing(elements=1), Packing(elements=1, single=True)
TURNED = Binding(to="w", permute=(1, 0))
ROWS = 48


@pytest.fixture
def faster(monkeypatch):
    """A machine on which packed weights are faster for a single row."""
    monkeypatch.setattr(packer, "pays_for_single_rows", lambda: True)


def layer_file(rng, form="gemm", *, length=288, x=None, **options):
    """A file of one linear layer with weights only."""
    weight = samples.quantized(rng, (ROWS, length), **options)
    tensors = {"w": weight, "b": rng.normal(size=ROWS).astype(np.float32)}
    nodes = (
        [node("Gemm", "x w b", "y", transB=int(form == "turned gemm"))]
        if "gemm" in form
        else [node("MatMul", "x w", "product"), node("Add", "product b", "y")]
    )
    bindings = (Binding(to="w") if form == "turned gemm" else TURNED, Binding(to="b"))
    x = x or ("batch", length)
    return file_of(nodes, tensors, bindings=bindings, x=x, y=(*x[:-1], ROWS))


def table_file(table):
    """A file that looks three rows of a table up for each example."""
    nodes = [node("Cast", "x", "i", to=onnx.TensorProto.INT64), node("Gather", "w i", "y")]
    return file_of(nodes, {"w": table}, x=("batch", 3), y=("batch", 3, table.shape[1]))


def check(artifact, rng, packing, shapes):
    """Every plan has the outputs of the file; return the operators that ran, by shape."""
    lowered, ran = lower(artifact, private=True, packing=packing), []
    engine = Engine(lowered.bare.SerializeToString(), weights=lowered.weights, threads=1)
    for shape in shapes:
        feed = {"x": rng.normal(size=shape).astype(np.float32)}
        (got,), want = engine.run(feed), reference.run(artifact, feed)["y"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(initial=1))
        found = kernels(lowered.bare.SerializeToString(), feed, lowered.weights)
        ran.append(found[next(iter(lowered.layers))])
    return lowered, ran


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("form", ["gemm", "turned gemm", "matmul"])
def test_products_of_up_to_four_bits_read_packed_codes(rng, faster, form, symmetric, bits):
    artifact = layer_file(rng, form, bits=bits, symmetric=symmetric)
    shapes = [(1, 288), (3, 288), (0, 288)]
    lowered, ran = check(artifact, rng, ALWAYS, shapes)
    assert ran == ["MatMulNBits"] * 3
    assert lowered.dequantized == {}
    lowered, ran = check(artifact, rng, SINGLE, shapes)
    dense = "MatMul" if form == "matmul" else "Gemm"
    assert ran == ["MatMulNBits", dense, dense]
    assert "w" in lowered.dequantized


@pytest.mark.parametrize(
    "granularity", [PerTensor(), PerGroup(size=32), PerGroup(size=48), PerBucket(size=96), PerBlock(sizes=(8, 16))]
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_may_differ_along_a_row(rng, granularity, symmetric):
    _, ran = check(layer_file(rng, granularity=granularity, symmetric=symmetric), rng, ALWAYS, [(1, 288), (2, 288)])
    assert ran == ["MatMulNBits"] * 2


@pytest.mark.parametrize("length", [17, 100, 257])
def test_a_row_need_be_no_whole_number_of_blocks(rng, length):
    for symmetric in (True, False):
        _, ran = check(layer_file(rng, length=length, symmetric=symmetric), rng, ALWAYS, [(1, length), (2, length)])
        assert ran == ["MatMulNBits"] * 2


def test_one_token_is_a_single_row(rng, faster):
    artifact = layer_file(rng, "matmul", x=("batch", "tokens", 288))
    _, ran = check(artifact, rng, SINGLE, [(1, 1, 288), (1, 2, 288), (2, 1, 288)])
    assert ran == ["MatMulNBits", "MatMul", "MatMul"]


def test_where_the_file_fixes_a_single_row_there_is_no_second_copy(rng, faster, monkeypatch):
    monkeypatch.setattr(packer, "_LARGE", 1)
    monkeypatch.setattr(packer, "_CACHED", 1)
    one, three = (Session(layer_file(rng, x=(rows, 288))) for rows in (1, 3))
    assert (one.layers[0].plan, one.dequantized) == ("packed weights", {})
    assert (three.layers[0].plan, [*three.dequantized]) == ("float32", ["w"])
    assert "If" not in [each.op_type for each in lower(three.artifact, private=True).model.graph.node]


def test_parts_of_a_packed_projection_are_packed(rng):
    """As ``nn.MultiheadAttention`` keeps them: runs of a tensor, and splits of one."""
    whole = samples.quantized(rng, (ROWS, 64))
    runs = Binding(to="w", parts=(Part(tensor="q", start=16 * 64, stop=48 * 64),), shape=(32, 64))
    artifact = file_of(
        [node("Gemm", "x w", "y", transB=1)], {"q": whole}, bindings=[runs], x=("batch", 64), y=("batch", 32)
    )
    assert check(artifact, rng, ALWAYS, [(1, 64), (2, 64)])[1] == ["MatMulNBits"] * 2
    nodes = [
        onnx.helper.make_node("Split", ["w"], ["a", "b"], "split", axis=0, num_outputs=2),
        node("Transpose", "b", "t", perm=[1, 0]),
        node("MatMul", "x t", "y"),
    ]
    artifact = file_of(nodes, {"w": whole}, x=("batch", 64), y=("batch", 24))
    assert check(artifact, rng, ALWAYS, [(1, 64), (2, 64)])[1] == ["MatMulNBits"] * 2


def test_what_reads_one_weight_shares_its_packed_codes(rng):
    nodes = [node("MatMul", "x w", "a"), node("Relu", "x", "r"), node("MatMul", "r w", "b"), node("Add", "a b", "y")]
    artifact = file_of(
        nodes, {"w": samples.quantized(rng, (ROWS, 64))}, bindings=[TURNED], x=("batch", 64), y=("batch", ROWS)
    )
    lowered, _ = check(artifact, rng, ALWAYS, [(2, 64)])
    assert sum("packed" in name for name in lowered.weights) == 1


def test_activations_of_a_static_grid_are_read_as_their_real_numbers(rng, faster):
    weight = samples.quantized(rng, (ROWS, 64), symmetric=False)
    artifact = file_of(
        [node("Gemm", "x w", "y")], {"w": weight}, [act("x")], bindings=[TURNED], x=("batch", 64), y=("batch", ROWS)
    )
    for packing in (ALWAYS, SINGLE):
        lowered, ran = check(artifact, rng, packing, [(1, 64), (3, 64)])
        assert ran[0] == "MatMulNBits"
        assert "asymmetric" in lowered.layers["node_y"].reason


@pytest.mark.parametrize(
    ("why", "nodes", "weight"),
    [
        ("eight bits", [node("Gemm", "x w", "y")], {"bits": 8}),
        ("groups of no block", [node("Gemm", "x w", "y")], {"granularity": PerGroup(size=20)}),
        ("a factor", [node("Gemm", "x w", "y", alpha=2.0)], {}),
        ("a bias of one number", [node("Gemm", "x w one", "y")], {}),
        ("a computed bias", [node("Relu", "b", "c"), node("Gemm", "x w c", "y")], {}),
        ("the first factor", [node("MatMul", "w x", "y")], {}),
    ],
)
def test_what_no_packed_product_is_stays_in_floating_point(rng, why, nodes, weight):
    first = why == "the first factor"
    tensors = {
        "w": samples.quantized(rng, (ROWS, ROWS), **weight),
        "one": np.ones(1, np.float32),
        "b": rng.normal(size=ROWS).astype(np.float32),
    }
    sizes = (ROWS, 3) if first else ("batch", ROWS)
    artifact = file_of(nodes, tensors, x=sizes, y=sizes)
    lowered, _ = check(artifact, rng, ALWAYS, [(ROWS, 3) if first else (2, ROWS)])
    assert "MatMulNBits" not in [each.op_type for each in lowered.model.graph.node]


def test_an_export_has_standard_operators_alone(rng):
    model = lower(layer_file(rng)).model
    assert {each.domain for each in model.graph.node} == {""}


def test_large_weights_are_packed_by_default_if_this_machine_is_faster(rng, monkeypatch):
    monkeypatch.setattr(packer, "_CACHED", 2 * ROWS * 288)
    monkeypatch.setattr(packer, "_LARGE", ROWS * 288)
    asked = []
    monkeypatch.setattr(packer, "pays_for_single_rows", lambda: asked.append(1) or faster)
    artifact = layer_file(rng)
    faster = True
    assert plan(Session(artifact)) == "float32"  # the caches hold so little
    assert not asked
    monkeypatch.setattr(packer, "_CACHED", ROWS * 288)
    assert plan(Session(artifact)) == "packed weights"
    assert plan(Session(artifact), rows=2) == "float32"
    assert plan(Session(artifact, weights="float32")) == "float32"
    faster = False
    assert plan(Session(artifact)) == "float32"
    assert plan(Session(artifact, weights="packed"), rows=2) == "float32"  # 48 x 288 saves next to no memory


def plan(session, rows=1):
    (layer,) = session.layers_for(session.example(rows))
    return layer.plan


def test_weights_are_packed_on_request(rng):
    artifact = layer_file(rng, length=2048)
    x = rng.normal(size=(3, 2048)).astype(np.float32)
    dense, packed = (Session(artifact, weights=each) for each in ("float32", "packed"))
    assert [plan(each, rows=3) for each in (dense, packed)] == ["float32", "packed weights"]
    np.testing.assert_allclose(packed.run(x), dense.run(x), rtol=1e-5, atol=1e-4)
    assert packed.dequantized == {}
    with pytest.raises(SpecError, match="use auto or float32 or packed"):
        Session(artifact, weights="int4")


def test_the_ratio_is_measured_once():
    single_row.single_row_ratio.cache_clear()
    first = single_row.single_row_ratio()
    assert 0 < first < 1000
    assert single_row.single_row_ratio() == first
    assert single_row.pays_for_single_rows() == (first < single_row._PAYS)


@pytest.mark.parametrize("bits", [2, 4, 5, 8])
@pytest.mark.parametrize("granularity", [None, PerTensor(), PerGroup(size=32)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("width", [64, 50, 33])
def test_rows_of_packed_tables_are_equal_to_the_bit(rng, bits, granularity, symmetric, width):
    table = samples.quantized(rng, (40, width), bits=bits, granularity=granularity, symmetric=symmetric)
    artifact = table_file(table)
    x = np.array([[0, 39, -1], [7, -40, 7]], np.float32)
    found = []
    for packing in (None, ALWAYS):
        lowered = lower(artifact, private=True, packing=packing)
        engine = Engine(lowered.bare.SerializeToString(), weights=lowered.weights, threads=1)
        found.append(engine.run({"x": x})[0])
        packed = "GatherBlockQuantized" in [each.op_type for each in lowered.model.graph.node]
    np.testing.assert_array_equal(*found)
    assert packed


@pytest.mark.parametrize("index", [40, -41, 2.0**40])
def test_an_index_outside_a_packed_table_is_refused_as_in_float32(rng, index):
    artifact = table_file(samples.quantized(rng, (40, 64)))
    lowered = lower(artifact, private=True, packing=ALWAYS)
    assert "GatherBlockQuantized" in [each.op_type for each in lowered.model.graph.node]
    engine = Engine(lowered.bare.SerializeToString(), weights=lowered.weights, threads=1)
    with pytest.raises(DataError):
        engine.run({"x": np.array([[0, index, 1]], np.float32)})


def test_a_table_is_never_packed_beside_float32(rng, faster):
    artifact = table_file(samples.quantized(rng, (40, 64)))
    lowered = lower(artifact, private=True, packing=SINGLE)
    assert "Gather" in [each.op_type for each in lowered.model.graph.node]


def test_a_dense_weight_is_left_alone(rng):
    artifact = file_of(
        [node("Gemm", "x w", "y")],
        {"w": rng.normal(size=(64, ROWS)).astype(np.float32)},
        x=("batch", 64),
        y=("batch", ROWS),
    )
    lowered = lower(artifact, private=True, packing=ALWAYS)
    assert [each.op_type for each in lowered.model.graph.node] == ["Gemm"]
