"""A table of times, measured layer by layer: what a layer's choice adds to the time of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from attar._src.artifact.reader import open_artifact
from attar._src.core.progress import track
from attar._src.measure.latency import time_in_turns
from attar._src.runtime.session import Session
from attar._src.search.layerwise.problem import LayerChoice, LayerwiseProblem
from attar._src.search.space import Point

#: Seconds in which the choices of one layer are timed in turns.
_SECONDS = 2.0


def in_milliseconds(
    problem: LayerwiseProblem, packed: Callable[[Point], bytes], one: Sequence[Tensor], seconds: float = _SECONDS
) -> LayerwiseProblem:
    """Return the problem with milliseconds of one example on one thread as costs.

    Each layer is timed at each value of the first dimension, bits or channels, the others at the most, in turns with
    the file that has the most everywhere; the cost is the median difference between the two, beside an equal share of
    that file's time. Zeros take no less time, and are not timed. Differences below a few per cent of the file are
    noise: bits of a layer matter where it runs on packed weights, and elsewhere hardly.

    Args:
        problem: in bytes.
        packed: point -> its file.
        one: an example that is run.
        seconds: for each layer.
    """
    most = {each.name: problem.choices[-1] for each in problem.layers}
    costs: dict[str, dict[LayerChoice, float]] = {}
    for layer in track(problem.layers, "timing layers"):
        # One file for all choices of the same bits or channels.
        files = {choice[0]: {**most, layer.name: choice} for choice in problem.choices}
        runs = [_run(packed(problem.point(each)), one) for each in (most, *files.values())]
        times = time_in_turns(runs, seconds=seconds)
        base = float(np.median(times[:, 0])) / len(problem.layers)
        added = dict(zip(files, np.median(times[:, 1:] - times[:, :1], 0).tolist(), strict=True))
        costs[layer.name] = {choice: max(base + added[choice[0]], 0.0) for choice in problem.choices}
    return replace(problem, costs=costs, fixed=0.0, unit="ms", whole=None)


def _run(data: bytes, one: Sequence[Tensor]) -> Any:
    session = Session(open_artifact(data), threads=1)
    return partial(session.run, {port.name: each.numpy() for port, each in zip(session.inputs, one, strict=True)})
