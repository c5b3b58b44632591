"""Input channels in multiples of four: which convolutions get them, and that no output changes."""

import numpy as np
import pytest
from onnx import numpy_helper
from tests import samples
from tests.runtime import reference
from tests.runtime.reference import act, file_of, node

from attar._src.core.scheme import PerChannel
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session

SHAPES = {
    # name: weight, spatial sizes of the input, attributes, channels of the weight that runs
    "one channel": ((5, 1, 5, 5), (9, 9), {}, 4),
    "three, strided": ((16, 3, 3, 3), (8, 8), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 4),
    "six": ((4, 6, 3, 3), (6, 6), {"dilations": [2, 2]}, 8),
    "four": ((4, 4, 3, 3), (6, 6), {}, 4),
    "a sequence": ((8, 3, 5), (12,), {"pads": [2, 2]}, 4),
    "a volume": ((4, 2, 3, 3, 3), (4, 4, 4), {}, 4),
    "a cell a window": ((8, 3, 1, 1), (6, 6), {}, 3),
    "groups": ((6, 1, 3, 3), (6, 6), {"group": 6}, 1),
}


def convolution(rng, shape, sizes, attributes, *, zero=131):
    """A file of one convolution whose input has an odd zero point, so that zeros have a code of their own."""
    weight = samples.quantized(rng, shape, bits=8, granularity=PerChannel())
    channels = shape[1] * attributes.get("group", 1)
    nodes = [node("Conv", "x w", "c", **attributes), node("Relu", "c", "y0"), node("Neg", "y0", "y")]
    grids = [act("x", 0.02, zero), act("y0", 0.05)]
    lengths = ("batch", shape[0], *["s"] * len(sizes))
    return file_of(nodes, {"w": weight}, grids, x=("batch", channels, *sizes), y=lengths)


@pytest.mark.parametrize("case", SHAPES)
def test_further_channels_change_nothing(rng, case):
    shape, sizes, attributes, ran = SHAPES[case]
    artifact = convolution(rng, shape, sizes, attributes)
    lowered = lower(artifact)
    weight = next(t for t in lowered.model.graph.initializer if t.name == "w_codes")
    assert numpy_helper.to_array(weight).shape[1] == ran
    session = Session(artifact)
    x = rng.normal(size=(2, *session.example()["x"].shape[1:])).astype(np.float32)
    want = reference.run(artifact, {"x": x})["y"]
    got = session.run(x)
    assert len(np.unique(want)) > 5
    # Float32 sums of the reference round; a code is 0.05.
    wrong = np.abs(got - want) > 1e-5
    assert wrong.mean() < 0.01
    assert np.abs(got - want).max() < 0.051
    assert session.integer_layers() == ("w",)


def test_readers_of_one_value_share_its_further_channels(rng):
    kinds = {name: samples.quantized(rng, (4, 3, 3, 3), bits=8) for name in ("v", "w")}
    nodes = [node("Conv", "x v", "a"), node("Conv", "x w", "b"), node("Conv", "x v", "c"), node("Sum", "a b c", "y")]
    grids = [act("x", 0.02, 100), *(act(name, 0.05, 128) for name in "abc")]
    artifact = file_of(nodes, kinds, grids, x=("batch", 3, 5, 5), y=("batch", 4, 3, 3))
    graph = lower(artifact).model.graph
    assert [each.op_type for each in graph.node].count("Pad") == 1
    x = rng.normal(size=(2, 3, 5, 5)).astype(np.float32)
    want = reference.run(artifact, {"x": x})["y"]
    assert (np.abs(Session(artifact).run(x) - want) > 1e-5).mean() < 0.01


def test_a_shape_is_read_from_the_codes(rng):
    weight = samples.quantized(rng, (4, 4, 3, 3), bits=8)
    nodes = [node("Conv", "x w", "c"), node("Shape", "x", "s"), node("Size", "x", "z"), node("Relu", "c", "r")]
    nodes += [node("Cast", "s", "f", to=1), node("Cast", "z", "g", to=1)]
    nodes += [node("ReduceSum", "f", "h", keepdims=0), node("Add", "h g", "k"), node("Mul", "r k", "y")]
    artifact = file_of(
        nodes, {"w": weight}, [act("x", 0.02), act("r", 0.05)], x=("batch", 4, 5, 5), y=("batch", 4, 3, 3)
    )
    producer = {name: each for each in lower(artifact).model.graph.node for name in each.output}
    for each in producer.values():
        if each.op_type in ("Shape", "Size"):
            assert producer[each.input[0]].op_type == "QuantizeLinear"
    x = np.abs(rng.normal(size=(2, 4, 5, 5))).astype(np.float32)
    want = reference.run(artifact, {"x": x})["y"]
    assert (np.abs(Session(artifact).run(x) - want) > 1e-4 * np.abs(want).max()).mean() < 0.02
