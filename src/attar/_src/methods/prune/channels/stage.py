"""The stage ``prune_channels``: removes channels from the module, so that what follows trains a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from attar._src.core.errors import SpecError
from attar._src.methods.allocate.allocate import MEASURED
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.allocate.sensitivity_table import SensitivityTable
from attar._src.methods.prune.channels.amount import ChannelPruning
from attar._src.methods.prune.channels.gradients import part_gradients, training_gradients
from attar._src.methods.prune.channels.pruning import prune_module
from attar._src.methods.prune.channels.ranking import PartGradients
from attar._src.methods.prune.channels.scores import CHANNEL_SCORES
from attar._src.methods.prune.channels.sensitivities import JudgedChannels
from attar._src.methods.prune.restructure import demand_no_constraints, restructured
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.context import TrainingContext, Trial
from attar._src.work.learner import Learner
from attar._src.work.stage import Stage


class PruneChannels(ChannelPruning, Stage):
    """Remove channels, attention heads and recurrent units with all that depends on them (structured pruning).

    The module has smaller parameters from then on. Train it afterwards, as with ``distill``.

    Attributes:
        batch: training examples of a batch for scores with gradients.
        batches: their number.
    """

    stage: Literal["prune_channels"] = "prune_channels"
    batch: Annotated[int, Field(ge=1)] = 128
    batches: Annotated[int, Field(ge=1)] = 8

    def check(self, before: Sequence[Stage]) -> None:
        if any(each.works_on is not Learner for each in before):
            raise SpecError("prune_channels: the grids of a quantization are of the channels it saw; put it before")

    def required(self) -> frozenset[str]:
        return frozenset({"labels"}) if CHANNEL_SCORES[self.score].gradients else frozenset()

    def compresses(self) -> bool:
        return True

    def try_on(self, model: Learner, trial: Trial) -> Learner:
        """Prune by the scores of one batch; sensitivities take longer, and are measured when the stage runs."""
        if self.sensitivity is not None:
            SensitivityTable.read(self.sensitivity)
        quick = self.model_copy(update={"scope": "global", "sensitivity": None, "max_bytes": None, "update": "none"})
        if self.max_bytes is not None:
            quick = quick.model_copy(update={"channels": 0.5})
        names = model.captured.names
        inputs = CalibrationInputs((tuple(trial.batch.pick(names)),), names)
        gradients = partial(part_gradients, model.captured, [trial.batch], trial.layout)
        return quick._prune(model, gradients, 0, JudgedChannels(inputs))

    def run(self, model: Learner, context: TrainingContext) -> Learner:  # type: ignore[override]
        gradients = partial(training_gradients, model.captured, context, batch=self.batch, batches=self.batches)
        calibration = context.calibration
        inputs = calibration.first(MEASURED, cut=model.traced.any_batch)
        labelled = Labelled.of(context.judged, context.use)
        return self._prune(model, gradients, context.seed, JudgedChannels(inputs, labelled, calibration))

    def _prune(
        self, model: Learner, gradients: Callable[[], PartGradients], seed: int, judged: JudgedChannels
    ) -> Learner:
        demand_no_constraints(model, self.stage)
        pruned = prune_module(model.module, model.captured, self, gradients, seed=seed, judged=judged, use=model.use)
        if pruned.remarks:
            model.warn(f"{self.stage}: {pruned.remarks}")
        # A path belongs to one machine.
        told = self.model_copy(update={"sensitivity": None}).describe()
        return restructured(model, pruned, told | ({"chosen": pruned.note} if pruned.note else {}))
