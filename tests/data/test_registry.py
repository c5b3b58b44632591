"""The specs that ``load`` takes, a user's own factories among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attar._src.core.errors import DataError, SpecError, UnknownName
from attar._src.data.registry import load_dataset

FACTORIES = """
import numpy as np
from attar._src.data.dataset import Dataset

def pair(split):
    return np.ones((3, 2)), [0, 1, 2]

def unlabelled(split="test"):
    return np.ones((3, 2)), None

def whole(split):
    return Dataset(np.ones((3, 2)), None, "whole", split)

def bare():
    return np.ones((3, 2)), None

def wrong(split):
    return np.ones((3, 2))

def floats(split):
    return np.ones((3, 2)), np.ones(3)

constant = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FACTORIES)
    return path


def test_factories(file: Path) -> None:
    pair = load_dataset(f"{file}:pair", "train")
    assert pair.y is not None
    assert pair.y.tolist() == [0, 1, 2]
    assert (pair.name, pair.split) == ("mine.py:pair", "train")
    assert load_dataset(f"{file}:unlabelled").y is None
    assert load_dataset(f"{file}:whole").name == "whole"


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("bare", SpecError, r"cannot be called as factory\(split='test'\)"),
        ("constant", SpecError, "not a callable"),
        ("wrong", DataError, "returned a ndarray"),
        ("floats", DataError, "labels are integers"),
        ("par", UnknownName, "did you mean 'pair'"),
    ],
)
def test_factories_that_cannot_serve(file: Path, factory: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_dataset(f"{file}:{factory}")


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="no data set named 'cifar'; did you mean 'cifar10'"):
        load_dataset("cifar")
    with pytest.raises(SpecError, match="there is no file"):
        load_dataset("nowhere.py:data")


def test_the_token_example_balances_its_classes_and_keeps_its_promise() -> None:
    spec = str(Path(__file__).parents[2] / "examples" / "tokens.py") + ":order"
    train, test = load_dataset(spec, "train"), load_dataset(spec)
    for data, n in ((train, 4096), (test, 1024)):
        assert data.x.shape == (n, 24)
        assert data.x.dtype == np.int64
        assert data.y is not None
        assert abs(float(data.y.mean()) - 0.5) < 0.05
        assert ((data.x == 0).sum(1) == 1).all()
        assert ((data.x == 1).sum(1) == 1).all()
        np.testing.assert_array_equal((data.x == 0).argmax(1) < (data.x == 1).argmax(1), data.y == 1)
    assert not (train.x[:1024] == test.x).all(1).any()
