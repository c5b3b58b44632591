"""Dynamic LSTM and GRU: the meaning of the file, as ONNX Runtime's operator and as standard ones."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests import samples
from tests.runtime import reference
from tests.runtime.reference import file_of, node
from tests.runtime.test_lower import check, weights

from attar._src.artifact.manifest import Binding, Part
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError
from attar._src.core.scheme import PerGroup, PerTensor
from attar._src.runtime.engine import Engine
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session

TIME, BATCH, WIDTH, HIDDEN = 6, 5, 12, 8
GATES = {"LSTM": 4, "GRU": 3}


def recurrent_file(rng, kind, direction, *, lengths=None, starts=False, biases=True, asked="all", make=weights):
    """A file of one LSTM or GRU of random weights; its output has the outputs of the node one after another."""
    gates, both = GATES[kind], 2 if direction == "bidirectional" else 1
    count = 2 if kind == "LSTM" else 1
    tensors, bindings = {}, []
    for name, width in (("w", WIDTH), ("r", HIDDEN)):
        parts = [f"{name}{place}" for place in range(both)]
        tensors |= {part: make(rng, (gates * HIDDEN, width)) for part in parts}
        each = gates * HIDDEN * width
        runs = tuple(Part(tensor=part, start=0, stop=each) for part in parts)
        bindings.append(Binding(to=name, parts=runs, shape=(both, gates * HIDDEN, width)))
    constants = {"flat": np.array([-1])}
    if biases:
        tensors["b"] = rng.normal(scale=0.3, size=(both, 2 * gates * HIDDEN)).astype(np.float32)
    if lengths is not None:
        constants["lens"] = np.array(lengths, np.int32)
    for state in range(count if starts else 0):
        tensors[f"start{state}"] = rng.normal(size=(both, BATCH, HIDDEN)).astype(np.float32)
    bindings += [Binding(to=name) for name in tensors if name == "b" or name.startswith("start")]
    inputs = ["turned", "w", "r", "b" if biases else "", "lens" if lengths is not None else ""]
    inputs += [f"start{state}" if starts else "" for state in range(count)]
    outputs = ["sequence", *(f"final{state}" for state in range(count))]
    outputs = [name if asked == "all" or name in asked else "" for name in outputs]
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    layer = onnx.helper.make_node(kind, inputs, outputs, "layer", hidden_size=HIDDEN, direction=direction, **attributes)
    named = [name for name in outputs if name]
    nodes = [
        node("Transpose", "x", "turned", perm=[1, 0, 2]),
        layer,
        *(node("Reshape", f"{name} flat", f"{name}_flat") for name in named),
        node("Concat", " ".join(f"{name}_flat" for name in named), "y", axis=0),
    ]
    sizes = {"sequence": TIME * both * BATCH * HIDDEN}
    size = sum(sizes.get(name, both * BATCH * HIDDEN) for name in named)
    return file_of(
        nodes,
        tensors,
        dynamic=["layer"],
        bindings=tuple(bindings),
        constants=constants,
        x=(BATCH, TIME, WIDTH),
        y=(size,),
    )


def compare(artifact, rng):
    """The file's meaning, and both ways of running it; sums in another order may tip a state between two codes."""
    x = rng.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)
    (want,) = reference.run(artifact, {"x": x}).values()
    found = []
    for private in (True, False):
        lowered = lower(artifact, private=private)
        (got,) = Engine(lowered.serialized(), threads=1).run({"x": x})
        off = np.abs(got - want)
        assert (off > 1e-5).mean() < 0.02
        assert off.max() < 0.05
        found.append(lowered)
    onnx.checker.check_model(found[1].model, full_check=True)
    return found


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, (6, 4, 3, 1, 1), (2, 5, 3, 4, 1)], ids=["whole", "longest", "shorter"])
@pytest.mark.parametrize("starts", [True, False])
def test_the_meaning_of_the_file(rng, kind, direction, lengths, starts):
    artifact = recurrent_file(rng, kind, direction, lengths=lengths, starts=starts)
    private, standard = compare(artifact, rng)
    operators = [each.op_type for each in private.model.graph.node]
    assert ("DynamicQuantizeLSTM" in operators) == (kind == "LSTM")
    assert {each.domain for each in standard.model.opset_import} <= {"", "ai.onnx"}
    (layer,) = Session(artifact, threads=1).layers
    assert layer.integer, layer
    assert private.dequantized == {}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("granularity", [None, PerTensor()])
