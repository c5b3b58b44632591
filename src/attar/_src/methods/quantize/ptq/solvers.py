"""Solvers that need the weight alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, round_to_grid
from attar._src.methods.quantize.polino.uniform import UniformWeight
from attar._src.methods.quantize.ptq.solver import (
    RATIOS,
    Floats,
    InputStatistics,
    Solver,
    affine_grid,
    flat_index,
    weight_extremes,
)


class Absmax(Solver):
    """Spans the range of each group, so that no value is clipped. Should be preferred at 6 bits and more."""

    name: ClassVar[str] = "absmax"

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        return round_to_grid(weight, *affine_grid(*weight_extremes(weight, scheme), scheme), scheme)


class Mse(Solver):
    """Scales the range of each group by the ratio in 1.00, 0.99, ..., 0.30 that minimizes ``sum (w - w')^2``, with w'
    the rounded w.

    Should be preferred if few weights are far from the others. Clipping these spreads the others over more codes, so
    the entropy-coded file grows (ResNet-20 at 4 bits by a tenth); at 8 bits it is nearly the same as ``absmax``.
    """

    name: ClassVar[str] = "mse"

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        low, high = weight_extremes(weight, scheme)
        index = flat_index(weight, scheme)
        best, ratio = np.full(low.shape, np.inf), np.ones(low.shape)
        for candidate in RATIOS:
            tried = round_to_grid(weight, *affine_grid(low * candidate, high * candidate, scheme), scheme)
            error = np.bincount(index, ((tried.dense() - weight).astype(np.float64) ** 2).reshape(-1), low.size)
            better = error < best
            best[better], ratio[better] = error[better], candidate
        return round_to_grid(weight, *affine_grid(low * ratio, high * ratio, scheme), scheme)


class MinMaxBuckets(Solver):
    """Post-mortem quantization (Polino et al. 2018, "Model compression via distillation and quantization", section 5):
    the grid of the rule ``uniform`` without training.

    ``2^bits`` points span the range of each group, stored as a codebook with a scale and an offset per group, even if
    the scheme is symmetric. It reproduces published figures and suits values far from zero; otherwise ``absmax`` should
    be preferred, because its grid has a zero and integer kernels can read it.
    """

    name: ClassVar[str] = "minmax"

    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        value = torch.from_numpy(np.ascontiguousarray(weight))
        return UniformWeight(value, scheme.bits, scheme.granularity).to_compressed(value)
