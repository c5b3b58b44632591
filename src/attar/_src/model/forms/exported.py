"""Programs of ``torch.export`` as modules: an ``ExportedProgram``, its ``module()``, or a ``.pt2`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import fx

from attar._src.core.errors import ModelError
from attar._src.model.forms.pt2 import open_pt2
from attar._src.model.operators import argument, operator_of

#: The call that checks the inputs of an exported program; it is no computation.
_GUARDS = "_guards_fn"
_NORMS = ("batch_norm", "instance_norm")


def from_export(model: Any) -> Any:
    """Return a program of ``torch.export`` as a plain graph module with its tensors; anything else as it is.

    Raises:
        ModelError: as :func:`open_pt2`.
    """
    if isinstance(model, str | Path) and Path(model).suffix == ".pt2":
        model = open_pt2(Path(model))
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module(check_guards=False)
    if isinstance(model, fx.GraphModule) and ("train" in vars(model) or hasattr(model, _GUARDS)):
        return _plain(model)
    return model


def _trains(node: fx.Node) -> bool:
    """Return whether an operator with modes is in training mode; norms without running statistics have none."""
    row = operator_of(node)
    if row.evaluation is None or (row.kind in _NORMS and argument(node, "running_mean") is None):
        return False
    name, off = row.evaluation
    value = argument(node, name)
    return value is not None and value != off


def _plain(exported: fx.GraphModule) -> fx.GraphModule:
    """Return the program with modes (``train()`` of an exported module raises) and without checks of its inputs."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(exported.graph, {}))
    graph._codegen = exported.graph._codegen
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == _GUARDS:
            graph.erase_node(node)
        elif _trains(node):
            raise ModelError(
                f"the program was exported in training mode ({node.name} is): export the module in evaluation mode, "
                "torch.export.export(module.eval(), ...), or give the module itself"
            )
    return fx.GraphModule(exported, graph, "ExportedProgram")
