"""Which parameters of a traced graph are weights, and along which axis their output channels lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
#: Products whose right factor is the weight -> its position.
_RIGHT_HAND: dict[Any, int] = {
    aten.matmul.default: 1,
    aten.mm.default: 1,
    aten.bmm.default: 1,
    aten.addmm.default: 2,
    aten.baddbmm.default: 2,
}
_FLIPS = (aten.t.default, aten.transpose.int, aten.permute.default)
_LAYERS = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.convolution.default,
        aten.linear.default,
        *_TRANSPOSED,
    }
)
_RECURRENT = frozenset({aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input})


@dataclass(frozen=True)
class Weight:
    """A parameter that multiplies data.

    Attributes:
        name: its name in the module.
        role: ``"product"``, ``"recurrent"`` or ``"embedding"``.
        axis: the axis of its output channels.
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
        flips = [user for user in node.users if user.target in _FLIPS and len(shape) == 2]
        readers = [(node, user) for user in node.users] + [(flip, user) for flip in flips for user in flip.users]
        for source, user in readers:
            role = _role(user, source)
            if role is None:
                continue
            last = user.target in _RIGHT_HAND
            axis = 1 if _is_transposed(user) else len(shape) - 1 if last else 0
            axis = 1 - axis if source is not node else axis
            known = found.get(name)
            # A product outranks the embedding its weight is tied to: it is what integers could serve.
            if known is None or (known.role == "embedding" and role == "product"):
                found[name] = Weight(name, role, axis, (*(known.readers if known else ()), user.name))
            else:
                found[name] = Weight(known.name, known.role, known.axis, (*known.readers, user.name))
    return found


def _is_transposed(user: fx.Node) -> bool:
    decomposed = user.target is aten.convolution.default and bool(user.args[6])
    return decomposed or user.target in _TRANSPOSED


def _role(user: fx.Node, weight: fx.Node) -> str | None:
    arguments: tuple[Any, ...] = user.args
    position = _RIGHT_HAND.get(user.target, 1 if user.target in _LAYERS else len(arguments))
    if position < len(arguments) and arguments[position] is weight:
        return "product"
    if user.target in _RECURRENT:
        return "recurrent"
    if user.target is aten.embedding.default and arguments[0] is weight:
        return "embedding"
    return None
