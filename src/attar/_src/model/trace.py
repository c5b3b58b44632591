"""Trace a module: the graph that is quantized, simulated and deployed is one and the same.

``torch.export`` (``model.capture``) -> clean and fold (``model.chains``, ``model.fold``) -> ``torch.onnx`` -> the
decomposed program. Its node names are the value names of the ONNX graph. Activations are quantized at those names
(``model.sites``), weights at the module's own parameter names, so that nothing is matched by guessing.

The export takes seconds and does not look at weights: a captured module is exported once for each structural variant
(other batch-norms folded or merged, other thresholds), and later deployments put their state into it; so do those of
other modules of the same structure in this process (``model.export.known``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import fx, nn
from torch.fx.traceback import NodeSource

from attar._src.core.errors import ModelError
from attar._src.data.axes import Axes
from attar._src.model.bind import bind
from attar._src.model.capture import CapturedModel, capture, dynamic_shapes, quiet_export
from attar._src.model.chains.derived import fold_derived
from attar._src.model.export.decompositions import decompose
from attar._src.model.export.known import KNOWN, structure_of
from attar._src.model.export.modes import views_to_reshapes
from attar._src.model.export.refusals import not_exported
from attar._src.model.export.reshapes import RESHAPES, known_sizes
from attar._src.model.export.translations import translations_kept
from attar._src.model.fold import Folding, Refusal, clean, fold_batch_norms, merge_batch_norms, separate_biases
from attar._src.model.forms.as_module import as_module
from attar._src.model.ports import describe_ports, name_inputs, name_outputs, name_values
from attar._src.model.programs import make_contiguous, state_of
from attar._src.model.recurrent.onnx_layers import TRANSLATIONS
from attar._src.model.traced import TracedModel

#: Translations of the ONNX exporter beside its own.
_TRANSLATIONS = {**TRANSLATIONS, **RESHAPES}
#: Settings of symbolic sizes; as the ONNX exporter sets them.
_SIZES: Any = torch.fx.experimental._config


def trace(
    module: Any,
    example: Sequence[torch.Tensor],
    *,
    names: Sequence[str] = (),
    dynamic: Sequence[int | Axes] = (0,),
    method: str = "forward",
) -> TracedModel:
    """Trace ``module`` in evaluation mode; it keeps its state and mode.

    Args:
        module: any module that ``torch.export`` can trace, in a form that :func:`as_module` takes.
        example: its inputs, at least two long along every dynamic axis.
        names: the arguments these are; by default the first ones.
        dynamic: axes whose length may vary, the same numbers for every input, or the axes of each.
        method: the entry point, the method that is traced.

    Raises:
        ModelError: an operator or a piece of Python cannot be exported; the message names it.
    """
    module, _ = as_module(module)
    return deploy_graph(module, capture(module, example, names=names, dynamic=dynamic, method=method, train=False))


def deploy_graph(
    module: nn.Module,
    captured: CapturedModel,
    *,
    refuse: Refusal = lambda *_: None,
    emit: Mapping[str, Callable[[fx.Graph, fx.Node], fx.Node]] = MappingProxyType({}),
    merge: bool = False,
) -> TracedModel:
    """Make the deployed graph of a captured module, with its present state.

    Args:
        module: the module that was captured.
        captured: its programs.
        refuse: why a weight cannot take the factor of a batch-norm, for example because its grid is fixed.
        emit: name of a captured value -> a function that adds nodes behind it (a threshold) and returns the last.
        merge: whether batch-norms that cannot be folded become two vectors (``merge_batch_norms``).

    Raises:
        ModelError: an operator cannot be exported to ONNX; the message names it.
    """
    graph = captured.copy(train=False)
    make_contiguous(graph)
    added: dict[str, str] = {}
    with torch.no_grad():
        for node in list(graph.graph.nodes):
            if node.name in emit:
                added[_add_after(graph.graph, node, emit[node.name]).name] = node.name
        clean(graph)
        fold_derived(graph, captured.derived)
        decompose(graph)
        folding = fold_batch_norms(graph, refuse)
        if merge:
            merge_batch_norms(graph)
        folding.copies.update(separate_biases(graph))
    state = state_of(graph)
    variant = "\n".join([str(graph.graph), *(f"{name} {each.dtype} {[*each.shape]}" for name, each in state.items())])
    known = captured.exports.get(variant)
    if known is not None and known.fits(state):
        return known.with_state(state, folding)
    traced = captured.exports[variant] = _exported(module, captured, graph, variant, folding, added)
    return traced


def _exported(
    module: nn.Module,
    captured: CapturedModel,
    graph: fx.GraphModule,
    variant: str,
    folding: Folding,
    added: Mapping[str, str],
) -> TracedModel:
    """Take the export of a graph from one of the same structure, of this process, or make it."""
    state = state_of(graph)
    inputs = [(each.dtype, tuple(each.shape)) for each in captured.example]
    structure = structure_of(graph, state, variant, inputs, captured.axes, captured.outputs, folding.values, added)
    known = None if structure is None else KNOWN.find(structure, state, folding)
    if known is None:
        known = _export(module, captured, graph, folding, added)
        if structure is not None:
            KNOWN.keep(structure, known, state)
    return replace(
        known,
        aliases=_aliases(module, known.names),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        warnings=captured.warnings,
    )


def _export(
    module: nn.Module, captured: CapturedModel, graph: fx.GraphModule, folding: Folding, added: Mapping[str, str]
) -> TracedModel:
    """Export a graph to ONNX; ``added`` maps a node that was emitted to the captured node before it.

    What the result tells of the module beside its graph is left to the caller.
    """
    # The order in memory of inputs, like that of weights, would be an operator of its own.
    example = tuple(each.contiguous() for each in captured.example)
    with quiet_export(), translations_kept(), torch.no_grad():
        try:
            # Exported here: torch.onnx.export would unroll recurrent layers and, where it fails, try other ways first.
            with _SIZES.patch(backed_size_oblivious=True):
                shapes = dynamic_shapes(graph, example, captured.axes)
                exported = torch.export.export(graph, example, dynamic_shapes=shapes)
                known_sizes(exported.graph)
            program = torch.onnx.export(
                exported, dynamo=True, optimize=False, verbose=False, custom_translation_table=_TRANSLATIONS
            )
        except Exception as error:
            raise not_exported(module, graph, error) from error
        assert program is not None
        assert program.exported_program is not None
        traced = program.exported_program.module(check_guards=False)
        assert isinstance(traced, fx.GraphModule)
        views_to_reshapes(traced)
        state = {**dict(traced.named_parameters()), **dict(traced.named_buffers())}
        initializers = set(program.model.graph.initializers)
        name_values(program.model, traced, initializers)
        try:
            model, bindings, constants = bind(program.model, state)
        except ModelError as error:
            raise ModelError(f"{type(module).__name__} cannot be deployed: {error}") from error
        name_inputs(model, traced)
        name_outputs(model, traced, captured.outputs)
    inputs, outputs = describe_ports(model, example, [axes.batch for axes in captured.axes])
    return TracedModel(
        graph=traced,
        names=tuple(state),
        model=model,
        bindings=bindings,
        constants=constants,
        inputs=inputs,
        outputs=outputs,
        folding=folding,
        aliases={},
        parameters=0,
        origins=_origins(traced, graph, {**folding.values, **added}),
        baked=_baked(state_of(graph), initializers),
    )


def _baked(state: Mapping[str, torch.Tensor], initializers: Collection[str]) -> dict[str, torch.Tensor]:
    """Return copies of the tensors without a binding: constants, and types other than float32."""
    # Tied parameters share one initializer.
    bound = {id(value) for name, value in state.items() if name in initializers and value.dtype == torch.float32}
    return {name: value.detach().clone() for name, value in state.items() if id(value) not in bound}


def _add_after(graph: fx.Graph, node: fx.Node, add: Callable[[fx.Graph, fx.Node], fx.Node]) -> fx.Node:
    users = list(node.users)
    with graph.inserting_after(node):
        last = add(graph, node)
    # The exporter continues its provenance from here, under this node's own name.
    last.meta = {**node.meta, "from_node": [NodeSource(last, "attar")]}
    for user in users:
        if user.op != "output":
            user.replace_input_with(node, last)
    return last


def _origins(traced: fx.GraphModule, graph: fx.GraphModule, stand_ins: Mapping[str, str]) -> dict[str, str]:
    """Return value of the traced graph -> the same value of the captured program, by the exporter's provenance.

    If one captured node became several, the last has its value. ``stand_ins`` maps a node to the captured node whose
    value it has: a layer with a folded batch-norm has the batch-norm's.
    """
    names = {node.name for node in graph.graph.nodes}
    items = {(n.args[0].name, n.args[1]): n.name for n in graph.graph.nodes if n.target is operator.getitem}
    last: dict[str, str] = {}
    known: dict[str, str] = {}
    for node in traced.graph.nodes:
        sources = node.meta.get("from_node") or []
        while sources and sources[-1].name not in names:
            sources = sources[-1].from_node or []
        while sources and sources[-1].from_node and sources[-1].from_node[-1].name in names:
            sources = sources[-1].from_node
        # One of several outputs has the provenance of the whole node; its index tells which it is.
        whole = known.get(node.args[0].name, "") if node.target is operator.getitem else None
        name = sources[-1].name if sources else node.name if node.op == "placeholder" else None
        name = name if whole is None else items.get((whole, node.args[1]))
        if name is not None:
            last[name], known[node.name] = node.name, name
    return {node: stand_ins.get(name, name) for name, node in last.items()}


def _aliases(module: nn.Module, state: Collection[str]) -> dict[str, str]:
    """Return other names of tied parameters -> the name in the graph's state."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    aliases: dict[str, str] = {}
    for group in groups.values():
        known = next((name for name in group if name in state), None)
        if known is not None:
            aliases |= {name: known for name in group if name != known}
    return aliases
