"""The rule ``prune_activations``: set small activations to zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import fx

from attar._src.core.errors import ModelError
from attar._src.core.spec import SomeShare
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

_MOMENTUM = 0.05  # weight of one batch in the running mean of the threshold
_SAMPLED = 1 << 16  # the quantile of a batch is estimated on about this many evenly spaced elements


class PruneActivations(Rule):
    """Set activations with ``|x| <= threshold`` to zero at the inputs and outputs of the selected layers.

    Larger values do not change (hard thresholding). The deployed graph has one operator for it, hardshrink.

    Attributes:
        sparsity: share of elements to prune; the threshold is this quantile of ``|x|``, a running mean over batches.
        threshold: a fixed threshold, instead of ``sparsity``.
        layers: globs of layers; inputs of the model are never pruned.
        freeze: share of the stage after which the thresholds are fixed.
    """

    name: Literal["prune_activations"] = "prune_activations"
    sparsity: SomeShare | None = None
    threshold: Annotated[float, Field(gt=0)] | None = None
    layers: tuple[str, ...] = ("*",)
    freeze: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _one_criterion(self) -> PruneActivations:
        if (self.sparsity is None) == (self.threshold is None):
            raise ValueError("prune_activations takes one of the two: sparsity or threshold")
        return self

    def attach(self, learner: Learner) -> Constraint:
        inputs = {node.name for node in learner.captured.evaluation.graph.nodes if node.op == "placeholder"}
        sources = [name for place in learner.places(learner.select(self.layers)) for name in place.sources]
        thresholds = {name: ActivationThreshold(self, name) for name in sources if name not in inputs}
        return ThresholdConstraint(self, thresholds)


class ActivationThreshold(Parametrization):
    """The threshold of one value."""

    threshold: torch.Tensor  # 0-d float32; NaN until a batch was seen
    batch: torch.Tensor  # the quantile of the last batch; NaN if there is none

    def __init__(self, rule: PruneActivations, value: str) -> None:
        super().__init__()
        self.sparsity, self.value, self.watching = rule.sparsity, value, True
        start = torch.nan if rule.threshold is None else rule.threshold
        self.register_buffer("threshold", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("batch", torch.tensor(torch.nan))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.sparsity is not None and self.training and self.watching:
            self.batch.copy_(_quantile(x.detach(), self.sparsity))
        # Comparisons with NaN are false: an unknown threshold prunes nothing.
        return x.masked_fill(x.abs() <= self.threshold, 0)

    def advance(self) -> None:
        """Move the threshold towards the quantile of the last batch."""
        if self.batch.isnan():
            return
        self.threshold.copy_(self.batch if self.threshold.isnan() else self.threshold.lerp(self.batch, _MOMENTUM))
        self.batch.fill_(torch.nan)

    def emit(self) -> Callable[[fx.Graph, fx.Node], fx.Node]:
        return self._add_threshold

    def _add_threshold(self, graph: fx.Graph, node: fx.Node) -> fx.Node:
        if not torch.isfinite(self.threshold):
            raise ModelError(f"activation {self.value!r} has no finite threshold; train a step or more on finite data")
        return graph.call_function(torch.ops.aten.hardshrink.default, (node, float(self.threshold)))


def _quantile(x: torch.Tensor, share: float) -> torch.Tensor:
    flat = x.reshape(-1)
    flat = flat[:: max(1, flat.numel() // _SAMPLED)].abs().float()
    rank = round(share * flat.numel())
    return flat.kthvalue(rank).values if rank else flat.new_zeros(())


class ThresholdConstraint(Constraint):
    """The thresholds of a :class:`PruneActivations`."""

    #: After grids: values that remain are still on their grid, so integer kernels can read them.
    order: ClassVar[int] = 2

    def __init__(self, rule: PruneActivations, thresholds: Mapping[str, ActivationThreshold]) -> None:
        super().__init__({}, thresholds)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        for each in self._thresholds():
            each.advance()
            each.watching = progress.fraction < self.rule.freeze or bool(each.threshold.isnan())

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for each in self._thresholds():
            each.advance()
            each.threshold.copy_(mean(each.threshold))

    def report(self) -> dict[str, Any]:
        found = [float(each.threshold) for each in self._thresholds()]
        return {"threshold": sum(found) / max(len(found), 1)}

    def _thresholds(self) -> list[ActivationThreshold]:
        return [each for each in self.parametrizations if isinstance(each, ActivationThreshold)]
