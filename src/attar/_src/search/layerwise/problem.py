"""A layerwise problem: what each layer may become, and what it takes then; the space of a search over all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError
from attar._src.search.samplers.sampler import SearchTask
from attar._src.search.space import Choose, Point, Space

#: A value of each dimension, such as (4, 0.5) of bits and sparsity.
LayerChoice = tuple[float, ...]


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer before anything is tried.

    Attributes:
        name: of its weight.
        inputs, outputs: channels.
        kernel, stride: along one axis; 1 of layers without a kernel.
        positions: at which the weight is multiplied for one example.
        elements: of the weight.
        depthwise: whether each channel has a kernel of its own.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    positions: int = 1
    elements: int = 1
    depthwise: bool = False

    @property
    def macs(self) -> int:
        """Multiplications for one example."""
        return self.elements * self.positions


@dataclass(frozen=True)
class LayerwiseProblem:
    """Choices of all layers.

    Attributes:
        layers: in the order in which data flow.
        dimensions: name -> values, from the one that takes least to the one that takes most: ``{"bits": (2, 4, 8),
            "sparsity": (0.8, 0.4, 0.0)}``.
        costs: layer -> choice -> what it takes: coded bytes, or milliseconds.
        fixed: what the file takes beside the layers.
        errors: layer -> choice -> error of the output if this layer alone is changed; None if that was not measured.
        unit: of the costs.
        paths: layer -> path of each dimension in the space; ``LAYER.DIMENSION`` if None.
        whole: choices of all layers -> what the file takes, where costs of single layers do not add up, as those of
            channels, which the next layer reads; None for the sum.
        relative: whether costs tell only how files compare, as stages that follow change all of them alike.

    Example:
        >>> facts = [LayerFacts("conv", 3, 16), LayerFacts("fc", 64, 10)]
        >>> costs = {each.name: {(2.0,): 20.0, (4.0,): 40.0} for each in facts}
        >>> problem = LayerwiseProblem(facts, {"bits": (2.0, 4.0)}, costs, fixed=10.0)
        >>> problem.smallest, problem.largest, problem.space.lowest
        (50.0, 90.0, {'conv.bits': 2.0, 'fc.bits': 2.0})
        >>> problem.cost(problem.point({"conv": (4.0,), "fc": (2.0,)}))
        70.0
    """

    layers: Sequence[LayerFacts]
    dimensions: Mapping[str, Sequence[float]]
    costs: Mapping[str, Mapping[LayerChoice, float]]
    fixed: float = 0.0
    errors: Mapping[str, Mapping[LayerChoice, float]] | None = None
    unit: str = "bytes"
    paths: Mapping[str, Sequence[str]] | None = None
    whole: Callable[[Mapping[str, LayerChoice]], float] | None = None
    relative: bool = False

    @cached_property
    def choices(self) -> list[LayerChoice]:
        """All choices of a layer."""
        return [*product(*self.dimensions.values())]

    @cached_property
    def space(self) -> Space:
        """A hole for each dimension of each layer; values grow."""
        return Space(
            {
                path: Choose(choose=tuple(sorted(values)))
                for layer in self.layers
                for path, values in zip(self._paths(layer.name), self.dimensions.values(), strict=True)
            }
        )

    @property
    def smallest(self) -> float:
        """What a file takes at least."""
        return self.cost_of({name: min(own, key=own.__getitem__) for name, own in self.costs.items()})

    @property
    def largest(self) -> float:
        """What a file takes at most."""
        return self.cost_of({name: max(own, key=own.__getitem__) for name, own in self.costs.items()})

    def point(self, chosen: Mapping[str, LayerChoice]) -> dict[str, float]:
        """Return the point of the space with these choices of the layers."""
        return {
            path: value
            for layer in self.layers
            for path, value in zip(self._paths(layer.name), chosen[layer.name], strict=True)
        }

    def chosen(self, point: Point) -> dict[str, LayerChoice]:
        """Return layer -> its choice at a point."""
        return {layer.name: tuple(point[path] for path in self._paths(layer.name)) for layer in self.layers}

    def cost(self, point: Point) -> float:
        """Return what the file of a point takes, by the costs."""
        return self.cost_of(self.chosen(point))

    def cost_of(self, chosen: Mapping[str, LayerChoice]) -> float:
        """Return what the file with these choices of all layers takes."""
        if self.whole is not None:
            return self.whole(chosen)
        return self.fixed + sum(self.costs[name][choice] for name, choice in chosen.items())

    def shares(self, choice: LayerChoice) -> NDArray[np.float32]:
        """Return where a choice lies in each dimension: 0 for what takes least, 1 for what takes most."""
        places = [[*values].index(value) for values, value in zip(self.dimensions.values(), choice, strict=True)]
        return np.array(places, np.float32) / self._last

    @cached_property
    def every_share(self) -> NDArray[np.float32]:
        """The shares of all choices, ``(choices, dimensions)``."""
        return np.stack([self.shares(choice) for choice in self.choices])

    @cached_property
    def _last(self) -> NDArray[np.float32]:
        return np.array([max(len(values) - 1, 1) for values in self.dimensions.values()], np.float32)

    def _paths(self, layer: str) -> Sequence[str]:
        return self.paths[layer] if self.paths is not None else [f"{layer}.{each}" for each in self.dimensions]


@dataclass(frozen=True)
class LayerwiseTask(SearchTask):
    """The task of a sampler that knows layers.

    Attributes:
        problem: whose space the task has.
    """

    problem: LayerwiseProblem | None = None

    @classmethod
    def needed(cls, task: SearchTask, sampler: str) -> LayerwiseProblem:
        """Return the problem of a task.

        Raises:
            SpecError: the task has none, as a recipe with holes of any kind.
        """
        if isinstance(task, cls) and task.problem is not None:
            return task.problem
        raise SpecError(
            f"sampler {sampler!r} goes layer by layer, and this search has no layers: its holes are "
            f"{', '.join([*task.space][:3])}; take random, tpe or nsga2"
        )
