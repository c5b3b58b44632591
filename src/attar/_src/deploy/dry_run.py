"""Dry run: the untouched module is exported, packed and run once, so that errors of deployment show before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from attar._src.artifact.limits import Limits
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError, AttarError, ModelError, SpecError, short_message
from attar._src.data.axes import Axes, Dynamic, input_axes
from attar._src.deploy.finite import check_module_finite
from attar._src.deploy.parity import Parity, compare_outputs, parity_inputs
from attar._src.model.capture import CapturedModel, capture, in_mode
from attar._src.model.interface import call_by_name
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.train.inputs import as_input
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

#: What is said before a module is captured, exported, packed and compared with its file.
EXPORTING = "reading examples; running and exporting the module, and checking that a file computes the same"
#: The note ``training`` in the report of a module captured in evaluation mode.
CAPTURED_IN_EVALUATION = (
    "captured in evaluation mode: what the module's own code does in training alone was left out, batch statistics and "
    "dropout were not; to keep it, let training compute every value of evaluation, with the same operators"
)


def check_deployable(
    module: nn.Module,
    traced: TracedModel,
    use: FileInfo,
    inputs: CalibrationInputs,
    *,
    limits: Limits | None = None,
) -> Parity:
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
        packed = pack(CompressedModel.of(traced).contents(use), coder="raw", limits=limits)
        session = Session(packed, limits=limits)
    except ArtifactError as error:
        raise ModelError(f"{type(module).__name__} cannot be deployed: {error}") from error

    def original(*exact: torch.Tensor) -> Any:
        return call_by_name(module, inputs.names, [as_input(tensor) for tensor in exact])

    # In floating point every element is compared closely, so that fewer examples tell as much.
    some = parity_inputs(replace(inputs, batches=(_first_batch(inputs),)), traced.graph, cut=traced.any_batch, share=4)
    try:
        with in_mode(module, train=False):
            parity = compare_outputs(session, original, some.batches, "dry run")
    except AttarError:
        raise
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot be run on its inputs: {short_message(error)}") from error
    return parity.check("dry run of the untouched module", integers=False)


@dataclass(frozen=True)
class DryRun:
    """A module that can be trained and deployed, and the parity of its decoded file."""

    captured: CapturedModel
    traced: TracedModel
    parity: Parity

    @property
    def note(self) -> str:
        """What the training program lacks, and why; empty if nothing."""
        left_out = self.captured.left_out
        return f"{CAPTURED_IN_EVALUATION}: {left_out}" if left_out else ""


def dry_run(module: nn.Module, use: FileInfo, inputs: CalibrationInputs, *, dynamic: Dynamic) -> DryRun:
    """Capture a module for training, and check that it can be deployed untouched (:func:`check_deployable`).

    ``dynamic``: the axes of inputs whose length varies.

    Raises:
        DataError: inputs vary in length along an axis that ``dynamic`` fixes.
        ModelError: the module cannot be captured.
    """
    example, axes, inputs = example_of(inputs, dynamic)
    captured = capture(module, example, names=inputs.names, dynamic=axes)
    traced = deploy_graph(module, captured)
    return DryRun(captured, traced, check_deployable(module, traced, use, inputs))


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
