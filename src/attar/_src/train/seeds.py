"""Seeds of a run, all derived from one by hashing, never from leftover generator state."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import torch


def derive_seed(seed: int, *words: str | int) -> int:
    """Return a seed for one purpose: 63 bits of BLAKE2b of ``[seed, *words]`` as JSON.

    Equal words give equal seeds, so that epoch 7 draws the same numbers after a resumption as in an uninterrupted run.

    Example:
        >>> derive_seed(0, "order", 7) == derive_seed(0, "order", 7) != derive_seed(0, "order", 8)
        True
    """
    digest = hashlib.blake2b(json.dumps([seed, *words]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python, which third-party code uses."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class IsolatedRandom:
    """Context manager that gives code its own state of the global CPU generators of torch, numpy and Python.

    The first ``with`` starts from ``seed``, each further one where the previous one ended; the state outside is not
    affected.
    """

    def __init__(self, seed: int) -> None:
        numpy_state = np.random.RandomState(seed % 2**32).get_state()
        self._other = torch.Generator().manual_seed(seed).get_state(), random.Random(seed).getstate(), numpy_state

    def _swap(self) -> None:
        current = torch.get_rng_state(), random.getstate(), np.random.get_state()
        torch.set_rng_state(self._other[0])
        random.setstate(self._other[1])
        np.random.set_state(self._other[2])
        self._other = current

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
