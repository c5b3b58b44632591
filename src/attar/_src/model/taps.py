"""Taps: what the layers of a captured program compute, kept as it passes, for losses that look inside a module."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx, nn

from attar._src.core.errors import UnknownName
from attar._src.model.programs import wrap


class LayerTap(nn.Module):
    """Returns its input and keeps a copy, with gradient: an operator in place behind it would change the input."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` itself."""
        self.kept = x.clone()
        return x


class LayerTaps:
    """Taps behind layers of a program.

    The value of a layer is the last one computed in the module of that path, after its constraints: what other nodes
    read. Of a module that is called several times it is that of the last call.

    Args:
        graph: a captured program, with or without constraints; changed in place.
        layers: paths of modules, such as ``layer3.1.conv2``.

    Raises:
        UnknownName: no module of that path computes anything.
    """

    def __init__(self, graph: fx.GraphModule, layers: Collection[str]) -> None:
        known = _values(graph)
        for layer in layers:
            if layer not in known:
                raise UnknownName("layer", layer, known)
        # Paths of one value share a tap.
        taps = {known[layer]: LayerTap() for layer in layers}
        wrap(graph, {node.name: tap for node, tap in taps.items()}, "tap_")
        self.taps = {layer: taps[known[layer]] for layer in layers}

    def take(self) -> dict[str, torch.Tensor]:
        """Return the values of the last pass, in at least float32, and forget them."""
        found = {}
        for layer, tap in self.taps.items():
            assert tap.kept is not None
            found[layer] = tap.kept.float() if tap.kept.dtype in (torch.bfloat16, torch.float16) else tap.kept
        for tap in self.taps.values():
            tap.kept = None
        return found


def _values(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the value of every layer: the last tensor computed in it, after its constraints."""
    found: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            found |= {path: node for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path}
    return {path: _constrained(node) for path, node in found.items()}


def _constrained(node: fx.Node) -> fx.Node:
    # A captured program calls no modules but those of constraints, one behind another.
    while calls := [user for user in node.users if user.op == "call_module"]:
        node = calls[0]
    return node
