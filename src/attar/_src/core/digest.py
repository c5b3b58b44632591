"""Digests of texts, numpy arrays, tensors and files; they decide whether a run or cache may be resumed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def digest(parts: Iterable[Any]) -> str:
    """Return the SHA-256, in hex, of strings with their lengths and arrays or tensors with their types and shapes.

    ``["ab", "c"]`` and ``["a", "bc"]`` differ, as do zeros of shape ``(2, 3)`` and ``(3, 2)``.
    """
    found = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, str) else f"{part.dtype} {tuple(part.shape)}"
        found.update(f"{len(text)} {text}".encode())
        if not isinstance(part, str):
            found.update(array_bytes(part))
    return found.hexdigest()


def array_bytes(array: Any) -> memoryview:
    """Return the bytes of a numpy array or tensor in C order, without a copy if it is contiguous and on the CPU."""
    if not isinstance(array, np.ndarray) and hasattr(array, "detach"):
        # As bytes, because numpy has no bfloat16. PyTorch is loaded, or there would be no tensor.
        array = array.detach().cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
