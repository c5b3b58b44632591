"""A training stage as a job of the training loop: program, loss, evaluation and state, with constraints updated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from attar._src.methods.norm_statistics import reestimate_norms
from attar._src.methods.teachers.teacher import TeacherAnswers, ask_teachers
from attar._src.model.outputs import flatten_outputs, main_output
from attar._src.model.taps import LayerTaps
from attar._src.train.batch import Batch, Feed
from attar._src.train.fit import TrainingJob
from attar._src.train.schedule import value_at
from attar._src.train.seeds import derive_seed
from attar._src.work.constraint import Progress
from attar._src.work.context import TrainingContext
from attar._src.work.learner import Learner
from attar._src.work.objective import LossInputs, Objective
from attar._src.work.term import Term

#: Keys with another meaning in the rows of an epoch and of the journal.
_TAKEN = frozenset({"loss", "lr", "epoch", "seconds", "event", "seed", "model", "index", "stage", "validation_loss"})


class JobStage(Protocol):
    """The part of a training stage that a job uses."""

    epochs: int
    norm_batches: int

    def loss_terms(self) -> tuple[Term, ...]:
        """Return the terms of the loss."""
        ...

    def required(self) -> frozenset[str]:
        """Return the stage's requirements."""
        ...

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the teachers."""
        ...

    def features(self) -> tuple[str, ...]:
        """Return the paths of the student's layers that the terms read."""
        ...

    def teacher_features(self) -> Mapping[str, tuple[str, ...]]:
        """Return name of a teacher -> paths of its layers that the terms read."""
        ...


class StageJob:
    """A learner trained by a stage, for the training loop.

    Args:
        stage: the stage.
        learner: on the fabric's device, with constraints attached.
        context: the run's context.
        objectives: the objectives built from the stage's terms.
        epoch: number of completed epochs.
    """

    def __init__(
        self, stage: JobStage, learner: Learner, context: TrainingContext, objectives: list[Objective], epoch: int
    ) -> None:
        self.stage, self.learner, self.context, self.epoch, self.progress = stage, learner, context, epoch, 0.0
        self.feed: Feed | None = None
        self.layers = stage.features(), stage.teacher_features()
        self.objectives, self.weights = objectives, learner.weight_view()
        self.arguments = learner.captured.names
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.seed, "projectors"))
            # Programs share the constraints, which get the mode of the last one: training.
            self.evaluation = learner.graph(train=False)
            self.evaluation_taps = LayerTaps(self.evaluation, self.layers[0])
            if any(self.layers):
                self._prepare()
        self.extra = nn.ModuleList(self.objectives)
        self.names = _names(stage.loss_terms())
        self.taken = _TAKEN | {*self.names, f"validation_{context.metric_name}"}
        self.program = learner.graph(train=True)
        self.taps = LayerTaps(self.program, self.layers[0])
        self.validation_answers: list[TeacherAnswers] = []

    def training_job(self) -> TrainingJob:
        """Return the job with this object's methods as callbacks."""
        return TrainingJob(
            program=self.program,
            loss=self.loss,
            extra=self.extra,
            before_step=self.before_step,
            sync=self.sync,
            evaluate=self.evaluate,
            state=self.state,
            load=self.load,
            names=self.arguments,
        )

    def before_step(self, step: int, steps: int) -> None:
        """Update the constraints."""
        progress = Progress(step, steps)
        self.progress = progress.fraction
        self.learner.update(progress)

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Synchronise the constraints over the ranks."""
        for constraint in self.learner.constraints:
            constraint.sync(mean)

    def loss(self, outputs: Any, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return the weighted sum of the terms as ``loss``, and if there are several, each unweighted by name."""
        return self._parts(self._sources(outputs, batch, progress, self._teachers(batch), self.taps))

    def evaluate(self) -> dict[str, float]:
        """Return loss and metric on the validation examples, and the figures of the constraints.

        With ``norm_batches``, batch-norms are re-estimated before the last evaluation.
        """
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
            if self.stage.norm_batches and self.epoch == self.stage.epochs:
                self._reestimate()
            return report if self.context.validation is None else report | self._validate()
        finally:
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
        constraints = {f"constraint{index}": constraint for index, constraint in enumerate(self.learner.constraints)}
        return {"module": self.learner.module, **constraints, "objective": self.extra}

    def _prepare(self) -> None:
        """Let objectives create parameters whose sizes depend on layers."""
        example, calibration = self.learner.captured.example, self.context.calibration
        # Calibration inputs have the arguments of teachers too.
        every = calibration.example(len(example[0])) if calibration.names else example
        batch = Batch(every, None, names=calibration.names).to(self.context.fabric.device)
        with torch.no_grad():
            outputs = self.evaluation(*batch.pick(self.arguments))
            sources = self._sources(outputs, batch, 0.0, self._teachers(batch), self.evaluation_taps)
        for objective in self.objectives:
            objective.prepare(sources)

    def _reestimate(self) -> None:
        assert self.feed is not None
        batches, epochs, seed = self.stage.norm_batches, self.stage.epochs, self.context.seed
        reestimate_norms(self.learner, self.feed, self.context.fabric, batches=batches, epoch=epochs, seed=seed)

    def _teachers(self, batch: Batch) -> TeacherAnswers:
        with torch.no_grad():
            return ask_teachers(self.context.teachers, self.stage.teachers(), self.layers[1], batch)

    def _sources(
        self, outputs: Any, batch: Batch, progress: float, answers: TeacherAnswers, taps: LayerTaps
    ) -> LossInputs:
        every, main = tuple(flatten_outputs(outputs).values()), main_output(outputs)
        return LossInputs(main, every, batch, answers.outputs, progress, taps.take(), answers.features, self.weights)

    def _parts(self, sources: LossInputs) -> dict[str, torch.Tensor]:
        parts = [objective(sources) for objective in self.objectives]
        weights = [value_at(term.weight, sources.progress) for term in self.stage.loss_terms()]
        total: torch.Tensor = sum(
            (weight * part for weight, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0])
        )
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
            if batch.targets is not None or "labels" not in self.stage.required():
                answers = self._answers(number, batch)
                parts = self._parts(self._sources(outputs, batch, self.progress, answers, self.evaluation_taps))
                loss += float(parts["loss"]) * len(batch)
                examples += len(batch)
        figures = {"validation_loss": loss / examples} if examples else {}
        if targets:
            score = metric(np.concatenate(predictions), np.concatenate(targets))
            figures[f"validation_{self.context.metric_name}"] = float(score)
        return figures

    def _answers(self, number: int, batch: Batch) -> TeacherAnswers:
        """Return the teachers' answers for a validation batch. Outputs are kept between epochs, layers are not."""
        if any(self.layers[1].values()):
            return self._teachers(batch)
        if number == len(self.validation_answers):
            self.validation_answers.append(self._teachers(batch))
        return self.validation_answers[number]


def _names(terms: tuple[Term, ...]) -> list[str]:
    """Return the name of each term in logs."""
    return _numbered((str(term.describe()["name"]).rpartition(":")[2] for term in terms), _TAKEN)


def _numbered(names: Iterable[str], taken: frozenset[str]) -> list[str]:
    """Make names unique by numbers: ``["kl", "kl", "loss"]`` with ``loss`` taken are ``["kl", "kl 2", "loss 1"]``."""
    unique: list[str] = []
    for name in names:
        free = (f"{name} {number}" if number > 1 or name in taken else name for number in itertools.count(1))
        unique.append(next(each for each in free if each not in taken and each not in unique))
    return unique
