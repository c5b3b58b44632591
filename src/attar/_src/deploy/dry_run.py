"""Rehearse: the untouched module takes the whole way once, so that what cannot be deployed is known before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError, ModelError, SpecError
from attar._src.deploy.parity import FLOAT_TOLERANCE, Parity, compare_outputs, flatten_outputs
from attar._src.model.capture import CapturedModel, capture
from attar._src.model.export import evaluation_mode
from attar._src.model.trace import deploy_graph
from attar._src.model.traced import TracedModel
from attar._src.model.weights import find_weights
from attar._src.runtime.session import Session
from attar._src.work.compressed_model import CalibrationInputs, CompressedModel, FileInfo

#: What a file's report says under ``training`` where a module was captured in evaluation mode.
CAPTURED_IN_EVALUATION = (
    "captured in evaluation mode: what the module's own code does in training alone was left out; batch statistics and "
    "dropout were not"
)


def check_deployable(module: nn.Module, untouched: CompressedModel, use: FileInfo, inputs: CalibrationInputs) -> Parity:
    """Take the untouched module the whole way, and compare with the module itself rather than with its trace.

    Raises:
        ModelError: something in the graph cannot be deployed.
        ParityError: tracing, folding or exporting changed the function.
    """
    try:
        session = Session(pack(untouched.contents(use), coder="raw"))
    except ArtifactError as error:
        raise ModelError(f"{type(module).__name__} cannot be deployed: {error}") from error

    def original(*exact: torch.Tensor) -> Any:
        return module(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in exact))

    with evaluation_mode(module):
        found = compare_outputs(session, original, _few(inputs), "dry run")
    return found.demand("dry run of the untouched module", integers=False)


@dataclass(frozen=True)
class DryRun:
    """A module that can be trained and deployed.

    Attributes:
        captured: its two programs.
        traced: what it looks like deployed.
        parity: how the untouched module and its decoded file compared.
        mode: ``train``, or ``eval`` where its own code does something else in training: that is lost.
    """

    captured: CapturedModel
    traced: TracedModel
    parity: Parity
    mode: str


def dry_run(module: nn.Module, use: FileInfo, inputs: CalibrationInputs, *, dynamic: Sequence[int]) -> DryRun:
    """Capture a module for training and take it the whole way untouched.

    It is captured in training mode; where that cannot be captured, or its evaluation program is not what the module
    computes in evaluation mode, in evaluation mode.

    Raises:
        ModelError: the module cannot be captured or deployed, or has no weight that multiplies data.
        ParityError: tracing, folding or exporting changed the function.
    """
    example = inputs.example(2) if 0 in dynamic else inputs.batches[0]
    captured, mode = _captured(module, example, inputs, dynamic)
    traced = deploy_graph(module, captured)
    if not find_weights(traced.graph):
        raise SpecError(f"{type(module).__name__} has no weight that multiplies data; there is nothing to compress")
    return DryRun(captured, traced, check_deployable(module, CompressedModel.of(traced), use, inputs), mode)


def _captured(
    module: nn.Module, example: Sequence[torch.Tensor], inputs: CalibrationInputs, dynamic: Sequence[int]
) -> tuple[CapturedModel, str]:
    try:
        captured = capture(module, example, dynamic=dynamic)
    except ModelError:
        return capture(module, example, dynamic=dynamic, mode="eval"), "eval"
    if _same(module, captured, _few(inputs)):
        return captured, "train"
    return capture(module, example, dynamic=dynamic, mode="eval"), "eval"


def _same(module: nn.Module, captured: CapturedModel, batches: Sequence[tuple[torch.Tensor, ...]]) -> bool:
    with torch.no_grad(), evaluation_mode(module):
        for batch in batches:
            wanted, got = flatten_outputs(module(*batch)), flatten_outputs(captured.evaluation(*batch))
            for one, other in zip(wanted, got, strict=True):
                reach = FLOAT_TOLERANCE * max(float(abs(one).max(initial=0.0)), 1.0)
                if one.shape != other.shape or not float(abs(one - other).max(initial=0.0)) <= reach:
                    return False
    return True


def _few(inputs: CalibrationInputs) -> Sequence[tuple[torch.Tensor, ...]]:
    return inputs.batches[:1] if len(inputs.batches[0][0]) > 1 else (inputs.example(2),)
