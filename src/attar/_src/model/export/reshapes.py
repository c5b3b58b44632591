"""Reshapes in ONNX with one axis of any size: ``Reshape [-1, 784]``.

The exporter puts the size of such an axis together from the shape of an input (``Shape``, ``Squeeze``, ``Reshape``,
``Concat``): four operators more for each ``flatten``, whose bytes are a tenth of a small file's graph and whose calls
take 4 % of a small network's time. One axis of a reshape follows from the others, so ``-1`` gives the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import FLOAT, INT64, opset18
from onnxscript.function_libs.torch_lib.ops.common import merge_dims
from torch import fx

#: Its functions take Python's lists for constants, which their annotations do not say.
_op: Any = opset18


def known_sizes(graph: fx.Graph) -> None:
    """Write the size of an axis in place of ``-1``, where it is the same for all inputs: ``x.view(len(x), -1)``."""
    for node in graph.nodes:
        if node.target in RESHAPES and -1 in node.args[1]:
            pairs = zip(node.args[1], node.meta["val"].shape, strict=True)
            found = [own if each == -1 and isinstance(own, int) else each for each, own in pairs]
            node.args = (node.args[0], found)


def _reshaped(self: FLOAT, size: Sequence[INT64]) -> Any:
    known = [int(each) if isinstance(each, int) else None for each in size]
    # Beside an axis of no elements every size of the other has none, so that it does not follow.
    if known.count(None) == 1 and math.prod(each for each in known if each is not None) > 0:
        return _op.Reshape(self, [-1 if each is None else each for each in known])
    return _op.Reshape(self, merge_dims(size), allowzero=True)


RESHAPES: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.view.default: _reshaped,
    torch.ops.aten.reshape.default: _reshaped,
    torch.ops.aten._unsafe_view.default: _reshaped,
}
