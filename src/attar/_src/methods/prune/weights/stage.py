"""The stage ``prune_weights``: weights become zero without training, and the others make up for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.allocate.judge import UNLABELLED, Labelled
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.prune.channels.gradients import part_gradients, training_gradients
from attar._src.methods.prune.channels.ranking import PartGradients
from attar._src.methods.prune.masks import Mask, MaskConstraint
from attar._src.methods.prune.scores import SCORES
from attar._src.methods.prune.weights.of_module import prune_weights_of
from attar._src.methods.prune.weights.pruning import WeightPruning
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import TrainingContext, Trial
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class PruneWeights(WeightPruning, Stage):
    """Set weights to zero after training, without training; those that remain make up for them.

    It sees the calibration examples. What follows keeps the zeros: training by masks, quantization as code zero.

    Attributes:
        batch: training examples of a batch for scores with gradients.
        batches: their number.
    """

    stage: Literal["prune_weights"] = "prune_weights"
    batch: Annotated[int, Field(ge=1)] = 128
    batches: Annotated[int, Field(ge=1)] = 8

    def required(self) -> frozenset[str]:
        return frozenset({"labels"}) if SCORES[self.score].needs == "gradient" else frozenset()

    def compresses(self) -> bool:
        return True

    def try_on(self, model: Learner, trial: Trial) -> Learner:
        """Prune by the scores of one batch, without making up for it."""
        names = model.captured.names
        inputs = CalibrationInputs((tuple(trial.batch.pick(names)),), names)
        quick = self.model_copy(update={"update": "none", "sequential": False})
        if isinstance(self.sparsity, BitTarget):
            quick = quick.model_copy(update={"sparsity": 0.5})
        return quick._prune(model, inputs, partial(part_gradients, model.captured, [trial.batch], trial.layout), 0)

    def run(self, model: Learner, context: TrainingContext) -> Learner:  # type: ignore[override]
        gradients = partial(training_gradients, model.captured, context, batch=self.batch, batches=self.batches)
        labelled = Labelled.of(context.judged, context.use)
        return self._prune(model, context.calibration, gradients, context.seed, labelled)

    def _prune(
        self,
        model: Learner,
        inputs: CalibrationInputs,
        gradients: Callable[[], PartGradients],
        seed: int,
        labelled: Labelled = UNLABELLED,
    ) -> Learner:
        changes = prune_weights_of(
            model.module, model.captured, self, inputs, gradients, seed=seed, use=model.use, labelled=labelled
        )
        changes.put(model.module)
        model.attach(MaskConstraint({name: Mask.of(pruned) for name, pruned in changes.pruned.items()}))
        self._demand_zeros(model)
        found = changes.found
        for name, why in found.excluded.items():
            model.warn(f"prune_weights: {name!r} was not pruned: {why}")
        for sentence in found.remarks:
            model.warn(f"prune_weights: {sentence}")
        zeros = sum(int(each.sum()) for each in changes.pruned.values())
        of = sum(each.numel() for each in changes.pruned.values())
        model.record.append(self.describe() | {"zeros": [zeros, of]})
        return model

    def _demand_zeros(self, model: Learner) -> None:
        """Refuse grids of earlier stages that have no zero."""
        view = model.weight_view()
        with torch.no_grad():
            for constraint in model.constraints:
                for name, mask in constraint.masks().items() if isinstance(constraint, MaskConstraint) else ():
                    value = view.value(name)
                    for each in view.parametrizations(name):
                        value = each(value)
                    if bool((value[~mask.mask] != 0).any()):
                        raise SpecError(
                            f"prune_weights at {name!r}: the grid that an earlier stage gave it has no zero; put "
                            "prune_weights before that stage"
                        )
