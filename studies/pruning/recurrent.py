"""Data and figure of ``recurrent.yaml``: the character GRU with weights that became zero, or with half its units.

    ATTAR_DATA=... attar run studies/pruning/recurrent.yaml --out runs/pruning/recurrent --only zeros
    ATTAR_DATA=... attar run studies/pruning/recurrent.yaml --out runs/pruning/recurrent --only units
    python studies/pruning/recurrent.py RUN_FOLDER       times files in turns; adds to recurrent.json, prints its table

Bits a character are those of the decoded file on the last tenth of tinyshakespeare, in pieces of 200 characters. Files
are timed on one thread, in turns with the untouched network's, with one piece and with 16.
"""

from __future__ import annotations

import gzip
import importlib
import os
import string
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "recurrent.json"
#: Characters of a piece, and one more to foretell.
LEARNED, TESTED = 129, 201
SECONDS = 10.0
BATCHES = (1, 16)


def network() -> Any:
    """Return the untrained GRU: two layers of 200 units."""
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    return importlib.import_module("trained").CharacterGru()


def shakespeare(split: str) -> dict[str, NDArray[np.int64]]:
    """Return pieces of text, and the character behind each of theirs: nine tenths to learn, the last to test."""
    folder = Path(os.environ["ATTAR_DATA"]) / "tinyshakespeare"
    text = gzip.decompress((folder / "input.txt.gz").read_bytes()).decode()
    codes = np.array([string.printable.index(each) for each in text], np.int64)
    last = len(codes) * 9 // 10
    part, length = (codes[last:], TESTED) if split == "test" else (codes[:last], LEARNED)
    pieces = part[: len(part) // length * length].reshape(-1, length)
    return {"characters": pieces[:, :-1], "labels": pieces[:, 1:]}


def bits_per_character(outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """Return the mean of -log2 of the probability of each character."""
    found = []
    for scores, wanted in zip(outputs, targets, strict=True):
        wide = scores.astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        likely = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
        found.append(-np.take_along_axis(likely, wanted[:, None], -1).mean() / np.log(2))
    return float(np.mean(found))
