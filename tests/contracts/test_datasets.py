"""What every registered data set owes: checked splits, a sound Dataset, an error that says where its files belong."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attar._src.core.errors import DataError, SpecError, UnknownName
from attar._src.data.dataset import Dataset
from attar._src.data.registry import DATASETS, load_dataset


def _digits(root: Path) -> str:
    return "digits"


def _mnist(root: Path) -> str:
    (root / "mnist").mkdir()
    for stem, n in (("train", 20), ("t10k", 10)):
        labels = bytes(i % 10 for i in range(n))
        images = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + bytes(n * 784)
        (root / "mnist" / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / "mnist" / f"{stem}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, n) + labels)
        )
    return "mnist"


def _cifar10(root: Path) -> str:
    (root / "cifar-10-batches-bin").mkdir()
    batch = b"".join(bytes([i]) + bytes(3072) for i in range(10))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (root / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(batch)
    return "cifar10"


def _npz(root: Path) -> str:
    x, y = np.zeros((20, 3), np.float32), np.arange(20) % 10
    np.savez(root / "set.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    return f"npz:{root / 'set.npz'}"


ARRANGE: dict[str, Callable[[Path], str]] = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10, "npz": _npz}


@pytest.fixture(params=list(DATASETS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spec(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    assert name in ARRANGE, f"write tiny files of data set {name!r} here, so that the contract is tried on it"
    monkeypatch.setenv("ATTAR_DATA", str(tmp_path))
    return ARRANGE[name](tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_a_sound_dataset(spec: str, split: str) -> None:
    data = load_dataset(spec, split)
    assert isinstance(data, Dataset)
    assert data.split == split
    assert len(data) > 0
    assert data.y is not None
    assert data.y.dtype == np.int64
    assert sorted(set(data.y.tolist())) == list(range(10))
    assert len(data.class_names) in (0, 10)
    assert data.task == "classification"
    assert data.metric == "accuracy"
    assert "/" not in data.name
    if data.preprocessing is not None:
        assert data.preprocessing.layout == "NCHW"
        assert data.x.dtype == np.uint8
        assert len(data.preprocessing.mean) in (1, data.x.shape[1])


def test_test_is_the_default_split(spec: str) -> None:
    assert load_dataset(spec).split == "test"


def test_the_same_call_gives_the_same_examples(spec: str) -> None:
    one, two = load_dataset(spec), load_dataset(spec)
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.y, two.y)


def test_an_unknown_split_is_named(spec: str) -> None:
    with pytest.raises((UnknownName, DataError), match="evaluation"):
        load_dataset(spec, "evaluation")


def test_an_argument_is_taken_or_refused(name: str) -> None:
    if DATASETS[name].argument is None:
        with pytest.raises(SpecError, match="takes no argument"):
            load_dataset(f"{name}:more")
    else:
        with pytest.raises(SpecError, match=f"write {name}:"):
            load_dataset(name)


def test_every_entry_says_what_it_is(name: str) -> None:
    assert f"``{name}" in (type(DATASETS[name]).__doc__ or "")


@pytest.mark.parametrize("name", ["mnist", "cifar10"], indirect=True)
@pytest.mark.parametrize("split", ["train", "test"])
def test_without_the_variable_the_error_says_what_is_expected(
    name: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATTAR_DATA", raising=False)
    with pytest.raises(DataError, match=rf"^{name}: expected .* in \$ATTAR_DATA/.*ATTAR_DATA is not set"):
        load_dataset(name, split)


@pytest.mark.parametrize("name", ["mnist", "cifar10"], indirect=True)
def test_a_missing_file_is_listed_with_every_place_tried(spec: str, tmp_path: Path) -> None:
    gone = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.name.startswith(("t10k-l", "test")))[0]
    gone.unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(spec)
    assert f"{gone} (missing)" in str(caught.value)
    assert f"{tmp_path / gone.name} (missing)" in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10"], indirect=True)
def test_files_may_lie_in_the_root_itself(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next(p for p in tmp_path.iterdir() if p.is_dir())
    monkeypatch.setenv("ATTAR_DATA", str(folder))
    assert len(load_dataset(spec)) == 10
