"""Whether integers pay: a file beside the same network in floating point, on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.artifact.reader import Artifact
from attar._src.measure.latency import time_in_turns
from attar._src.runtime.engine import Engine
from attar._src.runtime.lower import lower
from attar._src.runtime.session import Session

_SECONDS = 0.2
SPEED_ROUNDS = (3, 100)
#: A run in floating point below so many milliseconds is no reason for a warning: calls take a good part of it.
WORTH_MS = 0.5


@dataclass(frozen=True)
class Speed:
    """Latency in integers over that in floating point, one thread.

    Attributes:
        milliseconds, floating_milliseconds: medians.
        ratio: median over the rounds of the ratio in the same round, ``low`` and ``high`` its quartiles.
    """

    milliseconds: float
    floating_milliseconds: float
    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def sentence(self) -> str:
        """What it means."""
        return f"integers take {self.ratio:.2f} times as long as floating point on this CPU (one thread)"

    @property
    def warning(self) -> str:
        """What its user should know before the file is shipped; empty if integers pay or little time is at stake."""
        if self.low <= 1 or self.floating_milliseconds < WORTH_MS:
            return ""
        rounds = f"half of {self.rounds} rounds between {self.low:.2f} and {self.high:.2f}"
        return f"{self.sentence}, {rounds}: activations=None is faster here, and activations='auto' measures all three"


def measure_speed(artifact: Artifact, graph: str, feed: Mapping[str, NDArray[Any]]) -> Speed:
    """Time a graph of a file and the same graph in floating point in turns, for about 0.2 seconds.

    Args:
        artifact: the file.
        graph: the graph's name.
        feed: one example, or the batch that the graph takes.
    """
    lowered = lower(artifact, graph, floating=True)
    floating = Engine(lowered.bare.SerializeToString(), weights=lowered.weights, threads=1)
    runs = [partial(each, dict(feed)) for each in (Session(artifact, graph=graph, threads=1).run, floating.run)]
    rounds = int(np.clip(_SECONDS / (2 * sum(map(_seconds, runs))), *SPEED_ROUNDS))
    times = time_in_turns(runs, rounds=rounds, warm_up=1)
    low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75]).tolist()
    integers, real = np.median(times, axis=0).tolist()
    return Speed(integers, real, ratio, low, high, rounds)


def _seconds(run: Callable[[], object]) -> float:
    """Return the time of a second run; the first fills caches."""
    run()
    before = time.perf_counter()
    run()
    return time.perf_counter() - before
