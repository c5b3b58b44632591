"""A training stage as a job of the training loop: program, loss, evaluation and state, with constraints updated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from attar._src.methods.loss_inputs import InputCollector, TeacherAnswers
from attar._src.methods.norm_statistics import reestimate_norms
from attar._src.model.interface import main_output
from attar._src.model.taps import LayerTaps
from attar._src.train.batch import Batch, Feed
from attar._src.train.fit import TrainingJob
from attar._src.train.plan import TrainingPlan
from attar._src.train.schedule import value_at
from attar._src.train.seeds import derive_seed
from attar._src.work.constraint import Progress
from attar._src.work.context import TrainingContext
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term

#: Keys with another meaning in the rows of an epoch and of the journal.
_TAKEN = frozenset({"loss", "lr", "epoch", "seconds", "event", "seed", "model", "index", "stage", "validation_loss"})


class StageJob:
    """A learner trained by a stage, for the training loop.

    Args:
        plan: the stage.
        losses: its terms with their objectives.
        learner: on the fabric's device, with constraints attached.
        context: the run's context.
        epoch: number of completed epochs.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        losses: Sequence[tuple[Term, Objective]],
        learner: Learner,
        context: TrainingContext,
        epoch: int,
    ) -> None:
        self.plan, self.learner, self.context, self.epoch, self.progress = plan, learner, context, epoch, 0.0
        self.feed: Feed | None = None
        self.terms = [term for term, _ in losses]
        self.objectives = [objective for _, objective in losses]
        self.extra = nn.ModuleList(self.objectives)
        self.inputs = InputCollector(self.terms, learner, context.teachers, context.layout)
        self.arguments = learner.captured.names
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.seed, "projectors"))
            # Programs share the constraints, which get the mode of the last one: training.
            self.evaluation = learner.graph(train=False)
            self.evaluation_taps = LayerTaps(self.evaluation, self.inputs.features)
            if self.inputs.features or self.inputs.teacher_features:
                self._prepare()
        self.names = _numbered((str(term.describe()["name"]).rpartition(":")[2] for term in self.terms), _TAKEN)
        self.taken = _TAKEN | {*self.names, f"validation_{context.metric_name}"}
        self.program = learner.graph(train=True)
        self.taps = LayerTaps(self.program, self.inputs.features)
        self.validation_answers: list[TeacherAnswers] = []

    def training_job(self) -> TrainingJob:
        """Return the job with this object's methods as callbacks."""
        return TrainingJob(
            program=self.program,
            loss=self._loss,
            extra=self.extra,
            before_step=self._before_step,
            sync=self._sync,
            evaluate=self._evaluate,
            state=self.state,
            load=self.load,
            names=self.arguments,
        )

    def _before_step(self, step: int, steps: int) -> None:
        progress = Progress(step, steps)
        self.progress = progress.fraction
        self.learner.update(progress)

    def _sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for constraint in self.learner.constraints:
            constraint.sync(mean)

    def _loss(self, outputs: Any, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return the weighted sum of the terms as ``loss``, and if there are several, each unweighted by name."""
        return self._parts(self.inputs.collect(outputs, self.taps, batch, self.inputs.ask(batch), progress))

    def _evaluate(self) -> dict[str, float]:
        """Return loss and metric on the validation examples, and the figures of the constraints."""
        if self.epoch + 1 == self.plan.epochs:
            self._finish()
        figures = [
            (name, float(value))
            for constraint in self.learner.constraints
            for name, value in constraint.report().items()
            if isinstance(value, int | float)
        ]
        names = _numbered((name for name, _ in figures), self.taken)
        report = dict(zip(names, (value for _, value in figures), strict=True))
        self.epoch += 1
        for module in (self.extra, *self.learner.constraints):
            module.eval()
        try:
            if self.plan.norm_batches and self.epoch == self.plan.epochs:
                self._reestimate()
            return report if self.context.validation is None else report | self._validate()
        finally:
            for constraint in self.learner.constraints:
                constraint.train()

    def _finish(self) -> None:
        for module in (self.extra, *self.learner.constraints):
            module.eval()
        for objective in self.objectives:
            objective.finish(self.learner)
        for constraint in self.learner.constraints:
            constraint.train()

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of module, constraints and objectives for a checkpoint."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, module in self._modules().items()
            for name, tensor in module.state_dict().items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore the tensors of a checkpoint in place."""
        for prefix, module in self._modules().items():
            start = f"{prefix}."
            module.load_state_dict({n.removeprefix(start): t for n, t in state.items() if n.startswith(start)})

    def _modules(self) -> dict[str, nn.Module]:
        constraints = {f"constraint{index}": each for index, each in enumerate(self.learner.constraints)}
        return {"module": self.learner.module, **constraints, "objective": self.extra}

    def _prepare(self) -> None:
        """Let objectives create parameters whose sizes depend on layers."""
        example, calibration = self.learner.captured.example, self.context.calibration
        # Calibration inputs have the arguments of teachers too.
        every = calibration.example(len(example[0])) if calibration.names else example
        batch = Batch(every, None, names=calibration.names).to(self.context.fabric.device)
        with torch.no_grad():
            outputs = self.evaluation(*batch.pick(self.arguments))
            sources = self.inputs.collect(outputs, self.evaluation_taps, batch, self.inputs.ask(batch), 0.0)
        for objective in self.objectives:
            objective.prepare(sources)

    def _reestimate(self) -> None:
        assert self.feed is not None
        batches, epochs, seed = self.plan.norm_batches, self.plan.epochs, self.context.seed
        reestimate_norms(self.learner, self.feed, self.context.fabric, batches=batches, epoch=epochs, seed=seed)

    def _parts(self, sources: LossInputs) -> dict[str, torch.Tensor]:
        parts = [objective(sources) for objective in self.objectives]
        weights = [value_at(term.weight, sources.progress) for term in self.terms]
        weighted = (weight * part for weight, part in zip(weights, parts, strict=True))
        total: torch.Tensor = sum(weighted, torch.zeros_like(parts[0]))
        return {"loss": total} | (dict(zip(self.names, parts, strict=True)) if len(parts) > 1 else {})

    def _validate(self) -> dict[str, float]:
        assert self.context.validation is not None
        fabric, metric = self.context.fabric, self.context.metric
        loss, examples, predictions, targets = 0.0, 0, [], []
        for number, indexed in enumerate(self.context.validation.once()):
            # Without the index, which caches would take for that of training examples.
            batch = indexed.part(slice(None)).to(fabric.device)
            with fabric.autocast():
                outputs = self.evaluation(*batch.pick(self.arguments))
            predictions.append(main_output(outputs).float().cpu().numpy())
            if batch.targets is not None:
                targets.append(batch.targets.cpu().numpy())
            if batch.targets is not None or not any("labels" in term.needs for term in self.terms):
                answers = self._answers(number, batch)
                sources = self.inputs.collect(outputs, self.evaluation_taps, batch, answers, self.progress)
                loss += float(self._parts(sources)["loss"]) * len(batch)
                examples += len(batch)
        figures = {"validation_loss": loss / examples} if examples else {}
        if targets:
            score = metric(np.concatenate(predictions), np.concatenate(targets))
            figures[f"validation_{self.context.metric_name}"] = float(score)
        return figures

    def _answers(self, number: int, batch: Batch) -> TeacherAnswers:
        """Return the teachers' answers for a validation batch. Main outputs are kept between epochs, others are not."""
        if self.inputs.teacher_features:
            return self.inputs.ask(batch)
        if number == len(self.validation_answers):
            self.validation_answers.append(self.inputs.ask(batch))
        return self.validation_answers[number]


def _numbered(names: Iterable[str], taken: frozenset[str]) -> list[str]:
    """Make names unique by numbers: ``["kl", "kl", "loss"]`` with ``loss`` taken are ``["kl", "kl 2", "loss 1"]``."""
    unique: list[str] = []
    for name in names:
        free = (f"{name} {number}" if number > 1 or name in taken else name for number in itertools.count(1))
        unique.append(next(each for each in free if each not in taken and each not in unique))
    return unique
