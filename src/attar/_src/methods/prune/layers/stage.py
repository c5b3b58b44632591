"""The stage ``prune_layers``: removes whole layers from the module, so that what follows trains a shorter one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import ClassLayout
from attar._src.methods.prune.layers.pruning import LayerPruning, prune_layers
from attar._src.methods.prune.layers.scores import LAYER_SCORES
from attar._src.methods.prune.restructure import demand_no_constraints, restructured
from attar._src.train.batch import Batch
from attar._src.work.context import TrainingContext, Trial
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class PruneLayers(LayerPruning, Stage):
    """Remove whole residual blocks or transformer layers (depth pruning).

    The module is shorter from then on. Train it afterwards, as with ``distill``.

    Attributes:
        batch: training examples of a batch for scores.
        batches: their number.
    """

    stage: Literal["prune_layers"] = "prune_layers"
    batch: Annotated[int, Field(ge=1)] = 128
    batches: Annotated[int, Field(ge=1)] = 8

    def check(self, before: Sequence[Stage]) -> None:
        if any(each.works_on is not Learner for each in before):
            raise SpecError("prune_layers: the grids of a quantization are of the layers it saw; put it before")

    def required(self) -> frozenset[str]:
        return frozenset({"labels"}) if LAYER_SCORES[self.score].labels else frozenset()

    def compresses(self) -> bool:
        return True

    def try_on(self, model: Learner, trial: Trial) -> Learner:
        return self._prune(model, lambda: [trial.batch], trial.layout, 0, float)

    def run(self, model: Learner, context: TrainingContext) -> Learner:  # type: ignore[override]
        def batches() -> list[Batch]:
            return [*islice(context.feed(self.batch).epoch(0), self.batches)]

        def reduce(value: float) -> float:
            mean = context.fabric.all_reduce(torch.tensor(value, dtype=torch.float64), reduce_op="mean")
            assert isinstance(mean, torch.Tensor)
            return float(mean)

        return self._prune(model, batches, context.layout, context.seed, reduce)

    def _prune(
        self,
        model: Learner,
        batches: Callable[[], list[Batch]],
        layout: ClassLayout,
        seed: int,
        reduce: Callable[[float], float],
    ) -> Learner:
        demand_no_constraints(model, self.stage)
        pruned = prune_layers(model.module, model.captured, self, batches, layout=layout, seed=seed, reduce=reduce)
        return restructured(model, pruned, self.describe())
