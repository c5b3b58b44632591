"""Capture a module once for training: one program in two modes, on the module's own parameters and buffers.

``torch.export`` runs the module in training mode; the evaluation program has the same nodes, with batch statistics and
dropout turned off. Constraints (masks, fake quantization) go between the nodes of both, and ``model.trace`` deploys the
second: what is trained is what is shipped.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from attar._src.core.axes import Axes, same_axes
from attar._src.core.errors import AttarError, ModelError
from attar._src.core.fields import first_arguments
from attar._src.core.garbage import collection_paused
from attar._src.model.chains.derived import find_derived
from attar._src.model.forms.untraceable import explain_untraceable
from attar._src.model.interface import flat_entry, forward_parameters
from attar._src.model.operators import argument, argument_position, aten, operator_of
from attar._src.model.programs import copy_graph
from attar._src.model.recurrent.packed import padded_instead_of_packed
from attar._src.model.recurrent.rules import whole_layers
from attar._src.model.traced import TracedModel

_LOUD = ("torch.onnx", "onnxscript", "torch.export", "torch.fx.experimental.symbolic_shapes")
_NORMS = ("batch_norm", "instance_norm")


@dataclass(frozen=True)
class CapturedModel:
    """A module as two programs that share its parameters and buffers: a step of training changes the module itself.

    Attributes:
        training: with batch statistics and dropout.
        evaluation: the same nodes in evaluation mode.
        example: the inputs it was captured with.
        axes: of each input.
        names: the arguments these inputs are.
        outputs: the paths of the outputs; empty if they have no names (``model.interface``).
        derived: name of a weight that is computed from parameters -> the node that computes it (``model.chains``).
        exports: what it was exported to, by structural variant; filled by ``model.trace``.
    """

    training: fx.GraphModule
    evaluation: fx.GraphModule
    example: tuple[torch.Tensor, ...]
    axes: tuple[Axes, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    derived: Mapping[str, str] = field(default_factory=dict)
    exports: dict[str, TracedModel] = field(default_factory=dict, repr=False, compare=False)

    def copy(self, *, train: bool) -> fx.GraphModule:
        """Return a copy of one of the programs, on the same parameters and buffers."""
        return copy_graph(self.training if train else self.evaluation)


def capture(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    *,
    names: Sequence[str] = (),
    dynamic: Sequence[int | Axes] = (0,),
    mode: str = "train",
    method: str = "forward",
) -> CapturedModel:
    """Capture ``module``, which keeps its state and mode.

    The programs take their inputs by position and return :func:`~attar._src.model.interface.plain_outputs`.

    Args:
        module: any module that ``torch.export`` can trace; float32 parameters.
        example: its inputs, at least two long along every dynamic axis.
        names: the arguments these are, in the order of the signature; by default the first ones.
        dynamic: axes whose length may vary, the same numbers for every input, or the axes of each.
        mode: ``train`` runs the module in training mode and derives evaluation from it; ``eval`` the reverse, for
            modules whose code has a branch for training: that branch is lost, batch statistics and dropout are not.
        method: called instead of ``forward``.

    Raises:
        ModelError: an operator or a piece of Python cannot be captured; the message names it.
    """
    _check(module, method)
    example = tuple(example)
    axes = same_axes(dynamic, [tensor.dim() for tensor in example])
    names = tuple(names) or first_arguments(forward_parameters(module, method), len(example))
    with (
        in_mode(module, train=mode == "train"),
        flat_entry(module, names, method),
        quiet_export(),
        padded_instead_of_packed(),
    ):
        try:
            program = torch.export.export(module, example, dynamic_shapes=dynamic_shapes(module, example, axes))
        except AttarError as error:
            raise type(error)(f"{type(module).__name__} cannot be traced: {error}") from error
        except Exception as error:
            raise ModelError(f"{type(module).__name__} cannot be traced: {explain_untraceable(error)}") from error
    whole = program.module(check_guards=False)
    assert isinstance(whole, fx.GraphModule)
    training, evaluation = copy_graph(whole), copy_graph(whole)
    _set_mode(training, train=True)
    _set_mode(evaluation, train=False)
    returned = program.call_spec.out_spec
    outputs = tuple(returned.context) if returned is not None and returned.type is dict else ()
    derived = find_derived(evaluation, module)
    return CapturedModel(training, evaluation, example, axes, names, outputs, derived)


def _check(module: nn.Module, method: str) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"{name} is {tensor.dtype}; Attar compresses float32 modules: call module.float() first")
        if tensor.device.type != "cpu":
            raise ModelError(f"{name} is on {tensor.device}; call module.cpu() first")
    if not callable(getattr(module, method, None)):
        raise ModelError(f"{type(module).__name__} has no method {method!r} that could be traced")


def _set_mode(graph: fx.GraphModule, *, train: bool) -> None:
    """Put every operator that has modes into one of them."""
    for node in list(graph.graph.nodes):
        if node.target is aten.add_.Tensor and str(getattr(node.args[0], "target", "")).endswith("num_batches_tracked"):
            # Only norms without momentum use the count of batches, and those cannot be captured.
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        row = operator_of(node)
        if row.evaluation is None:
            continue
        name, off = row.evaluation
        place = argument_position(node.target, name)
        # A norm without running statistics uses those of each batch in both modes.
        without_modes = row.kind in _NORMS and argument(node, "running_mean") is None
        if place >= len(node.args) or without_modes:
            continue
        if not train:
            node.update_arg(place, off)
        elif off is False:
            node.update_arg(place, True)
    graph.graph.eliminate_dead_code()
    graph.recompile()


@contextlib.contextmanager
def in_mode(module: nn.Module, *, train: bool) -> Iterator[None]:
    """Put every submodule into training or evaluation mode, and each back into its own afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.train(train)
    # The fused encoder kernel has no counterpart in ONNX.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for child, mode in modes.items():
            child.training = mode


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the exporter's logs, warnings and prints; errors that concern the user are raised."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _LOUD)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        # The exporter prints its graph when it fails.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), collection_paused(), whole_layers():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def dynamic_shapes(module: nn.Module, example: Sequence[torch.Tensor], axes: Sequence[Axes]) -> Any:
    """Return the exporters' argument ``dynamic_shapes`` for inputs with these axes."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in kinds]
    shapes = [
        dict.fromkeys(of.varying, torch.export.Dim.DYNAMIC) if tensor.dim() else None
        for of, tensor in zip(axes, example, strict=True)
    ]
    # A traced graph takes *args, which no name refers to.
    return tuple(shapes) if len(names) < len(example) else dict(zip(names, shapes, strict=False))
