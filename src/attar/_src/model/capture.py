"""Capture a module once for training: one program in two modes, on the module's own parameters and buffers.

``torch.export`` runs the module in training mode; the evaluation program is the same nodes, by the same names, with
batch statistics and dropout turned off. What stages put on weights and values (masks, fake quantization) goes between
the nodes of both, and ``model.trace`` deploys the second: what is trained is what is shipped.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from attar._src.core.errors import AttarError, ModelError, short_message
from attar._src.core.fields import first_arguments
from attar._src.core.garbage import collection_paused
from attar._src.model.interface import flat_entry, forward_parameters
from attar._src.model.operators import argument, argument_position, aten, operator_of
from attar._src.model.programs import copy_graph
from attar._src.model.traced import TracedModel

_FIXED = (
    "its code fixes the length of an axis that should vary, as len(x) and int(x.shape[0]) do; write x.shape[0], or fix "
    "the axis with dynamic=() (--fixed-batch N). "
)
_LOUD = ("torch.onnx", "onnxscript", "torch.export", "torch.fx.experimental.symbolic_shapes")
_NORMS = ("batch_norm", "instance_norm")


@dataclass(frozen=True)
class CapturedModel:
    """A module as two programs that share its parameters and buffers: a step of training changes the module itself.

    Attributes:
        training: with batch statistics and dropout.
        evaluation: the same nodes in evaluation mode.
        example: the inputs it was captured with.
        dynamic: axes of every input whose length may vary.
        names: the arguments these inputs are.
        outputs: the paths of the outputs, none where they have no names (``model.interface``).
        exports: what it was exported to, by structural variant; ``model.trace`` fills it.
    """

    training: fx.GraphModule
    evaluation: fx.GraphModule
    example: tuple[torch.Tensor, ...]
    dynamic: tuple[int, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    exports: dict[str, TracedModel] = field(default_factory=dict, repr=False, compare=False)

    def copy(self, *, train: bool) -> fx.GraphModule:
        """Return one of the programs as a graph to change, on the same parameters and buffers."""
        return copy_graph(self.training if train else self.evaluation)


def capture(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    *,
    names: Sequence[str] = (),
    dynamic: Sequence[int] = (0,),
    mode: str = "train",
    method: str = "forward",
) -> CapturedModel:
    """Capture ``module``, which keeps its state and mode.

    The programs take their inputs by position and return ``model.interface.plain_outputs`` of what the module returns.

    Args:
        module: any module that ``torch.export`` can trace; float32 parameters.
        example: its inputs, at least two long along every dynamic axis.
        names: the arguments these are, in the order of the signature; the first ones where it is empty.
        dynamic: axes of every input whose length may vary.
        mode: ``train`` runs the module in training mode and derives evaluation from it. ``eval`` is the other way
            round, for modules whose own code does something else in training: what it does then is lost, batch
            statistics and dropout are not.
        method: what is called in place of ``forward``.

    Raises:
        ModelError: an operator or a piece of Python cannot be captured; the message names it.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"{name} is {tensor.dtype}; Attar compresses float32 modules: call module.float() first")
        if tensor.device.type != "cpu":
            raise ModelError(f"{name} is on {tensor.device}; call module.cpu() first")
    if not callable(getattr(module, method, None)):
        raise ModelError(f"{type(module).__name__} has no method {method!r} that could be traced")
    example = tuple(example)
    names = tuple(names) or first_arguments(forward_parameters(module, method), len(example))
    mode_of = training_mode if mode == "train" else evaluation_mode
    with mode_of(module), flat_entry(module, names, method), quiet_export():
        try:
            program = torch.export.export(module, example, dynamic_shapes=dynamic_shapes(module, example, dynamic))
        except AttarError as error:
            raise type(error)(f"{type(module).__name__} cannot be traced: {error}") from error
        except Exception as error:
            hint = _FIXED if "specialized it to be a constant" in str(error) else ""
            raise ModelError(f"{type(module).__name__} cannot be traced: {hint}{short_message(error)}") from error
    whole = program.module(check_guards=False)
    assert isinstance(whole, fx.GraphModule)
    both = [copy_graph(whole), copy_graph(whole)]
    for graph, train in zip(both, (True, False), strict=True):
        _turn(graph, train=train)
    returned = program.call_spec.out_spec
    outputs = tuple(returned.context) if returned is not None and returned.type is dict else ()
    return CapturedModel(both[0], both[1], example, tuple(dynamic), names, outputs)


def _turn(graph: fx.GraphModule, *, train: bool) -> None:
    """Put every operator that has modes into one of them."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.add_.Tensor and str(getattr(node.args[0], "target", "")).endswith("num_batches_tracked"):
            # The count of batches serves norms without momentum, which cannot be captured; nothing reads it but the
            # next count of a norm that is called again.
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        row = operator_of(node)
        if row is None or row.evaluation is None:
            continue
        name, off = row.evaluation
        place = argument_position(node.target, name)
        if place >= len(node.args):
            continue
        # A norm without running statistics takes those of each batch in both modes.
        if row.kind in _NORMS and argument(node, "running_mean") is None:
            continue
        if not train:
            node.update_arg(place, off)
        elif off is False:
            node.update_arg(place, True)
    graph.graph.eliminate_dead_code()
    graph.recompile()


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode, and each back into its own afterwards."""
    with _in_mode(module, train=False):
        yield


@contextlib.contextmanager
def training_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into training mode, and each back into its own afterwards."""
    with _in_mode(module, train=True):
        yield


@contextlib.contextmanager
def _in_mode(module: nn.Module, *, train: bool) -> Iterator[None]:
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
    """Silence what the exporter says about itself; what concerns the user is raised by name."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        # The exporter prints the graph it had when it gave up.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), collection_paused():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def dynamic_shapes(module: nn.Module, example: Sequence[torch.Tensor], axes: Sequence[int]) -> Any:
    """Return what the exporters take as ``dynamic_shapes``: these axes of every input vary."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, each in inspect.signature(module.forward).parameters.items() if each.kind in kinds]
    shapes = [
        {axis: torch.export.Dim.DYNAMIC for axis in axes if axis < tensor.dim()} if tensor.dim() else None
        for tensor in example
    ]
    # A traced graph takes *args; only a signature with names can be addressed by them.
    return tuple(shapes) if len(names) < len(example) else dict(zip(names, shapes, strict=False))
