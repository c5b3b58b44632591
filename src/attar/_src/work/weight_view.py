"""WeightView: what constraints and losses see of a learner, passed as an argument so that they need not hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from attar._src.work.parametrization import GridPositions, Parametrization

#: Constraints of this order round to a grid; those of later orders act on rounded values.
GRID_ORDER = 1


@dataclass(frozen=True)
class WeightView:
    """The weights of a module in training, and the parametrizations on each.

    Attributes:
        tensors: name -> the parameter itself, of every parameter of the module, or a weight computed from parameters.
        acting: name of a weight -> ``(order of the constraint, parametrization)``, first to act first.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    acting: Mapping[str, tuple[tuple[int, Parametrization], ...]] = field(default_factory=dict)

    def value(self, name: str) -> torch.Tensor:
        """Return a weight without gradient.

        A parameter shares memory with the module, so in-place changes train it; a weight that is computed from
        parameters does not.
        """
        return self.tensors[name].detach()

    def parametrizations(self, name: str) -> list[Parametrization]:
        """Return the parametrizations of a weight, first to act first."""
        return [each for _, each in self.acting.get(name, ())]

    def effective(self, name: str, before: Parametrization | None = None) -> torch.Tensor:
        """Return the value that ``before`` reads, by default what the grid reads; without gradient."""
        value = self.value(name)
        with torch.no_grad():
            for order, each in self.acting.get(name, ()):
                if order >= GRID_ORDER or each is before:
                    break
                value = each(value)
        return value

    def last(self, name: str) -> tuple[Parametrization, torch.Tensor] | None:
        """Return the last parametrization of a weight and the value it reads, with gradient; None if it has none."""
        found = self.parametrizations(name)
        if not found:
            return None
        *earlier, last = found
        value = self.tensors[name]
        for each in earlier:
            value = each(value)
        return last, value

    def grid_positions(self) -> dict[str, GridPositions]:
        """Return the positions of every weight on an evenly spaced grid, with gradient."""
        found = {name: last[0].grid_positions(last[1]) for name in self.acting if (last := self.last(name))}
        return {name: positions for name, positions in found.items() if positions is not None}
