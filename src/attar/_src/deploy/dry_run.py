"""Dry run: the untouched module is exported, packed and run once, so that errors of deployment show before training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.core.axes import Axes, Dynamic, input_axes
from attar._src.core.errors import ArtifactError, ModelError, SpecError
from attar._src.deploy.finite import check_module_finite
from attar._src.deploy.parity import FLOAT_TOLERANCE, Parity, compare_outputs, compared, output_arrays
from attar._src.model.capture import CapturedModel, capture, in_mode
from attar._src.model.interface import call_by_name
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.train.inputs import as_input
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

#: The note ``training`` in the report of a module captured in evaluation mode.
CAPTURED_IN_EVALUATION = (
    "captured in evaluation mode: what the module's own code does in training alone was left out; batch statistics and "
    "dropout were not"
)


def check_deployable(module: nn.Module, traced: TracedModel, use: FileInfo, inputs: CalibrationInputs) -> Parity:
    """Pack and run the untouched module, and compare with the module itself, not with its trace.

    Raises:
        SpecError: the module has no weight that multiplies data.
        ModelError: the graph cannot be deployed, or a tensor of the module is not finite.
        ParityError: tracing, folding or exporting changed the outputs.
    """
    if not find_weights(traced.graph):
        raise SpecError(f"{type(module).__name__} has no weight that multiplies data; there is nothing to compress")
    check_module_finite(module, traced)
    try:
        session = Session(pack(CompressedModel.of(traced).contents(use), coder="raw"))
    except ArtifactError as error:
        raise ModelError(f"{type(module).__name__} cannot be deployed: {error}") from error

    def original(*exact: torch.Tensor) -> Any:
        return call_by_name(module, inputs.names, [as_input(tensor) for tensor in exact])

    some = compared(replace(inputs, batches=(_first_batch(inputs),)), traced.graph, cut=traced.any_batch)
    with in_mode(module, train=False):
        parity = compare_outputs(session, original, some.batches, "dry run")
    return parity.check("dry run of the untouched module", integers=False)


@dataclass(frozen=True)
class DryRun:
    """A module that can be trained and deployed, and the parity of its decoded file.

    ``mode`` of the capture is ``train`` or ``eval``; the latter loses what the module's code does in training only.
    """

    captured: CapturedModel
    traced: TracedModel
    parity: Parity
    mode: str


def dry_run(module: nn.Module, use: FileInfo, inputs: CalibrationInputs, *, dynamic: Dynamic) -> DryRun:
    """Capture a module for training, and check that it can be deployed untouched (:func:`check_deployable`).

    It is captured in training mode. If that fails, or the evaluation program made from it differs from the module in
    evaluation mode, the module is captured in evaluation mode. ``dynamic``: the axes of inputs whose length varies.

    Raises:
        DataError: inputs vary in length along an axis that ``dynamic`` fixes.
        ModelError: the module cannot be captured.
    """
    example, axes, inputs = example_of(inputs, dynamic)
    captured, mode = _captured(module, example, inputs, axes)
    traced = deploy_graph(module, captured)
    return DryRun(captured, traced, check_deployable(module, traced, use, inputs), mode)


def _captured(
    module: nn.Module, example: Sequence[torch.Tensor], inputs: CalibrationInputs, axes: Sequence[Axes]
) -> tuple[CapturedModel, str]:
    with contextlib.suppress(ModelError):
        captured = capture(module, example, names=inputs.names, dynamic=axes)
        if _same_outputs(module, captured, _first_batch(inputs)):
            return captured, "train"
    return capture(module, example, names=inputs.names, dynamic=axes, mode="eval"), "eval"


def _same_outputs(module: nn.Module, captured: CapturedModel, batch: tuple[torch.Tensor, ...]) -> bool:
    with torch.no_grad(), in_mode(module, train=False):
        wanted = output_arrays(call_by_name(module, captured.names, batch))
        got = output_arrays(captured.evaluation(*batch))
    if len(wanted) != len(got):
        return False
    for one, other in zip(wanted, got, strict=True):
        tolerance = FLOAT_TOLERANCE * max(float(abs(one).max(initial=0.0)), 1.0)
        if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=tolerance):
            return False
    return True


def _first_batch(inputs: CalibrationInputs) -> tuple[torch.Tensor, ...]:
    return inputs.batches[0] if inputs.count(inputs.batches[0]) > 1 else inputs.example(2)


def example_of(
    inputs: CalibrationInputs, dynamic: Dynamic
) -> tuple[Sequence[torch.Tensor], tuple[Axes, ...], CalibrationInputs]:
    """Return a batch to trace on, the axes of its inputs, and the inputs that the graph will take.

    Raises:
        DataError: batches differ along an axis that ``dynamic`` fixes.
    """
    shapes = [[tuple(tensor.shape) for tensor in batch] for batch in inputs.batches]
    axes = input_axes(dynamic, inputs.names, inputs.batch_axes, shapes)
    if axes[0].batch in axes[0].varying:
        return inputs.example(2, [each.varying for each in axes]), axes, inputs
    inputs = inputs.of_one_size()
    return inputs.batches[0], axes, inputs
