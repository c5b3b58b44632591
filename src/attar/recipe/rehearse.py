"""Rehearse: the untouched module takes the whole way once, so that what cannot be deployed is known before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attar.artifact.writer import pack
from attar.core.errors import ArtifactError, ModelError, ParityError, SpecError
from attar.core.progress import track
from attar.model.capture import Captured, capture
from attar.model.export import evaluating
from attar.model.trace import Traced, deploy
from attar.model.weights import find_weights
from attar.recipe.journal import Journal
from attar.recipe.origin import Origin
from attar.recipe.parity import FLOAT_TOLERANCE, Parity, compare, flatten
from attar.recipe.recipe import Recipe
from attar.runtime import Session
from attar.work.workpiece import Calibration, Use, Workpiece

#: What a file's report says under ``training`` where a module was captured in evaluation mode.
LOST = (
    "captured in evaluation mode: what the module's own code does in training alone was left out; batch statistics and "
    "dropout were not"
)


def rehearse(module: nn.Module, untouched: Workpiece, use: Use, inputs: Calibration) -> Parity:
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

    with evaluating(module):
        found = compare(session, original, _few(inputs), "dry run")
    return found.demand("dry run of the untouched module", integers=False)


@dataclass(frozen=True)
class Rehearsed:
    """A module that can be trained and deployed.

    Attributes:
        captured: its two programs.
        traced: what it looks like deployed.
        parity: how the untouched module and its decoded file compared.
        mode: ``train``, or ``eval`` where its own code does something else in training: that is lost.
    """

    captured: Captured
    traced: Traced
    parity: Parity
    mode: str


def rehearse_training(module: nn.Module, use: Use, inputs: Calibration, *, dynamic: Sequence[int]) -> Rehearsed:
    """Capture a module for training and take it the whole way untouched.

    It is captured in training mode; where that cannot be captured, or its evaluation program is not what the module
    computes in evaluation mode, in evaluation mode.

    Raises:
        ModelError: the module cannot be captured or deployed, or has no weight that multiplies data.
        ParityError: tracing, folding or exporting changed the function.
    """
    example = inputs.example(2) if 0 in dynamic else inputs.batches[0]
    captured, mode = _captured(module, example, inputs, dynamic)
    traced = deploy(module, captured)
    if not find_weights(traced.graph):
        raise SpecError(f"{type(module).__name__} has no weight that multiplies data; there is nothing to compress")
    return Rehearsed(captured, traced, rehearse(module, Workpiece(traced), use, inputs), mode)


def rehearse_all(
    recipe: Recipe, origins: Mapping[str, Origin], use: Use, inputs: Calibration, journal: Journal
) -> dict[str, Rehearsed]:
    """Rehearse every module of a recipe, and journal which lose what their own code does in training.

    Raises:
        ModelError, ParityError, SpecError: one cannot be trained or deployed; the message names it.
    """
    found = {}
    for name, origin in track(origins.items(), "dry run"):
        if origin.module is None:
            continue
        try:
            found[name] = rehearse_training(origin.module, use, inputs, dynamic=recipe.dynamic)
        except (ModelError, ParityError, SpecError) as error:
            raise type(error)(f"recipe.models.{name}: {error}") from error
        journal.decide(f"capture of {name}", found[name].mode)
    return found


def _captured(
    module: nn.Module, example: Sequence[torch.Tensor], inputs: Calibration, dynamic: Sequence[int]
) -> tuple[Captured, str]:
    try:
        captured = capture(module, example, dynamic=dynamic)
    except ModelError:
        return capture(module, example, dynamic=dynamic, mode="eval"), "eval"
    if _same(module, captured, _few(inputs)):
        return captured, "train"
    return capture(module, example, dynamic=dynamic, mode="eval"), "eval"


def _same(module: nn.Module, captured: Captured, batches: Sequence[tuple[torch.Tensor, ...]]) -> bool:
    with torch.no_grad(), evaluating(module):
        for batch in batches:
            wanted, got = flatten(module(*batch)), flatten(captured.evaluation(*batch))
            for one, other in zip(wanted, got, strict=True):
                reach = FLOAT_TOLERANCE * max(float(abs(one).max(initial=0.0)), 1.0)
                if one.shape != other.shape or not float(abs(one - other).max(initial=0.0)) <= reach:
                    return False
    return True


def _few(inputs: Calibration) -> Sequence[tuple[torch.Tensor, ...]]:
    return inputs.batches[:1] if len(inputs.batches[0][0]) > 1 else (inputs.example(2),)
