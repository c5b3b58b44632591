"""Latency of several models, interleaved, so that disturbances of the machine affect all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attar._src.core.errors import SpecError
from attar._src.core.progress import track

_WARM_UP = 10
_SECONDS = 5.0


@dataclass(frozen=True)
class Latency:
    """Latency of one model.

    Attributes:
        median_ms, p99_ms: median and 99th percentile over the rounds.
        spread: interquartile range over the median; large on a busy machine.
        ratio: median over the median of the first model.
    """

    median_ms: float
    p99_ms: float
    spread: float
    ratio: float
    rounds: int


def interleave(
    runs: Sequence[Callable[[], object]], *, rounds: int | None = None, seconds: float = _SECONDS
) -> list[Latency]:
    """Time several models: each round runs every model once, in random order.

    Args:
        runs: each runs one model once.
        rounds: number of rounds; None for about ``seconds``, 20 to 2000 rounds.
        seconds: that the rounds should take together.
    """
    if not runs or (rounds is not None and rounds < 1):
        raise SpecError(f"{rounds} rounds of {len(runs)} models were asked for; use one or more of both")
    started = time.perf_counter()
    for _ in range(_WARM_UP):
        for run in runs:
            run()
    if rounds is None:
        each = (time.perf_counter() - started) / _WARM_UP
        rounds = int(np.clip(seconds / max(each, 1e-9), 20, 2000))
    # A model finds the caches as the one before left them; no model should always follow the same one.
    order = np.random.default_rng(0)
    times = np.empty((rounds, len(runs)))
    for i in track(range(rounds), "timing"):
        for j in order.permutation(len(runs)):
            before = time.perf_counter()
            runs[j]()
            times[i, j] = time.perf_counter() - before
    return summarize(times * 1e3)


def summarize(times: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[Latency]:
    """Return the figures of each column of ``times``, in milliseconds ``(rounds, models)``."""
    low, median, high, p99 = np.percentile(times, [25, 50, 75, 99], axis=0)
    figures = np.stack([median, p99, (high - low) / median, median / median[0]], axis=1)
    return [Latency(mid, worst, spread, ratio, len(times)) for mid, worst, spread, ratio in figures.tolist()]
