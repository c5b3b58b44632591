"""What a module lost when something was removed, before any training: its metric, and the error of its outputs."""

from __future__ import annotations

import torch
from torch import nn

from attar._src.core.errors import AttarError
from attar._src.deploy.fidelity import ComparedExamples
from attar._src.deploy.pruning.untrained import PruningLoss, weights_digest
from attar._src.measure.difference import Difference
from attar._src.measure.metric_change import metric_change
from attar._src.model.capture import CapturedModel, in_mode
from attar._src.model.interface import call_by_name, main_output


def loss_by_pruning(
    before: nn.Module, after: nn.Module, captured: CapturedModel, examples: ComparedExamples
) -> PruningLoss:
    """Return what the module ``after`` lost.

    Args:
        before, after: modules with the same inputs and outputs.
        captured: one of them.
        examples: those that scores saw, so that the metric is no estimate of that on unseen ones.
    """
    pairs, judged, seen = [], [], Difference()
    for index, batch in enumerate(examples.inputs.batches):
        want, got = (_output(module, captured, batch).numpy() for module in (before, after))
        seen.add(got, want)
        pairs.append((want, got))
        targets = examples.of(index, examples.inputs.count(batch))
        if targets is not None:
            judged.append((want, got, targets))
    metric, count = None, examples.inputs.examples
    if len(judged) == len(pairs):
        try:
            change = metric_change(examples.metric, judged, examples.layout, given=examples.given, noise=False)
            metric, count = (change.name, change.floating, change.file), change.examples
        except AttarError:
            # Targets that are no labels of this module.
            pass
    decibel = seen.signal_to_noise_db if seen.finite else None
    return PruningLoss(weights=weights_digest(after), metric=metric, signal_to_noise_db=decibel, examples=count)


def _output(module: nn.Module, captured: CapturedModel, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad(), in_mode(module, train=False):
        return main_output(call_by_name(module, captured.names, batch))
