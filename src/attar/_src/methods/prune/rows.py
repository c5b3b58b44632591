"""How the weights of a module in training are cut into rows."""

from __future__ import annotations

from collections.abc import Iterable

from attar._src.core.errors import SpecError
from attar._src.methods.prune.units import WeightRows
from attar._src.model.recurrent.inputs import expose_inputs
from attar._src.model.weights import weight_input
from attar._src.work.learner import Learner


def rows_of(learner: Learner, names: Iterable[str]) -> dict[str, WeightRows]:
    """Return weight -> its rows, by the layers that read it."""
    graph, exposed = expose_inputs(learner.traced.graph)
    found = {}
    for name in names:
        weight = learner.weights[name]
        try:
            window = weight_input(graph, weight, exposed).window
        except SpecError:  # a table, or a transposed convolution
            window = None
        found[name] = WeightRows.of(tuple(learner.tensor(name).shape), weight, window)
    return found
