"""MNIST on tiny files of the standard form, and on the real ones where they are."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.registry import load_dataset


def _write(folder: Path, images: np.ndarray, labels: list[int]) -> None:
    n, height, width = images.shape
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, n, height, width) + images.tobytes())
    )
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels))
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_DATA", str(tmp_path))
    return tmp_path


def test_images_and_labels(root: Path) -> None:
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
    _write(root, images, [7, 2, 1])
    data = load_dataset("mnist")
    np.testing.assert_array_equal(data.x, images[:, None])
    assert data.y is not None
    assert data.y.tolist() == [7, 2, 1]


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((3, 28, 28), [1, 2], "3 images and .* 2 labels"),
        ((3, 28, 27), [1, 2, 3], r"\(any, 28, 28\)"),
        ((2, 28, 28), [1, 10], "class 10"),
        ((0, 28, 28), [], "at least one example"),
    ],
)
def test_broken_files(root: Path, shape: tuple[int, int, int], labels: list[int], message: str) -> None:
    _write(root, np.zeros(shape, np.uint8), labels)
    with pytest.raises(DataError, match=message):
        load_dataset("mnist")


def test_labels_in_place_of_images(root: Path) -> None:
    _write(root, np.zeros((1, 28, 28), np.uint8), [1])
    labels = root / "t10k-labels-idx1-ubyte.gz"
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match=r"t10k-images.*starts with 00 00 08 03"):
        load_dataset("mnist")


@pytest.mark.skipif("ATTAR_DATA" not in os.environ, reason="ATTAR_DATA is not set: the real MNIST is not read")
def test_the_real_files() -> None:
    data = load_dataset("mnist")
    assert data.x.shape == (10_000, 1, 28, 28)
    assert data.y is not None
    assert data.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    train = load_dataset("mnist", "train").x
    assert train.shape == (60_000, 1, 28, 28)
    assert round(float(train.mean()) / 255, 4) == 0.1307
    assert round(float(train[:10_000].std()) / 255, 2) == 0.31
