"""Levels that run through the whole network, and errors of the others between theirs.

Errors of a network's output are nearly proportional to those of the changed layer's own output: of ResNet-20 within a
third over 16 levels of a layer, while the errors differ by a factor of 10,000. A run of the layer costs little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from attar._src.measure.difference import decibels
from attar._src.methods.allocate.judge import OutputError
from attar._src.methods.allocate.level import Level

#: So many levels of a part run through the whole network where the others may be estimated.
ANCHORS = 5
#: The smallest error that has a logarithm here.
SMALLEST_ERROR = float(np.finfo(np.float64).tiny)


def tells_apart(own: Mapping[Level, float]) -> bool:
    """Return whether errors of a part's outputs tell of its levels: they are numbers, and some output depends on it."""
    return bool(own) and all(math.isfinite(each) for each in own.values()) and max(own.values()) > 0


def anchors(own: Mapping[Level, float]) -> list[Level]:
    """Return the levels to run, given the errors of the part's outputs: at equal distances in the order of these."""
    ordered = sorted(own, key=own.__getitem__)
    return [ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, ANCHORS)] if own else []


def between(seen: Mapping[Level, OutputError], own: Mapping[Level, float]) -> dict[Level, OutputError]:
    """Return the errors of levels that did not run, from those ``seen`` of levels that did, all of them finite.

    A level whose own outputs are exact has no error.

    Example: with errors of 0.1 and 0.001 in the network for 0.01 and 0.0001 in the outputs of the layer, a level whose
    outputs err by 0.001 has 0.01.
    """
    left = [level for level in own if level not in seen]
    if not left:
        return {}
    known = np.array(sorted((own[level], each.error) for level, each in seen.items()))
    places, values = np.log(np.maximum(known.T, SMALLEST_ERROR))
    logarithms = np.interp(np.log(np.maximum([own[level] for level in left], SMALLEST_ERROR)), places, values)
    errors = [float(np.exp(each)) if own[level] else 0.0 for level, each in zip(left, logarithms, strict=True)]
    return {level: OutputError(error, decibels(error)) for level, error in zip(left, errors, strict=True)}
