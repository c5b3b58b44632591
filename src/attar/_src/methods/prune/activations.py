"""The rule that sets small activations to zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import fx

from attar._src.core.errors import ModelError
from attar._src.work.constraint import Constraint, Progress
from attar._src.work.learner import Learner
from attar._src.work.parametrization import Parametrization
from attar._src.work.rule import Rule
from attar._src.work.weight_view import WeightView

#: How far one batch moves the running threshold.
_MOMENTUM = 0.05
#: The threshold of a batch is found on about so many of its elements, evenly spread.
_LOOKED_AT = 1 << 16


class PruneActivations(Rule):
    """Set activations with ``|x| <= threshold`` to zero where they enter or leave the layers that are chosen.

    Larger values stay as they are, so a hard and not a soft threshold. The graph that is deployed has the threshold in
    it, as one operator behind the value. Not to be confused with ``prune``, which makes weights sparse.

    Attributes:
        sparsity: the share of the elements to prune: the threshold is that quantile of ``|x|``, averaged over batches
            while training.
        threshold: or the threshold itself.
        layers: globs of layers; the inputs of the model are left as they are.
        freeze: the share of the stage after which the thresholds are fixed.
    """

    name: Literal["prune_activations"] = "prune_activations"
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    threshold: Annotated[float, Field(gt=0)] | None = None
    layers: tuple[str, ...] = ("*",)
    freeze: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _one_criterion(self) -> PruneActivations:
        if (self.sparsity is None) == (self.threshold is None):
            raise ValueError("prune_activations takes a sparsity or a threshold, one of the two")
        return self

    def attach(self, learner: Learner) -> Constraint:
        """Return the thresholds of the values that are chosen.

        Raises:
            UnknownName: a glob matches no layer.
        """
        inputs = {node.name for node in learner.captured.evaluation.graph.nodes if node.op == "placeholder"}
        sources = [name for place in learner.places(learner.select(self.layers)) for name in place.sources]
        thresholds = {name: ActivationThreshold(self, name) for name in sources if name not in inputs}
        return ThresholdConstraint(self, thresholds)


class ActivationThreshold(Parametrization):
    """One value, zero where it is no larger than a threshold.

    Attributes:
        threshold: 0-d float32; what is no larger in size is zero.
        batch: the quantile of the last batch, NaN before there was one.
    """

    threshold: torch.Tensor
    batch: torch.Tensor

    def __init__(self, rule: PruneActivations, value: str) -> None:
        super().__init__()
        self.sparsity, self.value, self.watching = rule.sparsity, value, True
        start = torch.nan if rule.threshold is None else rule.threshold
        self.register_buffer("threshold", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("batch", torch.tensor(torch.nan))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` where ``|x| > threshold``, else 0; unchanged while the threshold is not known."""
        if self.sparsity is not None and self.training and self.watching:
            self.batch.copy_(_quantile(x.detach(), self.sparsity))
        # A comparison with NaN is false: an unknown threshold prunes nothing.
        return x.masked_fill(x.abs() <= self.threshold, 0)

    def advance(self) -> None:
        """Move the threshold towards the quantile of the batch just seen."""
        if self.batch.isnan():
            return
        self.threshold.copy_(self.batch if self.threshold.isnan() else self.threshold.lerp(self.batch, _MOMENTUM))
        self.batch.fill_(torch.nan)

    def emit(self) -> Callable[[fx.Graph, fx.Node], fx.Node]:
        """Return what adds the threshold to the deployed graph.

        Raises:
            ModelError: nothing was ever seen here, or it was not finite.
        """
        threshold = float(self.threshold)
        if not torch.isfinite(self.threshold):
            raise ModelError(
                f"activation {self.value!r} has no finite threshold; train at least one step on finite data"
            )
        return lambda graph, node: graph.call_function(torch.ops.aten.hardshrink.default, (node, threshold))


def _quantile(x: torch.Tensor, share: float) -> torch.Tensor:
    flat = x.reshape(-1)
    flat = flat[:: max(1, flat.numel() // _LOOKED_AT)].abs().float()
    rank = round(share * flat.numel())
    return flat.kthvalue(rank).values if rank else flat.new_zeros(())


class ThresholdConstraint(Constraint):
    """The thresholds of a :class:`PruneActivations`.

    They act on what grids have rounded.
    """

    #: After grids: what is left of a rounded value is still on its grid, so integer kernels may read it.
    order: ClassVar[int] = 2

    def __init__(self, rule: PruneActivations, thresholds: Mapping[str, ActivationThreshold]) -> None:
        super().__init__({}, thresholds)
        self.rule = rule

    def update(self, progress: Progress, weights: WeightView) -> None:
        """Take in the batch before, until the thresholds are fixed."""
        for each in self._thresholds():
            each.advance()
            each.watching = progress.fraction < self.rule.freeze or bool(each.threshold.isnan())

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Take in the last batch and average the thresholds over the ranks."""
        for each in self._thresholds():
            each.advance()
            each.threshold.copy_(mean(each.threshold))

    def report(self) -> dict[str, Any]:
        """Return the mean of the thresholds."""
        found = [float(each.threshold) for each in self._thresholds()]
        return {"threshold": sum(found) / max(len(found), 1)}

    def _thresholds(self) -> list[ActivationThreshold]:
        return [each for each in self.parametrizations if isinstance(each, ActivationThreshold)]
