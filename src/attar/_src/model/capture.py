"""Capture a module for training: a program in training and one in evaluation mode, on its own parameters and buffers.

``torch.export`` runs the module in both modes. A value has the same name in both programs; those of training alone
(auxiliary heads, stochastic depth) are only there. Constraints (masks, fake quantization) go between the nodes of both,
and ``model.trace`` deploys the second: what is trained is what is shipped.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from attar._src.core.errors import ModelError
from attar._src.core.fields import first_arguments
from attar._src.core.garbage import collection_paused
from attar._src.data.axes import Axes, same_axes
from attar._src.model.chains.constants import merge_equal
from attar._src.model.chains.derived import find_derived
from attar._src.model.export.modes import (
    check_main_output,
    drop_batch_counts,
    name_alike,
    train_as,
    views_to_reshapes,
)
from attar._src.model.export.refusals import not_captured, refuse_random
from attar._src.model.interface import flat_entry, forward_parameters
from attar._src.model.programs import copy_graph
from attar._src.model.recurrent.packed import padded_instead_of_packed
from attar._src.model.recurrent.rules import whole_layers
from attar._src.model.traced import TracedModel

_LOUD = (
    "torch.onnx",
    "onnxscript",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
)


@dataclass(frozen=True)
class CapturedModel:
    """A module as two programs that share its parameters and buffers: a step of training changes the module itself.

    Attributes:
        training: with batch statistics and dropout, where the module itself has them in training.
        evaluation: what is deployed; its values have the names they have in ``training``.
        example: the inputs it was captured with.
        axes: of each input.
        names: the arguments these inputs are.
        outputs: the paths of the outputs of ``evaluation``; empty if they have no names (``model.interface``).
        derived: name of a weight that is computed from parameters -> the node that computes it (``model.chains``).
        warnings: sentences about outputs that are left out.
        left_out: why ``training`` lacks what the module's code does in training alone; empty if it lacks nothing.
        exports: what it was exported to, by structural variant; filled by ``model.trace``.
    """

    training: fx.GraphModule
    evaluation: fx.GraphModule
    example: tuple[torch.Tensor, ...]
    axes: tuple[Axes, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    derived: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    left_out: str = ""
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
    method: str = "forward",
    train: bool = True,
) -> CapturedModel:
    """Capture ``module``, which keeps its state and mode.

    The programs take their inputs by position and return :func:`~attar._src.model.interface.plain_outputs`.

    If the module cannot be captured in training mode, or evaluation computes what training does not, the training
    program is the evaluation program with batch statistics and dropout, and ``left_out`` has the reason.

    Args:
        module: any module that ``torch.export`` can trace; float32 parameters.
        example: its inputs, at least two long along every dynamic axis.
        names: the arguments these are, in the order of the signature; by default the first ones.
        dynamic: axes whose length may vary, the same numbers for every input, or the axes of each.
        method: called instead of ``forward``.
        train: whether it will be trained; else both programs are that of evaluation.

    Raises:
        ModelError: an operator or a piece of Python cannot be captured; the message names it.
        SpecError: the main output of evaluation has another place in training.
    """
    _check(module, method)
    example = tuple(example)
    axes = same_axes(dynamic, [tensor.dim() for tensor in example])
    names = tuple(names) or first_arguments(forward_parameters(module, method), len(example))

    def program(mode: bool) -> _Program:
        with in_mode(module, train=mode):
            return _exported(module, example, names, axes, method)

    deployed = program(False)
    refuse_random(module, deployed.graph)
    training, evaluation, left_out = deployed.graph, deployed.graph, ""
    if train:
        training, evaluation, left_out = _with_training(module, evaluation, program)
    return CapturedModel(
        training,
        evaluation,
        example,
        axes,
        names,
        deployed.outputs,
        derived=find_derived(evaluation, module),
        warnings=deployed.warnings,
        left_out=left_out,
    )


class _Program(NamedTuple):
    """A module in one mode, the paths of its outputs and warnings about them."""

    graph: fx.GraphModule
    outputs: tuple[str, ...]
    warnings: tuple[str, ...]


def _with_training(
    module: nn.Module, evaluation: fx.GraphModule, program: Callable[[bool], _Program]
) -> tuple[fx.GraphModule, fx.GraphModule, str]:
    """Return both programs, and why the training program is made from that of evaluation, if it is."""
    training = None
    try:
        training = program(True).graph
        named = name_alike(copy_graph(evaluation), training)
        check_main_output(named, training)
        return training, named, ""
    except ModelError as error:
        made = copy_graph(evaluation)
        with in_mode(module, train=True):
            train_as(made, module, training)
        return made, evaluation, str(error)


def _exported(
    module: nn.Module, example: tuple[torch.Tensor, ...], names: Sequence[str], axes: Sequence[Axes], method: str
) -> _Program:
    """Return the module in its present mode as a program."""
    try:
        with flat_entry(module, names, method) as warnings, quiet_export(), padded_instead_of_packed():
            program = torch.export.export(module, example, dynamic_shapes=dynamic_shapes(module, example, axes))
    except Exception as error:
        raise not_captured(module, error) from error
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    drop_batch_counts(graph)
    merge_equal(graph)
    views_to_reshapes(graph)
    returned = program.call_spec.out_spec
    outputs = tuple(returned.context) if returned is not None and returned.type is dict else ()
    return _Program(copy_graph(graph), outputs, tuple(warnings))


def _check(module: nn.Module, method: str) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"{name} is {tensor.dtype}; Attar compresses float32 modules: call module.float() first")
        if tensor.device.type != "cpu":
            raise ModelError(f"{name} is on {tensor.device}; call module.cpu() first")
    if not callable(getattr(module, method, None)):
        raise ModelError(f"{type(module).__name__} has no method {method!r} that could be traced")


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
