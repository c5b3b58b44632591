"""Solvers: given a weight, a grid and, where they ask for them, statistics of their inputs, find scales and codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import fx

from attar._src.core.errors import SpecError
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.model.collect import Request
from attar._src.model.statistics import Statistic
from attar._src.model.weights import Weight, weight_input

#: Scales below this are raised to it: a channel of zeros still has a normal, positive scale.
TINY = float(np.finfo(np.float32).tiny)


#: Statistics of what a weight multiplies, by their kind.
InputStatistics = Mapping[type[Statistic], Any]


class Solver(ABC):
    """Finds the scales and codes of one weight.

    Attributes:
        name: what it is called in recipes.
        inputs: statistics that it needs of what the weight multiplies. Weights that multiply no single value
            (embeddings, recurrent layers) and weights in training have none, and are refused.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[type[Statistic], ...]] = ()

    @abstractmethod
    def solve(
        self, weight: NDArray[np.float32], scheme: Scheme, inputs: InputStatistics | None = None
    ) -> CompressedTensor:
        """Return ``weight`` on the grid of ``scheme``, in its own shape.

        Args:
            weight: any shape.
            scheme: its grid.
            inputs: the statistics that the class attribute ``inputs`` names, by kind; None where it names none.

        Raises:
            SpecError: the weight has NaN or infinities, or the scheme does not fit its shape.
        """

    def needed(self) -> str:
        """Return the names of the statistics it needs, for messages."""
        return " and ".join(kind.__name__ for kind in self.inputs)


def input_requests(solver: Solver, graph: fx.GraphModule, weight: Weight | None) -> tuple[Request, ...]:
    """Return the requests for the statistics that a solver needs of what a weight multiplies.

    Raises:
        SpecError: it needs some, and the weight multiplies no single value of the graph.
    """
    if not solver.inputs:
        return ()
    try:
        read = weight_input(graph, weight)
    except SpecError as error:
        raise SpecError(
            f"solver {solver.name!r} needs {solver.needed()} of what the weight multiplies, but {error}; keep it in "
            "floating point (keep), or use a solver that needs the weight alone, as absmax does"
        ) from error
    return tuple(Request.of_input(read, kind) for kind in solver.inputs)


def weight_extremes(weight: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and largest value of each scale's elements, zero counted in, both of shape ``(scales,)``."""
    if not np.isfinite(weight).all():
        raise SpecError("a weight with NaN or infinities cannot be quantized")
    count = scheme.granularity.count(weight.shape)
    index = flat_index(weight, scheme)
    values = weight.reshape(-1).astype(np.float64)
    low, high = np.zeros(count), np.zeros(count)
    np.minimum.at(low, index, values)
    np.maximum.at(high, index, values)
    return low, high


def flat_index(weight: NDArray[Any], scheme: Scheme) -> NDArray[np.int64]:
    """Return the scale each element belongs to, shape ``(weight.size,)``."""
    return np.broadcast_to(scheme.granularity.index(weight.shape), weight.shape).reshape(-1)


def affine_grid(
    low: NDArray[np.float64], high: NDArray[np.float64], scheme: Scheme
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return the scales and zero points of a grid that spans ``[low, high]``, which holds zero.

    Symmetric: ``S = max(|low|, |high|) / qmax`` (a one-bit grid, whose largest code is 0, spans its smallest).
    Asymmetric: ``S = (high - low) / qmax``, ``Z = round(-low / S)``.
    """
    if scheme.symmetric:
        scale = np.maximum(-low, high) / (scheme.qmax or -scheme.qmin)
        return np.maximum(scale, TINY).astype(np.float32), None
    spread = np.maximum((high - low) / scheme.qmax, TINY).astype(np.float32)
    zero = np.clip(np.rint(-low / spread), scheme.qmin, scheme.qmax)
    return spread, zero.astype(np.uint8)
