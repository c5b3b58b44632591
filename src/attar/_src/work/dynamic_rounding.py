"""Dynamic layers in PyTorch: what they read is rounded to a grid of the moment, as the runtime does."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import fx, nn

from attar._src.core.operators import LEAST_SIZE
from attar._src.model.operators import data_of, kind_of

#: Largest code of a dynamic grid.
_LEVELS = 255.0


class DynamicRound(nn.Module):
    """Round a tensor to the unsigned 8-bit grid over its own range, which is widened to hold zero.

    ``scale * (clip(round(x / scale) + z, 0, 255) - z)``, ``scale = (high - low) / 255``, ``z = round(-low / scale)``:
    DynamicQuantizeLinear of ONNX. Codes are found in float32 whatever the type of ``x``, half to even.

    Args:
        rows: whether each row (last axis) is divided by its largest magnitude before, and multiplied by it afterwards.
    """

    def __init__(self, *, rows: bool = False) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` on its grid: ``[-1, 0, 3]`` has the scale 4 / 255 and z = 64."""
        if not x.numel():
            return x
        if self.rows:
            size = row_sizes(x)
            codes, scale, zero = dynamic_codes(x.float() / size)
            return codes.sub_(zero).to(x.dtype) * scale.to(x.dtype) * size.to(x.dtype)
        codes, scale, zero = dynamic_codes(x)
        return codes.sub_(zero).to(x.dtype) * scale.to(x.dtype)


def row_sizes(x: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each row, ``(..., 1)`` in float32, at least :data:`LEAST_SIZE`."""
    return x.float().abs().amax(-1, keepdim=True).clamp(min=LEAST_SIZE)


def dynamic_codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the codes of a tensor, its scale and its zero point, whole numbers in float32."""
    x = x.float()
    low, high = x.aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = torch.where(low == high, 1.0, (high - low) / _LEVELS)
    zero = (-low / scale).clamp(0, _LEVELS).round()
    return (x / scale).round_().add_(zero).clamp_(0, _LEVELS), scale, zero


def round_inputs(
    graph: fx.GraphModule,
    layers: Mapping[str, nn.Module] | Collection[str],
    prefix: str,
    rows: Collection[str] = (),
) -> None:
    """Let layers read their data rounded, in place; other readers of the same values do not.

    Args:
        graph: changed in place.
        layers: names of nodes that multiply data by a weight -> what rounds the data, :class:`DynamicRound` by default.
            Recurrent ones stay as they are.
        prefix: of the submodules' names, a different one for each call.
        rows: those among ``layers`` that scale the rows of their data.
    """
    for node in list(graph.graph.nodes):
        if node.name not in layers or kind_of(node) == "recurrent":
            continue
        data = data_of(node)[0]
        called = f"{prefix}{node.name}"
        graph.add_submodule(
            called, layers[node.name] if isinstance(layers, Mapping) else DynamicRound(rows=node.name in rows)
        )
        with graph.graph.inserting_before(node):
            made = graph.graph.call_module(called, (data,))
        node.replace_input_with(data, made)
    graph.recompile()
