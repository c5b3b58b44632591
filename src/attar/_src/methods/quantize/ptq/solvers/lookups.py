"""What the vectors of a table do to the output of the network: their Hessian, for a solver.

A table (an embedding) multiplies nothing: its rows are read as they are. If a row v is rounded to v + d, the outputs
move, to second order, by

    d^T H d / 2,        H = E[g g^T],

with g the gradient by what is looked up of a number that is drawn from the outputs such that H is their curvature
(:mod:`~attar._src.methods.allocate.curvature`): that of the Kullback-Leibler divergence for scores, of the squared
error for other outputs. One H serves all rows, as most are seldom looked up. A solver that rounds with it turns the
errors of a row to where the layers behind do not look: a normalization ignores mean and length.

This is the factor of the outputs in the Kronecker-factored Hessians of Martens and Grosse, "Optimizing neural networks
with Kronecker-factored approximate curvature", ICML 2015 (arXiv 1503.05671, section 3.1), and of Tseng, Sun, De Sa,
"Model-preserving adaptive rounding", 2025 (arXiv 2505.22988); the factor of the inputs of a table, one for each row, is
a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from attar._src.methods.allocate.curvature import drawn
from attar._src.methods.allocate.judge import Judge, Labelled
from attar._src.model.interface import main_output
from attar._src.model.programs import copy_graph, wrap
from attar._src.model.statistics import InputHessian
from attar._src.model.weights import Window
from attar._src.train.seeds import derive_seed
from attar._src.work.calibration_inputs import CalibrationInputs

#: Examples whose gradients are taken, and as many at once as need little memory.
EXAMPLES, AT_ONCE = 256, 16


class _Leaf(nn.Module):
    """Adds zeros, whose gradient is that of the value."""

    zeros: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``."""
        self.zeros = torch.zeros_like(x, requires_grad=True)
        return x + self.zeros


def lookup_hessians(
    program: fx.GraphModule,
    tables: Mapping[str, Sequence[str]],
    inputs: CalibrationInputs,
    labelled: Labelled,
    output: str,
    *,
    cut: bool,
) -> dict[str, InputHessian]:
    """Return table -> the Hessian of its rows, of those tables on which the main output depends.

    Args:
        program: the network, in evaluation mode; it is not changed.
        tables: table -> names of the nodes that look it up.
        inputs: real ones, of which ``EXAMPLES`` are used.
        labelled: what is known of the task.
        output: name of the main output.
        cut: whether the program takes batches of any size.
    """
    graph, leaves = copy_graph(program), {node: _Leaf() for nodes in tables.values() for node in nodes}
    wrap(graph, leaves, "leaf_")
    some = inputs.first(EXAMPLES, cut=cut)
    some = some.in_parts(AT_ONCE) if cut else some.of_one_size()
    judge = Judge.of(program, some, output, labelled)
    random = torch.Generator().manual_seed(derive_seed(0, "lookups"))
    found: dict[str, InputHessian] = {}
    for batch in some.batches:
        value = drawn(main_output(graph(*batch)), judge, random)
        if not value.requires_grad:
            return {}
        gradients: Any = torch.autograd.grad(value, [leaf.zeros for leaf in leaves.values()], allow_unused=True)
        seen = {node: each for node, each in zip(leaves, gradients, strict=True) if each is not None}
        for name, nodes in tables.items():
            for gradient in (seen[node] for node in nodes if node in seen):
                found.setdefault(name, InputHessian(Window(1, gradient.shape[-1]))).add(gradient)
    return {name: hessian for name, hessian in found.items() if bool(np.any(hessian.matrix))}
