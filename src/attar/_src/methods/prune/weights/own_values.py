"""Tensors of a deployed graph, batch-norms folded, as the parameters of the module that it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter

import torch
from torch import nn

from attar._src.model.capture import CapturedModel
from attar._src.model.traced import TracedModel


class OwnValues:
    """What new weights and shifts of biases of a graph are in the module.

    Attributes:
        traced: the deployed graph of the module.
        own: name of a parameter, under all its names -> the parameter.
        fixed: weight of the graph that is no parameter -> why it stays.
    """

    def __init__(self, module: nn.Module, captured: CapturedModel, traced: TracedModel) -> None:
        self.traced = traced
        self.own = dict(module.named_parameters(remove_duplicate=False))
        self.fixed = {
            name: "the module computes it from other parameters; remove the parametrization first"
            for name in captured.derived
            if name not in self.own
        }
        self._reads = _reads(captured)

    def shifts(self, bias: str) -> bool:
        """Return whether a parameter that nothing else reads can take a shift of a bias."""
        parameter = self._parameter(bias)
        return parameter is not None and self._reads[id(self.own[parameter])] == 1

    def divided(self, name: str, value: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tensor of a weight's shape without the factor of a folded batch-norm.

        ``hidden``: what it has where the factor is 0; zeros if None.
        """
        if name not in self.traced.folding.factors:
            return value
        factor, axis = self.traced.folding.factors[name]
        shaped = torch.from_numpy(factor).reshape([-1 if each == axis else 1 for each in range(value.dim())])
        behind = torch.zeros_like(value) if hidden is None else hidden
        return torch.where(shaped == 0, behind.double(), value.double() / shaped).to(value.dtype)

    def of(
        self, values: Mapping[str, torch.Tensor], biases: Mapping[str, torch.Tensor], *, keep_hidden: bool = False
    ) -> dict[str, torch.Tensor]:
        """Return parameter -> its value.

        Args:
            values: weight of the graph -> its new value.
            biases: name of a bias of the graph -> what is added to it.
            keep_hidden: whether elements behind a factor of 0 stay as they are; they become zero otherwise.
        """
        # Zeros in front of a factor of 0 could never be trained again.
        found = {
            name: self.divided(name, value, self.own[name].detach() if keep_hidden else None)
            for name, value in values.items()
        }
        for name, shift in biases.items():
            parameter = self._parameter(name)
            assert parameter is not None
            found[parameter] = self.own[parameter].detach() + shift
        return found

    def _parameter(self, bias: str) -> str | None:
        """Return the parameter to which a shift of a bias of the graph is added: of a folded batch-norm its own."""
        norms = [norm for norm, each in self.traced.folding.biases.items() if each == bias]
        if not norms:
            return bias if bias in self.own else None
        shift = f"{norms[-1]}.bias"
        return shift if shift in self.own else None


def put_values(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give parameters of a module, by name, these values."""
    own = dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)


def _reads(captured: CapturedModel) -> Counter[int]:
    """Return identity of a parameter -> how many nodes read it, under any of its names."""
    program, found = captured.evaluation, Counter[int]()
    for node in program.graph.nodes:
        if node.op == "get_attr":
            found[id(attrgetter(str(node.target))(program))] += len(node.users)
    return found
