"""Entry points: several methods of one module as graphs that share its weights (an encoder, a decoder's step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attar._src.artifact.manifest import Part
from attar._src.core.errors import ModelError
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.chains.derived import fold_derived
from attar._src.model.fold import Folding, Refusal, clean, fold_batch_norms
from attar._src.model.programs import state_of
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel


@dataclass(frozen=True)
class EntryPoint:
    """A method that becomes a graph.

    Attributes:
        example: its positional inputs, at least two long along every dynamic axis.
        method: its name.
        dynamic: axes of every input whose length may vary.
    """

    example: Sequence[torch.Tensor]
    method: str = "forward"
    dynamic: Sequence[int] = (0,)


def trace_methods(module: nn.Module, entries: Mapping[str, EntryPoint]) -> dict[str, TracedModel]:
    """Trace several methods of a module in evaluation mode.

    A batch-norm is folded into a weight only if every graph that reads the weight multiplies it by the same factor.

    Args:
        module: any module whose methods ``torch.export`` can trace; float32 parameters.
        entries: name of a graph -> its method.

    Returns:
        The traced graphs by name. A tensor of the module has one name in all of them; constants of a trace begin with
        the name of their graph: ``encoder.val_3``.

    Raises:
        ModelError: a method cannot be traced or exported; the message names the graph.
    """
    known, captured = set(state_of(module)), {}
    for name, entry in entries.items():
        try:
            captured[name] = capture(module, entry.example, dynamic=entry.dynamic, method=entry.method, train=False)
        except ModelError as error:
            raise ModelError(f"graph {name!r}: {error}") from error
        _prefix_lifted(captured[name], known, name)
    folds, reads = {}, {}
    for name, each in captured.items():
        folds[name], reads[name] = _folding(each)
    return {
        name: _prefix_constants(deploy_graph(module, each, refuse=_agreement(name, folds, reads)), known, name)
        for name, each in captured.items()
    }


def _folding(captured: CapturedModel) -> tuple[Folding, set[str]]:
    """Return what folding would do to a captured module, which it leaves as it is, and the tensors it reads before."""
    graph = captured.copy(train=False)
    with torch.no_grad():
        clean(graph)
        fold_derived(graph, captured.derived)
        reads = {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}
        return fold_batch_norms(graph), reads


def _agreement(graph: str, folds: Mapping[str, Folding], reads: Mapping[str, set[str]]) -> Refusal:
    """Return a refusal of factors by which another graph does not multiply the same weight."""

    def norms(fold: Folding, name: str) -> set[str]:
        return {norm for norm, into in fold.folded.items() if into in (name, name.removesuffix(".weight"))}

    def refuse(name: str, factor: NDArray[np.float64], axis: int) -> str | None:
        for other in reads:
            if other != graph and name in reads[other]:
                found = folds[other].factors.get(name)
                same = found is not None and found[1] == axis and np.array_equal(found[0], factor)
                # Of equal factor, they may still shift differently.
                if not same or norms(folds[other], name) != norms(folds[graph], name):
                    return f"graph {other!r} reads {name} too"
        return None

    return refuse


def _prefix_lifted(captured: CapturedModel, known: set[str], graph: str) -> None:
    """Put the graph's name before those of tensors that tracing made."""
    program = captured.evaluation
    for node in program.graph.find_nodes(op="get_attr"):
        if node.target not in known:
            name = f"{graph}_{node.target}".replace(".", "_")
            program.register_buffer(name, state_of(program)[node.target], persistent=False)
            node.target = name
    program.recompile()


def _prefix_constants(traced: TracedModel, known: set[str], graph: str) -> TracedModel:
    """Put the graph's name before those of constants that exporting made."""
    names = {name: f"{graph}.{name}" for name in traced.constants if name not in known}
    bindings = [
        each.model_copy(update={"parts": (Part(tensor=names[each.to]),)}) if each.to in names else each
        for each in traced.bindings
    ]
    constants = {names.get(name, name): value for name, value in traced.constants.items()}
    return replace(traced, constants=constants, bindings=tuple(bindings))
