"""Seeds: everything random in a run is derived from one seed by hashing, never from leftover generator state."""

from __future__ import annotations

import hashlib
import json
import random
from types import TracebackType
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *words: str | int) -> int:
    """Return a seed for one purpose: 63 bits of BLAKE2b of ``[seed, *words]`` as JSON.

    Different words give independent seeds; equal words give equal seeds, so that epoch 7 draws the same numbers after
    a resumption as in an uninterrupted run.

    Args:
        seed: the seed of the run, any integer.
        words: the purpose, such as ``"order", 7``.

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

    Each ``with`` continues from where the previous one ended; the state outside is not affected.

    Args:
        seed: the initial seed of the isolated state.
    """

    def __init__(self, seed: int) -> None:
        python, array = random.Random(seed).getstate(), np.random.RandomState(seed % 2**32).get_state()
        self._states: _States = torch.Generator().manual_seed(seed).get_state(), python, array

    def __enter__(self) -> None:
        outside = _states()
        _put(self._states)
        self._states = outside

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        inside = _states()
        _put(self._states)
        self._states = inside


_States = tuple[torch.Tensor, Any, Any]


def _states() -> _States:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _put(states: _States) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
