"""What a layer multiplies in the network as it was and in the pruned one."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from attar._src.methods.prune.weights.row_pruning import SeenInputs
from attar._src.methods.quantize.ptq.reconstruct.rerounding import TRUST
from attar._src.methods.quantize.ptq.solvers.gptq import damped
from attar._src.model.statistics import DRAWN, VECTOR_ELEMENTS, InputHessian
from attar._src.model.weights import Window


def seen_inputs(hessian: InputHessian) -> SeenInputs:
    """Return what a solver needs of a Hessian of inputs."""
    squares = np.diagonal(hessian.matrix, axis1=1, axis2=2) / 2
    return SeenInputs(torch.from_numpy(damped(hessian.matrix)), torch.from_numpy(squares.copy()))


class PairedInputs:
    """Sums over the vectors x that a layer read and x' that it reads now: ``H = 2 / N sum x' x'^T``, C of ``x x'^T``.

    The rows W' with the least ``E |W x - W' x'|^2`` are the best for H beside ``W* = W + W (C - H) (H + lambda)^-1``
    (Li et al. 2025, "GPTAQ" (arXiv 2504.02692), section 3).
    """

    def __init__(self, window: Window) -> None:
        self.hessian = InputHessian(window)
        self.cross = torch.zeros((window.groups, window.length, window.length), dtype=torch.float64)
        self.was, self.now = torch.zeros((2, window.groups, window.length), dtype=torch.float64)
        self.count = 0

    def add(self, was: torch.Tensor, now: torch.Tensor) -> None:
        """Add a batch of the value that the layer reads, in both networks."""
        window = self.hessian.window
        step = max(1, VECTOR_ELEMENTS // max(now[:1].numel() * prod(window.kernel), 1))
        step = step if now.dim() == len(window.kernel) + 2 else max(len(now), 1)
        for one, other in zip(was.split(step), now.split(step), strict=True):
            # The same positions of both, so that where nothing changed the sums are equal.
            x, y = (
                window.vectors(each, most=DRAWN * window.length, seed=self.hessian.samples) for each in (one, other)
            )
            self.hessian.add_vectors(y)
            self.cross += x.mT @ y
            self.was += x.sum(1)
            self.now += y.sum(1)
            self.count += x.shape[1]

    def seen(self) -> SeenInputs:
        """Return what a solver needs."""
        return seen_inputs(self.hessian)

    def aims(self, rows: torch.Tensor) -> torch.Tensor:
        """Return W* of rows, float64 ``(groups, rows, columns)``; the rows themselves if sums are not finite."""
        matrix = torch.from_numpy(self.hessian.matrix)
        difference = self.cross * (2 / max(self.count, 1)) - matrix
        if not torch.isfinite(difference).all() or self.hessian.left_out:
            return rows
        mean = matrix.diagonal(dim1=1, dim2=2).mean(1)
        added = TRUST * torch.where(mean > 0, mean, 1.0)
        trusted = matrix + added[:, None, None] * torch.eye(matrix.shape[1], dtype=torch.float64)
        moved: torch.Tensor = torch.linalg.solve(trusted, (rows @ difference).mT).mT
        return rows + moved

    def mean_error(self, rows: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Return the mean of ``W x - W' x'``, ``(groups, rows)``; zeros if it is not finite."""
        error = (rows @ self.was[..., None] - made @ self.now[..., None])[..., 0] / max(self.count, 1)
        return error if torch.isfinite(error).all() else torch.zeros_like(error)
