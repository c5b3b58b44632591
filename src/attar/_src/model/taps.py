"""Taps: what the layers of a captured program compute, kept as it passes, for losses that look inside a module."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx, nn

from attar._src.core.errors import UnknownName
from attar._src.model.programs import wrap


class LayerTap(nn.Module):
    """Lets a value pass and keeps a copy of it, with gradient: an operator in place behind it changes the value."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` itself."""
        self.kept = x.clone()
        return x


class LayerTaps:
    """Taps behind layers of a program.

    The value of a layer is the last one computed in the module of that path, as what follows reads it: after what a
    constraint makes of it. Of a module that is called several times it is that of the last call.

    Args:
        graph: a captured program with or without constraints; changed in place.
        layers: paths of modules, such as ``layer3.1.conv2``.

    Raises:
        UnknownName: no module of that path computes anything.
    """

    def __init__(self, graph: fx.GraphModule, layers: Iterable[str]) -> None:
        known = _values(graph)
        unknown = next((layer for layer in layers if layer not in known), None)
        if unknown is not None:
            raise UnknownName("layer", unknown, known)
        chosen = {layer: known[layer] for layer in layers}
        taps = {node: LayerTap() for node in chosen.values()}
        wrap(graph, {node.name: tap for node, tap in taps.items()}, "tap_")
        self.taps = {layer: taps[node] for layer, node in chosen.items()}

    def take(self) -> dict[str, torch.Tensor]:
        """Return the values of the last pass, in at least float32, and keep them no longer."""
        found = {}
        for layer, tap in self.taps.items():
            assert tap.kept is not None
            found[layer] = tap.kept.float() if tap.kept.dtype in (torch.bfloat16, torch.float16) else tap.kept
        for tap in self.taps.values():
            tap.kept = None
        return found


def _values(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the value of every layer: the last tensor computed in it, after what is wrapped around that."""
    found: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                if path:
                    found[path] = node
    return {path: _wrapped(node) for path, node in found.items()}


def _wrapped(node: fx.Node) -> fx.Node:
    # A captured program calls operators alone; the modules it calls are those of constraints, one behind another.
    while around := [user for user in node.users if user.op == "call_module"]:
        node = around[0]
    return node
