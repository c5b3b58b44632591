"""Graphs that this process has exported: a module of the same structure takes them, with its own state.

An export takes seconds and does not look at weights. The models of a recipe, seeds, searches and calls of
``attar.quantize`` one after the other export the same graph again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from attar._src.model.fold import Folding
from attar._src.model.traced import TracedModel

#: Graphs that are kept, those used last.
_MOST = 8


class KnownExports:
    """The graphs exported last, without weights, by what an export depends on (:func:`structure_of`)."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, TracedModel] = OrderedDict()

    def find(self, structure: str, state: Mapping[str, torch.Tensor], folding: Folding) -> TracedModel | None:
        """Return the graphs of a structure on ``state``, if they are known and no tensor that is part of them differs.

        What they tell of the module itself (``aliases``, ``parameters``, ``warnings``) is that of another.
        """
        known = self._kept.get(structure)
        if known is None or not known.fits(state):
            return None
        self._kept.move_to_end(structure)
        return known.with_state(state, folding)

    def keep(self, structure: str, traced: TracedModel, state: Mapping[str, torch.Tensor]) -> None:
        """Keep graphs without the tensors of ``state``, which may be large."""
        self._kept[structure] = traced.with_state({name: each.new_empty(0) for name, each in state.items()}, Folding())
        self._kept.move_to_end(structure)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def structure_of(graph: fx.GraphModule, state: Mapping[str, torch.Tensor], *given: Any) -> str | None:
    """Return all that the export of a graph depends on, as text; None if modules run in it, whose code is not seen.

    Args:
        graph: the graph that is exported.
        state: its parameters and buffers.
        given: what else it depends on: inputs and their axes, names.
    """
    if any(node.op == "call_module" for node in graph.graph.nodes):
        return None
    nested = [str(each.graph) for each in graph.modules() if isinstance(each, fx.GraphModule)]
    first: dict[int, str] = {}
    tied = {name: first.setdefault(id(each), name) for name, each in state.items()}
    return "\n".join(map(str, (*nested, tied, [_sources(node) for node in graph.graph.nodes], *given)))


def _sources(node: fx.Node) -> list[str]:
    """Return the names of the nodes that a node came from, by which values are found again."""
    names, sources = [], node.meta.get("from_node") or []
    while sources:
        names.append(sources[-1].name)
        sources = sources[-1].from_node or []
    return names


KNOWN = KnownExports()
