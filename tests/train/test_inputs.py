from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch

from attar._src.core.errors import DataError
from attar._src.train.batch import Batch
from attar._src.train.inputs import SharedParameters, arguments_taken, as_tensor, read_batch, read_inputs

X, M, Y = torch.ones(2, 3), torch.zeros(2, 5), torch.tensor([0, 1])
FORWARD = {"ids": True, "mask": False, "kinds": False, "labels": False}


@dataclass
class Fields:
    ids: object = None
    mask: object = None
    labels: object = None


class Encoding(Mapping):
    """A mapping that is no dict, as tokenizers give."""

    def __init__(self, **fields):
        self.fields = fields

    def __getitem__(self, name):
        return self.fields[name]

    def __iter__(self):
        return iter(self.fields)

    def __len__(self):
        return len(self.fields)


Named = namedtuple("Named", ["kinds", "ids"])
Other = namedtuple("Other", ["image", "what"])


@pytest.mark.parametrize(
    ("item", "names", "shapes", "targets"),
    [
        (X, (), [(2, 3)], None),
        (X.numpy(), (), [(2, 3)], None),
        ((X,), (), [(2, 3)], None),
        ([X, Y], (), [(2, 3)], [0, 1]),
        ((X, None), (), [(2, 3)], None),
        (((X, M), Y), (), [(2, 3), (2, 5)], [0, 1]),
        ({"kinds": M, "ids": X}, ("ids", "kinds"), [(2, 3), (2, 5)], None),
        ({"kinds": M, "ids": X, "mask": None, "text": "a"}, ("ids", "kinds"), [(2, 3), (2, 5)], None),
        (({"kinds": M, "ids": X}, Y), ("ids", "kinds"), [(2, 3), (2, 5)], [0, 1]),
        (({"kinds": M, "ids": X, "labels": Y},), ("ids", "kinds"), [(2, 3), (2, 5)], [0, 1]),
        (Encoding(ids=X, y=Y), ("ids",), [(2, 3)], [0, 1]),
        (Fields(ids=X, labels=Y), ("ids",), [(2, 3)], [0, 1]),
        (Fields(ids=X, mask=M), ("ids", "mask"), [(2, 3), (2, 5)], None),
        (Named(M, X), ("ids", "kinds"), [(2, 3), (2, 5)], None),
        (Other(X, Y), (), [(2, 3)], [0, 1]),
        (((X, None, M), Y), ("ids", "kinds"), [(2, 3), (2, 5)], [0, 1]),
        ({"ids": [[1, 2], [3, 4]], "labels": [0, 1]}, ("ids",), [(2, 2)], [0, 1]),
        ({"ids": X, "mask": (M, M)}, ("ids", "mask_0", "mask_1"), [(2, 3), (2, 5), (2, 5)], None),
        ({"ids": X, "mask": {"a": M, "b": None}}, ("ids", "mask_a"), [(2, 3), (2, 5)], None),
    ],
)
def test_every_form_of_a_batch(item, names, shapes, targets):
    batch = read_batch(item, FORWARD)
    assert batch.names == names
    assert [tuple(each.shape) for each in batch.inputs] == shapes
    assert (batch.targets if batch.targets is None else batch.targets.tolist()) == targets
    own, inputs = read_inputs(item, FORWARD)
    assert (own, len(inputs)) == (names, len(shapes))


