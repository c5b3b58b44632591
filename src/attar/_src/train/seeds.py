"""Seeds: everything random in a run follows from one number by hashing, never from a generator's state left over."""

from __future__ import annotations

import hashlib
import json
import random
from types import TracebackType
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *words: str | int) -> int:
    """Return the seed of a purpose: the first 63 bits of BLAKE2b of ``[seed, *words]`` as JSON.

    Different words give seeds that have nothing to do with each other; the same words always give the same seed, so
    that epoch 7 draws the same numbers whether or not the epochs before it ran in this process.

    Args:
        seed: of the whole, any integer.
        words: what the numbers are for: ``"order", 7``.

    Example:
        >>> derive(0, "order", 7) == derive(0, "order", 7) != derive(0, "order", 8)
        True
    """
    digest = hashlib.blake2b(json.dumps([seed, *words]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the generators that code of others draws from: those of torch, numpy and Python."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class IsolatedRandom:
    """Generators of one's own for code that draws from the global ones: they are exchanged inside ``with``.

    What runs inside goes on from where the last ``with`` ended, and what runs outside does not notice. On the CPU.

    Args:
        seed: where the own ones start.
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
