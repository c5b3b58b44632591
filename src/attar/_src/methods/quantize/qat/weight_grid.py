"""Fake quantization of one weight on a symmetric grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from attar._src.core.errors import SpecError
from attar._src.core.float16 import SHORT_BITS
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor, Quantized, round_to_grid
from attar._src.methods.quantize.ptq.solvers.solver import TINY, Solver
from attar._src.methods.quantize.qat.fake_quantize import fake_quantize_weight
from attar._src.work.parametrization import GridPositions, Parametrization


class WeightGrid(Parametrization):
    """A weight rounded to a symmetric grid, with a straight-through gradient.

    Without a solver the scales span the weight in every forward pass.

    Attributes:
        due: whether the next forward pass runs the solver.
        scale: the solver's scales, ``(count,)``, NaN before its first run; empty without a solver.
    """

    def __init__(self, weight: torch.Tensor, scheme: Scheme, solver: Solver | None) -> None:
        super().__init__()
        self.scheme, self.solver, self.due = scheme, solver, False
        shape = tuple(weight.shape)
        self.index = nn.Buffer(torch.from_numpy(scheme.granularity.index(shape)), persistent=False)
        self.scale = nn.Buffer(torch.full((scheme.granularity.count(shape) if solver else 0,), torch.nan))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self._scales(x.detach())[self.index]
        return fake_quantize_weight(x, scale, self.scheme.qmin, self.scheme.qmax)

    def grid_positions(self, value: torch.Tensor) -> GridPositions:
        scale = self._scales(value.detach())[self.index]
        return GridPositions(value / scale, scale, self.scheme.qmin, self.scheme.qmax, spans=self.solver is None)

    def to_compressed(self, value: torch.Tensor) -> CompressedTensor:
        scales = self._scales(value.detach()).cpu().numpy()
        return round_to_grid(np.ascontiguousarray(value.detach().cpu().numpy()), scales, None, self.scheme)

    def _scales(self, w: torch.Tensor) -> torch.Tensor:
        """Return the scales, float32 ``(count,)``."""
        if self.solver is None:
            return self._spanning(w)
        if self.due or self.scale.isnan().any():
            solved = self.solver.solve(np.ascontiguousarray(w.cpu().numpy()), self.scheme)
            if not isinstance(solved, Quantized) or solved.zero_point is not None:
                raise SpecError(
                    f"solver {self.solver.name!r} returned no symmetric grid, which training needs; use absmax or mse"
                )
            self.scale.copy_(torch.from_numpy(solved.scale))
            self.due = False
        return self.scale

    def _spanning(self, w: torch.Tensor) -> torch.Tensor:
        """Return the smallest scales that clip no value, rounded up as :func:`affine_grid` does."""
        count, qmax = self.scheme.granularity.count(tuple(w.shape)), self.scheme.qmax
        if self.index.numel() == count and w.numel():
            shared = [axis for axis, length in enumerate(self.index.shape) if length == 1]
            largest = w.abs().amax(shared).reshape(-1) if shared else w.abs().reshape(-1)
        else:
            index = self.index.expand(w.shape).reshape(-1)
            largest = w.new_zeros(count).scatter_reduce_(0, index, w.abs().reshape(-1), "amax")
        bits = (largest / qmax).clamp(min=TINY).float().view(torch.int32)
        step = 1 << (23 - SHORT_BITS)
        # Rounded down first, to stay on a grid that the weight is on already. A scale rounded down would put the
        # largest value outside the grid, where it gets no gradient.
        scale = (bits & -step).view(torch.float32)
        for _ in range(2):
            scale = torch.where(scale * qmax < largest, (scale.view(torch.int32) + step).view(torch.float32), scale)
        return scale.clamp(min=TINY)
