"""Trainings that make a step each in turn, and what their times say: the clock of :mod:`training`.

Other work on the machine slows every training of a round alike: a ratio inside a round says more than two medians.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from attar._src.core.progress import track
from attar._src.train.batch import Batch

Times = np.ndarray[Any, np.dtype[np.float64]]


class Turns:
    """A feed of one batch over and over, one step at a time: :meth:`turn` returns when the step is done.

    Each training runs in a thread of its own, and all of them but one wait here.
    """

    examples, steps, variants, labelled = None, 1 << 30, None, True

    def __init__(self, batch: Batch) -> None:
        self.batch, self._over = batch, False
        self._asked, self._given = threading.Semaphore(0), threading.Semaphore(0)

    def start(self, pool: ThreadPoolExecutor, train: Callable[[], None]) -> None:
        """Begin a training of this feed, up to its first step."""
        self._training = pool.submit(train)
        self._training.add_done_callback(lambda _: self._asked.release())
        self._wait()

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batch whenever it is its turn."""
        while True:
            self._asked.release()
            self._given.acquire()
            if self._over:
                raise StopTraining(number)
            yield self.batch

    def once(self) -> Iterator[Batch]:
        """Yield the batch once."""
        yield self.batch

    def turn(self) -> None:
        """Let the training make one step."""
        self._given.release()
        self._wait()

    def stop(self) -> None:
        """End the training."""
        self._over = True
        self._given.release()
        self._training.exception()

    def _wait(self) -> None:
        self._asked.acquire()
        if self._training.done():
            self._training.result()


class StopTraining(Exception):
    """What ends a training that has been timed."""


#: Trains on a feed in a fabric's precision, with a folder of its own, until the feed ends it.
Training = Callable[[Turns, Fabric, Path], None]


def fabric_of(precision: str) -> Fabric:
    """Return a launched fabric on the CPU."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def trained(
    trainings: Mapping[str, Training], precision: str, batch: Batch, rounds: int, folder: Path, what: str
) -> dict[str, Times]:
    """Return the milliseconds of each training's step in each round, ``(rounds,)``, by its name."""
    feeds: list[Turns] = []
    with ThreadPoolExecutor(len(trainings)) as pool:
        try:
            for name, train in trainings.items():
                feed = Turns(batch)
                feeds.append(feed)
                feed.start(pool, partial(train, feed, fabric_of(precision), folder / name))
            times = in_turns([feed.turn for feed in feeds], rounds, what)
        finally:
            # One that failed would leave the others waiting for their turns for ever.
            for feed in feeds:
                feed.stop()
    return dict(zip(trainings, times.T, strict=True))


def in_turns(runs: Sequence[Callable[[], object]], rounds: int, what: str) -> Times:
    """Return the milliseconds of each run in each round, ``(rounds, runs)``; two rounds before warm up."""
    order = np.random.default_rng(0)
    times = np.empty((rounds + 2, len(runs)))
    for i in track(range(rounds + 2), what):
        for j in order.permutation(len(runs)):
            start = time.perf_counter()
            runs[j]()
            times[i, j] = 1e3 * (time.perf_counter() - start)
    return times[2:]


def figures(times: Times, reference: Times) -> dict[str, Any]:
    """Return the median, the distance of the quartiles over it, and the ratio to a reference in the same rounds."""
    low, median, high = np.percentile(times, [25, 50, 75])
    said = {"ms": round(float(median), 4), "spread": round(float((high - low) / median), 4)}
    return said | ratio(times, reference)


def ratio(times: Times, reference: Times) -> dict[str, Any]:
    """Return the median of the ratios inside each round, and their quartiles."""
    low, median, high = (round(float(value), 4) for value in np.percentile(times / reference, [25, 50, 75]))
    return {"ratio": median, "quartiles": [low, high]}
