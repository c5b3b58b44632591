"""Dataset, its subsets and holdout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar._src.artifact.manifest import Preprocessing
from attar._src.core.errors import DataError
from attar._src.data.dataset import Dataset, holdout


def _set(n: int = 10, classes: int = 3, **changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "x": np.arange(n * 2).reshape(n, 2),
        "y": (np.arange(n) % classes).astype(np.int64),
        "name": "toy",
        "split": "train",
    }
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((0, 2)), "y": None}, r"shape \(0, 2\)"),
        ({"x": np.float32(1) * np.ones(()), "y": None}, r"shape \(\)"),
        ({"x": np.array(["a"] * 10)}, "<U1"),
        ({"x": np.array([None] * 10)}, "object"),
        ({"x": np.full((10, 2), np.nan)}, "NaN"),
        ({"x": np.full((10, 2), np.inf, np.float32)}, "infinity"),
        ({"x": np.zeros((10, 2), np.complex64)}, "complex64"),
        ({"y": np.zeros(9, np.int64)}, r"10 labels of int64.*int64\(9,\)"),
        ({"y": np.zeros(10, np.int32)}, "int32"),
        ({"y": np.zeros((), np.int64)}, r"int64\(\)"),
        ({"y": np.zeros((10, 1), np.int64)}, "another task"),
        ({"y": np.full(10, -1)}, "class -1"),
        ({"class_names": ("a", "b")}, "class 2 is not below the 2"),
        ({"preprocessing": Preprocessing(name="p", layout="NCHW")}, "layout 'NCHW'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _set(**changes)
    assert str(caught.value).startswith("toy (train): ")


def test_other_tasks_may_have_labels_of_more_axes() -> None:
    data = _set(y=np.zeros((10, 4), np.int64), task="translation", metric=None)
    assert data.take(np.array([3])).y.shape == (1, 4)  # type: ignore[union-attr]


def test_one_example_of_one_axis_without_labels() -> None:
    data = Dataset(np.ones(1, np.bool_), None, "one", "test")
    assert len(data) == 1
    assert data.subset(1).y is None


def test_a_subset_is_seeded_and_has_no_example_twice() -> None:
    data = _set(50)
    one, two, other = data.subset(20, 1), data.subset(20, 1), data.subset(20, 2)
    np.testing.assert_array_equal(one.x, two.x)
    assert not np.array_equal(one.x, other.x)
    assert len(np.unique(one.x[:, 0])) == 20
    np.testing.assert_array_equal(one.x[:, 0] // 2 % 3, one.y)


def test_the_stream_of_a_seed_never_changes() -> None:
    assert (_set(10).subset(4, 0).x[:, 0] // 2).tolist() == [2, 8, 4, 9]


@pytest.mark.parametrize("n", [0, -1, 11])
def test_a_subset_larger_than_the_set_is_refused(n: int) -> None:
    with pytest.raises(DataError, match="use 1 to 10"):
        _set(10).subset(n)


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_holdout_is_a_partition_that_keeps_each_class_its_share(labels: list[int], fraction: float, seed: int) -> None:
    n, count = len(labels), round(fraction * len(labels))
    data = Dataset(np.arange(n), np.array(labels), "toy", "train")
    if not 0 < count < n:
        with pytest.raises(DataError, match="without any"):
            holdout(data, fraction, seed)
        return
    train, validation = holdout(data, fraction, seed)
    assert (train.split, validation.split) == ("train", "validation")
    assert len(validation) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([train.x, validation.x])), np.arange(n))
    assert validation.y is not None
    np.testing.assert_array_equal(validation.y, np.array(labels)[validation.x])
    for label in set(labels):
        share = labels.count(label) * count / n
        assert abs(int((validation.y == label).sum()) - share) < 1 + 1e-9


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_holdout_of_all_or_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="without any"):
        holdout(_set(10), fraction)


def test_holdout_without_labels_is_a_partition() -> None:
    train, validation = holdout(_set(10, y=None), 0.3, 7)
    assert train.y is None
    assert sorted([*train.x[:, 0], *validation.x[:, 0]]) == list(range(0, 20, 2))
