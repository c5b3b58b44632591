from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch

from attar._src.core.errors import DataError
from attar._src.train.batch import Batch
from attar._src.train.inputs import arguments_taken, read_batch, read_inputs

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
        ({"ids": X, "mask": (M, M)}, "argument 'mask': .* tuple arrived; give each tensor as an argument of its own"),
        ({"ids": X, "mask": {"a": M}}, "argument 'mask': .* dict arrived; give each tensor"),
        ({"ids": "text"}, "argument 'ids': a tensor or array .* str arrived"),
        ((X, None, M), "a batch of 3 entries"),
        (((X, None), Y), "input 1: .* NoneType arrived"),
        ((), "a batch is empty"),
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
