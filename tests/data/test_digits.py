"""The digits: one split for ever."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.registry import load_dataset


def test_the_split_is_fixed_and_even() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert train.x.shape == (1438, 1, 8, 8)
    assert test.x.shape == (359, 1, 8, 8)
    assert int(train.x.max()) == 16
    assert test.y is not None
    assert set(np.bincount(test.y).tolist()) <= {34, 35, 36, 37}
    assert hashlib.sha256(test.x.tobytes() + test.y.tobytes()).hexdigest()[:16] == "017e8b6c6542fd56"


def test_the_splits_share_no_example() -> None:
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    both = np.concatenate([load_dataset("digits", split).x for split in ("train", "test")])
    assert sorted(map(bytes, both)) == sorted(map(bytes, images.astype(np.uint8)))
    # As the README says: whoever trained on the first ones has seen the test examples.
    first = {bytes(each) for each in images[:1438].astype(np.uint8)}
    assert sum(bytes(each) in first for each in load_dataset("digits", "test").x) > 200


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"pip install 'attar\[compress\]'"):
        load_dataset("digits")
