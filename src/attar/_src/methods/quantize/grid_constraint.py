"""What rules and losses on grids share."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from attar._src.core.errors import SpecError
from attar._src.methods.quantize.dynamic_layers import make_dynamic, readers_of
from attar._src.methods.quantize.integer_layers import fit_integer_layers
from attar._src.work.compressed_model import MAIN, CompressedModel
from attar._src.work.constraint import Constraint
from attar._src.work.learner import Learner
from attar._src.work.parametrization import GridPositions


class GridConstraint(Constraint):
    """Grids on weights and activations; those of a later constraint replace them.

    Attributes:
        dynamic: weights whose layers are dynamic in the file, replacing those of earlier constraints; None to leave
            them. Training sees what these layers read in floating point.
        rows: those among them whose layers scale the rows of their data.
    """

    order: ClassVar[int] = 1
    family: ClassVar[str] = "grid"
    dynamic: frozenset[str] | None = None
    rows: frozenset[str] = frozenset()

    def finish(self, model: CompressedModel) -> CompressedModel:
        if self.dynamic is not None:
            graph = replace(model.main, dynamic=frozenset())
            graph = make_dynamic(graph, model.tensors, readers_of(graph, self.dynamic))
            graph = replace(graph, rows=graph.dynamic & readers_of(graph, self.rows))
            model = replace(model, graphs={MAIN: graph})
        warnings = [each for name, grid in self.values.items() for each in grid.warnings(name)]
        every = tuple(dict.fromkeys((*model.warnings, *warnings)))
        return fit_integer_layers(replace(model, warnings=every))


def positions_on_grids(learner: Learner, what: str) -> dict[str, GridPositions]:
    """Return weight -> its positions on an evenly spaced grid, without gradient, for the rule or loss ``what``.

    Raises:
        SpecError: no weight is on such a grid.
    """
    with torch.no_grad():
        positions = learner.weight_view().grid_positions()
    if not positions:
        raise SpecError(
            f"{what}: no weight is on an evenly spaced grid, so it has no codes; add a constraint such as lsq before it"
        )
    return positions
