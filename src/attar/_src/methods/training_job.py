"""What the training loop needs of a stage: program, loss, evaluation and state, with the constraints kept in step."""

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

#: What rows of figures, and the journal they stand in, call something else.
_TAKEN = frozenset({"loss", "lr", "epoch", "seconds", "event", "seed", "model", "index", "stage", "validation_loss"})


class JobStage(Protocol):
    """What a job reads of the stage that trains."""

    epochs: int
    norm_batches: int

    def loss_terms(self) -> tuple[Term, ...]:
        """Return the terms of the loss."""
        ...

    def required(self) -> frozenset[str]:
        """Return what the stage requires."""
        ...

    def teachers(self) -> tuple[str, ...]:
        """Return the names of the teachers."""
        ...

    def features(self) -> tuple[str, ...]:
        """Return the paths of the student's layers that the terms read."""
        ...

    def teacher_features(self) -> Mapping[str, tuple[str, ...]]:
        """Return, by teacher, the paths of the layers that the terms read."""
        ...


class StageJob:
    """A learner under a training stage, in the form the training loop takes.

    Args:
        stage: the stage; its terms, rules and plan are read.
        learner: on the fabric's device, constraints attached.
        context: the run's.
        objectives: the stage's terms, built.
        epoch: how many epochs are complete.
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
            # The programs share the constraints; the one made last leaves them in training mode.
            self.evaluation = learner.graph(train=False)
            self.evaluation_taps = LayerTaps(self.evaluation, self.layers[0])
            if any(self.layers):
                self._prepare()
        self.extra = nn.ModuleList(self.objectives)
        self.names = _names(stage.loss_terms())
        self.taken = _TAKEN | {*self.names, f"validation_{context.metric_name}"}
        self.program = learner.graph(train=True)
        self.taps = LayerTaps(self.program, self.layers[0])
        self.taught: list[TeacherAnswers] = []

    def training_job(self) -> TrainingJob:
        """Return the job as the training loop takes it."""
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
        """Let the constraints move on."""
        progress = Progress(step, steps)
        self.progress = progress.fraction
        self.learner.update(progress)

    def sync(self, mean: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let the constraints of all ranks agree."""
        for constraint in self.learner.constraints:
            constraint.sync(mean)

    def loss(self, outputs: Any, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Return the weighted sum of the terms, and each of several beside it."""
        return self._parts(self._sources(outputs, batch, progress, self._teachers(batch), self.taps))

    def evaluate(self) -> dict[str, float]:
        """Return the loss and the metric on the validation examples, and what the constraints have to say.

        After the last epoch it is that of the statistics taken anew, where the stage asks for these.
        """
        figures = [
            (name, float(value))
            for constraint in self.learner.constraints
            for name, value in constraint.report().items()
            if isinstance(value, int | float)
        ]
        names = _numbered((name for name, _ in figures), self.taken)
        said = dict(zip(names, (value for _, value in figures), strict=True))
        self.epoch += 1
        for module in (self.extra, *self.learner.constraints):
            module.eval()
        try:
            if self.stage.norm_batches and self.epoch == self.stage.epochs:
                self._reestimate()
            return said if self.context.validation is None else said | self._validate()
        finally:
            for constraint in self.learner.constraints:
                constraint.train()

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint has to hold."""
        return {
            f"{prefix}.{name}": tensor
            for prefix, module in self._modules().items()
            for name, tensor in module.state_dict().items()
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put a checkpoint's state back, in place."""
        for prefix, module in self._modules().items():
            start = f"{prefix}."
            module.load_state_dict({n.removeprefix(start): t for n, t in state.items() if n.startswith(start)})

    def _modules(self) -> dict[str, nn.Module]:
        constraints = {f"constraint{index}": constraint for index, constraint in enumerate(self.learner.constraints)}
        return {"module": self.learner.module, **constraints, "objective": self.extra}

    def _prepare(self) -> None:
        """Let objectives make what depends on the sizes of layers."""
        example, calibration = self.learner.captured.example, self.context.calibration
        # Teachers may take arguments that the learner does not.
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
        self, outputs: Any, batch: Batch, progress: float, said: TeacherAnswers, taps: LayerTaps
    ) -> LossInputs:
        every, main = tuple(flatten_outputs(outputs).values()), main_output(outputs)
        return LossInputs(main, every, batch, said.outputs, progress, taps.take(), said.features, self.weights)

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
        loss, examples, made, wanted = 0.0, 0, [], []
        for number, given in enumerate(self.context.validation.once()):
            # Without their positions: those of a cache are positions of training examples.
            batch = given.part(slice(None)).to(fabric.device)
            with fabric.autocast():
                outputs = self.evaluation(*batch.pick(self.arguments))
            made.append(main_output(outputs).float().cpu().numpy())
            if batch.targets is not None:
                wanted.append(batch.targets.cpu().numpy())
            if batch.targets is not None or "labels" not in self.stage.required():
                said = self._said(number, batch)
                parts = self._parts(self._sources(outputs, batch, self.progress, said, self.evaluation_taps))
                loss += float(parts["loss"]) * len(batch)
                examples += len(batch)
        found = {"validation_loss": loss / examples} if examples else {}
        if wanted:
            score = metric(np.concatenate(made), np.concatenate(wanted))
            found[f"validation_{self.context.metric_name}"] = float(score)
        return found

    def _said(self, number: int, batch: Batch) -> TeacherAnswers:
        """Return what the teachers say of a validation batch: kept from epoch to epoch, but for values of layers."""
        if any(self.layers[1].values()):
            return self._teachers(batch)
        if number == len(self.taught):
            self.taught.append(self._teachers(batch))
        return self.taught[number]


def _names(terms: tuple[Term, ...]) -> list[str]:
    """Return what logs call each term."""
    return _numbered((str(term.describe()["name"]).rpartition(":")[2] for term in terms), _TAKEN)


def _numbered(names: Iterable[str], taken: frozenset[str]) -> list[str]:
    """Return names that differ from each other and from those taken: numbered from the second of a name on, and from
    the first where that is taken."""
    found: list[str] = []
    for name in names:
        free = (f"{name} {number}" if number > 1 or name in taken else name for number in itertools.count(1))
        found.append(next(each for each in free if each not in taken and each not in found))
    return found
