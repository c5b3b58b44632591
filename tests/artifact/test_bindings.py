"""Initializers made of tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies

from attar._src.artifact.bindings import Bound, Whole, describe_binding, resolve, whole
from attar._src.artifact.manifest import Binding, DenseValue, Part, Stream, TensorRecord
from attar._src.core.errors import ArtifactError


def record(name, shape, dtype="f32"):
    return TensorRecord(name=name, shape=shape, section=0, value=DenseValue(dtype=dtype, data=Stream(length=0)))


def part(name, start=None, stop=None):
    return Part(tensor=name, start=start, stop=stop)


@given(st.data())
def test_a_whole_tensor_permuted_and_reshaped(data):
    values = data.draw(strategies.float_arrays(specials=True))
    permute = tuple(data.draw(st.permutations(range(values.ndim))))
    shape = (values.size, 1)
    binding = Binding(to="w", parts=(part("a"),), permute=permute, shape=shape)
    assert whole(binding) == Whole("a", permute)
    assert describe_binding(binding, {"a": record("a", values.shape)}) == Bound("f32", shape)
    found = resolve(binding, lambda name: values)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, values.transpose(permute).reshape(shape))


@given(st.data())
def test_runs_one_after_another(data):
    values = {name: data.draw(strategies.float_arrays()) for name in "ab"}
    parts, expected = [], []
    for _ in range(data.draw(st.integers(1, 5))):
        name = data.draw(st.sampled_from("ab"))
        start = data.draw(st.integers(0, values[name].size))
        stop = data.draw(st.integers(start, values[name].size))
        parts.append(part(name, start, stop))
        expected.append(values[name].ravel()[start:stop])
    binding = Binding(to="w", parts=tuple(parts))
    records = {name: record(name, values[name].shape) for name in "ab"}
    expected = np.concatenate(expected)
    assert whole(binding) is None
    assert describe_binding(binding, records) == Bound("f32", expected.shape)
    np.testing.assert_array_equal(resolve(binding, values.__getitem__), expected)


def test_without_parts_it_is_the_tensor_of_its_name():
    values = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert whole(Binding(to="a")) == Whole("a", None)
    assert describe_binding(Binding(to="a"), {"a": record("a", (2, 3), "i64")}) == Bound("i64", (2, 3))
    np.testing.assert_array_equal(resolve(Binding(to="a"), lambda name: values), values)


def test_a_tensor_of_several_runs_is_asked_for_once():
    asked = []

    def dense(name):
        asked.append(name)
        return np.arange(4, dtype=np.float32)

    found = resolve(Binding(to="w", parts=(part("a", 2, 4), part("a", 0, 2))), dense)
    np.testing.assert_array_equal(found, [2, 3, 0, 1])
    assert asked == ["a"]


@pytest.mark.parametrize(
    ("binding", "match"),
    [
        (Binding(to="w"), "there is no tensor 'w'"),
        (Binding(to="w", parts=(part("a"), part("i"))), "several types: f32, i64"),
        (Binding(to="w", parts=(part("a", 0, 7),)), r"the run 0\.\.7 is not one of the 6 elements"),
        (Binding(to="w", parts=(part("a", 3, 2),)), r"the run 3\.\.2"),
        (Binding(to="w", parts=(part("a", 3),)), r"the run 3\.\.None"),
        (Binding(to="w", parts=(part("a"), part("a")), permute=(0, 1)), "one whole tensor"),
        (Binding(to="w", parts=(part("a", 0, 6),), permute=(1, 0)), "one whole tensor"),
        (Binding(to="w", parts=(part("a"),), permute=(0,)), "permutation of its axes"),
        (Binding(to="w", parts=(part("a"),), permute=(1, 1)), "permutation of its axes"),
        (Binding(to="w", parts=(part("a"),), shape=(4,)), "6 elements cannot be reshaped to"),
    ],
)
def test_bindings_that_do_not_fit(binding, match):
    records = {"a": record("a", (2, 3)), "i": record("i", (2,), "i64")}
    with pytest.raises(ArtifactError, match=match):
        describe_binding(binding, records)


def test_small_floats_are_bound_as_float32():
    assert describe_binding(Binding(to="a"), {"a": record("a", (2,), "bf16")}).dtype == "f32"
    assert describe_binding(Binding(to="a"), {"a": record("a", (2,), "bool")}).dtype == "bool"