def test_weights_of_few_bits(rng, kind, bits, granularity):
    def make(rng, shape):
        return weights(rng, shape, bits=bits, granularity=granularity)

    private, _ = compare(recurrent_file(rng, kind, "bidirectional", make=make, biases=False), rng)
    assert [placement.reason for placement in private.layers.values()] == [""]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(("largest", "stored"), [(127, np.uint8), (64, np.int8)])
def test_weights_that_may_saturate_are_unsigned(rng, kind, largest, stored):
    """Two products of 255 by 127 pass 16 bits, in which some processors add them; of 255 by 64 they do not."""

    def make(rng, shape):
        made = weights(rng, shape)
        codes = np.where(rng.random(shape) < 0.5, -largest, largest).astype(np.int8)
        return replace(made, codes=codes, scale=made.scale / 20)

    for lowered in compare(recurrent_file(rng, kind, "forward", make=make), rng):
        scans = [each.attribute for each in lowered.model.graph.node if each.op_type == "Scan"]
        bodies = [each.g for attributes in scans for each in attributes if each.name == "body"]
        found = [each for graph in (lowered.model.graph, *bodies) for each in graph.initializer]
        held = {each.name: onnx.numpy_helper.to_array(each) for each in found}
        assert {array.dtype for name, array in held.items() if name.endswith("_codes")} == {np.dtype(stored)}
    assert lowered.saturating == frozenset()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("asked", [("final0",), ("sequence",)])
def test_lengths_where_one_output_is_read(rng, kind, asked):
    compare(recurrent_file(rng, kind, "forward", lengths=(1, 6, 2, 3, 2), starts=True, asked=asked), rng)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda rng, shape: weights(rng, shape, symmetric=False), "asymmetric"),
        (lambda rng, shape: weights(rng, shape, granularity=PerGroup(size=4)), "do not run along the output axis"),
        (samples.codebook, "codebook"),
        (samples.sparse, "sparse"),
        (lambda rng, shape: samples.dense(rng, *shape), "stored as its values"),
    ],
)
def test_other_weights_multiply_the_numbers_of_the_codes(rng, kind, make, reason):
    private, _ = compare(recurrent_file(rng, kind, "bidirectional", lengths=(6, 4, 3, 1, 1), make=make), rng)
    assert reason in private.layers["layer"].reason
    assert not Session(recurrent_file(rng, kind, "forward", make=make), threads=1).layers[0].integer


def test_what_lies_behind_an_end_changes_nothing(rng):
    for kind in GATES:
        artifact = recurrent_file(rng, kind, "bidirectional", lengths=(6, 4, 3, 1, 1))
        x = rng.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)
        session = Session(artifact, threads=1)
        before = session.run({"x": x})["y"]
        x[1, 4:] = 1e4
        np.testing.assert_array_equal(session.run({"x": x})["y"], before)


def test_a_gru_that_resets_before_the_product_is_not_dynamic(rng):
    nodes = [onnx.helper.make_node("GRU", ["x", "w", "r"], ["y"], "layer", hidden_size=2)]
    tensors = {"w": np.zeros((1, 6, 3), np.float32), "r": np.zeros((1, 6, 2), np.float32)}
    with pytest.raises(ArtifactError, match="no attributes but direction, hidden_size and"):
        file_of(nodes, tensors, dynamic=["layer"], x=("batch", 4, 3), y=("batch", 1, 4, 2))


def test_the_sample_file(rng):
    artifact = open_artifact(pack(samples.dynamic_lstm()))
    check(artifact, rng)
    reasons = Session(artifact).layers[1].reason
    assert reasons == "its grid is asymmetric: a storage format"
