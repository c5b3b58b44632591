"""The metric of a module before and after something was removed, before any training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attar._src.core.errors import AttarError
from attar._src.deploy.fidelity import ComparedExamples
from attar._src.measure.metric_change import metric_change
from attar._src.model.capture import CapturedModel, in_mode
from attar._src.model.interface import call_by_name, main_output


def metric_before_and_after(
    before: nn.Module, after: nn.Module, captured: CapturedModel, examples: ComparedExamples
) -> dict[str, Any] | None:
    """Return ``name``, ``before``, ``after`` and the number of ``examples`` of a metric; None without labels.

    Args:
        before, after: modules with the same inputs and outputs.
        captured: one of them.
        examples: those that scores saw, so that the metric is no estimate of that on unseen ones.
    """
    judged = []
    for index, batch in enumerate(examples.inputs.batches):
        targets = examples.of(index, examples.inputs.count(batch))
        if targets is None:
            return None
        outputs = [_output(module, captured, batch) for module in (before, after)]
        judged.append((outputs[0].numpy(), outputs[1].numpy(), targets))
    try:
        change = metric_change(examples.metric, judged, examples.layout, given=examples.given)
    except AttarError:
        # Targets that are no labels of this module.
        return None
    return {"name": change.name, "before": change.floating, "after": change.file, "examples": change.examples}


def _output(module: nn.Module, captured: CapturedModel, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad(), in_mode(module, train=False):
        return main_output(call_by_name(module, captured.names, batch))