@pytest.mark.parametrize("given", list(product([False, True], repeat=3)))
def test_arguments_are_bound_by_name_whatever_is_skipped_and_in_any_order(given):
    values = {"ids": X, "mask": M + 1, "kinds": M + 2}
    kept = {name: value for (name, value), there in zip(values.items(), (True, *given[1:]), strict=True) if there}
    batch = read_batch(dict(reversed(kept.items())), FORWARD)
    assert batch.names == tuple(kept)
    assert all(torch.equal(value, kept[name]) for name, value in zip(batch.names, batch.inputs, strict=True))
    assert all(torch.equal(batch.pick([name])[0], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("keys", "parameters", "targets", "inputs"),
    [
        (("x", "y"), {"x": True}, "y", ("x",)),
        (("x", "labels", "targets"), {"x": True}, "targets", ("x",)),
        (("x", "y"), {"x": True, "y": True}, None, ("x", "y")),
        # A condition, as generative models have it, is an input; what a module computes its own loss with is none.
        (("x", "y"), {"x": True, "y": False}, None, ("x", "y")),
        (("x", "labels"), {"x": True, "labels": False}, "labels", ("x",)),
        (("x", "labels"), {"x": True, "labels": True}, None, ("x", "labels")),
        (("x", "labels", "y"), {"x": True, "labels": False}, "y", ("x", "labels")),
    ],
)
def test_targets_by_name(keys, parameters, targets, inputs):
    batch = read_batch({name: torch.full((2,), place) for place, name in enumerate(keys)}, parameters)
    assert batch.names == inputs
    assert (None if batch.targets is None else batch.targets.tolist()) == (targets and [keys.index(targets)] * 2)


@pytest.mark.parametrize(
    ("parameters", "item", "inputs", "labelled"),
    [
        # Tensors alone are inputs as far as the forward can take them; two are a pair wherever it can do with one.
        ({"x": True}, (X, Y), 1, True),
        ({"x": True, "mask": False}, (X, Y), 1, True),
        ({"x": True, "mask": True}, (X, M), 2, False),
        ({"x": True, "mask": True}, [X, M, Y], 2, True),
        ({"x": True, "mask": True, "more": True}, (X, M, M), 3, False),
        ({"x": True, "mask": False, "more": True}, (X, M, M, Y), 3, True),
        (SharedParameters({"x": True}, {"input": True}), (X, Y), 1, True),
        (SharedParameters({"x": True, "m": True}, {"input": True, "m": True}), (X, M), 2, False),
    ],
)
def test_tensors_alone_are_counted_by_what_the_forward_takes(parameters, item, inputs, labelled):
    batch = read_batch(item, parameters)
    assert (len(batch.inputs), batch.targets is not None, batch.names) == (inputs, labelled, ())


def test_the_one_argument_may_be_a_tuple():
    batch = read_batch(((X, M), Y), {"inputs": True})
    assert (batch.names, batch.targets.tolist()) == (("inputs_0", "inputs_1"), [0, 1])
    assert arguments_taken({"inputs": True, "scale": False}, batch.names, 2) == batch.names
    # An argument that is given itself has no entries among the others.
    assert arguments_taken({"x": True}, ("x", "x_lengths"), 2) == ("x",)


def test_an_input_of_a_file_is_bound_by_the_argument_it_was():
    # The exporter calls the argument input (a word of Python) input_1; a batch may feed a module and a file.
    batch = read_batch({"input": X, "y": Y}, {"input": True, "input_1": True})
    assert (batch.names, batch.targets.tolist()) == (("input", "input_1"), [0, 1])
    assert torch.equal(*batch.inputs)
    assert torch.equal(read_batch({"hash": X, "hash_1": M}, {"hash_1": True}).inputs[0], M)
    assert read_batch({"h": (X, M)}, {"h_0": True, "h_1": True}).names == ("h_0", "h_1")
    with pytest.raises(DataError, match="lacks word_1"):
        read_batch({"word": X}, {"word_1": True})


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        *[(kind, kind) for kind in ("int8", "int32", "int64", "uint8", "bool", "float32")],
        *[("int16", "int32"), ("uint16", "int32"), ("uint32", "int64"), ("float16", "float32"), ("float64", "float32")],
    ],
)
def test_every_width_of_inputs(given, taken):
    array = np.arange(6).reshape(2, 3).astype(given)
    found = read_inputs(array, {"x": True})[1][0]
    assert found.dtype == getattr(torch, taken)
    assert found.tolist() == array.tolist()


