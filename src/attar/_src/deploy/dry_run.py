"""Dry run: the untouched module is exported, packed and run once, so that errors of deployment show before training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError, ModelError, SpecError
from attar._src.deploy.calibration_inputs import check_lengths
from attar._src.deploy.first_run import run_once
from attar._src.deploy.parity import FLOAT_TOLERANCE, Parity, compare_outputs, output_arrays
from attar._src.model.capture import CapturedModel, capture, in_mode
from attar._src.model.interface import call_by_name
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.train.inputs import as_input
from attar._src.work.compressed_model import CalibrationInputs, CompressedModel, FileInfo

#: The note ``training`` in the report of a module captured in evaluation mode.
CAPTURED_IN_EVALUATION = (
    "captured in evaluation mode: what the module's own code does in training alone was left out; batch statistics and "
    "dropout were not"
)


def check_deployable(module: nn.Module, traced: TracedModel, use: FileInfo, inputs: CalibrationInputs) -> Parity:
    """Pack and run the untouched module, and compare with the module itself, not with its trace.

    Raises:
        SpecError: the module has no weight that multiplies data.
        ModelError: the graph cannot be deployed.
        ParityError: tracing, folding or exporting changed the outputs.
    """
    if not find_weights(traced.graph):
        raise SpecError(f"{type(module).__name__} has no weight that multiplies data; there is nothing to compress")
    try:
        session = Session(pack(CompressedModel.of(traced).contents(use), coder="raw"))
    except ArtifactError as error:
        raise ModelError(f"{type(module).__name__} cannot be deployed: {error}") from error

    def original(*exact: torch.Tensor) -> Any:
        return call_by_name(module, inputs.names, [as_input(tensor) for tensor in exact])

    with in_mode(module, train=False):
        parity = compare_outputs(session, original, [_first_batch(inputs)], "dry run")
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


def dry_run(module: nn.Module, use: FileInfo, inputs: CalibrationInputs, *, dynamic: Sequence[int]) -> DryRun:
    """Capture a module for training, and check that it can be deployed untouched (:func:`check_deployable`).

    It is captured in training mode. If that fails, or the evaluation program made from it differs from the module in
    evaluation mode, the module is captured in evaluation mode. ``dynamic`` are the axes of inputs whose length varies.

    Raises:
        DataError: inputs vary in length along another axis.
        ModelError: the module fails on its first batch, or cannot be captured.
    """
    run_once(module, inputs)
    check_lengths(inputs, dynamic)
    example = inputs.example(2) if 0 in dynamic else inputs.batches[0]
    captured, mode = _captured(module, example, inputs, dynamic)
    traced = deploy_graph(module, captured)
    return DryRun(captured, traced, check_deployable(module, traced, use, inputs), mode)


def _captured(
    module: nn.Module, example: Sequence[torch.Tensor], inputs: CalibrationInputs, dynamic: Sequence[int]
) -> tuple[CapturedModel, str]:
    with contextlib.suppress(ModelError):
        captured = capture(module, example, names=inputs.names, dynamic=dynamic)
        if _same_outputs(module, captured, _first_batch(inputs)):
            return captured, "train"
    return capture(module, example, names=inputs.names, dynamic=dynamic, mode="eval"), "eval"


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
    return inputs.batches[0] if len(inputs.batches[0][0]) > 1 else inputs.example(2)
