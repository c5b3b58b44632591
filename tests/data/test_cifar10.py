"""CIFAR-10 on tiny files of the standard form, and on the real ones where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.cifar10 import CLASSES
from attar._src.data.registry import load_dataset


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_DATA", str(tmp_path))
    return tmp_path / "test_batch.bin"


def test_label_then_planes_rows_first(batch: Path) -> None:
    image = np.random.RandomState(0).randint(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    batch.write_bytes(b"".join(bytes([label]) + i.tobytes() for label, i in zip((9, 0), image, strict=True)))
    data = load_dataset("cifar10")
    np.testing.assert_array_equal(data.x, image)
    assert data.y is not None
    assert data.y.tolist() == [9, 0]
    assert data.class_names[9] == "truck"


def test_training_batches_follow_each_other(batch: Path) -> None:
    for i in range(1, 6):
        (batch.parent / f"data_batch_{i}.bin").write_bytes(bytes([i]) + bytes(3072))
    y = load_dataset("cifar10", "train").y
    assert y is not None
    assert y.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes arrived"),
        (bytes(3072), "3072 bytes arrived"),
        (bytes(2 * 3073 + 1), "6147 bytes arrived"),
        (bytes(3073) + b"\x0a" + bytes(3072), "record 1 has the label 10"),
    ],
)
def test_broken_batches(batch: Path, content: bytes, message: str) -> None:
    batch.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset("cifar10")


def test_a_batch_longer_than_any_published_one_is_not_read(batch: Path) -> None:
    with batch.open("wb") as file:
        file.truncate(10_001 * 3073)
    with pytest.raises(DataError, match="30733073 bytes arrived"):
        load_dataset("cifar10")


@pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: the real CIFAR-10 is not read")
def test_the_real_files() -> None:
    data = load_dataset("cifar10")
    assert data.x.shape == (10_000, 3, 32, 32)
    assert data.y is not None
    assert np.bincount(data.y).tolist() == [1000] * 10
    assert [CLASSES[i] for i in data.y[:4]] == ["cat", "ship", "ship", "airplane"]
    train = load_dataset("cifar10", "train")
    assert train.y is not None
    assert np.bincount(train.y).tolist() == [5000] * 10
    assert train.preprocessing is not None
    np.testing.assert_allclose(train.x.mean((0, 2, 3)) / 255, train.preprocessing.mean, atol=1e-4)
    np.testing.assert_allclose(train.x[::20].std((0, 2, 3)) / 255, train.preprocessing.std, atol=5e-3)
