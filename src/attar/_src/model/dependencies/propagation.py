"""Propagation: the labels of every value of a program, found while it runs on an example."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from attar._src.model.dependencies.labels import FILLED, Field, Fields, Labels, Operand, along, varying
from attar._src.model.operators import operator_of

ChannelRule = Callable[["Propagation", fx.Node], Any]


@dataclass(frozen=True)
class ProductCost:
    """The multiplications of a product for one example, and the labels in proportion to whose number they are."""

    node: str
    macs: int
    factors: tuple[torch.Tensor, ...]


class Propagation(fx.Interpreter):
    """Runs a program and labels its values.

    Attributes:
        labels: of everything.
        state: name of a parameter or buffer -> the labels along each of its axes.
        outputs: name of a weight, and the labels of the output channels of a product that reads it.
        costs: of the products.
        counts: argument of a node that is a number of parts -> the labels of these parts: groups, heads.
        filled: node -> the labels of what it fills in, if whole channels are.
        fields: of the values; a tuple of fields for each of several outputs.

    Args:
        graph: a captured program.
        known: the parameters and buffers of the module.
        rule_of: node -> the function that finds the fields of its output.
    """

    def __init__(
        self, graph: fx.GraphModule, known: Collection[str], rule_of: Callable[[fx.Node], ChannelRule]
    ) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._rule_of = rule_of
        self.labels = Labels()
        self.state: dict[str, tuple[torch.Tensor, ...]] = {}
        self.outputs: list[tuple[str, torch.Tensor]] = []
        self.costs: list[ProductCost] = []
        self.counts: dict[tuple[fx.Node, str], torch.Tensor] = {}
        self.filled: dict[fx.Node, torch.Tensor] = {}
        self.fields: dict[fx.Node, Any] = {}
        self._known = frozenset(known)
        self._tensors: dict[int, Fields] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and find the fields of its value."""
        self.env[n] = value = super().run_node(n)
        self.fields[n] = self._fields(n, value)
        return value

    def operand(self, argument: Any) -> Operand:
        """Return the fields and the shape of an argument; those of a number are empty."""
        value = self.value(argument)
        if not isinstance(value, torch.Tensor):
            return (), ()
        fields = self.fields.get(argument, ()) if isinstance(argument, fx.Node) else ()
        return fields, tuple(value.shape)

    def value(self, argument: Any) -> Any:
        """Return what an argument is in this run."""
        return fx.node.map_arg(argument, lambda node: self.env[node])

    def vector(self, operand: Operand, axis: int) -> torch.Tensor | None:
        """Return the labels of an operand along one axis, united along the others; None if they are fixed."""
        fields, shape = operand
        axis %= len(shape)
        found = [self.labels.one_axis(field, axis) for field in fields if axis in varying(field)]
        return found[0].reshape(-1) if found else None

    def vector_or_fixed(self, operand: Operand, axis: int, why: str) -> torch.Tensor:
        """Return the labels of an operand along one axis; new ones that stay if it has none."""
        found = self.vector(operand, axis)
        if found is None:
            found = self.labels.new(operand[1][axis])
            self.labels.freeze(found, why)
        return found

    def names(self, weight: Any) -> tuple[str, ...]:
        """Return the name of the largest parameter that a product's weight is computed from; empty if it is data."""
        found: dict[str, int] = {}
        todo = [weight] if isinstance(weight, fx.Node) else []
        while todo:
            node = todo.pop()
            if node.op == "placeholder":
                return ()
            if node.op == "get_attr" and str(node.target) in self._known:
                found[str(node.target)] = self.env[node].numel()
            todo.extend(node.all_input_nodes)
        return (max(found, key=lambda name: found[name]),) if found else ()

    def freeze(self, operands: Sequence[Operand], why: str) -> None:
        """Let every channel of the operands stay."""
        for fields, _ in operands:
            for field in fields:
                self.labels.freeze(field, why)

    def freeze_other_axes(self, operand: Operand, axes: Sequence[int], why: str) -> None:
        """Let every channel along other axes than these stay."""
        rank = len(operand[1])
        kept = {axis % rank for axis in axes}
        for field in operand[0]:
            if not varying(field) & kept:
                self.labels.freeze(field, why)

    def filled_fields(self, node: fx.Node, fields: Sequence[Field]) -> Fields:
        """Return the fields of a move; what it fills in, such as padded channels, gets labels of its own."""
        found = []
        for field in fields:
            field = self.labels.collapsed(field)
            empty = field == FILLED
            if empty.any() and field.numel() > 1:
                fresh = self.labels.new(int(empty.sum()))
                field = field.masked_scatter(empty, fresh)
                self.filled[node] = fresh
            found.append(field)
        return self.labels.simplified(found)

    def _fields(self, node: fx.Node, value: Any) -> Any:
        if node.op == "get_attr":
            return self._of_state(node)
        if node.op == "output":
            for read in node.all_input_nodes:
                self.freeze([self.operand(read)], "the model's output has its channels")
            return ()
        if node.op != "call_function" or not _has_tensors(value):
            return ()
        return self._rule_of(node)(self, node)

    def _of_state(self, node: fx.Node) -> Fields:
        """Return fields for each axis of a parameter or buffer, the same ones for a tied one."""
        name = str(node.target)
        tensor = attrgetter(name)(self.module)
        if name not in self._known or not isinstance(tensor, torch.Tensor):
            return ()
        if id(tensor) not in self._tensors:
            rank = tensor.dim()
            of_norm = any(operator_of(user).vectors for user in node.users)
            soft = not isinstance(tensor, nn.Parameter) and not of_norm
            vectors = [self.labels.new(size, soft=soft) for size in tensor.shape]
            self._tensors[id(tensor)] = tuple(along(each, axis, rank) for axis, each in enumerate(vectors))
        fields = self._tensors[id(tensor)]
        self.state[name] = tuple(field.reshape(-1) for field in fields)
        return tuple(field for field in fields if field.numel() > 1)


def _has_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, tuple | list) and any(map(_has_tensors, value)))
