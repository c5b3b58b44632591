"""Costs of a module without some of its channels: multiplications, parameters, units."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attar._src.model.dependencies.find import Dependencies
from attar._src.model.programs import state_of

#: Units that are removed -> what is left.
ChannelCost = Callable[[Collection[int]], float]


class ChannelCosts:
    """What is left of a module without units, for many choices of these.

    Args:
        found: its dependencies.
        module: whose parameters and buffers count, tied ones once.
    """

    def __init__(self, found: Dependencies, module: nn.Module) -> None:
        self.found, self._module = found, module
        vectors = [vector for each in found.state.values() for vector in each]
        vectors += [vector for cost in found.costs for vector in cost.factors]
        self._most = max((int(vector.max()) for vector in vectors if vector.numel()), default=-1)
        self._products = [(cost.macs, [vector.numpy() for vector in cost.factors]) for cost in found.costs]

    @cached_property
    def _tensors(self) -> tuple[int, list[tuple[int, list[NDArray[np.int64]]]]]:
        """The number of elements that no program reads; of each other tensor its own, and the units along its axes."""
        state, known = state_of(self._module), self.found.state
        # A tied tensor is known by one of its names.
        names = {id(each): name for name, each in sorted(state.items(), key=lambda item: item[0] in known)}
        fixed = sum(state[name].numel() for name in names.values() if name not in known)
        own = [(state[name].numel(), [*map(np.asarray, known[name])]) for name in names.values() if name in known]
        return fixed, own

    def macs(self, removed: Collection[int]) -> int:
        """Return the multiplications for one example."""
        left = self._left(removed)
        return sum(round(macs * _share(left, factors)) for macs, factors in self._products)

    def elements(self, removed: Collection[int]) -> int:
        """Return the number of elements of parameters and buffers."""
        left, (fixed, tensors) = self._left(removed), self._tensors
        return fixed + sum(round(elements * _share(left, axes)) for elements, axes in tensors)

    def units(self, removed: Collection[int]) -> int:
        """Return the number of units that can be removed and are not."""
        return sum(len(group.units) for group in self.found.groups) - len(removed)

    def _left(self, removed: Collection[int]) -> NDArray[np.bool_]:
        left = np.ones(self._most + 1, np.bool_)
        left[np.fromiter(removed, np.int64, len(removed))] = False
        return left


def _share(left: NDArray[np.bool_], factors: list[NDArray[np.int64]]) -> float:
    share = 1.0
    for units in factors:
        share *= float(left[units].mean())
    return share
