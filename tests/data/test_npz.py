"""Archives of a user's arrays."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.registry import load_dataset

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def _write(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "set.npz", **arrays)
    return f"npz:{folder / 'set.npz'}"


def test_two_splits(tmp_path: Path) -> None:
    spec = _write(tmp_path, x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1])
    assert (len(load_dataset(spec, "train")), len(load_dataset(spec, "test"))) == (4, 1)
    assert load_dataset(spec).name == "set.npz"
    assert load_dataset(spec).preprocessing is None


def test_a_file_of_one_split_serves_any(tmp_path: Path) -> None:
    spec = _write(tmp_path, x=X, y=Y)
    for split in ("train", "test", "validation"):
        data = load_dataset(spec, split)
        assert data.split == split
        np.testing.assert_array_equal(data.x, X)


def test_a_named_split_goes_before_the_common_one(tmp_path: Path) -> None:
    spec = _write(tmp_path, x=X, y=Y, x_test=X[:2])
    assert load_dataset(spec, "test").y is None
    assert len(load_dataset(spec, "train")) == 4


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type(tmp_path: Path, dtype: type[np.generic]) -> None:
    y = load_dataset(_write(tmp_path, x=X, y=Y.astype(dtype))).y
    assert y is not None
    assert y.dtype == np.int64
    assert y.tolist() == Y.tolist()


def test_labels_of_each_token_are_no_classes_of_examples(tmp_path: Path) -> None:
    labels = np.stack([Y, Y, np.full_like(Y, -100)], axis=1)
    data = load_dataset(_write(tmp_path, x=X, y=labels))
    assert data.y is not None
    np.testing.assert_array_equal(data.y, labels)
    assert (data.task, data.metric) == (None, None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "labels": Y}, r"set\.npz: expected the arrays x_test and y_test, .* holds images, labels"),
        ({}, "holds none"),
        ({"x": X, "y": Y.astype(np.float32)}, "labels are integers, float32"),
        ({"x": X, "y": np.full(4, 2**63, np.uint64)}, "9223372036854775808 does not fit"),
        ({"x": X, "y": Y[:3]}, "4 labels"),
        ({"x": np.array([{}, {}], dtype=object), "y": Y[:2]}, "cannot be read"),
        ({"x": X, "y": np.array([0, 1, None, 1], dtype=object)}, "cannot be read"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(_write(tmp_path, **arrays))


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(DataError, match="there is no file"):
        load_dataset(f"npz:{path}")
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load_dataset(f"npz:{path}")


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"words")
    with pytest.raises(DataError, match=r"set\.npz"):
        load_dataset(f"npz:{path}")


def test_a_header_that_asks_for_too_much(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**60,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(f"npz:{path}")


def test_damaged_archives_never_give_wrong_arrays(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=X, y=Y)
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x41
        path.write_bytes(broken)
        try:
            data = load_dataset(f"npz:{path}")
        except DataError:
            continue
        np.testing.assert_array_equal(data.x, X)
