"""Reaching: what a weight is where a constraint reads it; below the rules that act on what others have changed."""

from __future__ import annotations

import torch

from attar._src.work.constraint import Parametrization
from attar._src.work.learner import Learner

#: Constraints of this order and later ones are grids, or act on what grids have rounded.
_GRIDS = 1


def effective_weight(learner: Learner, name: str, held: Parametrization | None = None) -> torch.Tensor:
    """Return the weight ``name`` as it reaches ``held``, or as it reaches a grid where that is None.

    What changes or masks it has acted on it. There is no gradient.
    """
    value = learner.tensor(name).detach()
    with torch.no_grad():
        for constraint in learner.constraints:
            each = constraint.weights.get(name)
            if constraint.order >= _GRIDS or (held is not None and each is held):
                break
            value = value if each is None else each(value)
    return value
