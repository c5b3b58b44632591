"""Solver: finds the scales and codes of one weight, if needed from statistics of the layer's inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import fx

from attar._src.core.errors import SpecError
from attar._src.core.float16 import round_up
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import CompressedTensor
from attar._src.model.collect import Request
from attar._src.model.statistics import Statistic
from attar._src.model.weights import Weight, weight_input

#: Smallest scale: the smallest normal number of float32.
TINY = float(np.finfo(np.float32).tiny)
#: Shares of a range among which solvers and observers choose where to clip: 1.00, 0.99, ..., 0.30.
RATIOS = np.linspace(1.0, 0.3, 71)

Floats = NDArray[np.float32]
#: Class of a statistic -> that statistic of what a weight multiplies.
InputStatistics = Mapping[type[Statistic], Any]


class Solver(ABC):
    """Finds the scales and codes of one weight.

    Attributes:
        name: name in recipes.
        inputs: statistics it needs of what the weight multiplies. Weights that multiply no single value (embeddings,
            transposed convolutions) and weights in training have none, so such a solver cannot be used there.
        inputs_optional: whether it can do without: weights that have no such statistics then get ``inputs=None``, and
            the stage lists them.
        rates: for :meth:`at_rate`, what is tried where bits are chosen under a target; empty if it minimizes no bits.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[type[Statistic], ...]] = ()
    inputs_optional: ClassVar[bool] = False
    rates: ClassVar[tuple[float, ...]] = ()

    @abstractmethod
    def solve(self, weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None) -> CompressedTensor:
        """Return the weight on the grid of ``scheme``, in the same shape.

        Args:
            inputs: the statistics in the class attribute ``inputs``; None if that is empty, or if the weight has no
                statistics and ``inputs_optional`` is set.

        Raises:
            SpecError: the weight has NaN or infinities, or the scheme does not fit its shape.
        """

    @classmethod
    def solve_each(
        cls, solvers: Sequence[Self], weight: Floats, scheme: Scheme, inputs: InputStatistics | None = None
    ) -> list[CompressedTensor]:
        """Return what each of these solvers makes of a weight (:meth:`solve`); what they share may be done once."""
        return [each.solve(weight, scheme, inputs) for each in solvers]

    def at_rate(self, rate: float) -> Solver:
        """Return the solver that also minimizes bits, of which each costs the relative output error ``rate``.

        Raises:
            SpecError: it has no such form.
        """
        raise SpecError(f"solver {self.name!r} minimizes no bits; use gptq with rate, or leave rate out")

    def at_bits(self, bits: int) -> Solver:
        """Return the solver of weights that have so many bits: itself, but for one that is chosen by bits."""
        return self

    def needed(self) -> str:
        """Return the names of the statistics in ``inputs``, for messages."""
        return " and ".join(kind.__name__ for kind in self.inputs)


def input_requests(
    solver: Solver,
    graph: fx.GraphModule,
    weight: Weight | None,
    exposed: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> tuple[Request, ...]:
    """Return the requests for the statistics that a solver needs of what a weight multiplies.

    ``exposed`` is that of :func:`~attar._src.model.weights.weight_input`.

    Raises:
        SpecError: it needs some, and the weight multiplies no single value of the graph.
    """
    if not solver.inputs:
        return ()
    try:
        read = weight_input(graph, weight, exposed)
    except SpecError as error:
        raise SpecError(
            f"solver {solver.name!r} needs {solver.needed()} of what the weight multiplies, but {error}; keep it in "
            "floating point (keep), or use a solver that needs the weight alone, such as absmax"
        ) from error
    return tuple(Request.of_input(read, kind) for kind in solver.inputs)


def weight_extremes(weight: Floats, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return minimum and maximum of the elements of each scale and zero, both ``(count,)``.

    Raises:
        SpecError: the weight has NaN or infinities, or the scheme does not fit its shape.
    """
    if not np.isfinite(weight).all():
        raise SpecError("a weight with NaN or infinities cannot be quantized")
    index = scheme.granularity.index(weight.shape)
    # Elements along an axis of one index share their scale.
    shared = tuple(axis for axis, length in enumerate(index.shape) if length == 1)
    low, high = np.zeros((2, scheme.granularity.count(weight.shape)))
    np.minimum.at(low, index.reshape(-1), weight.min(shared, initial=0.0).reshape(-1))
    np.maximum.at(high, index.reshape(-1), weight.max(shared, initial=0.0).reshape(-1))
    return low, high


def flat_index(weight: NDArray[Any], scheme: Scheme) -> NDArray[np.int64]:
    """Return the index of each element's scale, ``(weight.size,)``."""
    return np.broadcast_to(scheme.granularity.index(weight.shape), weight.shape).reshape(-1)


def sums_of(index: NDArray[np.int64], values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the sum of the values of each scale, ``(count,)``."""
    return np.bincount(index, values, count).astype(np.float64)


def affine_grid(
    low: NDArray[np.float64], high: NDArray[np.float64], scheme: Scheme
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return scales and zero points of grids that span ``[low, high]``, with ``low <= 0 <= high``, all ``(count,)``.

    Symmetric: ``S = max(-low, high) / qmax``, or ``/ -qmin`` on a one-bit grid, whose qmax is 0; no zero points.
    Asymmetric: ``S = (high - low) / qmax``, ``Z = round(-low / S)``. Ranges of zero get the largest of the other
    scales, so that integer kernels can read them and training can leave zero; if all are, the scale of [-1, 1].

    Scales are rounded up to six binary digits behind the point, at most 1.6 % (0.8 % in the mean, which is 0.07 dB of
    the rounding error): they then take a byte or less in a file, and as no code is chosen yet, nothing is clipped.
    With ``scheme.power_of_two`` they are rounded up to powers of two.
    """
    if scheme.symmetric:
        levels = scheme.qmax or -scheme.qmin
        return _normal_scales(np.maximum(-low, high) / levels, levels, scheme.power_of_two), None
    spread = _normal_scales((high - low) / scheme.qmax, scheme.qmax, scheme.power_of_two)
    zero = np.clip(np.rint(-low / spread), scheme.qmin, scheme.qmax)
    return spread, zero.astype(np.uint8)


def _normal_scales(scale: NDArray[np.float64], levels: int, power_of_two: bool) -> NDArray[np.float32]:
    small = scale < TINY
    normal = np.where(small, scale[~small].max(initial=0.0) or 1 / levels, scale).astype(np.float32)
    # Of no binary digit behind the point only powers of two are left.
    return round_up(normal, 0) if power_of_two else round_up(normal)
