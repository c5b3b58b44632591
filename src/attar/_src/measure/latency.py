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
#: Least and largest number of rounds, unless it is given.
TIMED_ROUNDS = (20, 2000)


@dataclass(frozen=True)
class Latency:
    """Latency of one model.

    Attributes:
        median_ms, p99_ms: median and 99th percentile over the rounds.
        spread: interquartile range over the median; large on a busy machine.
        ratio: median over the rounds of its time over that of the first model in the same round.
    """

    median_ms: float
    p99_ms: float
    spread: float
    ratio: float
    rounds: int


Times = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def interleave(
    runs: Sequence[Callable[[], object]], *, rounds: int | None = None, seconds: float = _SECONDS
) -> list[Latency]:
    """Return the figures of :func:`time_in_turns`."""
    return summarize(time_in_turns(runs, rounds=rounds, seconds=seconds))


def time_in_turns(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int | None = None,
    seconds: float = _SECONDS,
    warm_up: int = _WARM_UP,
) -> Times:
    """Time several models: in each round every model has a turn, in random order, and runs twice in it.

    The second run is timed. In the first a model fetches its weights into the caches and wakes its threads, which it
    does not do where it runs alone: ResNet-20 on OpenVINO takes 0.36 ms in the second run and 0.42 ms in the first.

    Args:
        runs: each runs one model once.
        rounds: number of rounds; None for about ``seconds``, 20 to 2000 rounds.
        seconds: that the rounds should take together.
        warm_up: runs of each model before.

    Returns:
        Milliseconds, ``(rounds, models)``.
    """
    if not runs or (rounds is not None and rounds < 1):
        raise SpecError(f"{rounds} rounds of {len(runs)} models were asked for; use one or more of both")
    started = time.perf_counter()
    for _ in range(warm_up):
        for run in runs:
            run()
    if rounds is None:
        each = 2 * (time.perf_counter() - started) / warm_up
        rounds = int(np.clip(seconds / max(each, 1e-9), *TIMED_ROUNDS))
    # No model should always follow the same one.
    order = np.random.default_rng(0)
    times = np.empty((rounds, len(runs)))
    for i in track(range(rounds), "timing"):
        for j in order.permutation(len(runs)):
            runs[j]()
            before = time.perf_counter()
            runs[j]()
            times[i, j] = time.perf_counter() - before
    return times * 1e3


def summarize(times: Times) -> list[Latency]:
    """Return the figures of each column of ``times``, in milliseconds ``(rounds, models)``."""
    low, median, high, p99 = np.percentile(times, [25, 50, 75, 99], axis=0)
    ratio = np.median(times / times[:, :1], axis=0)
    figures = np.stack([median, p99, (high - low) / median, ratio], axis=1)
    return [Latency(mid, worst, spread, ratio, len(times)) for mid, worst, spread, ratio in figures.tolist()]
