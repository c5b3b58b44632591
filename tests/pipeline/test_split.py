"""Splits in the forms people have: mappings of arrays, data sets, lists of examples."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from attar._src.core.errors import DataError
from attar._src.pipeline.split import read_split

X, Y = np.arange(30.0).reshape(10, 3), np.arange(10) % 3


class Items(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return {"x": X[index], "label": int(Y[index]), "note": None}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "item", [(X, Y), TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), (X, Y.tolist()), [X, Y]]
)
def test_arrays_by_position(item):
    split = read_split(item, "train")
    assert (split.names, split.inputs[0].dtype, split.targets.dtype) == ((), np.float32, np.int64)
    np.testing.assert_array_equal(split.inputs[0], X)
    np.testing.assert_array_equal(split.targets, Y)


@pytest.mark.parametrize("target", ["labels", "label", "target", "targets", "y"])
def test_arrays_by_name(target):
    split = read_split({"ids": Y.tolist(), target: Y, "x": torch.from_numpy(X).bfloat16(), "text": ["a"] * 10}, "test")
    assert split.names == ("ids", "x")
    assert [each.dtype for each in split.inputs] == [np.int64, np.float32]
    np.testing.assert_array_equal(split.targets, Y)
    part = split.take(np.array([2, 1]))
    assert (part.names, part.inputs[0].tolist(), part.targets.tolist()) == (("ids", "x"), [2, 1], [2, 1])


@pytest.mark.parametrize("item", [Items(), [Items()[index] for index in range(10)], Stream()])
def test_data_sets_and_lists_of_examples_become_loaders(item):
    split = read_split(item, "test")
    assert isinstance(split.loader, DataLoader)
    batch = next(iter(split.loader))
    x, labels = (batch["x"], batch["label"]) if isinstance(batch, dict) else batch
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"x": X, "y": Y[:4]}, r"axis 0 should count the same"),
        ({"text": ["a", "b"]}, r"a mapping with the keys \['text'\] and no arrays of examples; write"),
        ({"x": [[1, 2], [3]]}, "a list of lists of different lengths .*; pad them to one length"),
        ({"x": np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0)}, "NaN or infinity in 1 of 10 .* of x, .* 3;"),
        (3, "train is a int; give a Dataset of Attar, arrays"),
        ("text", "train is a str"),
    ],
)
def test_what_is_no_split_is_refused(item, message):
    with pytest.raises(DataError, match=message):
        read_split(item, "train")
