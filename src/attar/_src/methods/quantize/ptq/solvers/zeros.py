"""Weights of which a share becomes zero before the rest is rounded."""

from __future__ import annotations

import numpy as np
import torch

from attar._src.methods.prune.scores import SCORES, ScoredWeight
from attar._src.methods.prune.units import PruningUnit, WeightRows
from attar._src.methods.prune.weights.row_pruning import RowPruning
from attar._src.methods.prune.weights.seen import seen_inputs
from attar._src.methods.quantize.ptq.solvers.solver import Floats, InputStatistics
from attar._src.model.statistics import InputHessian

_SINGLE = PruningUnit.parse("weight")


def with_zeros(weight: Floats, sparsity: float, seen: InputStatistics | None) -> Floats:
    """Return the weight with ``round(sparsity n)`` of its n elements zero.

    With the Hessian of what it multiplies, columns are swept once and the others make up for what was removed, as in
    SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774, algorithm 1), with the elements chosen among all rows of a
    block of columns. Without it the smallest go.

    Example:
        >>> with_zeros(np.array([[0.1, -3.0], [2.0, 0.2]], np.float32), 0.5, None).tolist()
        [[0.0, -3.0], [2.0, 0.0]]
    """
    count = round(sparsity * weight.size)
    if not count:
        return weight
    hessian: InputHessian | None = (seen or {}).get(InputHessian)
    value = torch.from_numpy(np.ascontiguousarray(weight))
    rows = WeightRows(tuple(weight.shape), None if hessian is None else hessian.window)
    score = SCORES["l1" if hessian is None else "obs"]
    pruning = RowPruning(rows, _SINGLE, score, "sparsegpt", False, ScoredWeight(value))
    made, _ = pruning.prune(value, count, None if hessian is None else seen_inputs(hessian))
    found: Floats = made.numpy()
    return found
