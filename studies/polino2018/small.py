"""The first images of CIFAR-10's two splits: what ``small.yaml`` tries the whole study on."""

from __future__ import annotations

import numpy as np

from attar._src.data.registry import load_dataset
from attar.extend import Dataset


def cifar10(split: str) -> Dataset | None:
    """Return the first 1,500 training or 500 test images; None for another split."""
    if split not in ("train", "test"):
        return None
    whole = load_dataset("cifar10", split)
    return whole.take(np.arange(1500 if split == "train" else 500))
