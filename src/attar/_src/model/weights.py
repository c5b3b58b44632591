"""Which parameters of a traced graph are weights, and along which axis their output channels lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from attar._src.model.operators import operator_of, output_axes, weight_of


@dataclass(frozen=True)
class Weight:
    """A parameter that multiplies data.

    Attributes:
        name: its name in the module.
        role: ``"product"``, ``"recurrent"`` or ``"embedding"``.
        axis: the axis of its output channels, the last where there are several.
        readers: names of the nodes that read it.
    """

    name: str
    role: str
    axis: int
    readers: tuple[str, ...]


def find_weights(graph: fx.GraphModule) -> dict[str, Weight]:
    """Return the weights of a traced graph by name; biases, norms and tables that are only added are none."""
    parameters = dict(graph.named_parameters())
    found: dict[str, Weight] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr" or parameters.get(str(node.target), torch.empty(0)).dim() < 2:
            continue
        name, shape = str(node.target), parameters[str(node.target)].shape
        # A matrix may be turned over on its way to the product.
        flips = [user for user in node.users if len(shape) == 2 and (row := operator_of(user)) and row.flips]
        readers = [(node, user) for user in node.users] + [(flip, user) for flip in flips for user in flip.users]
        for source, user in readers:
            role = _role(user, source)
            if role is None:
                continue
            axis = output_axes(user, len(shape))[-1]
            axis = 1 - axis if source is not node else axis
            known = found.get(name)
            # A product outranks the embedding its weight is tied to: it is what integers could serve.
            if known is None or (known.role == "embedding" and role == "product"):
                found[name] = Weight(name, role, axis, (*(known.readers if known else ()), user.name))
            else:
                found[name] = Weight(known.name, known.role, known.axis, (*known.readers, user.name))
    return found


def _role(user: fx.Node, weight: fx.Node) -> str | None:
    operator = operator_of(user)
    # A recurrent operator reads its weights as a list.
    reads = operator is not None and (operator.kind == "recurrent" or weight_of(user) is weight)
    return operator.role if operator is not None and reads else None
