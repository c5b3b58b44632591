"""A token task that small networks learn in seconds; numpy only, so that it can judge a file without PyTorch.

attar eval lstm.attar --data examples/tokens.py:order
"""

from __future__ import annotations

import numpy as np

from attar.extend import Dataset

LENGTH = 24
VOCABULARY = 16
FIRST, SECOND = 0, 1
SIZES = {"train": 4096, "test": 1024}


def order(split: str) -> Dataset:
    """Return sequences that hold the tokens 0 and 1 once each; class 1 where 0 comes before 1.

    Args:
        split: ``train`` (4096 sequences) or ``test`` (1024).

    Returns:
        int64 tokens ``(n, 24)`` below 16, and int64 labels.
    """
    count = SIZES[split]
    rng = np.random.RandomState(sorted(SIZES).index(split))
    tokens = rng.randint(2, VOCABULARY, (count, LENGTH)).astype(np.int64)
    places = rng.rand(count, LENGTH).argsort(1)[:, :2]
    rows = np.arange(count)
    tokens[rows, places[:, 0]] = FIRST
    tokens[rows, places[:, 1]] = SECOND
    labels = (places[:, 0] < places[:, 1]).astype(np.int64)
    return Dataset(tokens, labels, "order", split, class_names=("1 then 0", "0 then 1"))
