"""Choose a level for each tensor by integer programming."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from attar._src.core.errors import AttarError

#: Levels on either side of a chosen one that are tried instead of it.
NEIGHBOURS = 2

_Level = TypeVar("_Level", bound=Hashable)


def choose_levels(errors: Sequence[Sequence[float]], sizes: Sequence[Sequence[float]], most: float) -> list[int] | None:
    """Return the place of each tensor's level with the least sum of errors whose sizes sum to ``most`` at most.

        minimize  sum_ij e_ij x_ij   subject to   sum_ij s_ij x_ij <= most,   sum_j x_ij = 1,   x_ij in {0, 1}

    A multiple-choice knapsack, solved to optimality by HiGHS (as HAWQ-V3 chooses bits, Yao et al. 2021, section 3.4).
    Equal inputs give equal levels.

    Args:
        errors: of each tensor at each of its levels, not negative.
        sizes: likewise.
        most: of all together.

    Returns:
        The places; None if even the smallest are more than ``most``.

    Raises:
        AttarError: SciPy is not installed.

    Example:
        >>> choose_levels([[0.9, 0.1, 0.0], [0.3, 0.2, 0.0]], [[2, 4, 8], [2, 4, 8]], most=7)
        [1, 0]
    """
    if not errors:
        return []
    if sum(map(min, sizes)) > most:
        return None
    solver = _solver()
    counts = [len(each) for each in errors]
    cost = np.concatenate([np.asarray(each, np.float64) for each in errors])
    size = np.concatenate([np.asarray(each, np.float64) for each in sizes])
    rows = np.zeros((len(counts) + 1, cost.size))
    stops = np.cumsum(counts)
    for row, (count, stop) in enumerate(zip(counts, stops, strict=True)):
        rows[row, stop - count : stop] = 1
    rows[-1] = size
    low = np.append(np.ones(len(counts)), -np.inf)
    high = np.append(np.ones(len(counts)), most)
    # HiGHS stops at an absolute gap of 1e-6, so the errors are scaled far above it.
    scaled = cost * (1e6 / max(float(cost.max()), 1e-300))
    with _silent():
        found = solver.milp(
            scaled,
            integrality=np.ones(cost.size),
            bounds=solver.Bounds(0, 1),
            constraints=solver.LinearConstraint(rows, low, high),
            options={"mip_rel_gap": 0.0, "presolve": False},
        )
    if found.x is None:
        raise AttarError(f"the integer program of {len(counts)} tensors was not solved: {found.message}")
    return [int(found.x[stop - count : stop].argmax()) for count, stop in zip(counts, stops, strict=True)]


def by_name(
    errors: Mapping[str, Mapping[_Level, float]], sizes: Mapping[str, Mapping[_Level, float]], most: float
) -> dict[str, _Level] | None:
    """Return tensor -> its level, as :func:`choose_levels` does; None if no levels are small enough."""
    levels = {name: [*each] for name, each in errors.items()}
    places = choose_levels(
        [[errors[name][level] for level in own] for name, own in levels.items()],
        [[sizes[name][level] for level in own] for name, own in levels.items()],
        most,
    )
    return (
        None
        if places is None
        else {name: own[place] for (name, own), place in zip(levels.items(), places, strict=True)}
    )


def nearby_levels(
    errors: Mapping[_Level, float], sizes: Mapping[_Level, float], chosen: _Level, steps: int = NEIGHBOURS
) -> list[_Level]:
    """Return a tensor's chosen level with the next smaller and larger ones on its front, in the order of sizes.

    On the front is a level that errs less than all smaller ones.

    Example:
        >>> nearby_levels({2: 0.9, 3: 0.5, 4: 0.6, 8: 0.1}, {2: 20, 3: 30, 4: 40, 8: 80}, chosen=3, steps=1)
        [2, 3, 8]
    """
    front: list[_Level] = []
    for level in sorted(errors, key=sizes.__getitem__):
        if level == chosen or not front or errors[level] < min(errors[each] for each in front):
            front.append(level)
    place = front.index(chosen)
    return front[max(0, place - steps) : place + steps + 1]


@contextmanager
def _silent() -> Iterator[None]:
    """Keep standard output clean: HiGHS prints lines of its own now and then, whatever its options say."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _solver() -> Any:
    try:
        return importlib.import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        raise AttarError(f"allocation needs SciPy ({error}): pip install 'attar[compress]'") from error
