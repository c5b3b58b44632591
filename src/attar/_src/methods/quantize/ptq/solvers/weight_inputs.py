"""What a solver requests of the values that weights multiply, and which weights it must solve without."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from attar._src.core.errors import SpecError, prefixed_errors
from attar._src.core.fields import main_output_name
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.solvers.automatic import AutomaticScales
from attar._src.methods.quantize.ptq.solvers.lookups import lookup_hessians
from attar._src.methods.quantize.ptq.solvers.solver import InputStatistics, Solver, input_requests
from attar._src.model.collect import Request
from attar._src.model.recurrent.inputs import expose_inputs
from attar._src.model.statistics import InputHessian, Statistic
from attar._src.model.weights import find_weights
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedGraph, CompressedModel, FileInfo
from attar._src.work.context import UNKNOWN


@dataclass(frozen=True)
class WeightInputs:
    """The requests of solvers for the weights of one graph.

    Attributes:
        graph: the graph, with nodes for what recurrent weights multiply.
        requests: weight -> the requests; empty if it is solved by itself.
        unseen: weight that its solver would rather see the inputs of -> why it cannot.
        hessians: table that is looked up -> the Hessian of its rows, if its solver takes one.
    """

    graph: fx.GraphModule
    requests: Mapping[str, tuple[Request, ...]]
    unseen: Mapping[str, str]
    hessians: Mapping[str, InputHessian] = field(default_factory=dict)

    @classmethod
    def of(cls, solvers: Mapping[str, Solver], model: CompressedModel, graph: fx.GraphModule) -> WeightInputs:
        """Return those of the solvers of some weights of a graph of the model, by name of the weight.

        Raises:
            SpecError: a solver needs inputs, and a weight multiplies no single value.
        """
        graph, exposed = expose_inputs(graph) if any(each.inputs for each in solvers.values()) else (graph, {})
        weights, readers, requests, unseen = {**model.weights(), **find_weights(graph)}, model.readers(), {}, {}
        for name, solver in solvers.items():
            with prefixed_errors(f"stage quantize at {name!r}"):
                try:
                    requests[name] = input_requests(solver, graph, weights.get(name), exposed)
                except SpecError as error:
                    if not solver.inputs_optional:
                        raise
                    requests[name], unseen[name] = (), str(error.__cause__ or error)
                if requests[name] and len(readers[name]) > 1 and not solver.inputs_optional:
                    raise SpecError(
                        f"solver {solver.name!r} needs {solver.needed()} of what the weight multiplies, and the graphs "
                        f"{readers[name]} multiply different values by it; keep it, or use absmax"
                    )
        return cls(graph, requests, unseen)

    def with_tables(
        self,
        solvers: Mapping[str, Solver],
        inputs: CalibrationInputs,
        graph: CompressedGraph,
        use: FileInfo | None,
    ) -> WeightInputs:
        """Return these with the Hessians of the rows of tables, which are not unseen then."""
        weights = find_weights(graph.traced.graph)
        tables = {
            name: weights[name].readers
            for name in self.unseen
            if name in weights and weights[name].role == "embedding" and solvers[name].inputs == (InputHessian,)
        }
        if not tables:
            return self
        labelled = Labelled.of(UNKNOWN, use)
        output = main_output_name({port.name: port.dtype.startswith("f") for port in graph.traced.outputs})
        found = lookup_hessians(self.graph, tables, inputs, labelled, output, cut=graph.traced.any_batch)
        return replace(self, unseen={k: why for k, why in self.unseen.items() if k not in found}, hessians=found)

    def statistics(self, solver: Solver, name: str, found: tuple[Statistic, ...]) -> dict[type[Statistic], Any] | None:
        """Return class -> statistic for a weight, of what was collected; None if there is nothing to see."""
        found = (self.hessians[name],) if name in self.hessians else found
        return dict(zip(solver.inputs, found, strict=True)) if found else None


def joined_statistics(several: Iterable[InputStatistics | None]) -> dict[type[Statistic], Any] | None:
    """Return the statistics of a weight by which several graphs multiply: Hessians of all that it multiplies.

    Where the graphs cut their inputs in other ways, and of other statistics, those of the first are taken.
    """
    known = [each for each in several if each is not None]
    if not known:
        return None
    joined = dict(known[0])
    for other in known[1:]:
        if InputHessian in joined and _rows(joined[InputHessian]) == _rows(other[InputHessian]):
            joined[InputHessian] = joined[InputHessian].joined(other[InputHessian])
    return joined


def _rows(hessian: InputHessian) -> tuple[int, int, bool]:
    window = hessian.window
    return window.groups, window.length, window.turned


def unseen_warning(solver: str, unseen: Mapping[str, str], embeddings: Collection[str]) -> list[str]:
    """Return a sentence about the weights that were solved without their inputs; none about ``embeddings``, and none of
    ``auto``, by which nobody asked for inputs."""
    named = [f"{name!r} ({why})" for name, why in unseen.items() if name not in embeddings]
    if not named or solver == AutomaticScales.name:
        return []
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return [
        f"{solver!r} rounded without seeing what they multiply: {', '.join(named[:3])}{more}; give them more bits "
        "(overrides=) if the file loses too much"
    ]