def test_types_become_those_of_inputs_and_targets():
    batch = read_batch((np.ones((2, 3)), np.array([1, 2], np.uint8)), {})
    assert (batch.inputs[0].dtype, batch.targets.dtype) == (torch.float32, torch.int64)
    assert read_batch((Y.int(), X[:, 0].half()), {}).inputs[0].dtype == torch.int32


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"mask": M, "x": X},
            r"keys \['mask', 'x'\] lacks ids: the forward takes ids, \[mask\], \[kinds\], \[labels\]",
        ),
        (Fields(mask=M), r"lacks ids"),
        (
            {"ids": X, "mask": ((M, M), M)},
            "argument 'mask_0': .* tuple arrived; give each tensor as an argument of its own",
        ),
        ({"ids": X, "mask": {"a": {"b": M}}}, "argument 'mask_a': .* dict arrived; give each tensor"),
        ({"ids": [[1, 2], [3]]}, "argument 'ids' is a list of lists of different lengths .*; pad them to one length"),
        ((X, M, M, M, M, Y), r"6 tensors does not fit: the forward takes ids, \[mask\], .*; write \(\(first, second"),
        ((X, M, Y), r"3 tensors, and the forward takes ids, .*: the last may be an input or targets; write"),
        ({"ids": "text"}, "argument 'ids': a tensor or array .* str arrived"),
        ((X, None, M), "a batch of 3 entries"),
        (((X, "text"), Y), "mask: .* str arrived"),
        ((), "a batch is empty"),
        ({"ids": X.to_sparse()}, "argument 'ids' is a torch.sparse_coo tensor; give a dense one"),
        ({"ids": X + 1j}, "of real numbers, was expected, Tensor of torch.complex64 arrived"),
        (torch.tensor(1.0), "input 0: a tensor or array with a first axis"),
        ((X, Y[:1]), r"inputs \[\(2, 3\)\] and targets \(1,\); axis 0 must agree"),
    ],
)
def test_what_is_no_batch_says_what_arrived(item, message):
    with pytest.raises(DataError, match=message):
        read_batch(item, FORWARD)


def test_what_a_module_takes_of_a_batch():
    assert arguments_taken(FORWARD, ("kinds", "ids", "other"), 3) == ("ids", "kinds")
    assert arguments_taken(FORWARD, (), 2) == ("ids", "mask")
    assert arguments_taken({"x": True, "*more": False, "scale": False}, (), 3) == ("x", "more_0", "more_1")
    with pytest.raises(DataError, match=r"the inputs mask lacks ids: the forward takes ids, \[mask\]"):
        arguments_taken(FORWARD, ("mask",), 1)
    with pytest.raises(DataError, match="a batch of 2 inputs does not fit: the forward takes x"):
        arguments_taken({"x": True}, (), 2)
    with pytest.raises(DataError, match="a batch of 1 input lacks y"):
        arguments_taken({"x": True, "y": True}, (), 1)


def test_programs_pick_by_name_and_positions_stay():
    batch = Batch((X, M), Y, names=("ids", "mask"))
    assert [each.shape for each in batch.pick(("mask", "ids"))] == [M.shape, X.shape]
    assert batch.to(torch.device("cpu")).part(slice(1)).pick(("mask",))[0].shape == (1, 5)
    assert len(batch.part(slice(1)).targets) == 1
    with pytest.raises(DataError, match="a batch of ids, mask lacks kinds"):
        batch.pick(("kinds",))
    plain = Batch((X, M), Y)
    assert plain.pick(("ids", "mask")) == plain.inputs


@pytest.mark.parametrize("kind", [">f4", ">i8", "<f2", np.longdouble])
def test_arrays_of_any_byte_order_and_width_are_read(kind):
    array = np.arange(6).reshape(3, 2).astype(kind)
    assert as_tensor(array).tolist() == [[0, 1], [2, 3], [4, 5]]
